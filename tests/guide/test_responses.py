"""Responses that the user makes: with a background of their own, streamed, in plain Starlette, in error handlers."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import starlette.background
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterward import Afterward, BackgroundTask, BackgroundTasks, Task
from tests.support.calling import call
from tests.support.disk import Row, jobs_on_disk
from tests.support.serving import served
from tests.support.waiting import soon, wait_until

Stored = Callable[[], list[Row]]


@pytest.fixture
def note(tasks: Afterward, happened: list[str]) -> Task[[str], None]:
    """A durable task that writes down that it has run."""

    @tasks.task
    def note(what: str) -> None:
        happened.append(what)

    return note


class Broken(Exception):
    """What goes wrong."""


# A response with a background of its own


def test_the_injected_container_may_be_given_to_the_response(
    app: FastAPI, client: TestClient, note: Task[[str], None], happened: list[str], stored: Stored
) -> None:
    """What runs in memory is run by the response, what is durable runs after, and each of them once."""

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> Response:
        background_tasks.add_task(note, "durable")
        background_tasks.add_task(happened.append, "in memory")
        return PlainTextResponse("ok", background=background_tasks)

    assert client.get("/").text == "ok"
    wait_until(lambda: happened == ["in memory", "durable"])
    assert len(stored()) == 1


def test_durable_tasks_are_kept_though_the_response_brings_another_background(
    app: FastAPI, client: TestClient, note: Task[[str], None], happened: list[str]
) -> None:
    """FastAPI runs the response's in place of the injected one. What is durable was promised by `add_task` itself."""

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> Response:
        background_tasks.add_task(note, "durable")
        background_tasks.add_task(happened.append, "dropped, as with stock")
        return Response(background=starlette.background.BackgroundTask(happened.append, "the response's"))

    assert client.get("/").status_code == 200
    wait_until(lambda: happened == ["the response's", "durable"])


def test_one_task_made_by_hand(
    app: FastAPI, client: TestClient, note: Task[[str], None], happened: list[str], stored: Stored
) -> None:
    """As Starlette's `BackgroundTask`; `job` is the handle."""

    @app.get("/")
    async def endpoint() -> Response:
        background = BackgroundTask(note, "by hand")
        assert background.job is not None
        return PlainTextResponse(background.job.id, background=background)

    job = client.get("/").text
    assert [row.id for row in stored()] == [job]
    wait_until(lambda: happened == ["by hand"])


def test_a_container_made_by_hand(
    app: FastAPI, client: TestClient, note: Task[[str], None], happened: list[str], stored: Stored
) -> None:
    """As Starlette's `BackgroundTasks`: made of single tasks, added to, or both."""

    @app.get("/")
    def endpoint(injected: BackgroundTasks) -> Response:
        injected.add_task(note, "injected")
        background = BackgroundTasks([BackgroundTask(note, "given")])
        handle = background.add_task(note, "added")
        background.add_task(happened.append, "in memory")
        return PlainTextResponse(handle.id, background=background)

    job = client.get("/").text
    assert job in {row.id for row in stored()}
    wait_until(lambda: len(happened) == 4)
    assert happened[0] == "in memory"
    assert sorted(happened[1:]) == ["added", "given", "injected"]


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_in_plain_starlette(
    tasks: Afterward, note: Task[[str], None], happened: list[str], database: Path, kind: str
) -> None:
    """There is nothing to inject: the task made by hand finds its request, and is stored before the status line."""

    async def single(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(note, "single"))

    def single_in_thread(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(note, "single"))

    async def several(request: Request) -> Response:
        background = BackgroundTasks()
        background.add_task(note, "one")
        background.add_task(note, "two")
        return PlainTextResponse("ok", background=background)

    app = Starlette(
        routes=[
            Route("/single", single if kind == "async def" else single_in_thread),
            Mount("/mounted", routes=[Route("/several", several)]),
        ]
    )
    tasks.install(app)
    on_disk: list[int] = []

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                on_disk.append(len(jobs_on_disk(database)))
            await send(message)

        await app(scope, receive, watch)

    with TestClient(watched) as client:
        assert client.get("/single").text == "ok"
        assert client.get("/mounted/several").text == "ok"
        assert on_disk == [1, 3]
        wait_until(lambda: sorted(happened) == ["one", "single", "two"])


def test_a_middleware_may_give_the_response_a_background(
    app: FastAPI, note: Task[[str], None], happened: list[str]
) -> None:
    """Around an endpoint that knows nothing of it."""

    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.background = BackgroundTask(note, "middleware")
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(note, "endpoint")
        return "ok"

    with TestClient(app) as client:
        assert client.get("/").json() == "ok"
        wait_until(lambda: sorted(happened) == ["endpoint", "middleware"])


