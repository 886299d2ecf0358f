"""Exactly-once effects: a task that ends itself in the transaction of its effect.

On PostgreSQL, and there with every sort of session and connection. `tests/faults/test_exactly_once.py` kills it.
"""

import asyncio
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy
from fastapi import FastAPI, UploadFile
from fastapi.testclient import TestClient

from afterward import (
    Afterward,
    ConfigurationError,
    EndedJob,
    Job,
    JobFailed,
    JobHandle,
    LeaseLost,
    NoCurrentJob,
    Task,
    current_job,
    emit,
    finish,
    finish_sync,
)
from tests.support.opening import opened
from tests.support.said import items
from tests.support.sessions import SORTS, Sort, Uniform
from tests.support.waiting import wait_until

Rows = Callable[[], list[str]]


@pytest.fixture
def tasks(postgres_url: str) -> Iterator[Afterward]:
    """Durable tasks, kept in the database that the app has its own table in."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE orders (item text NOT NULL)")
    with opened(Afterward(postgres_url, lease=2)) as tasks:
        yield tasks


@pytest.fixture
def rows(postgres_url: str) -> Rows:
    """What is committed of the app's own."""

    def rows() -> list[str]:
        with psycopg.connect(postgres_url) as connection:
            return [row[0] for row in connection.execute("SELECT item FROM orders")]

    return rows


@pytest.fixture(params=SORTS)
def sort(request: pytest.FixtureRequest) -> Sort:
    """Every sort of session and connection."""
    return SORTS[request.param]


Deposit = Callable[..., JobHandle[Any]]


@pytest.fixture
def deposit(app: FastAPI, client: TestClient, tasks: Afterward, postgres_url: str) -> Deposit:
    """Run a task that writes a row, calls `finish`, and goes on as it is told: `then(session)`."""

    def run(sort: Sort, then: Callable[[Uniform], Any], **said: Any) -> JobHandle[Any]:
        options: Any = {"max_attempts": 1, **said}

        @tasks.task(**options, name="deposit")
        async def deposit(cents: int) -> Any:
            async with asynccontextmanager(sort.opener(postgres_url))() as raw:
                session = Uniform(raw, sort)
                await session.begin()
                await session.order(f"{cents}")
                emit("before")
                await finish(raw, result=cents)
                return await then(session)

        @tasks.task(**options, name="deposit_in_a_thread")
        def deposit_in_a_thread(cents: int) -> Any:
            with contextmanager(sort.opener(postgres_url))() as raw:
                statement: Any = f"INSERT INTO orders VALUES ('{cents}')"
                getattr(raw, "exec", raw.execute)(sqlalchemy.text(statement) if sort.tells else statement)
                emit("before")
                finish_sync(raw, result=cents)
                return asyncio.run(then(Uniform(raw, sort)))

        task: Task[[int], Any] = deposit if sort.is_async else deposit_in_a_thread
        return task.enqueue_sync(5)

    return run


ONE = SORTS["AsyncSession on asyncpg"]


async def commit(session: Uniform) -> None:
    await session.commit()


def job_of(handle: JobHandle[Any], tasks: Afterward) -> Job:
    job = tasks.run_sync(handle.job())
    assert job is not None
    return job


def test_the_end_of_the_job_is_committed_with_its_effect(deposit: Deposit, sort: Sort, rows: Rows) -> None:
    """The result is what `finish` was given."""
    assert deposit(sort, commit).result_sync(timeout=10) == 5
    assert rows() == ["5"]


def test_at_the_commit_it_has_ended(deposit: Deposit, tasks: Afterward, sort: Sort, rows: Rows) -> None:
    """Whoever waits for it need not wait for what the function does after; nor is it taken for lost meanwhile."""
    goes_on = threading.Event()
    has_returned: list[bool] = []

    async def commit_and_go_on(session: Uniform) -> None:
        await session.commit()
        await asyncio.to_thread(goes_on.wait)
        has_returned.append(True)

    handle = deposit(sort, commit_and_go_on)
    assert handle.result_sync(timeout=10) == 5
    tasks.run_sync(tasks._liveness.beat())  # pyright: ignore[reportPrivateUsage]
    tasks.run_sync(tasks._liveness.beat())  # pyright: ignore[reportPrivateUsage]
    goes_on.set()
    wait_until(lambda: has_returned)
    assert job_of(handle, tasks).attempt == 1


