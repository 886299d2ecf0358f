"""Jobs in the app's own transaction: stored together with what else it commits, or not at all.

On PostgreSQL, and there with every sort of session and connection.
"""

import asyncio
import gc
import io
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import psycopg
import pytest
import sqlalchemy
from fastapi import Depends, FastAPI, HTTPException, Response, UploadFile
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from afterward import (
    Afterward,
    BackgroundTasks,
    ConfigurationError,
    DuplicateJob,
    JobHandle,
    NotCommitted,
    Status,
    Task,
    TaskError,
)
from servers.postgres import Server
from tests.support.opening import opened
from tests.support.sessions import SORTS, Sort, Uniform
from tests.support.waiting import soon, wait_until

Ran = list[str]
Rows = Callable[[], list[str]]


@pytest.fixture
def tasks(postgres_url: str) -> Iterator[Afterward]:
    """Durable tasks, kept in the database that the app has its own tables in."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE orders (item text NOT NULL)")
    with opened(Afterward(postgres_url)) as tasks:
        yield tasks


@pytest.fixture
def ship(tasks: Afterward, happened: Ran) -> Task[[str], None]:
    """A durable task that writes down that it has run."""

    @tasks.task
    async def ship(item: str) -> None:
        happened.append(item)

    return ship


@pytest.fixture
def rows(postgres_url: str) -> Rows:
    """What is committed of the app's own."""

    def rows() -> list[str]:
        with psycopg.connect(postgres_url) as connection:
            return [row[0] for row in connection.execute("SELECT item FROM orders")]

    return rows


@pytest.fixture
def jobs(postgres_url: str) -> Rows:
    """The arguments of all jobs that are committed, as the server has them."""

    def jobs() -> list[str]:
        with psycopg.connect(postgres_url) as connection:
            query = "SELECT arguments FROM afterward.jobs UNION ALL SELECT arguments FROM afterward.finished ORDER BY 1"
            return [row[0] for row in connection.execute(query)]

    return jobs


@pytest.fixture(params=SORTS.values(), ids=SORTS.keys())
def sort(request: pytest.FixtureRequest) -> Sort:
    """Every sort of session and connection."""
    return request.param


@pytest.fixture
def engine(postgres_url: str) -> AsyncEngine:
    return create_async_engine(postgres_url.replace("postgresql", "postgresql+asyncpg", 1), poolclass=NullPool)


@pytest.fixture
def get_session(engine: AsyncEngine) -> Callable[[], AsyncIterator[AsyncSession]]:
    """As the documentation of FastAPI has it: the endpoint commits."""

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session:
            yield session

    return get_session


@pytest.fixture
def order(app: FastAPI, tasks: Afterward, ship: Task[[str], None], get_session: Any) -> Any:
    """Endpoints as the test says, each with a session that their tasks join: `order(endpoint)`."""

    def add(work: Callable[[Any, Any], Awaitable[Any]]) -> None:
        session_dep: Any = Annotated[AsyncSession, Depends(tasks.joining(get_session))]

        async def endpoint(session: Any, background_tasks: Any) -> Any:
            return await work(session, background_tasks)

        endpoint.__annotations__ = {"session": session_dep, "background_tasks": BackgroundTasks}
        app.post("/orders", response_model=None)(endpoint)

    return add


# In short


def test_a_task_is_stored_by_the_transaction_of_the_request(
    app: FastAPI, client: TestClient, tasks: Afterward, ship: Task[[str], None], get_session: Any, happened: Ran,
    rows: Rows,
) -> None:  # fmt: skip
    """One declaration for the app: where there was `Depends(get_session)`, it is `Depends(tasks.joining(get_session))`."""
    SessionDep = Annotated[AsyncSession, Depends(tasks.joining(get_session))]  # noqa: N806 - a type

    @app.post("/orders/{item}", status_code=202)
    async def place_order(item: str, session: SessionDep, background_tasks: BackgroundTasks) -> None:  # pyright: ignore[reportInvalidTypeForm]
        await session.execute(sqlalchemy.text("INSERT INTO orders VALUES (:item)"), {"item": item})
        background_tasks.add_task(ship, item)
        await session.commit()

    assert client.post("/orders/lamp").status_code == 202

    assert rows() == ["lamp"]
    wait_until(lambda: happened == ["lamp"])


