"""When a request's tasks are stored: once the application has returned, unless something in it looks on.

An onlooker is whatever could learn that its response was not sent after all, or does something once it has been sent.
"""

import asyncio
import inspect
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from textwrap import dedent
from types import CoroutineType, FrameType
from typing import Any

import pytest
import starlette.background
from fastapi import APIRouter, Depends, FastAPI, HTTPException, UploadFile
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from afterward import Afterward, BackgroundTask, BackgroundTasks, Task
from afterward.holdings import Known
from tests.support.disk import jobs_on_disk
from tests.support.insides import liveness_of
from tests.support.lock import held
from tests.support.serving import served
from tests.support.waiting import soon, wait_until

Note = Task[[str], Any]
Build = Callable[[Afterward, FastAPI, Note], None]


@pytest.fixture
def note(tasks: Afterward, happened: list[str]) -> Note:
    """A durable task that writes down that it has run."""

    @tasks.task
    async def note(what: str) -> None:
        happened.append(what)

    return note


@pytest.fixture
def places(tasks: Afterward, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where each storing took place: while the application waited, or after it had returned."""
    found: list[str] = []
    enqueue = tasks.store.enqueue

    def watched(*args: Any) -> Any:
        found.append("inside" if _responding(inspect.currentframe()) else "after")
        return enqueue(*args)

    monkeypatch.setattr(tasks.store, "enqueue", watched)
    return found


def _responding(frame: FrameType | None) -> bool:
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), Response):
            return True
        frame = frame.f_back
    return False


def add(app: FastAPI | APIRouter, note: Note) -> None:
    """An endpoint that adds a task, and answers."""

    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(note, "durable")
        return "accepted"


def nothing_else(_tasks: Afterward, app: FastAPI, note: Note) -> None:
    add(app, note)


def a_plain_endpoint(_tasks: Afterward, app: FastAPI, note: Note) -> None:
    @app.post("/")
    def endpoint(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(note, "durable")
        return "accepted"


def an_included_router(_tasks: Afterward, app: FastAPI, note: Note) -> None:
    router = APIRouter()
    add(router, note)
    app.include_router(router, prefix="")


def a_mounted_app(_tasks: Afterward, app: FastAPI, note: Note) -> None:
    inner = FastAPI()
    add(inner, note)
    app.mount("", inner)


def a_dependency_that_returns(_tasks: Afterward, app: FastAPI, note: Note) -> None:
    async def dependency(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "durable")

    @app.post("/", dependencies=[Depends(dependency)])
    async def endpoint() -> str:
        return "accepted"


def middleware_that_only_passes_on(_tasks: Afterward, app: FastAPI, note: Note) -> None:
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    app.add_middleware(GZipMiddleware, minimum_size=1)
    add(app, note)


def a_response_with_a_durable_background(_tasks: Afterward, app: FastAPI, note: Note) -> None:
    @app.post("/")
    async def endpoint() -> Response:
        return PlainTextResponse("accepted", background=BackgroundTask(note, "durable"))


INDIFFERENT: list[Build] = [
    nothing_else,
    a_plain_endpoint,
    an_included_router,
    a_mounted_app,
    a_dependency_that_returns,
    middleware_that_only_passes_on,
    a_response_with_a_durable_background,
]


class Own(PlainTextResponse):
    """A response that may do something once it has been sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)