def test_what_it_has_said_by_then_is_stored_with_its_end(deposit: Deposit, tasks: Afterward, sort: Sort) -> None:
    """What it says after `finish` is not, for the end of the job is written by then."""

    async def say_and_commit(session: Uniform) -> None:
        emit("after")
        await session.commit()
        emit("after the commit")

    handle = deposit(sort, say_and_commit)
    handle.result_sync(timeout=10)
    assert tasks.run_sync(items(tasks, handle)) == ["before"]


def test_what_it_has_said_is_not_rolled_back(deposit: Deposit, tasks: Afterward, sort: Sort) -> None:
    """Its attempt has another end then."""

    async def roll_back_and_say(session: Uniform) -> None:
        await session.rollback()
        emit("after")
        raise ValueError

    handle = deposit(sort, roll_back_and_say)
    with pytest.raises(JobFailed, match="ValueError"):
        handle.result_sync(timeout=10)
    assert tasks.run_sync(items(tasks, handle)) == ["before", "after"]


def test_a_return_without_a_commit_is_a_failure(deposit: Deposit, sort: Sort, rows: Rows) -> None:
    """And says what is missing."""

    async def forget(session: Uniform) -> None:
        """No commit."""

    with pytest.raises(JobFailed, match=r"NotCommitted: finish\(\) was called"):
        deposit(sort, forget).result_sync(timeout=10)
    assert rows() == []


def test_an_attempt_that_rolls_back_is_tried_again(deposit: Deposit, tasks: Afterward, rows: Rows) -> None:
    """As one that did not call `finish`."""

    async def commit_at_last(session: Uniform) -> None:
        if current_job().attempt < 3:
            await session.rollback()
            raise ConnectionError("the bank is closed")
        await session.commit()

    handle = deposit(ONE, commit_at_last, max_attempts=3, backoff=0)
    assert handle.result_sync(timeout=10) == 5
    assert rows() == ["5"]
    assert job_of(handle, tasks).failures == 2


