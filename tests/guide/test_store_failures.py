"""When a task cannot be stored the client is told so: 503, and never a false 2xx.

Every test of a request runs with a file that another program keeps locked, with one that was deleted while in use, and
with a full disk.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from afterward import Afterward, BackgroundTask, BackgroundTasks, StoreUnavailable, Task
from afterward.background import provide, provide_with_yield
from afterward.stores.sqlite import SQLiteStore
from tests.support.calling import call
from tests.support.disk import Row
from tests.support.obstacles import Disk, deleted, locked
from tests.support.opening import opened
from tests.support.serving import served
from tests.support.waiting import soon, wait_until

Stored = Callable[[], list[Row]]
Outage = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def disk() -> Iterator[Disk]:
    """What the database is on."""
    with Disk() as disk:
        yield disk


@pytest.fixture(params=["locked", "deleted", "full"])
def outage(request: pytest.FixtureRequest, database: Path, disk: Disk) -> Outage:
    """While the block lasts, nothing can be stored."""
    outages: dict[str, Outage] = {
        "locked": lambda: locked(database),
        "deleted": lambda: deleted(database),
        "full": disk.full,
    }
    return outages[request.param]


@pytest.fixture
def tasks(database: Path, disk: Disk, request: pytest.FixtureRequest) -> Iterator[Afterward]:
    """Durable tasks whose store gives up soon; a parameter is after how many seconds."""
    with opened(Afterward(store=SQLiteStore(database, patience=getattr(request, "param", 0.2)))) as tasks:
        yield tasks


@pytest.fixture
def note(tasks: Afterward, happened: list[str]) -> Task[[str], None]:
    """A durable task that writes down that it has run."""

    @tasks.task
    def note(what: str) -> None:
        happened.append(what)

    return note


def assert_refused(response: Any) -> None:
    """The answer says that it was not accepted, and when to come again."""
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert response.json() == {"detail": "The request could not be accepted now; try again later."}


@pytest.mark.parametrize("app", [provide, provide_with_yield], indirect=True)
def test_the_client_gets_a_503_and_nothing_is_stored_and_nothing_runs(
    *, app: FastAPI, client: TestClient, note: Task[[str], None], outage: Outage, happened: list[str], stored: Stored
) -> None:
    """Neither what is durable nor what runs in memory. When the store is back, requests are accepted again."""

    @app.post("/", status_code=202)
    async def endpoint(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(happened.append, "in memory")
        background_tasks.add_task(note, "durable")
        background_tasks.add_task(note.options(run_on_error=True), "on error")
        return "accepted"

    with outage():
        assert_refused(client.post("/"))
    assert stored() == []

    assert client.post("/").status_code == 202
    wait_until(lambda: sorted(happened) == ["durable", "in memory", "on error"])


def test_what_failed_is_logged_without_what_was_passed(
    app: FastAPI, client: TestClient, note: Task[[str], None], outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    """One event says why; arguments are in no log."""

    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "a secret")

    with outage(), caplog.at_level(logging.DEBUG, "afterward"):
        assert_refused(client.post("/"))
    [record] = [record for record in caplog.records if "request.refused" in record.message]
    assert record.levelno == logging.ERROR
    assert "jobs.db" in record.message
    assert "a secret" not in caplog.text


class Ledger:
    """A resource with transactions, as a dependency."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.ended: list[str] = []

    async def session(self) -> AsyncIterator[list[str]]:
        rows: list[str] = []
        try:
            yield rows
        except BaseException:
            self.ended.append("rolled back")
            raise
        self.rows += rows
        self.ended.append("committed")


def around_nothing(app: FastAPI) -> None:
    """The endpoint alone."""


def around_base_http_middleware(app: FastAPI) -> None:
    """The endpoint runs in another asyncio task; exceptions take another way."""

    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)


def around_a_handler_of_everything(app: FastAPI) -> None:
    """The user answers unhandled exceptions himself, with a 200."""

    @app.exception_handler(Exception)
    async def handle(request: Request, error: Exception) -> Response:
        return PlainTextResponse("all is well")


def around_a_handler_of_our_error(app: FastAPI) -> None:
    @app.exception_handler(StoreUnavailable)
    async def handle(request: Request, error: Exception) -> Response:
        return PlainTextResponse("all is well")


def around_a_middleware_that_swallows(app: FastAPI) -> None:
    """It answers in its own way, or not at all."""

    class Swallow:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await self._app(scope, receive, send)
            except Exception:
                await PlainTextResponse("all is well")(scope, receive, send)

    app.add_middleware(Swallow)


def around_debug(app: FastAPI) -> None:
    app.debug = True


SURROUNDINGS = [
    around_nothing,
    around_base_http_middleware,
    around_a_handler_of_everything,
    around_a_handler_of_our_error,
    around_a_middleware_that_swallows,
    around_debug,
]


@pytest.mark.parametrize("surround", SURROUNDINGS)
@pytest.mark.parametrize("streams", [False, True])
def test_whatever_stands_around_the_client_gets_a_503_and_dependencies_do_not_commit(
    app: FastAPI, note: Task[[str], None], outage: Outage, surround: Callable[[FastAPI], None], streams: bool
) -> None:
    """The failure passes through the dependencies with `yield` before anything is answered."""
    surround(app)
    ledger = Ledger()

    @app.post("/", status_code=202, response_model=None)
    async def endpoint(
        session: Annotated[list[str], Depends(ledger.session)], background_tasks: BackgroundTasks
    ) -> Response | str:
        session.append("row")
        background_tasks.add_task(note, "task")
        return StreamingResponse(iter(["a", "b"])) if streams else "accepted"

    with TestClient(app) as client:
        with outage():
            assert_refused(client.post("/"))
        assert ledger.rows == []
        assert ledger.ended == ["rolled back"]

        assert client.post("/").is_success
        assert ledger.rows == ["row"]


