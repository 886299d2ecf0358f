"""A function that is not decorated behaves exactly as with `fastapi.BackgroundTasks`.

Each scenario is run with FastAPI's own class and with ours, and all that can be seen of it from outside must be the
same: the answer, the exception that reaches the server, what ran, in which order, in which kind of thread.
"""

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

import fastapi
import pytest
import starlette.background
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Response, WebSocket
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.routing import Route

import afterward
from afterward import Afterward
from tests.support.disk import jobs_on_disk
from tests.support.opening import opened


class Tasks(Protocol):
    """What both containers are to an endpoint."""

    @property
    def tasks(self) -> list[starlette.background.BackgroundTask]: ...

    def add_task(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any: ...


def give_stock(background_tasks: fastapi.BackgroundTasks) -> Tasks:
    """FastAPI's own."""
    return background_tasks


def give_ours(background_tasks: afterward.BackgroundTasks) -> Tasks:
    """Ours, in its place."""
    return background_tasks


@dataclass
class Stage:
    """Where a scenario is played: an app, a dependency that gives the container, the classes to make one by hand."""

    app: FastAPI
    give: Callable[..., Tasks]
    container: type[starlette.background.BackgroundTask]
    single: type[starlette.background.BackgroundTask]
    path: str = "/"
    events: list[Any] = field(default_factory=list[Any])

    def container_by_hand(self) -> Any:
        container: Any = self.container
        return container()


Scenario = Callable[[Stage], None]
SCENARIOS: list[Scenario] = []


def scenario(play: Scenario) -> Scenario:
    """Play it with both, and compare."""
    SCENARIOS.append(play)
    return play


def seen(stage: Stage) -> dict[str, Any]:
    """All that can be seen of one request."""
    answers: list[Any] = []
    for raises in (True, False):
        with TestClient(stage.app, raise_server_exceptions=raises) as client:
            try:
                response = client.get(stage.path)
                answers.append((response.status_code, dict(response.headers), response.text))
            except Exception as error:
                answers.append((type(error), str(error), type(error.__cause__)))
        stage.events.append("--")
    return {"answers": answers, "events": stage.events}


def with_stock() -> Stage:
    return Stage(FastAPI(), give_stock, fastapi.BackgroundTasks, starlette.background.BackgroundTask)


def with_ours() -> Stage:
    return Stage(FastAPI(), give_ours, afterward.BackgroundTasks, afterward.BackgroundTask)


@pytest.mark.parametrize("play", SCENARIOS, ids=lambda play: play.__name__)
@pytest.mark.parametrize("installed", [True, False], ids=["installed", "not installed"])
def test_it_is_as_with_stock(play: Scenario, installed: bool, tmp_path: Path) -> None:
    """Nothing tells the two apart, and nothing of it is stored."""
    stock, ours = with_stock(), with_ours()
    with opened(Afterward(f"sqlite:///{tmp_path}/jobs.db")) as tasks:
        if installed:
            tasks.install(ours.app)
        play(stock)
        play(ours)

        expected = seen(stock)
        assert expected["events"] != ["--", "--"]
        assert seen(ours) == expected
    assert jobs_on_disk(tmp_path / "jobs.db") == []


# What may be added


def place() -> str:
    """Where the calling code runs."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return "thread"
    return "loop"


class Shop:
    """Callables of all kinds."""

    def __init__(self, events: list[Any]) -> None:
        self._events = events

    def method(self, *args: Any, **kwargs: Any) -> None:
        self._events.append(("method", args, kwargs, place()))

    async def async_method(self, *args: Any, **kwargs: Any) -> None:
        self._events.append(("async method", args, kwargs, place()))

    @staticmethod
    def static(events: list[Any]) -> None:
        events.append(("static", place()))

    @classmethod
    async def of_class(cls, events: list[Any]) -> None:
        events.append(("class method", cls.__name__, place()))

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        self._events.append(("object", args, kwargs, place()))


class AsyncShop:
    """An object that is called like an `async def`."""

    def __init__(self, events: list[Any]) -> None:
        self._events = events

    async def __call__(self, *args: Any, **kwargs: Any) -> None:
        self._events.append(("async object", args, kwargs, place()))


@scenario
def callables_of_every_kind(stage: Stage) -> None:
    events, shop = stage.events, Shop(stage.events)

    def function(*args: Any, **kwargs: Any) -> None:
        events.append(("function", args, kwargs, place()))

    async def async_function(*args: Any, **kwargs: Any) -> None:
        events.append(("async function", args, kwargs, place()))

    def returns_coroutine() -> Any:
        events.append(("returns a coroutine", place()))
        return None

    @stage.app.get("/")
    async def endpoint(tasks: Annotated[Tasks, Depends(stage.give)]) -> int:
        add: Any = tasks.add_task
        returned = [
            add(function, 1, 2, x=3),
            add(async_function, 1, 2, x=3),
            add(shop.method, "a", b="c"),
            add(shop.async_method, "a", b="c"),
            add(Shop.static, events),
            add(Shop.of_class, events),
            add(shop, "called"),
            add(AsyncShop(events), "called"),
            add(lambda: events.append(("lambda", place()))),
            add(functools.partial(function, 1, x=2), 3, y=4),
            add(functools.partial(async_function, 1, x=2), 3, y=4),
            add(functools.partial(functools.partial(shop.async_method, 1), 2)),
            add(events.append, ("builtin",)),
            add(returns_coroutine),
            add(Shop, events),
            add(func=function, x=1),
        ]
        assert returned == [None] * len(returned)
        return len(tasks.tasks)


@scenario
def arguments_are_passed_as_they_are(stage: Stage) -> None:
    """By reference, seen as they are when the function runs, whether or not they could be stored."""
    changing: list[str] = []

    def look(what: list[str], lock: Any, nothing: None = None) -> None:
        stage.events.append((list(what), what is changing, type(lock).__name__, nothing))

    @stage.app.get("/")
    async def endpoint(tasks: Annotated[Tasks, Depends(stage.give)]) -> None:
        tasks.add_task(look, changing, threading.Lock(), nothing=None)
        changing.append("after add_task")


@scenario
def keywords_of_any_name(stage: Stage) -> None:
    def function(**kwargs: Any) -> None:
        stage.events.append(kwargs)

    @stage.app.get("/")
    async def endpoint(tasks: Annotated[Tasks, Depends(stage.give)]) -> None:
        tasks.add_task(function, delay=1, queue=2, task=3, args=4, kwargs=5, name=6, origin=7, job=8, unique=9)


@scenario
def wrong_arguments_fail_when_it_runs(stage: Stage) -> None:
    @stage.app.get("/")
    async def endpoint(tasks: Annotated[Tasks, Depends(stage.give)]) -> str:
        tasks.add_task(stage.events.append, "runs")
        not_fitting: Any = stage.events.append
        tasks.add_task(not_fitting, 1, 2, 3)
        tasks.add_task(stage.events.append, "skipped")
        return "ok"


@scenario
def what_cannot_be_called_fails_when_it_runs(stage: Stage) -> None:
    @stage.app.get("/")
    async def endpoint(tasks: Annotated[Tasks, Depends(stage.give)]) -> str:
        not_callable: Any = None
        tasks.add_task(not_callable)
        stage.events.append("added")
        return "ok"


@scenario
def the_list_of_tasks_may_be_read_and_changed(stage: Stage) -> None:
    @stage.app.get("/")
    async def endpoint(tasks: Annotated[Tasks, Depends(stage.give)]) -> None:
        tasks.add_task(stage.events.append, "removed")
        tasks.add_task(stage.events.append, "stays")
        [_, stays] = tasks.tasks
        stage.events.append((stays.args, stays.kwargs, stays.is_async))
        tasks.tasks.pop(0)
        tasks.tasks.append(stage.single(stage.events.append, "appended"))


# Order, failures, siblings


@scenario
def they_run_in_the_order_they_were_added(stage: Stage) -> None:
    """One after the other, the container being the same at every level."""

    async def slowly(what: str) -> None:
        stage.events.append(f"{what} begins")
        await asyncio.sleep(0.01)
        stage.events.append(f"{what} ends")

    def of_the_app(tasks: Annotated[Tasks, Depends(stage.give)]) -> None:
        tasks.add_task(slowly, "app")

    def sub(tasks: Annotated[Tasks, Depends(stage.give)]) -> None:
        tasks.add_task(slowly, "sub")

    async def with_yield(
        tasks: Annotated[Tasks, Depends(stage.give)], _: Annotated[None, Depends(sub)]
    ) -> AsyncIterator[None]:
        tasks.add_task(slowly, "dependency")
        yield
        stage.events.append("dependency exits")
        tasks.add_task(slowly, "never: too late")

    router = APIRouter(dependencies=[Depends(of_the_app)])

    @router.get("/")
    def endpoint(tasks: Annotated[Tasks, Depends(stage.give)], _: Annotated[None, Depends(with_yield)]) -> None:
        tasks.add_task(slowly, "endpoint")

    stage.app.include_router(router)


class Broken(Exception):
    """A failure of a task."""


def failing(error: BaseException, is_async: bool) -> Scenario:
    def play(stage: Stage) -> None:
        def fail() -> None:
            stage.events.append("fails")
            raise error

        async def fail_async() -> None:
            fail()

        async def with_yield() -> AsyncIterator[None]:
            try:
                yield
            except BaseException as raised:
                stage.events.append(f"dependency sees {raised!r}")
                raise
            finally:
                stage.events.append("dependency exits")

        @stage.app.get("/", dependencies=[Depends(with_yield)])
        async def endpoint(tasks: Annotated[Tasks, Depends(stage.give)]) -> str:
            tasks.add_task(stage.events.append, "first")
            tasks.add_task(fail_async if is_async else fail)
            tasks.add_task(stage.events.append, "skipped")
            return "ok"

    play.__name__ = f"{'async_' if is_async else ''}function_raises_{type(error).__name__}"
    return play


for raised in (Broken("no"), HTTPException(404, "not a response"), ExceptionGroup("two", [Broken("a"), Broken("b")])):
    for is_async in (False, True):
        scenario(failing(raised, is_async))


@scenario
def a_task_raises_what_the_app_handles(stage: Stage) -> None:
    """The response has gone: the handler is not asked."""

    @stage.app.exception_handler(Broken)
    async def handle(request: Request, error: Exception) -> Response:
        stage.events.append("handled")
        return PlainTextResponse("handled", 400)

    async def fail() -> None:
        stage.events.append("fails")
        raise Broken

    @stage.app.get("/")
    async def endpoint(tasks: Annotated[Tasks, Depends(stage.give)]) -> str:
        tasks.add_task(fail)
        return "ok"


# The request's end


@scenario
def they_run_before_dependencies_exit(stage: Stage) -> None:
    async def with_yield() -> AsyncIterator[None]:
        yield
        stage.events.append("dependency exits")

    async def task() -> None:
        await asyncio.sleep(0.01)
        stage.events.append("task")

    @stage.app.get("/", dependencies=[Depends(with_yield)])
    async def endpoint(tasks: Annotated[Tasks, Depends(stage.give)]) -> None:
        tasks.add_task(task)


def discarding(name: str, end: Callable[[], Any], **options: Any) -> Scenario:
    def play(stage: Stage) -> None:
        @stage.app.get("/", **options)
        def endpoint(tasks: Annotated[Tasks, Depends(stage.give)]) -> Any:
            stage.events.append("added")
            tasks.add_task(stage.events.append, "task")
            return end()

    play.__name__ = name
    return play


class Answer(BaseModel):
    """A response model."""

    number: int


def raise_(error: Exception) -> Any:
    raise error


scenario(discarding("an_http_exception", lambda: raise_(HTTPException(404))))
scenario(discarding("an_unhandled_exception", lambda: raise_(Broken("no"))))
scenario(discarding("a_response_that_does_not_fit_its_model", lambda: {"number": "x"}, response_model=Answer))
scenario(discarding("a_returned_404", lambda: JSONResponse({}, 404)))
scenario(discarding("a_returned_500", lambda: PlainTextResponse("broken", 500)))
scenario(discarding("no_content", lambda: Response(status_code=204)))
scenario(discarding("a_stream", lambda: StreamingResponse(iter(["a", "b"]))))
scenario(
    discarding(
        "a_response_with_a_background_of_its_own",
        lambda: Response(background=starlette.background.BackgroundTask(lambda: None)),
    )
)


@scenario
def a_request_that_does_not_validate(stage: Stage) -> None:
    def dependency(tasks: Annotated[Tasks, Depends(stage.give)]) -> None:
        stage.events.append("added")
        tasks.add_task(stage.events.append, "task")

    @stage.app.get("/", dependencies=[Depends(dependency)])
    def endpoint(number: int) -> None:
        return


@scenario
def a_dependency_that_swallows_the_error(stage: Stage) -> None:
    async def swallow() -> AsyncIterator[None]:
        try:
            yield
        except Broken:
            stage.events.append("swallowed")

    @stage.app.get("/", dependencies=[Depends(swallow)])
    def endpoint(tasks: Annotated[Tasks, Depends(stage.give)]) -> None:
        tasks.add_task(stage.events.append, "task")
        raise Broken


@scenario
def a_dependency_that_fails_after_the_response(stage: Stage) -> None:
    async def commit() -> AsyncIterator[None]:
        yield
        stage.events.append("commit fails")
        raise Broken("commit")

    @stage.app.get("/", dependencies=[Depends(commit)])
    def endpoint(tasks: Annotated[Tasks, Depends(stage.give)]) -> str:
        tasks.add_task(stage.events.append, "task")
        return "ok"


@scenario
def under_a_middleware(stage: Stage) -> None:
    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        stage.events.append("middleware")
        response.headers["x-seen"] = "yes"
        return response

    stage.app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)

    @stage.app.get("/")
    async def endpoint(tasks: Annotated[Tasks, Depends(stage.give)]) -> str:
        tasks.add_task(stage.events.append, "task")
        return "ok"


@scenario
def context_variables_of_the_request(stage: Stage) -> None:
    variable = ContextVar[str]("variable", default="unset")

    async def look(where: str) -> None:
        stage.events.append((where, variable.get()))

    def look_in_thread() -> None:
        stage.events.append(("thread", variable.get()))

    @stage.app.get("/")
    async def endpoint(tasks: Annotated[Tasks, Depends(stage.give)]) -> None:
        variable.set("set in the endpoint")
        tasks.add_task(look, "loop")
        tasks.add_task(look_in_thread)


@scenario
def in_a_websocket_they_never_run(stage: Stage) -> None:
    @stage.app.websocket("/ws")
    async def endpoint(websocket: WebSocket, tasks: Annotated[Tasks, Depends(stage.give)]) -> None:
        tasks.add_task(stage.events.append, "never")
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.close()

    @stage.app.get("/")
    def connect() -> str:
        with TestClient(stage.app).websocket_connect("/ws") as session:
            stage.events.append(session.receive_text())
        return "ok"


# Made by hand


@scenario
def given_to_a_response_by_hand(stage: Stage) -> None:
    @stage.app.get("/")
    async def endpoint(tasks: Annotated[Tasks, Depends(stage.give)]) -> Response:
        tasks.add_task(stage.events.append, "injected: dropped")
        by_hand = stage.container_by_hand()
        by_hand.add_task(stage.events.append, "first")
        by_hand.add_task(stage.events.append, "second")
        return Response("ok", background=by_hand)


@scenario
def the_injected_one_given_to_a_response(stage: Stage) -> None:
    @stage.app.get("/")
    async def endpoint(tasks: Annotated[Any, Depends(stage.give)]) -> Response:
        response = Response("ok", background=tasks)
        tasks.add_task(stage.events.append, "task")
        return response


@scenario
def in_plain_starlette(stage: Stage) -> None:
    async def fail() -> None:
        raise Broken("no")

    def single(request: Request) -> Response:
        return PlainTextResponse("ok", background=stage.single(stage.events.append, "single"))

    async def several(request: Request) -> Response:
        singles: Sequence[Any] = [stage.single(stage.events.append, what) for what in ("one", "two")]
        container: Any = stage.container
        tasks = container(singles)
        tasks.add_task(fail)
        tasks.add_task(stage.events.append, "skipped")
        return PlainTextResponse("ok", background=tasks)

    stage.app.mount("/starlette", Starlette(routes=[Route("/single", single), Route("/several", several)]))

    @stage.app.get("/")
    def both() -> list[Any]:
        client = TestClient(stage.app, raise_server_exceptions=False)
        return [client.get(f"/starlette/{path}").text for path in ("single", "several")]


def test_a_container_outside_of_a_request_runs_its_functions_when_it_is_called(happened: list[str]) -> None:
    """As FastAPI's does: a plain list of calls."""
    tasks = afterward.BackgroundTasks([afterward.BackgroundTask(happened.append, "given")])
    tasks.add_task(happened.append, "added")
    asyncio.run(tasks())
    assert happened == ["given", "added"]
