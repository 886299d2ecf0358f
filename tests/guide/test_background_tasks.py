"""`add_task`, as every FastAPI user knows it, with what is durable about it.

Every test here runs twice: with the dependency that this FastAPI is served by, and with the one made by public means.
"""

import asyncio
import gc
import socket
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Response, Security
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterward import Afterward, BackgroundTasks, NotInARequest, Task
from afterward.background import provide, provide_with_yield
from tests.support.disk import Row, jobs_on_disk
from tests.support.serving import served
from tests.support.waiting import soon, wait_until

pytestmark = pytest.mark.parametrize("app", [provide, provide_with_yield], indirect=True)

Stored = Callable[[], list[Row]]


@pytest.fixture
def note(tasks: Afterward, happened: list[str]) -> Task[[str], None]:
    """A durable task that writes down that it has run."""

    @tasks.task
    def note(what: str) -> None:
        happened.append(what)

    return note


# In short


def test_a_task_added_in_a_request_runs_after_it(
    app: FastAPI, client: TestClient, tasks: Afterward, happened: list[str], stored: Stored
) -> None:
    """One import, one decorator, two lines of set-up; `add_task` is what it was, and returns the job."""

    @tasks.task(max_attempts=5)
    def write_notification(email: str, message: str = "") -> None:
        happened.append(f"notification for {email}: {message}")

    @app.post("/send-notification/{email}", status_code=202)
    async def send_notification(email: str, background_tasks: BackgroundTasks) -> dict[str, str]:
        job = background_tasks.add_task(write_notification, email, message="some notification")
        return {"message": "Notification sent in the background", "job": job.id}

    response = client.post("/send-notification/johndoe@example.com")

    assert response.status_code == 202
    assert response.json()["message"] == "Notification sent in the background"
    assert [job.id for job in stored()] == [response.json()["job"]]
    wait_until(lambda: happened == ["notification for johndoe@example.com: some notification"])
    wait_until(lambda: [job.status for job in stored()] == ["succeeded"])


# Before the first byte


class Watching:
    """An ASGI app around another: looks at something when a message leaves."""

    def __init__(self, app: ASGIApp, message: str, look: Callable[[], Any]) -> None:
        self._app = app
        self._message = message
        self._look = look
        self.seen: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            if message["type"] == self._message:
                self.seen.append(self._look())
            await send(message)

        await self._app(scope, receive, watched)


@pytest.mark.parametrize("returns", [Response(status_code=204), "text", StreamingResponse(iter([b"a", b"b"]))])
def test_what_is_added_is_on_the_disk_when_the_status_line_leaves(
    app: FastAPI, note: Task[[str], None], database: Path, returns: Any
) -> None:
    """Another connection finds the jobs committed before the server is given the start of the response."""

    @app.get("/", response_model=None)
    async def endpoint(background_tasks: BackgroundTasks) -> Any:
        background_tasks.add_task(note, "first")
        background_tasks.add_task(note, "second")
        return returns

    watching = Watching(app, "http.response.start", lambda: [job.arguments for job in jobs_on_disk(database)])
    with TestClient(watching) as client:
        assert client.get("/").is_success

    assert watching.seen == [['{"what":"first"}', '{"what":"second"}']]