def test_an_exception_after_the_commit_changes_nothing(
    deposit: Deposit, sort: Sort, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    """It has succeeded; the log tells."""

    async def commit_and_fail(session: Uniform) -> None:
        await session.commit()
        raise ConnectionError("the newsletter is down")

    assert deposit(sort, commit_and_fail, max_attempts=3, backoff=0).result_sync(timeout=10) == 5
    wait_until(lambda: "job.failed_after_finish" in caplog.text)
    assert "ConnectionError" in caplog.text
    assert rows() == ["5"]


def test_what_is_to_follow_goes_with_it(deposit: Deposit, tasks: Afterward, sort: Sort) -> None:
    """`on_success`, in the same transaction."""
    followed: list[Any] = []

    @tasks.task
    def thank(ended: EndedJob) -> None:
        followed.append((ended.arguments, ended.result))

    deposit(sort, commit, on_success=thank)
    wait_until(lambda: followed)
    assert followed == [({"cents": 5}, 5)]


def test_what_is_to_follow_is_its_owners(app: FastAPI, client: TestClient, tasks: Afterward, postgres_url: str) -> None:
    """As with any end."""

    @tasks.task
    async def thank(ended: EndedJob) -> None: ...

    @tasks.task(on_success=thank)
    async def pay() -> None:
        async with asynccontextmanager(ONE.opener(postgres_url))() as session:
            await finish(session)
            await session.commit()

    pay.options(owner="ada").enqueue_sync().result_sync(timeout=10)
    [followed] = tasks.run_sync(tasks.list(task=thank.name))
    assert followed.owner == "ada"


def test_its_files_are_freed(app: FastAPI, client: TestClient, tasks: Afterward, postgres_url: str) -> None:
    """As those of any that has succeeded."""

    @tasks.task
    async def scan(file: UploadFile) -> None:
        async with asynccontextmanager(ONE.opener(postgres_url))() as session:
            await finish(session)
            await session.commit()

    scan.enqueue_sync(UploadFile(io.BytesIO(b"a scan"), filename="scan.txt")).result_sync(timeout=10)
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT job FROM afterward.files WHERE job IS NOT NULL").fetchall() == []


@pytest.mark.parametrize("name", [name for name, sort in SORTS.items() if sort.is_async])
def test_an_attempt_that_has_lost_its_job_cannot_end_it(
    client: TestClient, tasks: Afterward, name: str, postgres_url: str, rows: Rows
) -> None:
    """It hears of it, and rolls back: the effect is that of the attempt that holds the job."""
    lost: list[int] = []

    def take_its_job() -> None:
        with psycopg.connect(postgres_url) as connection:
            connection.execute("UPDATE afterward.jobs SET status = 'queued', process = NULL, token = NULL")

    @tasks.task(max_attempts=3, backoff=0)
    async def deposit(cents: int) -> None:
        attempt = current_job().attempt
        async with asynccontextmanager(SORTS[name].opener(postgres_url))() as raw:
            session = Uniform(raw, SORTS[name])
            await session.begin()
            await session.order(f"{cents} by attempt {attempt}")
            if attempt == 1:
                take_its_job()  # just before: a heartbeat would tell of it, too
            try:
                await finish(raw)
            except LeaseLost:
                lost.append(attempt)
                raise
            await session.commit()

    deposit.enqueue_sync(5)
    wait_until(lambda: rows() == ["5 by attempt 2"])
    wait_until(lambda: lost == [1], "the first hears of it")  # which the second may overtake
    assert rows() == ["5 by attempt 2"]


def test_another_database_is_refused(
    app: FastAPI, client: TestClient, tasks: Afterward, sort: Sort, postgres_server: Any
) -> None:
    """What is committed there could not go with the end of a job here."""
    with postgres_server.database() as elsewhere:

        @tasks.task(max_attempts=1)
        async def deposit() -> None:
            async with asynccontextmanager(sort.opener(elsewhere))() as session:
                await finish(session)

        @tasks.task(max_attempts=1)
        def deposit_in_a_thread() -> None:
            with contextmanager(sort.opener(elsewhere))() as session:
                finish_sync(session)

        with pytest.raises(JobFailed, match="connect to that database"):
            (deposit if sort.is_async else deposit_in_a_thread).enqueue_sync().result_sync(timeout=10)


def test_a_session_that_is_awaited_cannot_end_plain_code(
    client: TestClient, tasks: Afterward, postgres_url: str
) -> None:
    """It is told what can."""

    @tasks.task(max_attempts=1)
    async def deposit() -> None:
        async with asynccontextmanager(ONE.opener(postgres_url))() as session:
            finish_sync(session)

    with pytest.raises(JobFailed, match=r"await finish\(session\)"):
        deposit.enqueue_sync().result_sync(timeout=10)


def test_there_is_nothing_to_end_outside_of_a_job() -> None:
    """Nor on a store that cannot be joined."""
    with pytest.raises(NoCurrentJob):
        finish_sync(object())


def test_a_store_in_a_file_cannot_be_joined(tmp_path: Path) -> None:
    """SQLite's is afterward's own."""
    app = FastAPI()
    with opened(Afterward(f"sqlite:///{tmp_path}/jobs.db")) as tasks:
        tasks.install(app)

        @tasks.task(max_attempts=1)
        async def deposit() -> None:
            with pytest.raises(ConfigurationError, match="PostgreSQL"):
                await finish(object())

        with TestClient(app):
            deposit.enqueue_sync().result_sync(timeout=10)
