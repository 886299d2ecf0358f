"""Two lines of set-up, what they do to an app, and what is said when something is missing."""

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import fastapi
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse, Response
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import Route

from afterward import (
    Afterward,
    BackgroundTask,
    BackgroundTasks,
    ConfigurationError,
    NotInARequest,
    StoreUnusable,
    Task,
    TaskError,
)
from afterward.testing import Bench
from tests.support.disk import Row, heartbeats, jobs_on_disk
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


def events(caplog: pytest.LogCaptureFixture, event: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.message.split()[0] == event]


# Where jobs are kept


def test_by_default_jobs_are_kept_in_the_working_directory_or_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`AFTERWARD_URL`, else `afterward.db`; a URL that is given comes first. The location is absolute."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AFTERWARD_URL", raising=False)
    assert Afterward().store.location == str(tmp_path / "afterward.db")
    monkeypatch.setenv("AFTERWARD_URL", "sqlite:///jobs/of%20mine.db")
    assert Afterward().store.location == str(tmp_path / "jobs/of mine.db")
    assert Afterward("sqlite:////var/lib/jobs.db").store.location == "/var/lib/jobs.db"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["", "jobs.db", "sqlite://", "sqlite:///", "mysql://host/db", "sqlite:///x.db?mode=ro"])
def test_a_url_that_names_no_store_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, with examples of what would do. An empty one is as none."""
    monkeypatch.setenv("AFTERWARD_URL", "nothing:")
    with pytest.raises(ConfigurationError, match=r"sqlite:///relative\.db"):
        Afterward(url)


def test_the_location_is_logged_when_the_app_starts(
    app: FastAPI, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """So that nobody need guess which file it is."""
    with caplog.at_level(logging.INFO, "afterward"), TestClient(app):
        pass
    [record] = events(caplog, "store.opened")
    assert str(database) in record.message


def test_an_app_does_not_start_with_a_store_that_can_never_work(tmp_path: Path) -> None:
    """Better than to start, and refuse every request."""
    file = tmp_path / "jobs.db"
    file.write_text("this is no database\n" * 100)
    app = FastAPI()
    with opened(Afterward(f"sqlite:///{file}")) as tasks:
        tasks.install(app)
        with pytest.raises(StoreUnusable, match="name another file"), TestClient(app):
            pass
    assert file.read_text() == "this is no database\n" * 100


def test_an_app_that_is_not_to_migrate_makes_no_store(tmp_path: Path, happened: list[str]) -> None:
    """It does not start, and says what to do; once that is done, it does. In the hands of a `Bench` it has a store."""
    app, tasks = FastAPI(), Afterward(f"sqlite:///{tmp_path}/jobs.db", migrate=False)
    tasks.install(app)

    @tasks.task
    def note() -> None:
        happened.append("noted")

    with (
        pytest.raises(StoreUnusable, match=r"there is no store at .*jobs\.db; make it: afterward migrate"),
        TestClient(app),
    ):
        pytest.fail("it has started")
    with pytest.raises(StoreUnusable):
        note.enqueue_sync()
    assert list(tmp_path.iterdir()) == []
    with Bench(tasks), TestClient(app):
        note.enqueue_sync()
    assert happened == ["noted"]

    with opened(Afterward(f"sqlite:///{tmp_path}/jobs.db")) as others:
        assert others.run_sync(others.list()) == []
    with TestClient(app):
        note.enqueue_sync()
        wait_until(lambda: happened == ["noted", "noted"])


def test_an_app_does_not_start_with_a_task_whose_arguments_cannot_be_stored(tasks: Afterward, app: FastAPI) -> None:
    """A parameter annotated with what is never storable is found when the app starts, not at the first call."""

    @tasks.task
    def serve(connection: socket.socket) -> None: ...

    with pytest.raises(TaskError, match=r"'connection' is annotated socket, .*pass plain data"), TestClient(app):
        pass


# Installing


def test_installing_twice_is_a_mistake(tasks: Afterward, app: FastAPI) -> None:
    """And so is installing on an app that has served, at each try."""
    with pytest.raises(ConfigurationError, match="twice"):
        tasks.install(app)
    served = FastAPI()
    TestClient(served).get("/")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="before the app has served"):
            tasks.install(served)


def test_what_could_not_be_installed_can_be_once_that_is_mended(tasks: Afterward) -> None:
    """A refusal leaves the app as it was."""
    app = FastAPI()
    with pytest.raises(ConfigurationError, match="span of -1"):
        tasks.install(app, grace=-1)
    tasks.install(app)


@pytest.mark.parametrize("lease", [0, 0.0, timedelta(0), -1])
def test_a_lease_of_no_time_is_refused(lease: Any) -> None:
    """A process that has lost its lease before it has it would never run anything."""
    with pytest.raises(ConfigurationError, match=r"give .*seconds"):
        Afterward("sqlite:///never-opened.db", lease=lease)


@pytest.mark.parametrize("kind", ["injected", "container by hand", "single by hand", "starlette"])
def test_without_install_a_durable_task_is_refused_with_the_mend(tasks: Afterward, kind: str) -> None:
    """It would be lost. What runs in memory needs no install."""

    @tasks.task
    def note() -> None: ...

    app = FastAPI()

    @app.get("/injected")
    async def injected(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note)

    @app.get("/container by hand")
    def container() -> None:
        BackgroundTasks().add_task(note)

    @app.get("/single by hand")
    async def single() -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(note))

    def in_starlette(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(note))

    app.mount("/starlette", Starlette(routes=[Route("/", in_starlette)]))
    mend = r"call tasks\.install\(app\) where the app is made, or use `await note\.enqueue\(…\)` outside of requests"
    with TestClient(app) as client, pytest.raises(NotInARequest, match=mend):
        client.get(f"/{kind}/" if kind == "starlette" else f"/{kind}")


def test_outside_of_any_request_a_durable_task_is_refused_with_the_mend(tasks: Afterward, app: FastAPI) -> None:
    """There is no response to wait for."""

    @tasks.task
    def note() -> None: ...

    with TestClient(app), pytest.raises(NotInARequest, match=r"note\.enqueue"):
        BackgroundTasks().add_task(note)
    with pytest.raises(NotInARequest, match=r"note\.enqueue"):
        BackgroundTask(note)


def test_one_app_may_have_tasks_of_several_stores(tmp_path: Path, happened: list[str]) -> None:
    """Each task is stored where it belongs, whichever container it is added to."""
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    app = FastAPI()
    with opened(Afterward(f"sqlite:///{first}")) as one, opened(Afterward(f"sqlite:///{second}")) as two:
        one.install(app)
        two.install(app)

        @one.task
        def in_first() -> None:
            happened.append("first")

        @two.task
        def in_second() -> None:
            happened.append("second")

        @app.get("/")
        def endpoint(background_tasks: BackgroundTasks) -> Response:
            background_tasks.add_task(in_first)
            background_tasks.add_task(in_second)
            return PlainTextResponse("ok", background=BackgroundTask(in_second))

        @app.get("/fails")
        def fails(background_tasks: BackgroundTasks) -> None:
            background_tasks.add_task(in_first)
            background_tasks.add_task(in_second)
            raise fastapi.HTTPException(409)

        with TestClient(app) as client:
            client.get("/")
            client.get("/fails")
            wait_until(lambda: sorted(happened) == ["first", "second", "second"])
        assert (len(jobs_on_disk(first)), len(jobs_on_disk(second))) == (1, 2)


def test_the_lifespan_of_the_app_is_as_it_was(tasks: Afterward, happened: list[str]) -> None:
    """The user's own runs, with its state; those of included routers too; and an app may live again."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, str]]:
        happened.append("begin")
        yield {"name": "value"}
        happened.append("end")

    @asynccontextmanager
    async def of_the_router(_: Any) -> AsyncGenerator[None]:
        happened.append("router")
        yield

    app, router = FastAPI(lifespan=lifespan), APIRouter(lifespan=of_the_router)
    tasks.install(app)

    @router.get("/")
    def endpoint(request: Request) -> str:
        return request.state.name

    app.include_router(router)
    for _ in range(2):
        happened.clear()
        with TestClient(app) as client:
            assert client.get("/").json() == "value"
        assert sorted(happened) == ["begin", "end", "router"]