class PassOn:
    """A middleware of the user's own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def a_dependency_with_yield(_tasks: Afterward, app: FastAPI, note: Note) -> None:
    async def dependency() -> AsyncIterator[None]:
        yield

    @app.post("/", dependencies=[Depends(dependency)])
    async def endpoint(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(note, "durable")
        return "accepted"


def a_plain_dependency_with_yield(_tasks: Afterward, app: FastAPI, note: Note) -> None:
    def dependency(background_tasks: BackgroundTasks) -> Iterator[None]:
        background_tasks.add_task(note, "durable")
        yield

    @app.post("/", dependencies=[Depends(dependency)])
    async def endpoint() -> str:
        return "accepted"


def an_uploaded_file(_tasks: Afterward, app: FastAPI, note: Note) -> None:
    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks, file: UploadFile | None = None) -> str:
        background_tasks.add_task(note, "durable")
        return "accepted"


def a_middleware(_tasks: Afterward, app: FastAPI, note: Note) -> None:
    app.add_middleware(PassOn)
    add(app, note)


def a_base_http_middleware(_tasks: Afterward, app: FastAPI, note: Note) -> None:
    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    add(app, note)


def a_middleware_of_a_mounted_app(_tasks: Afterward, app: FastAPI, note: Note) -> None:
    inner = FastAPI()
    inner.add_middleware(PassOn)
    add(inner, note)
    app.mount("", inner)


def a_wrapped_stack(_tasks: Afterward, app: FastAPI, note: Note) -> None:
    add(app, note)
    app.router.default = PassOn(app.router.default)
    inner, app.routes[-1].app = app.routes[-1].app, None  # type: ignore[attr-defined]
    app.routes[-1].app = PassOn(inner)  # type: ignore[attr-defined]


def a_task_in_memory(_tasks: Afterward, app: FastAPI, note: Note) -> None:
    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(note, "durable")
        background_tasks.add_task(str)
        return "accepted"


def a_background_of_the_response(_tasks: Afterward, app: FastAPI, note: Note) -> None:
    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks) -> Response:
        background_tasks.add_task(note, "durable")
        return PlainTextResponse("accepted", background=starlette.background.BackgroundTask(str))


def a_response_of_a_class_of_its_own(_tasks: Afterward, app: FastAPI, note: Note) -> None:
    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks) -> Response:
        background_tasks.add_task(note, "durable")
        return Own("accepted")


def a_stream_of_known_length(_tasks: Afterward, app: FastAPI, note: Note) -> None:
    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks) -> Response:
        background_tasks.add_task(note, "durable")
        return StreamingResponse(iter(["ab", "cd"]), headers={"content-length": "4"})


def an_answer_to_an_exception(_tasks: Afterward, app: FastAPI, note: Note) -> None:
    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note.options(run_on_error=True), "durable")
        raise HTTPException(200)


ONLOOKERS: list[Build] = [
    a_dependency_with_yield,
    a_plain_dependency_with_yield,
    an_uploaded_file,
    a_middleware,
    a_base_http_middleware,
    a_middleware_of_a_mounted_app,
    a_wrapped_stack,
    a_task_in_memory,
    a_background_of_the_response,
    a_response_of_a_class_of_its_own,
    a_stream_of_known_length,
    an_answer_to_an_exception,
]


@pytest.mark.parametrize("build", INDIFFERENT)
def test_where_nothing_looks_on_tasks_are_stored_once_the_application_has_returned(
    *, build: Build, tasks: Afterward, app: FastAPI, note: Note, places: list[str], happened: list[str]
) -> None:
    """It need not wait for the disk with all that a request holds. The response still leaves only then (P1)."""
    build(tasks, app, note)
    with TestClient(app) as client:
        for _ in range(3):  # by then, the way to it is known
            assert client.post("/").status_code == 200
        assert places == ["after"] * 3
        wait_until(lambda: happened == ["durable"] * 3)


@pytest.mark.parametrize("build", ONLOOKERS)
def test_where_something_looks_on_tasks_are_stored_while_the_application_waits(
    *, build: Build, tasks: Afterward, app: FastAPI, note: Note, places: list[str], happened: list[str]
) -> None:
    """So that it learns of a failure, and that what it does afterwards is done after the response."""
    build(tasks, app, note)
    with TestClient(app) as client:
        for _ in range(3):
            assert client.post("/", files={"file": b"content"}).status_code == 200
        assert places == ["inside"] * 3
        wait_until(lambda: happened == ["durable"] * 3)


def test_in_plain_starlette(tasks: Afterward, note: Note, places: list[str]) -> None:
    """A container made by hand, in an application without dependencies."""

    async def endpoint(request: Request) -> Response:
        background = BackgroundTasks()
        background.add_task(note, "durable")
        return PlainTextResponse("accepted", background=background)

    app = Starlette(routes=[Route("/", endpoint)])
    tasks.install(app)
    with TestClient(app) as client:
        assert client.get("/").text == "accepted"
    assert places == ["after"]


def test_a_route_may_be_reached_on_two_ways(tasks: Afterward, app: FastAPI, note: Note, places: list[str]) -> None:
    """Somebody looks on at one of them. What is known of the other says nothing about it."""
    inner = FastAPI()
    add(inner, note)
    app.router.routes.extend(inner.router.routes)
    app.mount("/watched", PassOn(inner))
    app.mount("/unwatched", inner)
    with TestClient(app) as client:
        for path in ("/", "/watched/", "/", "/unwatched/", "/watched/", "/"):
            assert client.post(path).status_code == 200
    assert places == ["after", "inside", "after", "after", "inside", "after"]


def test_an_endpoint_may_answer_in_different_ways(app: FastAPI, note: Note, places: list[str]) -> None:
    """Each response is looked at, whatever others of the same endpoint were like."""

    @app.post("/{kind}")
    async def endpoint(kind: str, background_tasks: BackgroundTasks) -> Response:
        background_tasks.add_task(note, "durable")
        if kind == "own":
            return Own("accepted")
        if kind == "memory":
            background_tasks.add_task(str)
        if kind == "background":
            return PlainTextResponse("accepted", background=starlette.background.BackgroundTask(str))
        return PlainTextResponse("accepted")

    with TestClient(app) as client:
        for kind in ("plain", "own", "plain", "memory", "background", "plain"):
            assert client.post(f"/{kind}").status_code == 200
    assert places == ["after", "inside", "after", "inside", "inside", "after"]


def test_a_response_sent_by_hand_may_be_followed_by_anything(
    tasks: Afterward, app: FastAPI, note: Note, places: list[str], happened: list[str]
) -> None:
    """An ASGI application of the user's, or an endpoint that sends its response itself."""

    async def by_hand(scope: Scope, receive: Receive, send: Send) -> None:
        BackgroundTasks().add_task(note, "durable")
        await PlainTextResponse("accepted")(scope, receive, send)
        happened.append("sent")

    app.mount("/", by_hand)
    with TestClient(app) as client:
        assert client.get("/").text == "accepted"
        assert places == ["inside"]
        wait_until(lambda: happened == ["sent", "durable"])


