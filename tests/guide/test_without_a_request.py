"""Jobs without a request: from async code, from plain code, many at once, from a script."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from afterward import Afterward, BackgroundTasks, JobHandle, Status, StoreUnavailable, Task
from afterward.stores.sqlite import SQLiteStore
from tests.support.disk import Row
from tests.support.obstacles import locked
from tests.support.opening import opened
from tests.support.waiting import wait_until

Stored = Callable[[], list[Row]]


@pytest.fixture
def note(tasks: Afterward, happened: list[str]) -> Task[[str], None]:
    """A durable task that writes down that it has run."""

    @tasks.task
    def note(what: str) -> None:
        happened.append(what)

    return note


def test_from_async_code(note: Task[[str], None], stored: Stored) -> None:
    """When `enqueue` has returned, the job is on the disk. No app is needed, and the loop does not matter."""

    async def enqueue() -> JobHandle:
        job = await note.enqueue("by enqueue")
        assert [row.id for row in stored()] == [job.id]
        return job

    assert asyncio.run(enqueue()).task == note.name
    asyncio.run(note.enqueue("on another loop"))
    assert [(row.status, row.held) for row in stored()] == [("queued", False)] * 2


def test_from_plain_code(note: Task[[str], None], stored: Stored) -> None:
    """`enqueue_sync` blocks until the job is on the disk; from any thread."""
    job = note.enqueue_sync("main thread")
    assert [row.id for row in stored()] == [job.id]
    thread = threading.Thread(target=note.enqueue_sync, args=["another thread"])
    thread.start()
    thread.join()
    assert len(stored()) == 2


def test_many_at_once(tasks: Afterward, note: Task[[str], None], stored: Stored) -> None:
    """Prepared one by one, of any tasks and options; stored as one, in their order. None is none."""

    @tasks.task
    async def other(number: int) -> None: ...

    jobs = [note.prepare("first"), other.prepare(2), note.options(priority=3, delay=60).prepare("third")]
    handles = asyncio.run(tasks.enqueue_many(jobs))
    assert [(handle.id, handle.task) for handle in handles] == [(row.id, row.task) for row in stored()]
    assert [row.arguments for row in stored()] == ['{"what":"first"}', '{"number":2}', '{"what":"third"}']

    assert len(tasks.enqueue_many_sync(note.prepare(str(number)) for number in range(1000))) == 1000
    assert len(stored()) == 1003
    assert asyncio.run(tasks.enqueue_many([])) == []
    assert tasks.enqueue_many_sync([]) == []


def test_they_run_in_an_app_that_lives(
    app: FastAPI, client: TestClient, note: Task[[str], None], happened: list[str]
) -> None:
    """At once: whoever waits for work is woken."""

    @app.get("/async")
    async def in_async() -> None:
        await note.enqueue("async endpoint")

    @app.get("/def")
    def in_def() -> None:
        note.enqueue_sync("def endpoint")

    client.get("/async")
    client.get("/def")
    note.enqueue_sync("test")
    wait_until(lambda: sorted(happened) == ["async endpoint", "def endpoint", "test"])


def test_enqueue_in_a_request_does_not_wait_for_its_end_nor_for_its_success(
    app: FastAPI, client: TestClient, note: Task[[str], None], happened: list[str]
) -> None:
    """That is what `add_task` is for."""

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        await note.enqueue("enqueued")
        background_tasks.add_task(note, "discarded")
        await asyncio.to_thread(wait_until, lambda: happened == ["enqueued"])
        raise ValueError

    assert client.get("/").status_code == 500
    assert happened == ["enqueued"]


def test_a_task_may_enqueue_others(
    tasks: Afterward, app: FastAPI, client: TestClient, note: Task[[str], None], happened: list[str]
) -> None:
    """In the loop and in threads."""

    @tasks.task
    async def in_loop() -> None:
        await note.enqueue("from the loop")

    @tasks.task
    def in_thread() -> None:
        note.enqueue_sync("from a thread")

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(in_loop)
        background_tasks.add_task(in_thread)

    client.get("/")
    wait_until(lambda: sorted(happened) == ["from a thread", "from the loop"])


def test_a_store_that_cannot_store_raises(database: Path) -> None:
    """Whoever was not raised to can rely on it; of many, none is stored."""
    with opened(Afterward(store=SQLiteStore(database, patience=0.1))) as tasks:

        @tasks.task
        async def nothing() -> None: ...

        asyncio.run(nothing.enqueue())
        with locked(database):
            with pytest.raises(StoreUnavailable, match=r"jobs\.db"):
                asyncio.run(nothing.enqueue())
            with pytest.raises(StoreUnavailable):
                nothing.enqueue_sync()
            with pytest.raises(StoreUnavailable):
                tasks.enqueue_many_sync(nothing.prepare() for _ in range(10))
        assert len(asyncio.run(tasks.list())) == 1


def test_a_script_may_enqueue_what_an_app_runs(
    tasks: Afterward, app: FastAPI, database: Path, happened: list[str], tmp_path: Path
) -> None:
    """The script ends at once; the name of the task leads to the function in the app."""

    @tasks.task(name="greet")
    def greet(name: str) -> None:
        happened.append(f"hello {name}")

    script = tmp_path / "script.py"
    script.write_text(
        dedent(f"""
        from afterward import Afterward

        tasks = Afterward("sqlite:///{database}")

        @tasks.task(name="greet")
        def greet(name: str) -> None: ...

        print(greet.enqueue_sync("world").id)
        """)
    )
    run = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True, timeout=30)

    with TestClient(app):
        wait_until(lambda: happened == ["hello world"])
        job = asyncio.run(tasks.get(run.stdout.strip()))
        assert job is not None
        assert job.task == "greet"


def test_in_the_lifespan_of_the_app(database: Path, happened: list[str], stored: Stored) -> None:
    """At its beginning and at its end, when afterward itself has not begun yet, or is over."""
    with opened(Afterward(f"sqlite:///{database}")) as tasks:

        @tasks.task
        def note(what: str) -> None:
            happened.append(what)

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
            await note.enqueue("begin")
            yield
            await note.enqueue("end")

        app = FastAPI(lifespan=lifespan)
        tasks.install(app)
        with TestClient(app):
            wait_until(lambda: happened == ["begin"])
        assert [row.arguments for row in stored()] == ['{"what":"begin"}', '{"what":"end"}']
        with TestClient(app):
            wait_until(lambda: sorted(happened) == ["begin", "begin", "end"])


def test_jobs_can_be_looked_up(tasks: Afterward, app: FastAPI) -> None:
    """By their id, or listed, newest first; what is unknown is None."""

    @tasks.task
    async def double(number: int) -> int:
        return 2 * number

    @tasks.task(max_attempts=1)
    async def fail() -> None:
        raise ValueError("no")

    with TestClient(app):
        doubled, failed = double.enqueue_sync(4), fail.enqueue_sync()
        later = double.options(delay=60, queue="other").enqueue_sync(5)
        ended = (Status.succeeded, Status.failed)
        wait_until(lambda: [job.status in ended for job in asyncio.run(tasks.list())] == [False, True, True])

        job = asyncio.run(tasks.get(doubled.id))
        assert job is not None
        assert (job.task, job.status, job.attempt, job.arguments, job.result) == (
            double.name, Status.succeeded, 1, '{"number":4}', "8"
        )  # fmt: skip
        job = asyncio.run(tasks.get(failed.id))
        assert job is not None
        assert job.failure is not None
        assert (job.status, job.failure.kind, job.failure.message) == (Status.failed, "ValueError", "no")
        assert asyncio.run(tasks.get("unknown")) is None

        def listed(**filters: Any) -> list[str]:
            return [job.id for job in asyncio.run(tasks.list(**filters))]

        assert listed() == [later.id, failed.id, doubled.id]
        assert listed(task=double.name) == [later.id, doubled.id]
        assert listed(status=Status.failed) == [failed.id]
        assert listed(queue="other") == [later.id]
        assert listed(before=failed.id) == [doubled.id]
        assert listed(limit=1) == [later.id]
