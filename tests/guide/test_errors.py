"""A request that ends in an exception takes its tasks back; one that returns, whatever it returns, keeps them.

Every test here runs twice: with the dependency that this FastAPI is served by, and with the one made by public means.
"""

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

from afterward import Afterward, BackgroundTasks, Task
from afterward.background import provide, provide_with_yield
from tests.support.disk import Row
from tests.support.waiting import wait_until

pytestmark = pytest.mark.parametrize("app", [provide, provide_with_yield], indirect=True)

Stored = Callable[[], list[Row]]


class Broken(Exception):
    """What goes wrong."""


class Answer(BaseModel):
    """A response model."""

    number: int


@pytest.fixture
def note(tasks: Afterward, happened: list[str]) -> Task[[str], None]:
    """A durable task that writes down that it has run."""

    @tasks.task
    def note(what: str) -> None:
        happened.append(what)

    return note


@pytest.fixture
def complain(tasks: Afterward, happened: list[str]) -> Task[[str], None]:
    """A durable task that is kept though its request fails: its declaration says so."""

    @tasks.task(run_on_error=True)
    def complain(what: str) -> None:
        happened.append(what)

    return complain


async def with_nothing(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """A middleware that does nothing; that it is there changes where exceptions go."""
    return await call_next(request)


@pytest.fixture(params=["alone", "under BaseHTTPMiddleware", "with handlers"])
def surroundings(request: pytest.FixtureRequest, app: FastAPI) -> None:
    """What may stand around an endpoint."""
    if request.param == "under BaseHTTPMiddleware":
        app.add_middleware(BaseHTTPMiddleware, dispatch=with_nothing)
    elif request.param == "with handlers":

        async def handle(request: Request, error: Exception) -> Response:
            return PlainTextResponse("handled", 500)

        def handle_in_thread(request: Request, error: Exception) -> Response:
            return PlainTextResponse("handled", 418)

        app.add_exception_handler(Exception, handle)
        app.add_exception_handler(HTTPException, handle_in_thread)
        app.add_exception_handler(RequestValidationError, handle_in_thread)


def fails_with_an_http_exception() -> Any:
    raise HTTPException(409)


def fails_with_an_unhandled_exception() -> Any:
    raise Broken


def returns_what_does_not_fit_the_response_model() -> Any:
    return {"number": "not a number"}


FAILURES = [
    fails_with_an_http_exception,
    fails_with_an_unhandled_exception,
    returns_what_does_not_fit_the_response_model,
]


@pytest.mark.usefixtures("surroundings")
@pytest.mark.parametrize("fail", FAILURES)
def test_an_exception_before_the_response_discards_what_was_added(
    app: FastAPI, note: Task[[str], None], stored: Stored, fail: Callable[[], Any]
) -> None:
    """In the endpoint or in a dependency: nothing of the request is stored, and nothing runs."""

    def dependency(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "dependency")

    @app.get("/", response_model=Answer, dependencies=[Depends(dependency)])
    async def endpoint(background_tasks: BackgroundTasks) -> Any:
        background_tasks.add_task(note, "endpoint")
        return fail()

    @app.get("/def", response_model=Answer, dependencies=[Depends(dependency)])
    def def_endpoint(background_tasks: BackgroundTasks) -> Any:
        background_tasks.add_task(note, "endpoint")
        return fail()

    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/").is_error
        assert client.get("/def").is_error
    assert stored() == []


def test_an_exception_discards_though_its_handler_streams_the_answer(
    app: FastAPI, note: Task[[str], None], complain: Task[[str], None], stored: Stored
) -> None:
    """The answer is then sent by another asyncio task than the one in which the exception is handled."""

    @app.exception_handler(Broken)
    async def handle(request: Request, error: Exception) -> Response:
        return StreamingResponse(iter(["sorry"]), 500)

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "never")
        background_tasks.add_task(complain, "kept")
        raise Broken

    with TestClient(app) as client:
        assert client.get("/").text == "sorry"
    assert [job.arguments for job in stored()] == ['{"what":"kept"}']


@pytest.mark.usefixtures("surroundings")
def test_a_request_that_does_not_validate_discards_what_its_dependencies_added(
    app: FastAPI, note: Task[[str], None], stored: Stored
) -> None:
    """The dependency ran, and then a parameter of the endpoint turned out to be missing."""

    def dependency(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "dependency")

    @app.get("/", dependencies=[Depends(dependency)])
    async def endpoint(number: int) -> None:
        return

    with TestClient(app) as client:
        assert client.get("/").is_error
    assert stored() == []


@pytest.mark.usefixtures("surroundings")
def test_an_exception_in_a_dependency_discards(app: FastAPI, note: Task[[str], None], stored: Stored) -> None:
    """Also one after `yield`, where that comes before the response (`scope="function"`)."""

    def add(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "task")

    def refuse() -> None:
        raise HTTPException(403)

    def commit() -> Iterator[None]:
        yield
        raise Broken("the commit failed")

    @app.get("/before", dependencies=[Depends(add), Depends(refuse)])
    async def before() -> None:
        return

    @app.get("/before-response", dependencies=[Depends(add)])
    async def before_response(_: Annotated[None, Depends(commit, scope="function")]) -> None:
        return

    with TestClient(app, raise_server_exceptions=False) as client:
        for path in ("before", "before-response"):
            assert client.get(f"/{path}").is_error, path
    assert stored() == []