def test_a_client_that_has_read_the_status_line_finds_the_job_stored_and_not_begun(
    app: FastAPI, note: Task[[str], None], happened: list[str], stored: Stored
) -> None:
    """With a real server: while the body is still on its way, the job is kept, and waits."""
    body_may_end = threading.Event()

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> StreamingResponse:
        background_tasks.add_task(note, "ran")

        async def body() -> AsyncIterator[bytes]:
            yield b"begin"
            await asyncio.to_thread(body_may_end.wait, 10)
            happened.append("body ended")
            yield b"end"

        return StreamingResponse(body())

    with served(app) as server, socket.create_connection((server.host, server.port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        received = connection.makefile("rb")
        assert received.readline().startswith(b"HTTP/1.1 200")

        (job,) = stored()
        assert (job.status, job.attempt, job.held) == ("queued", 0, True)

        body_may_end.set()
        received.read()
        wait_until(lambda: happened == ["body ended", "ran"])


# After the last


def test_a_task_runs_after_the_response_and_after_the_dependencies_with_yield(
    app: FastAPI, client: TestClient, note: Task[[str], None], happened: list[str]
) -> None:
    """What a dependency does after its `yield`, a commit for one, is done when the task begins."""

    async def transaction() -> AsyncIterator[None]:
        happened.append("begin")
        yield
        await asyncio.sleep(0.05)
        happened.append("commit")

    def connection() -> Iterator[None]:
        yield
        time.sleep(0.05)
        happened.append("disconnect")

    @app.get("/", dependencies=[Depends(connection), Depends(transaction)])
    async def endpoint(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(note, "task")
        return "ok"

    client.get("/")

    wait_until(lambda: "task" in happened)
    assert happened == ["begin", "commit", "disconnect", "task"]


@pytest.mark.anyio
async def test_a_request_leaves_no_circle_of_references(app: FastAPI, tasks: Afterward) -> None:
    """A server's `send` knows its scope, and the scope knows us: what a request needed is freed when it is over."""

    @tasks.task
    async def nothing() -> None: ...

    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(nothing)

    class Cycle:
        """What a server has of each request."""

        def __init__(self, scope: dict[str, Any]) -> None:
            self.scope = scope

        async def send(self, _message: Any) -> None: ...

        async def receive(self) -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

    async def serve_one() -> "weakref.ref[Cycle]":
        cycle = Cycle({"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []})
        await app(cycle.scope, cycle.receive, cycle.send)
        return weakref.ref(cycle)

    async with app.router.lifespan_context(app):
        await serve_one()
        gc.disable()
        try:
            over = await serve_one()
            await soon(lambda: over() is None)
        finally:
            gc.enable()


def test_a_task_runs_after_a_middleware_around_the_whole_app(
    app: FastAPI, note: Task[[str], None], happened: list[str]
) -> None:
    """Also one added after `install`: it may hold a transaction too."""

    class Slow:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self._app(scope, receive, send)
            if scope["type"] == "http":
                await asyncio.sleep(0.05)
                happened.append("middleware")

    app.add_middleware(Slow)

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(note, "task")
        return "ok"

    with TestClient(app) as client:
        client.get("/")
        wait_until(lambda: "task" in happened)
    assert happened == ["middleware", "task"]


def test_a_task_runs_after_the_functions_that_are_not_durable(
    app: FastAPI, client: TestClient, note: Task[[str], None], happened: list[str]
) -> None:
    """They belong to the response; the durable ones to what comes after it, in whatever order they were added."""

    async def in_memory() -> None:
        await asyncio.sleep(0.05)
        happened.append("in memory")

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(note, "durable")
        background_tasks.add_task(in_memory)
        return "ok"

    client.get("/")
    wait_until(lambda: "durable" in happened)
    assert happened == ["in memory", "durable"]


# Everywhere


def test_every_level_may_add_tasks_and_all_of_them_are_stored_together(
    tasks: Afterward, note: Task[[str], None], happened: list[str], database: Path, app: FastAPI
) -> None:
    """The app's and the router's dependencies, those of the path operation and their own, and the path operation."""

    def of_the_app(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "app dependency")

    async def of_the_router(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "router dependency")

    async def of_the_decorator(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "decorator dependency")

    def sub_dependency(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(note, "sub-dependency")
        return "value"

    def dependency(background_tasks: BackgroundTasks, value: Annotated[str, Depends(sub_dependency)]) -> str:
        background_tasks.add_task(note, "dependency")
        return value

    async def with_yield(background_tasks: BackgroundTasks) -> AsyncIterator[str]:
        background_tasks.add_task(note, "before yield")
        yield "value"
        background_tasks.add_task(note, "after yield")

    class AsClass:
        def __init__(self, background_tasks: BackgroundTasks) -> None:
            background_tasks.add_task(note, "class")

    class AsObject:
        def __call__(self, background_tasks: BackgroundTasks) -> None:
            background_tasks.add_task(note, "object")

    router = APIRouter(prefix="/shop", dependencies=[Depends(of_the_router)])

    @router.get("/", dependencies=[Depends(of_the_decorator)])
    def endpoint(
        background_tasks: BackgroundTasks,
        value: Annotated[str, Depends(dependency)],
        other: Annotated[str, Depends(with_yield)],
        class_: Annotated[AsClass, Depends()],
        object_: Annotated[None, Depends(AsObject())],
    ) -> str:
        background_tasks.add_task(note, "path operation")
        return value + other

    whole = FastAPI(dependencies=[Depends(of_the_app)])
    whole.dependency_overrides = app.dependency_overrides
    whole.include_router(router, prefix="/v1")
    tasks.install(whole)

    watching = Watching(whole, "http.response.start", lambda: len(jobs_on_disk(database)))
    everything = {
        "app dependency", "router dependency", "decorator dependency", "sub-dependency", "dependency", "before yield",
        "class", "object", "path operation",
    }  # fmt: skip
    with TestClient(watching) as client:
        assert client.get("/v1/shop/").json() == "valuevalue"
        assert watching.seen == [len(everything)]
        wait_until(lambda: len(happened) == len(everything) + 1)
    assert set(happened) == everything | {"after yield"}


@pytest.mark.parametrize("endpoint_is", ["def", "async def"])
@pytest.mark.parametrize("task_is", ["def", "async def"])
def test_def_and_async_def_may_be_mixed(
    *, app: FastAPI, client: TestClient, tasks: Afterward, happened: list[str], endpoint_is: str, task_is: str
) -> None:
    """A `def` task runs in a thread, not in the event loop; an `async def` task in the loop."""

    def in_loop() -> bool:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return False
        return True

    @tasks.task
    def blocking() -> None:
        happened.append(f"in loop: {in_loop()}")

    @tasks.task
    async def waiting() -> None:
        happened.append(f"in loop: {in_loop()}")

    def add(background_tasks: BackgroundTasks) -> None:
        if task_is == "def":
            background_tasks.add_task(blocking)
        else:
            background_tasks.add_task(waiting)

    if endpoint_is == "def":

        @app.get("/")
        def endpoint(background_tasks: BackgroundTasks) -> None:
            add(background_tasks)

    else:

        @app.get("/")
        async def async_endpoint(background_tasks: BackgroundTasks) -> None:
            add(background_tasks)

    assert client.get("/").status_code == 200
    wait_until(lambda: happened == [f"in loop: {task_is == 'async def'}"])


def test_the_parameter_may_have_a_default(
    app: FastAPI, client: TestClient, note: Task[[str], None], happened: list[str]
) -> None:
    """`= None`, as people write it to have it after parameters with a default: it is given all the same."""

    @app.get("/")
    async def endpoint(q: str = "", background_tasks: BackgroundTasks = None) -> None:  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]
        background_tasks.add_task(note, q)

    assert client.get("/?q=found").status_code == 200
    wait_until(lambda: happened == ["found"])


def test_a_dependency_that_is_asked_for_twice_adds_its_task_once_as_its_cache_says(
    app: FastAPI, client: TestClient, note: Task[[str], None], stored: Stored
) -> None:
    """And one with `use_cache=False` adds it each time."""

    def dependency(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "task")

    @app.get("/cached")
    def cached(first: Annotated[None, Depends(dependency)], second: Annotated[None, Depends(dependency)]) -> None:
        return

    @app.get("/not-cached")
    def not_cached(
        first: Annotated[None, Depends(dependency)], second: Annotated[None, Depends(dependency, use_cache=False)]
    ) -> None:
        return

    client.get("/cached")
    assert len(stored()) == 1
    client.get("/not-cached")
    assert len(stored()) == 3


def test_two_security_scopes_share_one_batch(
    app: FastAPI, client: TestClient, note: Task[[str], None], stored: Stored, happened: list[str]
) -> None:
    """FastAPI may make the container once for each set of scopes: what is added to any of them is stored, once."""

    def first(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "first")

    def second(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "second")

    @app.get("/")
    def endpoint(
        background_tasks: BackgroundTasks,
        a: Annotated[None, Security(first, scopes=["read"])],
        b: Annotated[None, Security(second, scopes=["write"])],
    ) -> None:
        background_tasks.add_task(note, "endpoint")
        background_tasks.add_task(happened.append, "in memory")

    client.get("/")
    assert sorted(job.arguments for job in stored()) == [
        '{"what":"endpoint"}', '{"what":"first"}', '{"what":"second"}'
    ]  # fmt: skip
    wait_until(lambda: sorted(happened) == ["endpoint", "first", "in memory", "second"])


def test_mounted_apps_and_included_routers_need_nothing_of_their_own(
    app: FastAPI, client: TestClient, note: Task[[str], None], happened: list[str]
) -> None:
    """What is installed on the app serves whatever is mounted in it."""

    async def endpoint(name: str, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, name)

    inner, innermost, router = FastAPI(), FastAPI(), APIRouter()
    inner.dependency_overrides = innermost.dependency_overrides = app.dependency_overrides
    inner.get("/{name}")(endpoint)
    innermost.get("/{name}")(endpoint)
    router.get("/included/{name}")(endpoint)
    inner.mount("/innermost", innermost)
    app.mount("/inner", inner)
    app.include_router(router)

    assert client.get("/inner/mounted").status_code == 200
    assert client.get("/inner/innermost/deeper").status_code == 200
    assert client.get("/included/included").status_code == 200
    wait_until(lambda: sorted(happened) == ["deeper", "included", "mounted"])


def test_an_app_that_is_installed_on_and_mounted_in_one_that_is_too_stores_once(
    *, app: FastAPI, client: TestClient, tasks: Afterward, note: Task[[str], None], stored: Stored, happened: list[str]
) -> None:
    """The outermost call is the request: the task waits for its end, not for that of the mounted app."""
    inner = FastAPI()
    inner.dependency_overrides = app.dependency_overrides
    tasks.install(inner)

    @inner.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "task")

    app.mount("/inner", inner)

    assert client.get("/inner/").status_code == 200
    wait_until(lambda: happened == ["task"])
    assert len(stored()) == 1


def test_the_schema_of_the_app_does_not_change(app: FastAPI, note: Task[[str], None]) -> None:
    """Nothing of the container shows in OpenAPI."""

    @app.get("/", name="endpoint", operation_id="endpoint")
    async def with_tasks(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "task")

    bare = FastAPI()

    @bare.get("/", name="endpoint", operation_id="endpoint")
    async def without() -> None:
        return

    assert app.openapi() == bare.openapi()


# From other threads, and too late


def test_tasks_may_be_added_from_other_threads(
    app: FastAPI, client: TestClient, note: Task[[str], None], stored: Stored
) -> None:
    """All of what was added before the endpoint returned is stored."""

    @app.get("/")
    def endpoint(background_tasks: BackgroundTasks) -> None:
        def add() -> None:
            for _ in range(50):
                background_tasks.add_task(note, "task")

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert client.get("/").status_code == 200
    assert len(stored()) == 200


def test_a_task_added_when_the_request_is_over_is_refused(
    app: FastAPI, client: TestClient, note: Task[[str], None], stored: Stored
) -> None:
    """Who keeps the container for later is told so, and what to use there."""
    kept: list[BackgroundTasks] = []

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        kept.append(background_tasks)

    client.get("/")
    with pytest.raises(NotInARequest, match=r"after its request was over; use `await note\.enqueue\(…\)` there"):
        kept[0].add_task(note, "late")
    assert stored() == []


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads take turns after every few instructions, so that they meet in all places."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty_threads")
def test_while_a_request_is_answered_and_ends_a_task_is_either_stored_or_refused(
    app: FastAPI, client: TestClient, tasks: Afterward, stored: Stored
) -> None:
    """Whoever goes on adding from other threads is given no handle for what is not kept."""

    @tasks.task
    def nothing() -> None:
        return

    handles: list[str] = []
    threads: list[threading.Thread] = []

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        begun = threading.Event()

        def add() -> None:
            for _ in range(500):
                try:
                    handles.append(background_tasks.add_task(nothing).id)
                except NotInARequest:
                    return
                begun.set()

        threads[:] = [threading.Thread(target=add) for _ in range(3)]
        for thread in threads:
            thread.start()
        begun.wait()

    for _ in range(20):
        assert client.get("/").status_code == 200
        for thread in threads:
            thread.join()
    assert len(handles) > 20
    assert {job.id for job in stored()} == set(handles)