# Responses of every kind


def test_responses_of_every_kind(
    app: FastAPI, note: Task[[str], None], happened: list[str], tmp_path: Path, stored: Stored
) -> None:
    """Empty, redirecting, a file, compressed, streamed; to GET and to HEAD."""
    file = tmp_path / "file.txt"
    file.write_text("x" * 10_000)
    kinds: dict[str, Callable[[], Response]] = {
        "empty": lambda: Response(status_code=204),
        "redirect": lambda: RedirectResponse("/elsewhere"),
        "file": lambda: FileResponse(file),
        "large": lambda: PlainTextResponse("y" * 10_000),
        "streamed": lambda: StreamingResponse(iter(["z" * 10_000])),
        "streamed, nothing": lambda: StreamingResponse(iter(list[str]())),
    }
    app.add_middleware(GZipMiddleware)

    @app.api_route("/{kind}", methods=["GET", "HEAD"])
    async def endpoint(request: Request, kind: str, background_tasks: BackgroundTasks) -> Response:
        background_tasks.add_task(note, f"{request.method} {kind}")
        return kinds[kind]()

    with TestClient(app, follow_redirects=False) as client:
        for kind in kinds:
            client.get(f"/{kind}")
            client.head(f"/{kind}")
        wait_until(
            lambda: sorted(happened) == sorted(f"{method} {kind}" for method in ("GET", "HEAD") for kind in kinds)
        )
    assert len(stored()) == 2 * len(kinds)


@pytest.mark.parametrize("kind", ["http.response.debug", "http.response.early_hint"])
def test_a_message_that_comes_before_the_response_starts_nothing(
    app: FastAPI, client: TestClient, note: Task[[str], None], happened: list[str], kind: str
) -> None:
    """Templates send one to test clients, early hints are one: the task still waits for the end of the request."""

    class Hinting(PlainTextResponse):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": kind, "info": {"template": None, "context": {}}, "links": []})
            await asyncio.sleep(0.05)
            happened.append("response")
            await super().__call__(scope, receive, send)

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> Response:
        background_tasks.add_task(note, "task")
        return Hinting("ok")

    assert client.get("/").status_code == 200
    wait_until(lambda: "task" in happened)
    assert happened == ["response", "task"]


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_what_is_added_while_a_response_streams_is_stored_before_the_last_chunk_leaves(
    app: FastAPI, note: Task[[str], None], happened: list[str], database: Path, kind: str
) -> None:
    """A client that has read the whole response can rely on it."""

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> StreamingResponse:
        def body() -> Iterator[str]:
            yield "first"
            background_tasks.add_task(note, "added while streaming")
            yield "last"

        async def async_body() -> AsyncIterator[str]:
            for chunk in body():
                yield chunk

        return StreamingResponse(body() if kind == "def" else async_body())

    chunks: list[tuple[bytes, int]] = []

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        async def watch(message: Message) -> None:
            if message["type"] == "http.response.body":
                chunks.append((message.get("body", b""), len(jobs_on_disk(database))))
            await send(message)

        await app(scope, receive, watch)

    with TestClient(watched) as client:
        assert client.get("/").text == "firstlast"
        assert [body for body, _ in chunks] == [b"first", b"last", b""]
        assert chunks[-1] == (b"", 1)
        wait_until(lambda: happened == ["added while streaming"])


def test_a_stream_that_breaks_keeps_what_was_stored_before_it_began(
    app: FastAPI, client: TestClient, note: Task[[str], None], happened: list[str]
) -> None:
    """The client has had its 2xx."""

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> StreamingResponse:
        background_tasks.add_task(note, "before")

        async def body() -> AsyncIterator[str]:
            yield "first"
            raise Broken

        return StreamingResponse(body())

    client.get("/")
    wait_until(lambda: happened == ["before"])


def test_a_client_that_hangs_up_in_the_middle_of_a_stream_does_not_stop_the_task(
    app: FastAPI, note: Task[[str], None], happened: list[str]
) -> None:
    """With a real server: the call is cancelled, and what it has stored starts."""
    ended = threading.Event()

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> StreamingResponse:
        background_tasks.add_task(note, "task")

        async def body() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 1000
                    await asyncio.sleep(0.01)
            finally:
                ended.set()

        return StreamingResponse(body())

    with served(app) as server:
        with socket.create_connection((server.host, server.port), timeout=10) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            assert happened == []
        assert ended.wait(10)
        wait_until(lambda: happened == ["task"])