def test_under_several_middlewares(app: FastAPI, note: Task[[str], None], outage: Outage) -> None:
    """The client gets a 503. (What dependencies see, two of Starlette's `BaseHTTPMiddleware` decide: old ones let them
    commit before the response has started.)"""
    around_base_http_middleware(app)
    around_base_http_middleware(app)

    @app.post("/", status_code=202)
    async def endpoint(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(note, "task")
        return "accepted"

    with TestClient(app) as client:
        with outage():
            assert_refused(client.post("/"))
        assert client.post("/").status_code == 202


def test_in_plain_starlette(tasks: Afterward, note: Task[[str], None], outage: Outage) -> None:
    """What was made by hand is promised no less."""

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("accepted", 202, background=BackgroundTask(note, "task"))

    app = Starlette(routes=[Route("/", endpoint)])
    tasks.install(app)
    with TestClient(app) as client:
        with outage():
            assert_refused(client.get("/"))
        assert client.get("/").status_code == 202


def test_a_request_without_durable_tasks_needs_no_store(
    app: FastAPI, client: TestClient, outage: Outage, happened: list[str]
) -> None:
    """What runs in memory runs."""

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(happened.append, "in memory")
        return "ok"

    with outage():
        assert client.get("/").json() == "ok"
    assert happened == ["in memory"]


def test_a_failure_at_the_last_chunk_of_a_stream_breaks_the_response(
    app: FastAPI, note: Task[[str], None], outage: Outage, stored: Stored
) -> None:
    """The status line has gone. With a real server: the client can tell that the response is not complete."""

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield "first"
            background_tasks.add_task(note, "task")
            yield "last"

        return StreamingResponse(body())

    with served(app) as server:
        with outage(), pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            httpx.get(server.url)
        assert httpx.get(server.url).text == "firstlast"
        wait_until(lambda: len(stored()) >= 1)


def test_what_was_added_too_late_to_be_refused_is_at_least_told_of(
    app: FastAPI, client: TestClient, note: Task[[str], None], outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    """After the last byte there is nobody left to be answered: an event names the job that is lost."""
    jobs: list[str] = []

    async def late(background_tasks: BackgroundTasks) -> AsyncIterator[None]:
        yield
        jobs.append(background_tasks.add_task(note, "too late").id)

    @app.get("/", dependencies=[Depends(late)])
    async def endpoint() -> str:
        return "ok"

    with outage():
        assert client.get("/").json() == "ok"
    [record] = [record for record in caplog.records if "job.not_stored" in record.message]
    assert jobs[0] in record.message


def test_a_store_that_cannot_be_opened_is_a_503_too(tmp_path: Path) -> None:
    """Where no lifespan has found it out before. And it is tried again with each request."""
    folder = tmp_path / "missing"
    app = FastAPI()
    with opened(Afterward(f"sqlite:///{folder}/jobs.db")) as tasks:
        tasks.install(app)

        @tasks.task
        def nothing() -> None:
            return

        @app.get("/")
        async def endpoint(background_tasks: BackgroundTasks) -> str:
            background_tasks.add_task(nothing)
            return "ok"

        client = TestClient(app)
        assert_refused(client.get("/"))
        folder.mkdir()
        assert client.get("/").json() == "ok"


# A request that is cancelled


@pytest.mark.anyio
@pytest.mark.parametrize("tasks", [20.0], indirect=True)
async def test_a_request_cancelled_while_it_is_being_stored_has_its_task_run(
    app: FastAPI, note: Task[[str], None], happened: list[str], stored: Stored, database: Path
) -> None:
    """Cancelled in mid-commit: what has come to be stored is run, in this process and now."""

    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "task")
        happened.append("added")

    async with app.router.lifespan_context(app):
        with locked(database):
            request = asyncio.create_task(call(app))
            await soon(lambda: happened == ["added"])
            await asyncio.sleep(0.05)
            request.cancel()
            await asyncio.sleep(0.05)
            assert not request.done()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert len(stored()) == 1
        await soon(lambda: happened == ["added", "task"])


@pytest.mark.anyio
async def test_wherever_a_request_is_cancelled_what_is_stored_runs_once(
    app: FastAPI, note: Task[[str], None], happened: list[str], stored: Stored
) -> None:
    """Cancelled at every step of the event loop from its beginning to its end."""
    added: asyncio.Event

    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks) -> StreamingResponse:
        background_tasks.add_task(note, f"task {len(stored())}")
        added.set()

        async def body() -> AsyncIterator[str]:
            background_tasks.add_task(note, f"streamed {len(stored())}")
            yield "body"

        return StreamingResponse(body())

    async with app.router.lifespan_context(app):
        cancelled, completed = 0, 0
        for steps in range(60):
            added = asyncio.Event()
            request = asyncio.create_task(call(app))
            await added.wait()
            for _ in range(steps):
                await asyncio.sleep(0)
            request.cancel()
            try:
                await request
                completed += 1
            except asyncio.CancelledError:
                cancelled += 1
        assert cancelled
        jobs = stored()
        await soon(lambda: len(happened) == len(jobs))
        await soon(lambda: all(job.status == "succeeded" for job in stored()))
        assert {job.attempt for job in stored()} == {1}
    assert len(set(happened)) == len(happened) == len(jobs)