@pytest.mark.anyio
async def test_a_request_that_waits_for_the_store_keeps_no_call_that_only_passes_on(
    tasks: Afterward, database: Path, note: Note
) -> None:
    """What so many requests keep alive at once, Python's garbage collector comes by for."""
    app = FastAPI()
    add(app, note)
    tasks.install(app)
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    scope: Scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}
    async with app.router.lifespan_context(app):
        with held(database) as lock:
            request = asyncio.create_task(app(scope, receive, send))
            await soon(lambda: _calls_of(request) == ["DurableTasksMiddleware._serve", "Intake._keep"])
            assert sent == []
            lock.let_go()
            await request
    assert sent == ["http.response.start", "http.response.body"]


def _calls_of(task: "asyncio.Task[None]") -> list[str]:
    """The coroutines of ours that a task has entered, from the outermost in."""
    found: list[str] = []
    coroutine: Any = task.get_coro()
    while isinstance(coroutine, CoroutineType):
        assert coroutine.cr_frame is not None
        if coroutine.cr_frame.f_globals["__name__"].startswith("afterward."):
            found.append(coroutine.__qualname__)
        coroutine = coroutine.cr_await
    return found


@pytest.mark.parametrize("worker", [True, False], ids=["leased", "held"])
def test_a_client_that_leaves_while_its_response_is_withheld_takes_nothing_with_it(
    *, worker: bool, tasks: Afterward, database: Path, note: Note, places: list[str]
) -> None:
    """The server knows that it has left before its job is stored. The job runs all the same, and nobody keeps it."""
    app = FastAPI()
    add(app, note)
    tasks.install(app, worker=worker)
    with served(app) as address, held(database) as lock:
        with socket.create_connection((address.host, address.port), timeout=10) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n")
            wait_until(lambda: places == ["after"], "its job waits for the lock")
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b"", "the server has let go of it, without an answer"
        assert jobs_on_disk(database) == []
        lock.let_go()
        expected = ("succeeded", 1, False) if worker else ("queued", 0, False)
        wait_until(lambda: [(row.status, row.attempt, row.held) for row in jobs_on_disk(database)] == [expected])
        wait_until(lambda: liveness_of(tasks).holdings.known() == Known({}, {}, frozenset()), "nothing is held")


def test_a_client_that_leaves_before_the_endpoint_has_answered_takes_nothing_with_it(
    tasks: Afterward, app: FastAPI, database: Path, note: Note, places: list[str]
) -> None:
    @app.post("/")
    async def endpoint(request: Request, background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(note, "durable")
        while (await request.receive())["type"] != "http.disconnect":
            continue
        return "accepted"

    with served(app) as address:
        with socket.create_connection((address.host, address.port)) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n")
        wait_until(lambda: [row.status for row in jobs_on_disk(database)] == ["succeeded"])
        wait_until(lambda: liveness_of(tasks).holdings.known() == Known({}, {}, frozenset()), "nothing is held")
    assert places == ["after"]


def _sees_nothing(*_: Any) -> bool:
    return False


def test_what_was_overlooked_and_fails_afterwards_leaves_neither_answer_nor_task(
    app: FastAPI, note: Note, stored: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled code cannot be seen on the way. If it raises, nothing has left yet, and nothing has been promised."""
    monkeypatch.setattr("afterward.onlookers.Onlookers.look_on", _sees_nothing)

    async def dependency() -> AsyncIterator[None]:
        yield
        raise RuntimeError("after the response")

    @app.post("/", dependencies=[Depends(dependency)])
    async def endpoint(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(note, "durable")
        return "accepted"

    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.post("/").status_code == 500
    assert stored() == []


def test_a_response_class_that_somebody_has_wrapped_is_looked_at_closely(tmp_path: Path) -> None:
    """Tools that trace wrap `Response.__call__`, before afterward is imported: requests are served as ever."""
    (tmp_path / "traced.py").write_text(
        dedent("""
        from starlette.responses import Response

        respond, traced = Response.__call__, []

        async def wrapper(*args, **kwargs):
            await respond(*args, **kwargs)
            traced.append("sent")

        Response.__call__ = wrapper

        from fastapi import FastAPI
        from fastapi.testclient import TestClient
        from afterward import Afterward, BackgroundTasks

        app, tasks = FastAPI(), Afterward("sqlite:///jobs.db")
        tasks.install(app)

        @tasks.task
        async def nothing() -> None: ...

        @app.post("/", status_code=202)
        async def endpoint(background_tasks: BackgroundTasks) -> str:
            return background_tasks.add_task(nothing).id

        with TestClient(app) as client:
            for _ in range(3):
                nothing.handle(client.post("/").raise_for_status().json()).result_sync(timeout=10)
        print(*traced)
        """)
    )
    run = subprocess.run([sys.executable, "traced.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.stdout == "sent sent sent\n", run.stderr