# Made by hand, and then an error


class Middlewares:
    """What may stand between the wrapper and an endpoint."""

    @staticmethod
    async def passing(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


@pytest.fixture(params=["alone", "under BaseHTTPMiddleware"])
def middleware(request: pytest.FixtureRequest) -> list[Middleware]:
    """With nothing in between, and with a middleware that runs the endpoint in another asyncio task."""
    return [] if request.param == "alone" else [Middleware(BaseHTTPMiddleware, dispatch=Middlewares.passing)]


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("framework", ["FastAPI", "Starlette"])
def test_a_task_made_by_hand_is_discarded_by_an_exception(  # noqa: PLR0917 - fixtures
    tasks: Afterward, note: Task[[str], None], stored: Stored, middleware: list[Middleware], kind: str, framework: str
) -> None:
    """The response that it was made for is not sent, and with it goes the task; unless it is to run on errors."""

    def endpoint(request: Request) -> Response:
        BackgroundTask(note, "never")
        BackgroundTasks().add_task(note, "never")
        BackgroundTask(note.options(run_on_error=True), "kept")
        raise HTTPException(409)

    async def async_endpoint(request: Request) -> Response:
        return endpoint(request)

    chosen = endpoint if kind == "def" else async_endpoint
    app: Starlette
    if framework == "FastAPI":
        app = FastAPI(middleware=middleware)
        app.get("/")(chosen)
    else:
        app = Starlette(middleware=middleware, routes=[Route("/", chosen)])
    tasks.install(app)

    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/").status_code == 409
    assert [job.arguments for job in stored()] == ['{"what":"kept"}']


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_the_response_of_an_error_handler_may_have_a_background(
    *, tasks: Afterward, note: Task[[str], None], happened: list[str], middleware: list[Middleware], kind: str
) -> None:
    """Made for the response that is sent, it is kept: telling somebody of an error is what it is for."""

    def handle(request: Request, error: Exception) -> Response:
        background = BackgroundTasks()
        background.add_task(note, "added")
        background.tasks.append(BackgroundTask(note, "single"))
        return JSONResponse({"handled": True}, 500, background=background)

    async def async_handle(request: Request, error: Exception) -> Response:
        return handle(request, error)

    chosen: Any = handle if kind == "def" else async_handle
    app = FastAPI(middleware=middleware, exception_handlers={Broken: chosen, 404: chosen})
    tasks.install(app)

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "never")
        raise Broken

    with TestClient(app) as client:
        assert client.get("/").json() == {"handled": True}
        wait_until(lambda: sorted(happened) == ["added", "single"])
        assert client.get("/nowhere").json() == {"handled": True}
        wait_until(lambda: sorted(happened) == ["added", "added", "single", "single"])


def test_the_response_to_an_unhandled_exception_may_have_a_background(
    tasks: Afterward, note: Task[[str], None], happened: list[str]
) -> None:
    """`exception_handler(Exception)` answers from the outermost middleware."""
    app = FastAPI()
    tasks.install(app)

    @app.exception_handler(Exception)
    async def handle(request: Request, error: Exception) -> Response:
        return JSONResponse({}, 500, background=BackgroundTask(note, "reported"))

    @app.get("/")
    async def endpoint() -> None:
        raise Broken

    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/").status_code == 500
        wait_until(lambda: happened == ["reported"])


@pytest.mark.parametrize("status", [200, 500])
def test_a_middleware_may_answer_an_error_with_a_background(
    tasks: Afterward, note: Task[[str], None], happened: list[str], stored: Stored, status: int
) -> None:
    """What the endpoint added is discarded, what the middleware adds in its `except` is kept."""

    class Answering:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await self._app(scope, receive, send)
            except Broken:
                response = PlainTextResponse("sorry", status, background=BackgroundTask(note, "reported"))
                await response(scope, receive, send)

    app = FastAPI(middleware=[Middleware(Answering)])
    tasks.install(app)

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "never")
        raise Broken

    with TestClient(app) as client:
        assert client.get("/").status_code == status
        wait_until(lambda: happened == ["reported"])
    assert len(stored()) == 1


class Fallback:
    """A middleware that calls the app while it handles an exception."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            raise Broken
        except Broken:
            await self._app(scope, receive, send)


@pytest.mark.parametrize("inner", [None, BaseHTTPMiddleware], ids=["alone", "around another task"])
def test_a_middleware_may_call_the_app_while_it_handles_an_exception(
    tasks: Afterward, note: Task[[str], None], happened: list[str], stored: Stored, inner: Any
) -> None:
    """That is its own affair: the request's tasks are kept."""
    app = FastAPI(middleware=[Middleware(Fallback), *([Middleware(inner, dispatch=passed_on)] if inner else [])])
    tasks.install(app)

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> Response:
        background_tasks.add_task(note, "injected")
        return PlainTextResponse("ok", background=BackgroundTask(note, "by hand"))

    with TestClient(app) as client:
        assert client.get("/").status_code == 200
        wait_until(lambda: sorted(happened) == ["by hand", "injected"])
    assert len(stored()) == 2