# Without a lifespan, without a worker


def test_without_a_lifespan_jobs_are_stored_and_a_warning_says_that_nothing_runs_them_here(
    app: FastAPI, note: Task[[str], None], happened: list[str], stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    """A test client without `with`, or a mounted app. They run where there is a worker."""

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "task")

    client = TestClient(app)
    assert client.get("/").status_code == 200
    assert client.get("/").status_code == 200
    assert [(job.status, job.held) for job in stored()] == [("queued", False)] * 2
    [record] = events(caplog, "lifespan.missing")
    assert record.levelno == logging.WARNING
    assert happened == []

    with TestClient(app):
        wait_until(lambda: happened == ["task", "task"])


def test_an_app_that_is_installed_on_and_mounted_in_one_that_is_not_stores(
    tasks: Afterward, note: Task[[str], None], stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    """Its lifespan does not run: a warning says so."""
    inner, outer = FastAPI(), FastAPI()
    tasks.install(inner)
    outer.mount("/inner", inner)

    @inner.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "task")

    with TestClient(outer) as client:
        assert client.get("/inner/").status_code == 200
    assert [job.status for job in stored()] == ["queued"]
    assert len(events(caplog, "lifespan.missing")) == 1


def test_an_app_may_leave_the_running_to_others(
    tasks: Afterward, note: Task[[str], None], happened: list[str], stored: Stored, caplog: pytest.LogCaptureFixture
) -> None:
    """`worker=False`: it stores, and whoever has a worker runs."""
    storing, running = FastAPI(), FastAPI()
    tasks.install(storing, worker=False)

    @storing.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "task")

    with TestClient(storing) as client:
        client.get("/")
        assert [(job.status, job.held) for job in stored()] == [("queued", False)]
    assert events(caplog, "lifespan.missing") == []
    assert happened == []

    tasks.install(running)
    with TestClient(running):
        wait_until(lambda: happened == ["task"])