# Together, or not at all: with every sort of session


def endpoint_for(app: FastAPI, sort: Sort, dependency: Any, work: Callable[[Any, Any], Awaitable[Any]]) -> None:
    """An endpoint that is `async def` where its session is, and `def` where that blocks, in a thread then."""

    async def awaiting(session: Any, background_tasks: Any) -> Any:
        return await work(Uniform(session, sort), background_tasks)

    def blocking(session: Any, background_tasks: Any) -> Any:
        return asyncio.run(_awaited(work(Uniform(session, sort), background_tasks)))

    endpoint: Any = awaiting if sort.is_async else blocking
    endpoint.__annotations__ = {"session": Annotated[Any, Depends(dependency)], "background_tasks": BackgroundTasks}
    app.post("/orders", response_model=None)(endpoint)


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work


def test_what_is_committed_is_there_together(
    app: FastAPI, client: TestClient, tasks: Afterward, ship: Task[[str], None], sort: Sort, postgres_url: str,
    happened: Ran, rows: Rows, jobs: Rows,
) -> None:  # fmt: skip
    """Until then neither is to be seen by anybody; the handle has its id before."""

    async def work(session: Uniform, background_tasks: BackgroundTasks) -> dict[str, Any]:
        await session.begin()
        await session.order("lamp")
        handle = background_tasks.add_task(ship, "lamp")
        await background_tasks.flush()
        before = rows() + jobs()
        await session.commit()
        return {"job": handle.id, "before": before}

    endpoint_for(app, sort, tasks.joining(sort.opener(postgres_url)), work)
    answer = client.post("/orders").json()

    assert answer["before"] == []
    assert rows() == ["lamp"]
    wait_until(lambda: happened == ["lamp"])
    job = client.portal.call(tasks.get, answer["job"])  # type: ignore[union-attr] # pyright: ignore
    assert job.attempt == 1


def test_what_is_rolled_back_leaves_nothing(
    app: FastAPI, client: TestClient, tasks: Afterward, ship: Task[[str], None], sort: Sort, postgres_url: str,
    rows: Rows, jobs: Rows,
) -> None:  # fmt: skip
    """A response may well follow: whoever rolls back has decided so."""

    async def work(session: Uniform, background_tasks: BackgroundTasks) -> str:
        await session.begin()
        await session.order("lamp")
        background_tasks.add_task(ship, "lamp")
        await background_tasks.flush()
        await session.rollback()
        return "sorry"

    endpoint_for(app, sort, tasks.joining(sort.opener(postgres_url)), work)

    assert client.post("/orders").text == '"sorry"'
    assert rows() + jobs() == []


def test_an_exception_leaves_nothing(
    app: FastAPI, client: TestClient, tasks: Afterward, ship: Task[[str], None], sort: Sort, postgres_url: str,
    rows: Rows, jobs: Rows,
) -> None:  # fmt: skip
    """The dependency rolls back, as it does for the rest."""

    async def work(session: Uniform, background_tasks: BackgroundTasks) -> None:
        await session.order("lamp")
        background_tasks.add_task(ship, "lamp")
        raise HTTPException(409)

    endpoint_for(app, sort, tasks.joining(sort.committer(postgres_url)), work)

    assert client.post("/orders").status_code == 409
    assert rows() + jobs() == []