def around_as_middleware(tasks: Afterward) -> tuple[FastAPI, ASGIApp]:
    app = FastAPI(middleware=[Middleware(Fallback)])
    tasks.install(app)
    return app, app


def around_the_whole_app(tasks: Afterward) -> tuple[FastAPI, ASGIApp]:
    app = FastAPI()
    tasks.install(app)
    return app, Fallback(app)


@pytest.mark.parametrize("wrapped", [around_as_middleware, around_the_whole_app])
def test_a_stream_is_kept_whole_under_one_that_calls_the_app_while_it_handles_an_exception(
    tasks: Afterward, note: Task[[str], None], happened: list[str], wrapped: Callable[[Afterward], Any]
) -> None:
    """A stream is sent by an asyncio task of its own, in which nothing is being handled."""
    app, outermost = wrapped(tasks)

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> Response:
        background_tasks.add_task(note, "injected")
        return StreamingResponse(iter(["ok"]), background=BackgroundTask(note, "by hand"))

    with TestClient(outermost) as client:
        assert client.get("/").text == "ok"
        wait_until(lambda: sorted(happened) == ["by hand", "injected"])


async def passed_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """A middleware that does nothing, in a task of its own."""
    return await call_next(request)


async def failing_after(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """A middleware that breaks once the endpoint has answered, and before the client has got anything."""
    await call_next(request)
    raise Broken


def test_an_exception_in_a_middleware_discards_what_the_endpoint_added(
    tasks: Afterward, note: Task[[str], None], stored: Stored
) -> None:
    """The client gets a 500; no 2xx has promised anything."""
    app = FastAPI(middleware=[Middleware(BaseHTTPMiddleware, dispatch=failing_after)])
    tasks.install(app)

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> Response:
        background_tasks.add_task(note, "injected")
        return PlainTextResponse("ok", background=BackgroundTask(note, "by hand"))

    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/").status_code == 500
    assert stored() == []


def test_a_server_that_was_started_from_within_an_except_block_loses_nothing(
    app: FastAPI, note: Task[[str], None], happened: list[str], stored: Stored
) -> None:
    """`except ImportError: uvicorn.run(app)`, for one: every request of it is served while that is handled."""

    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks) -> Response:
        background_tasks.add_task(note, "injected")
        return PlainTextResponse("ok", background=BackgroundTask(note, "by hand"))

    async def serve_one() -> None:
        async with app.router.lifespan_context(app):
            assert (await call(app))[0]["status"] == 200
            await soon(lambda: sorted(happened) == ["by hand", "injected"])

    try:
        raise Broken
    except Broken:
        asyncio.run(serve_one())
    assert len(stored()) == 2


def test_a_dependency_of_several_requests_at_once_keeps_them_apart(
    app: FastAPI, note: Task[[str], None], happened: list[str], stored: Stored
) -> None:
    """With a real server: each of many concurrent requests has its own batch; the failing ones take nothing along."""

    def dependency(number: int, background_tasks: BackgroundTasks) -> int:
        background_tasks.add_task(note, f"dependency {number}")
        return number

    @app.get("/{number}")
    async def endpoint(number: Annotated[int, Depends(dependency)], background_tasks: BackgroundTasks) -> Any:
        background_tasks.add_task(note, f"endpoint {number}")
        await asyncio.sleep(0.01)
        if number % 2:
            raise HTTPException(409)
        BackgroundTask(note, f"by hand {number}")
        return number

    with served(app) as server:
        statuses = asyncio.run(get_at_once(server.host, server.port, [f"/{number}" for number in range(20)]))
        assert statuses == [409 if number % 2 else 200 for number in range(20)]
        assert len(stored()) == 30
        expected = {f"{who} {n}" for who in ("dependency", "endpoint", "by hand") for n in range(0, 20, 2)}
        wait_until(lambda: set(happened) == expected)
    assert len(happened) == 30


async def get_at_once(host: str, port: int, paths: list[str]) -> list[int]:
    """The status of each answer, all of them asked for at the same time."""

    async def get(path: str) -> int:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return int(answer.split()[1])

    return await asyncio.gather(*(get(path) for path in paths))