def test_an_app_may_serve_some_queues_only(
    tasks: Afterward, note: Task[[str], None], happened: list[str], stored: Stored
) -> None:
    """Jobs of other queues wait for who serves them."""
    app = FastAPI()
    tasks.install(app, queues=["mail"])

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "default")
        background_tasks.add_task(note.options(queue="mail"), "mail")

    with TestClient(app) as client:
        client.get("/")
        wait_until(lambda: happened == ["mail"])
        wait_until(lambda: sorted(job.status for job in stored()) == ["queued", "succeeded"])
    assert happened == ["mail"]


def test_of_two_apps_with_the_same_tasks_one_may_end_and_the_other_goes_on(
    database: Path, happened: list[str], stored: Stored
) -> None:
    """In one process: what the other is running is not taken from it."""
    with opened(Afterward(f"sqlite:///{database}", lease=0.5)) as tasks:
        first, second = FastAPI(), FastAPI()
        tasks.install(first)
        tasks.install(second)
        may_end = threading.Event()

        @tasks.task
        async def long() -> None:
            happened.append("begins")
            await asyncio.to_thread(may_end.wait, 10)
            happened.append("ends")

        with TestClient(first):
            long.enqueue_sync()
            wait_until(lambda: happened == ["begins"])
            with TestClient(second):
                pass
            long.enqueue_sync()
            beats = max(heartbeats(database).values())
            wait_until(lambda: max(heartbeats(database).values()) >= beats + 3, "what is lost is found to be")
            may_end.set()
            wait_until(lambda: [job.status for job in stored()] == ["succeeded"] * 2)
        assert happened == ["begins", "begins", "ends", "ends"]
        assert [job.attempt for job in stored()] == [1, 1]


# Endpoints that were forgotten


def stock_dependency(background_tasks: fastapi.BackgroundTasks) -> None:
    """It still takes FastAPI's own class."""


def taking_stock(router: APIRouter | FastAPI) -> None:
    """Endpoints that take the stock class, and some that do not."""

    @router.get("/stock")
    def stock(background_tasks: fastapi.BackgroundTasks) -> None: ...

    @router.get("/stock-in-dependency")
    def in_dependency(_: Annotated[None, Depends(stock_dependency)]) -> None: ...

    @router.get("/stock-in-decorator", dependencies=[Depends(stock_dependency)])
    def in_decorator(background_tasks: BackgroundTasks) -> None: ...

    @router.websocket("/stock-websocket")
    async def websocket(websocket: WebSocket, background_tasks: fastapi.BackgroundTasks) -> None: ...

    @router.get("/ours")
    def ours(background_tasks: BackgroundTasks) -> None: ...

    @router.get("/none")
    def none() -> None: ...


STOCK_PATHS = ["/stock", "/stock-in-decorator", "/stock-in-dependency", "/stock-websocket"]


def included(app: FastAPI) -> list[str]:
    router, outer = APIRouter(), APIRouter()
    taking_stock(router)
    outer.include_router(router, prefix="/inner")
    app.include_router(outer, prefix="/outer")
    return [f"/outer/inner{path}" for path in STOCK_PATHS]


def on_the_app(app: FastAPI) -> list[str]:
    taking_stock(app)
    return STOCK_PATHS


def mounted(app: FastAPI) -> list[str]:
    inner = FastAPI()
    taking_stock(inner)
    app.mount("/mounted", inner)
    return [f"/mounted{path}" for path in STOCK_PATHS]


@pytest.mark.parametrize("place", [on_the_app, included, mounted])
def test_endpoints_that_still_take_the_stock_class_are_named_at_the_start(
    app: FastAPI, caplog: pytest.LogCaptureFixture, place: Callable[[FastAPI], list[str]]
) -> None:
    """Wherever they are: a durable task added there would run in memory only."""
    paths = place(app)
    with TestClient(app):
        pass
    records = events(caplog, "endpoint.takes_stock_background_tasks")
    assert {record.levelno for record in records} == {logging.WARNING}
    assert sorted(vars(record)["afterward"]["path"] for record in records) == paths


def test_the_dependencies_of_the_app_are_looked_at_too(tasks: Afterward, caplog: pytest.LogCaptureFixture) -> None:
    """Each endpoint has them."""
    app = FastAPI(dependencies=[Depends(stock_dependency)])
    tasks.install(app)

    @app.get("/endpoint")
    def endpoint() -> None: ...

    with TestClient(app):
        pass
    [record] = events(caplog, "endpoint.takes_stock_background_tasks")
    assert "path=/endpoint" in record.message


@pytest.fixture(autouse=True)
def own_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Warnings are seen, whatever a test before has set."""
    with caplog.at_level(logging.WARNING, "afterward"):
        yield