def test_a_commit_after_the_yield_comes_before_the_response_in_function_scope(
    app: FastAPI, client: TestClient, tasks: Afterward, ship: Task[[str], None], sort: Sort, postgres_url: str,
    happened: Ran, rows: Rows,
) -> None:  # fmt: skip
    """What was added is written before the dependency commits; nothing more is to be done."""

    async def work(session: Uniform, background_tasks: BackgroundTasks) -> None:
        await session.order("lamp")
        background_tasks.add_task(ship, "lamp")

    endpoint_for(app, sort, tasks.joining(sort.committer(postgres_url), scope="function"), work)

    assert client.post("/orders").status_code == 200
    assert rows() == ["lamp"]
    wait_until(lambda: happened == ["lamp"])


def test_a_response_that_would_start_before_the_commit_is_an_error(
    app: FastAPI, client: TestClient, tasks: Afterward, ship: Task[[str], None], sort: Sort, postgres_url: str,
    rows: Rows, jobs: Rows, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """The dependency would commit after it, if nothing fails by then. The log names the mends; all is rolled back."""

    async def work(session: Uniform, background_tasks: BackgroundTasks) -> None:
        await session.order("lamp")
        background_tasks.add_task(ship, "lamp")

    endpoint_for(app, sort, tasks.joining(sort.committer(postgres_url)), work)

    assert client.post("/orders").status_code == 500
    assert "commit in the endpoint" in caplog.text
    assert 'scope="function"' in caplog.text
    assert rows() + jobs() == []


@pytest.mark.anyio
async def test_without_a_request(
    tasks: Afterward, ship: Task[[str], None], sort: Sort, postgres_url: str, jobs: Rows
) -> None:
    """`enqueue` joins what `options(transaction=…)` says; the job is stored when that is committed."""
    async for session in _opened(sort, postgres_url):
        await session.begin()
        handle = await ship.options(transaction=session.raw).enqueue("lamp")
        assert jobs() == []
        assert await handle.job() is None
        await session.commit()

    assert jobs() == ['{"item":"lamp"}']
    job = await handle.job()
    assert job is not None
    assert (job.status, job.process) == (Status.queued, None)


@pytest.mark.anyio
async def test_many_at_once(
    tasks: Afterward, ship: Task[[str], None], sort: Sort, postgres_url: str, jobs: Rows
) -> None:
    """As one, in one transaction."""
    async for session in _opened(sort, postgres_url):
        await session.begin()
        calls = [ship.prepare("lamp"), ship.prepare("vase")]
        await tasks.enqueue_many(calls, transaction=session.raw)
        await session.rollback()
        await session.begin()
        await tasks.enqueue_many([ship.prepare("chair"), ship.prepare("table")], transaction=session.raw)
        await session.commit()

    assert jobs() == ['{"item":"chair"}', '{"item":"table"}']


async def _opened(sort: Sort, url: str) -> AsyncIterator[Uniform]:
    opener = sort.opener(url)()
    try:
        yield Uniform(await anext(opener) if sort.is_async else next(opener), sort)
    finally:
        await opener.aclose() if sort.is_async else opener.close()


@pytest.mark.parametrize("name", [name for name, sort in SORTS.items() if not sort.is_async])
def test_plain_code(tasks: Afterward, ship: Task[[str], None], name: str, postgres_url: str, jobs: Rows) -> None:
    """`enqueue_sync` on a session, or a connection, that blocks."""
    for session in SORTS[name].opener(postgres_url)():
        ship.options(transaction=session).enqueue_sync("lamp")
        tasks.enqueue_many_sync([ship.prepare("vase")], transaction=session)
        assert jobs() == []
        session.commit()

    assert jobs() == ['{"item":"lamp"}', '{"item":"vase"}']


def test_plain_code_cannot_await_a_connection(
    tasks: Afterward, ship: Task[[str], None], postgres_url: str
) -> None:
    """It is told what can."""

    async def try_it() -> None:
        connection = await psycopg.AsyncConnection.connect(postgres_url)
        try:
            with pytest.raises(ConfigurationError, match="await task.options"):
                await asyncio.to_thread(ship.options(transaction=connection).enqueue_sync, "lamp")
        finally:
            await connection.close()

    asyncio.run(try_it())