@pytest.mark.usefixtures("surroundings")
def test_an_exception_that_a_dependency_handles_discards(app: FastAPI, note: Task[[str], None], stored: Stored) -> None:
    """It raises another in its place, or none; inside of the dependency that adds, or outside."""

    def add(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "task")

    async def translate() -> AsyncIterator[None]:
        try:
            yield
        except Broken as error:
            raise HTTPException(409) from error

    async def swallow() -> AsyncIterator[None]:
        try:
            yield
        except Broken:
            return

    async def fail() -> None:
        raise Broken

    for number, dependencies in enumerate(itertools.permutations([Depends(add), Depends(translate), Depends(swallow)])):
        app.get(f"/{number}", dependencies=dependencies)(fail)

    with TestClient(app, raise_server_exceptions=False) as client:
        for path in range(6):
            assert client.get(f"/{path}").is_error, path
    assert stored() == []


def test_an_error_in_one_of_two_security_scopes_discards_what_both_added(
    app: FastAPI, client: TestClient, note: Task[[str], None], stored: Stored
) -> None:
    """FastAPI may have made two containers; the request is one."""

    def first(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "first")

    def second(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "second")
        raise HTTPException(403)

    @app.get("/")
    def endpoint(
        background_tasks: BackgroundTasks,
        a: Annotated[None, Security(first, scopes=["read"])],
        b: Annotated[None, Security(second, scopes=["write"])],
    ) -> None:
        return

    assert client.get("/").status_code == 403
    assert stored() == []


@pytest.mark.usefixtures("surroundings")
@pytest.mark.parametrize("fail", FAILURES)
def test_run_on_error_keeps_a_task_though_its_request_fails(
    *,
    app: FastAPI,
    note: Task[[str], None],
    complain: Task[[str], None],
    stored: Stored,
    happened: list[str],
    fail: Callable[[], Any],
) -> None:
    """Said in the declaration, or for one call; and unsaid for one call. It is stored before the error is answered."""

    @app.get("/", response_model=Answer)
    async def endpoint(background_tasks: BackgroundTasks) -> Any:
        background_tasks.add_task(note, "never")
        background_tasks.add_task(complain, "declared")
        background_tasks.add_task(note.options(run_on_error=True), "for this call")
        background_tasks.add_task(complain.options(run_on_error=False), "never")
        return fail()

    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/").is_error
        assert len(stored()) == 2
        wait_until(lambda: sorted(happened) == ["declared", "for this call"])


def test_run_on_error_keeps_a_task_of_a_request_that_does_not_validate(
    app: FastAPI, client: TestClient, complain: Task[[str], None], happened: list[str]
) -> None:
    """A dependency may report what the request was refused for."""

    def dependency(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(complain, "reported")

    @app.get("/", dependencies=[Depends(dependency)])
    async def endpoint(number: int) -> None:
        return

    assert client.get("/").status_code == 422
    wait_until(lambda: happened == ["reported"])


def test_a_dependency_may_add_a_task_because_of_the_error(
    app: FastAPI, client: TestClient, complain: Task[[str], None], note: Task[[str], None], happened: list[str]
) -> None:
    """In its `except`: kept if the task is to run on errors."""

    async def report(background_tasks: BackgroundTasks) -> AsyncIterator[None]:
        try:
            yield
        except Broken:
            background_tasks.add_task(note, "never")
            background_tasks.add_task(complain, "reported")
            raise

    @app.get("/", dependencies=[Depends(report)])
    async def endpoint() -> None:
        raise Broken

    assert client.get("/").status_code == 500
    wait_until(lambda: happened == ["reported"])


@pytest.mark.usefixtures("surroundings")
@pytest.mark.parametrize("status", [400, 404, 422, 500, 503])
def test_a_returned_error_keeps_its_tasks(
    app: FastAPI, note: Task[[str], None], happened: list[str], status: int
) -> None:
    """It is an answer as any other, as it is with FastAPI's own."""

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> Response:
        background_tasks.add_task(note, "kept")
        return JSONResponse({}, status)

    with TestClient(app) as client:
        assert client.get("/").status_code == status
        wait_until(lambda: happened == ["kept"])


def test_an_exception_after_the_response_discards_nothing_that_was_stored(
    app: FastAPI, client: TestClient, note: Task[[str], None], happened: list[str]
) -> None:
    """The client has read its 2xx: what was promised is done, though a commit, or a function in memory, fails."""

    async def commit() -> AsyncIterator[None]:
        yield
        raise Broken("the commit failed")

    def fail() -> None:
        raise Broken("in memory")

    @app.get("/commit", dependencies=[Depends(commit)])
    async def with_commit(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(note, "with commit")
        return "ok"

    @app.get("/in-memory")
    async def in_memory(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(fail)
        background_tasks.add_task(note, "with a failing sibling")
        return "ok"

    assert client.get("/commit").status_code == 200
    assert client.get("/in-memory").status_code == 200
    wait_until(lambda: sorted(happened) == ["with a failing sibling", "with commit"])


def test_a_failing_task_harms_none_of_the_others(
    *, app: FastAPI, client: TestClient, tasks: Afterward, note: Task[[str], None], happened: list[str], stored: Stored
) -> None:
    """Each durable task is a job of its own: its siblings run, and the connection does not learn of it."""

    @tasks.task(max_attempts=1)
    async def fail() -> None:
        happened.append("fails")
        raise Broken

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(fail)
        background_tasks.add_task(note, "sibling")
        background_tasks.add_task(happened.append, "in memory")
        return "ok"

    assert client.get("/").status_code == 200
    wait_until(lambda: sorted(happened) == ["fails", "in memory", "sibling"])
    wait_until(lambda: sorted(job.status for job in stored()) == ["failed", "succeeded"])
