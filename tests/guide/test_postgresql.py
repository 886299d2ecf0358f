"""The same app on PostgreSQL: nothing changes but the URL."""

import asyncio
import io
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from fastapi import FastAPI, UploadFile
from fastapi.testclient import TestClient

from afterward import Afterward, BackgroundTasks, ConfigurationError, DuplicateJob, Status, StoreUnusable
from servers.postgres import Server
from tests.support.opening import opened
from tests.support.waiting import wait_until


def shop(url: str, *, worker: bool = True, migrate: bool = True) -> tuple[FastAPI, Afterward]:
    """An app as it is on SQLite."""
    app, tasks = FastAPI(), Afterward(url, migrate=migrate)
    tasks.install(app, worker=worker)

    @tasks.task
    async def add(one: int, other: int) -> int:
        return one + other

    @tasks.task
    def count(file: UploadFile) -> int:
        return len(file.file.read())

    @app.post("/add/{one}/{other}", status_code=202)
    async def ask(one: int, other: int, background_tasks: BackgroundTasks) -> str:
        return background_tasks.add_task(add, one, other).id

    @app.post("/count", status_code=202)
    def upload(file: UploadFile, background_tasks: BackgroundTasks) -> str:
        return background_tasks.add_task(count, file).id

    return app, tasks


def results(client: TestClient, tasks: Afterward, *jobs: str) -> list[str | None]:
    """What came of these jobs, in order, once all of them have ended."""
    assert client.portal is not None
    ended = client.portal.call(lambda: tasks.ended(jobs, timeout=20))
    return [job and job.result for job in ended]


@pytest.fixture
def tasks(postgres_url: str) -> Iterator[Afterward]:
    """Tasks without an app."""
    with opened(Afterward(postgres_url)) as tasks:
        yield tasks


def test_a_request_adds_a_task_and_its_result_is_there(postgres_url: str) -> None:
    app, tasks = shop(postgres_url)
    with TestClient(app) as client:
        job = client.post("/add/2/3").json()
        assert results(client, tasks, job) == ["5"]


def test_a_file_travels_with_its_job(postgres_url: str) -> None:
    app, tasks = shop(postgres_url)
    with TestClient(app) as client:
        job = client.post("/count", files={"file": ("numbers.txt", io.BytesIO(b"123" * 100_000))}).json()
        assert results(client, tasks, job) == ["300000"]


def test_what_one_app_stores_another_runs(postgres_url: str) -> None:
    """Each with a store object of its own, as on two machines; it is told at once that there is something."""
    web, _ = shop(postgres_url, worker=False)
    worker, tasks = shop(postgres_url)
    with TestClient(worker) as elsewhere, TestClient(web) as client:
        jobs = [client.post(f"/add/{number}/1").json() for number in range(20)]
        assert results(elsewhere, tasks, *jobs) == [str(number) for number in range(1, 21)]


def test_without_a_lifespan_what_is_added_is_stored_and_waits(postgres_url: str) -> None:
    """As in a test client that was not entered: each request has an event loop of its own."""
    app, tasks = shop(postgres_url)
    with opened(tasks):
        client = TestClient(app)
        jobs = [client.post(f"/add/{number}/1").json() for number in range(3)]
        assert len(set(jobs)) == 3

        async def waiting() -> int:
            return len(await tasks.list(status=Status.queued))

        assert asyncio.run(waiting()) == 3


def test_plain_code_enqueues(tasks: Afterward) -> None:
    """From many threads, without an event loop."""

    @tasks.task
    async def note(what: str) -> None:
        del what

    threads = [threading.Thread(target=lambda: note.enqueue_sync("x")) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asyncio.run(_all(tasks))) == 5


async def _all(tasks: Afterward) -> list[str]:
    return [job.id for job in await tasks.list()]


def test_options_mean_the_same(tasks: Afterward) -> None:
    """A delay, a queue, a priority, a unique key."""

    @tasks.task
    async def note(what: str) -> None: ...

    async def use() -> None:
        handle = await note.options(delay=timedelta(hours=1), queue="slow", priority=3, unique="one").enqueue("a")
        again = await note.options(unique="one").enqueue("b")
        job, other = await handle.job(), await again.job()
        assert job is not None
        assert other is not None
        assert job.id == other.id
        assert (job.queue, job.priority, job.run_at - job.created_at) == ("slow", 3, timedelta(hours=1))
        with pytest.raises(DuplicateJob):
            await note.options(unique="one", on_duplicate="refuse").enqueue("c")

    asyncio.run(use())


def test_an_app_that_may_not_make_its_store_says_who_may(empty_postgres_url: str) -> None:
    app, _ = shop(empty_postgres_url, migrate=False)
    with pytest.raises(StoreUnusable, match="afterward migrate"), TestClient(app):
        pass


def test_two_schemas_of_one_database_are_two_stores(postgres_url: str) -> None:
    app, tasks = shop(f"{postgres_url}?schema=one", worker=False)
    other, others = shop(f"{postgres_url}?schema=two", worker=False)
    with TestClient(app) as client, TestClient(other) as another:
        job = client.post("/add/1/2").json()
        assert client.portal is not None
        assert another.portal is not None
        assert client.portal.call(_all, tasks) == [job]
        assert another.portal.call(_all, others) == []


@pytest.mark.parametrize(
    ("rest", "said"),
    [("?schema=Jobs;", "schema="), ("?schema=pg_jobs", "schema="), ("?pgbouncer=maybe", "pgbouncer=")],
)
def test_a_url_that_says_what_cannot_be_is_refused(rest: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Afterward(f"postgresql://localhost/shop{rest}")


@pytest.mark.parametrize("password", ["se/cret", "se#cret", "se?cret", "12/34@"])
def test_a_password_that_breaks_its_url_is_refused_and_not_shown(password: str) -> None:
    """What stands behind the sign that breaks it would else be taken for the path, and be logged."""
    with pytest.raises(ConfigurationError, match="urllib") as refusal:
        Afterward(f"postgresql://me:{password}@db.example.com/shop")
    assert "cret" not in str(refusal.value)
    assert "12" not in str(refusal.value)


@pytest.mark.parametrize("hosts", ["localhost:abc", "localhost:0", "one.example.com:5432,two.example.com:abc"])
def test_a_port_that_is_no_number_is_refused(hosts: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Afterward(f"postgresql://{hosts}/shop")


def test_a_url_may_name_several_servers_each_with_its_port() -> None:
    url = "postgresql://me:secret@one.example.com:5432,two.example.com:5433/shop?target_session_attrs=read-write"
    assert Afterward(url).store.location == "postgresql://one.example.com:5432,two.example.com:5433/shop"


def test_a_location_has_no_password(postgres_server: Server) -> None:
    assert (
        Afterward("postgresql+asyncpg://me:secret@localhost:1/shop").store.location == "postgresql://localhost:1/shop"
    )


def test_a_worker_goes_on_when_the_server_is_back() -> None:
    """Without a restart of the app, and what was acknowledged before runs."""
    with Server() as server, server.database() as url:
        app, tasks = shop(url)
        with TestClient(app, raise_server_exceptions=False) as client:
            first = client.post("/add/1/1").json()
            server.kill()
            server.start()
            wait_until(lambda: client.post("/add/2/2").status_code == 202, "a request is accepted again", seconds=20)
            second = client.post("/add/3/3").json()
            assert results(client, tasks, first, second) == ["2", "6"]
