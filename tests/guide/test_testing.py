"""Testing an application: `afterward.testing`, and what it promises to tests."""

import asyncio
import contextvars
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import ANY

import httpx
import pytest
import sqlalchemy
from fastapi import Depends, FastAPI, UploadFile, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from pydantic import BaseModel
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from afterward import (
    Afterward,
    ArgumentError,
    BackgroundTask,
    BackgroundTasks,
    ConfigurationError,
    EndedJob,
    JobFailed,
    Retry,
    Status,
    Task,
    current_job,
    finish_sync,
)
from afterward.testing import AttemptFailed, Bench
from tests.support import heavy
from tests.support.opening import opened
from tests.support.waiting import wait_until

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)


@pytest.fixture
def bench(tasks: Afterward) -> Iterator[Bench]:
    """A bench for `tasks`."""
    with Bench(tasks, now=NOON) as bench:
        yield bench


@pytest.fixture
def note(tasks: Afterward, happened: list[str]) -> Task[[str], Any]:
    """A durable task that writes down that it has run."""

    @tasks.task
    async def note(what: str) -> None:
        happened.append(what)

    return note


@pytest.fixture
def noting(app: FastAPI, note: Task[[str], Any]) -> FastAPI:
    """An app that notes what it is told to."""

    @app.post("/note/{what}", status_code=202)
    async def endpoint(what: str, background_tasks: BackgroundTasks) -> dict[str, str]:
        return {"job": background_tasks.add_task(note, what).id}

    return app


# When a call returns, its tasks have run.


def test_a_task_for_a_child_process_runs_in_the_process_of_the_test(tasks: Afterward, bench: Bench) -> None:
    """What a test has replaced there, a child would not see."""
    where = tasks.task(name=heavy.where.name, executor="process", memory=1)(heavy.where.function)
    handle = where.enqueue_sync()
    assert handle.result_sync() == os.getpid()


def test_when_the_clients_call_returns_its_tasks_have_run(bench: Bench, noting: FastAPI, happened: list[str]) -> None:
    """Without the application's lifespan, where each request has an event loop of its own."""
    client = TestClient(noting)
    for what in ("first", "second"):
        response = client.post(f"/note/{what}")
        assert response.status_code == 202
        assert happened[-1] == what
        assert bench.jobs[-1].id == response.json()["job"]
    assert [job.status for job in bench.jobs] == [Status.succeeded] * 2


def test_also_while_the_lifespan_lasts(bench: Bench, noting: FastAPI, happened: list[str]) -> None:
    """No worker runs beside the test: nothing happens but by its calls."""
    with TestClient(noting) as client:
        client.post("/note/it")
        assert happened == ["it"]
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("afterward-task")]
    assert [job.status for job in bench.jobs] == [Status.succeeded]


@pytest.mark.anyio
async def test_with_an_asynchronous_client(tasks: Afterward, noting: FastAPI, happened: list[str]) -> None:
    """And in an asynchronous block; several requests at once, too."""
    async with (
        Bench(tasks) as bench,
        httpx.AsyncClient(transport=httpx.ASGITransport(noting), base_url="http://test") as client,
    ):
        await client.post("/note/0")
        assert happened == ["0"]
        await asyncio.gather(*(client.post(f"/note/{number}") for number in range(1, 10)))
        assert sorted(happened) == [str(number) for number in range(10)]
        assert {job.status for job in bench.jobs} == {Status.succeeded}


def test_tasks_run_in_the_order_they_were_added(
    bench: Bench, tasks: Afterward, app: FastAPI, note: Task[[str], Any], happened: list[str]
) -> None:
    """One after the other, `def` and `async def`; then what they have enqueued, until nothing is due."""

    @tasks.task
    def in_thread(what: str) -> None:
        note.enqueue_sync(f"by {what}")
        happened.append(what)

    @tasks.task
    async def in_loop(what: str) -> None:
        await note.enqueue(f"by {what}")
        happened.append(f"{what} begins")
        await asyncio.sleep(0)
        happened.append(f"{what} ends")

    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(in_loop, "1")
        background_tasks.add_task(in_thread, "2")
        background_tasks.add_task(in_loop, "3")

    TestClient(app).post("/")
    assert happened == ["1 begins", "1 ends", "2", "3 begins", "3 ends", "by 1", "by 2", "by 3"]


def test_tasks_run_after_the_dependencies_of_their_request(
    bench: Bench, app: FastAPI, note: Task[[str], Any], happened: list[str]
) -> None:
    """As in production: what the request's own transaction has written is there, whatever enqueued the task."""

    async def transaction() -> AsyncIterator[None]:
        yield
        happened.append("committed")

    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks, _: Annotated[None, Depends(transaction)]) -> None:
        await note.enqueue("enqueued")
        background_tasks.add_task(note, "added")

    @app.post("/enqueued")
    def enqueued(_: Annotated[None, Depends(transaction)]) -> None:
        note.enqueue_sync("alone")

    client = TestClient(app)
    client.post("/")
    client.post("/enqueued")
    assert happened == ["committed", "enqueued", "added", "committed", "alone"]


def test_what_is_discarded_in_production_is_discarded(
    bench: Bench, app: FastAPI, note: Task[[str], Any], happened: list[str]
) -> None:
    """An exception before the response starts."""

    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "discarded")
        background_tasks.add_task(note.options(run_on_error=True), "kept")
        raise KeyError("no such thing")

    with pytest.raises(KeyError, match="no such thing"):
        TestClient(app).post("/")
    assert happened == ["kept"]
    bench.assert_not_enqueued(note, "discarded")


def test_a_streamed_response(bench: Bench, app: FastAPI, note: Task[[str], Any], happened: list[str]) -> None:
    """Its tasks run when it has ended."""

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield "first"
            background_tasks.add_task(note, "added while it streams")
            yield "last"
            happened.append("streamed")

        return StreamingResponse(body())

    assert TestClient(app).get("/").text == "firstlast"
    assert happened == ["streamed", "added while it streams"]


@pytest.mark.parametrize("has_lifespan", [False, True])
def test_websockets(
    bench: Bench, app: FastAPI, note: Task[[str], Any], happened: list[str], has_lifespan: bool
) -> None:
    """Once the client has the next message, and at the latest when it has closed, what was added before has run."""

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, background_tasks: BackgroundTasks) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            background_tasks.add_task(note, text)
            if text != "bye":
                await websocket.send_text("noted")

    def converse(client: TestClient) -> None:
        with client.websocket_connect("/") as websocket:
            websocket.send_text("hello")
            assert websocket.receive_text() == "noted"
            assert happened == ["hello"]
            websocket.send_text("bye")

    if has_lifespan:
        with TestClient(app) as client:
            converse(client)
    else:
        converse(TestClient(app))
    wait_until(lambda: happened == ["hello", "bye"])


def test_plain_starlette(bench: Bench, tasks: Afterward, note: Task[[str], Any], happened: list[str]) -> None:
    """A response's own `background`, without any injection."""

    async def endpoint(_: Request) -> JSONResponse:
        return JSONResponse({}, background=BackgroundTask(note, "by hand"))

    app = Starlette(routes=[Route("/", endpoint)])
    tasks.install(app)
    TestClient(app).get("/")
    assert happened == ["by hand"]


def test_enqueue_without_a_request(bench: Bench, tasks: Afterward, note: Task[[str], Any], happened: list[str]) -> None:
    """When it returns, the task has run, and what that has enqueued."""
    asyncio.run(note.enqueue("async"))
    assert happened == ["async"]
    note.enqueue_sync("sync")
    assert happened == ["async", "sync"]
    tasks.enqueue_many_sync(note.prepare(str(number)) for number in range(3))
    asyncio.run(tasks.enqueue_many([note.prepare("3"), note.prepare("4")]))
    assert happened == ["async", "sync", "0", "1", "2", "3", "4"]


@pytest.mark.anyio
async def test_enqueue_sync_where_an_event_loop_runs_waits_for_a_drain(
    bench: Bench, note: Task[[str], Any], happened: list[str]
) -> None:
    """It blocks that loop, on which the task might have to run."""
    note.enqueue_sync("it")
    assert happened == []
    [job] = await bench.drain()
    assert (job.status, happened) == (Status.succeeded, ["it"])


def test_a_task_may_make_requests_of_the_application(
    bench: Bench, tasks: Afterward, noting: FastAPI, happened: list[str]
) -> None:
    """What those add runs after it."""

    @tasks.task
    async def ask() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(noting), base_url="http://test") as client:
            await client.post("/note/asked")
        happened.append("asking")

    @tasks.task
    def ask_in_thread() -> None:
        TestClient(noting).post("/note/asked in a thread")
        happened.append("asking in a thread")

    ask.enqueue_sync()
    ask_in_thread.enqueue_sync()
    assert happened == ["asking", "asked", "asking in a thread", "asked in a thread"]


def test_tasks_run_on_the_loop_of_the_lifespan_and_see_its_context(database: Path, happened: list[str]) -> None:
    """What the application made there works in them; also in a drain that the test asks for."""
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, object]]:
        user.set("the application")
        yield {"loop": asyncio.get_running_loop()}

    with opened(Afterward(f"sqlite:///{database}")) as tasks, Bench(tasks, manual=True) as bench:
        app = FastAPI(lifespan=lifespan)
        tasks.install(app)
        loops: list[object] = []

        @tasks.task
        async def look() -> None:
            loops.append(asyncio.get_running_loop())
            happened.append(user.get())

        @app.post("/")
        async def endpoint(request: Request, background_tasks: BackgroundTasks) -> None:
            user.set("somebody")
            loops.append(request.state.loop)
            background_tasks.add_task(look)

        with TestClient(app) as client:
            client.post("/")
            bench.drain_sync()
        assert loops[0] is loops[1]
        assert happened == ["the application"]


# By hand.


def test_by_hand_nothing_runs_until_it_is_drained(tasks: Afterward, noting: FastAPI, happened: list[str]) -> None:
    """A drain says what has run and how it ended."""
    with Bench(tasks, manual=True) as bench, TestClient(noting) as client:
        client.post("/note/first")
        client.post("/note/second")
        assert happened == []
        assert [job.status for job in bench.jobs] == [Status.queued] * 2

        ran = bench.drain_sync()
        assert happened == ["first", "second"]
        assert [(job.arguments, job.status) for job in ran] == [
            ('{"what":"first"}', Status.succeeded),
            ('{"what":"second"}', Status.succeeded),
        ]
        assert bench.drain_sync() == []


@pytest.mark.anyio
async def test_draining_in_async_code(tasks: Afterward, note: Task[[str], Any], happened: list[str]) -> None:
    """`await bench.drain()`; the synchronous one would block the loop it needs, and says so."""
    async with Bench(tasks, manual=True) as bench:
        await note.enqueue("it")
        with pytest.raises(ConfigurationError, match=r"await bench\.drain"):
            bench.drain_sync()
        assert [job.status for job in await bench.drain()] == [Status.succeeded]
        assert happened == ["it"]


def test_a_job_cannot_drain(bench: Bench, tasks: Afterward) -> None:
    """It would wait for itself."""

    @tasks.task
    async def drain() -> None:
        await bench.drain()

    with pytest.raises(ConfigurationError, match="within a job"):
        drain.enqueue_sync()


# What was enqueued.


def test_asking_what_was_enqueued(bench: Bench, tasks: Afterward, happened: list[str]) -> None:
    """By the arguments that the task gets, however they were given; by options, where they differ from the task's."""

    @tasks.task(queue="mail")
    def send(to: str, text: str = "hello", *, urgent: bool = False) -> None: ...

    send.enqueue_sync("ann", text="hi")
    send.options(delay=60, priority=3, unique="bob").enqueue_sync("bob")

    job = bench.assert_enqueued(send, to="ann", text="hi")
    assert (job.status, job.queue) == (Status.succeeded, "mail")
    bench.assert_enqueued(send, "bob")
    bench.assert_enqueued(send, "bob", "hello", urgent=False)
    bench.assert_enqueued(send, ANY, ANY)
    bench.assert_enqueued(send)
    bench.assert_enqueued(send.options(delay=60), "bob")
    bench.assert_enqueued(send.options(priority=3, unique="bob"))
    bench.assert_not_enqueued(send, "ann")
    bench.assert_not_enqueued(send, "bob", urgent=True)
    bench.assert_not_enqueued(send.options(delay=61), "bob")
    bench.assert_not_enqueued(send.options(queue="other"))
    assert len(bench.enqueued(send)) == 2
    assert bench.enqueued(send, "ann", "hi") == [job]
    assert bench.enqueued(send, "carl") == []


def test_what_was_not_as_expected_is_told_in_full(bench: Bench, tasks: Afterward, note: Task[[str], Any]) -> None:
    """All that was enqueued, each on a line, with what its options say."""

    @tasks.task
    def send(to: str, text: str = "hello") -> None: ...

    with pytest.raises(AssertionError) as nothing:
        bench.assert_enqueued(send, "ann")
    assert str(nothing.value).splitlines() == [
        "not enqueued:",
        f"    {label(send)}('ann')",
        "enqueued, in this order: nothing",
    ]

    send.options(queue="mail", delay=60).enqueue_sync("bob")
    note.enqueue_sync("it")
    with pytest.raises(AssertionError) as failed:
        bench.assert_enqueued(send.options(queue="mail"), "ann", text="hi")
    assert str(failed.value).splitlines() == [
        "not enqueued:",
        f"    {label(send)}('ann', text='hi'), queue='mail'",
        "enqueued, in this order:",
        f"    {label(send)}(to='bob', text='hello')  queue='mail', delay=60.0, queued",
        f"    {label(note)}(what='it')  succeeded",
    ]
    with pytest.raises(AssertionError) as unwanted:
        bench.assert_not_enqueued(note)
    assert str(unwanted.value).splitlines() == [
        "enqueued, and should not be:",
        f"    {label(note)}(…)",
        "namely:",
        f"    {label(note)}(what='it')  succeeded",
    ]
    with pytest.raises(ArgumentError, match="too many positional"):
        bench.assert_enqueued(note, "it", "and", "more")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("is_annotated", [False, True])
def test_dependencies_are_no_arguments(bench: Bench, tasks: Afterward, *, is_annotated: bool) -> None:
    """They need not be given to ask, and are not shown."""

    def database() -> str:
        return "a connection"

    if is_annotated:

        @tasks.task
        def save(number: int, db: Annotated[str, Depends(database)], comment: str = "") -> None: ...

        wanted: Task[..., Any] = save
    else:

        @tasks.task
        def keep(number: int, db: str = Depends(database), comment: str = "") -> None: ...

        wanted = keep
    wanted.enqueue_sync(1)
    bench.assert_enqueued(wanted)
    bench.assert_enqueued(wanted, 1)
    bench.assert_enqueued(wanted, number=1, comment="")
    with pytest.raises(AssertionError) as failed:
        bench.assert_enqueued(wanted, 2)
    assert str(failed.value).splitlines() == [
        "not enqueued:",
        f"    {label(wanted)}(2)",
        "enqueued, in this order:",
        f"    {label(wanted)}(number=1, comment='')  succeeded",
    ]
    with pytest.raises(ArgumentError, match="'db' is a dependency"):
        bench.assert_enqueued(wanted, 1, db="another")


def label(task: Task[..., Any]) -> str:
    return task.name.rpartition(":")[2]


def test_beginning_anew(bench: Bench, note: Task[[str], Any], happened: list[str]) -> None:
    """Nothing is left: neither jobs nor unique keys."""
    later = note.options(delay=60, unique="one")
    later.enqueue_sync("old")
    bench.clear()
    assert bench.jobs == []
    later.enqueue_sync("new")
    assert [job.arguments for job in bench.jobs] == ['{"what":"new"}']
    bench.clock.advance(60)
    bench.drain_sync()
    assert happened == ["new"]


# Serialization.


class Order(BaseModel):
    number: int
    at: datetime


def test_arguments_are_stored_and_read_back(bench: Bench, tasks: Afterward) -> None:
    """The task gets another object, which is equal; so does who looks."""
    got: list[Order] = []

    @tasks.task
    def ship(order: Order) -> Order:
        got.append(order)
        return order

    order = Order(number=3, at=NOON)
    ship.enqueue_sync(order)
    assert got == [order]
    assert got[0] is not order
    job = bench.assert_enqueued(ship, Order(number=3, at=NOON))
    assert job.result == job.arguments.removeprefix('{"order":').removesuffix("}")
    bench.assert_not_enqueued(ship, Order(number=4, at=NOON))


def test_what_cannot_be_stored_is_refused(bench: Bench, tasks: Afterward, app: FastAPI) -> None:
    """Arguments where they are added, as in production; and a result fails the job."""

    @tasks.task
    def take(thing: object) -> object:
        return threading.Lock()

    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(take, threading.Lock())

    with pytest.raises(ArgumentError, match="thing"):
        TestClient(app).post("/")
    assert bench.jobs == []
    with pytest.raises(Exception, match="cannot be stored"):
        take.enqueue_sync(1)
    assert [job.status for job in bench.jobs] == [Status.failed]


# Failures.


@pytest.mark.parametrize("has_lifespan", [False, True])
def test_what_a_task_raises_is_raised_in_the_test(
    bench: Bench, tasks: Afterward, app: FastAPI, note: Task[[str], Any], *, happened: list[str], has_lifespan: bool
) -> None:
    """By the call that had it run: the exception itself, though the task would be tried again. Others still run."""

    class Broken(Exception):
        pass

    broken = Broken("at once")

    @tasks.task
    def fail() -> None:
        raise broken

    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(fail)
        background_tasks.add_task(note, "its neighbour")

    def check(client: TestClient) -> None:
        with pytest.raises(Broken) as raised:
            client.post("/")
        assert raised.value is broken
        assert happened == ["its neighbour"]
        assert [job.status for job in bench.jobs] == [Status.queued, Status.succeeded]

    if has_lifespan:
        with TestClient(app) as client:
            check(client)
    else:
        check(TestClient(app))


@pytest.mark.anyio
async def test_several_failures_are_raised_as_a_group(bench: Bench, tasks: Afterward) -> None:
    """None is lost."""

    @tasks.task
    async def fail(what: str) -> None:
        raise ValueError(what)

    with pytest.raises(ExceptionGroup) as raised:
        await tasks.enqueue_many([fail.prepare("one"), fail.prepare("two")])
    assert [str(error) for error in raised.value.exceptions] == ["one", "two"]


def test_what_is_no_exception_is_the_cause_of_one(bench: Bench, tasks: Afterward, app: FastAPI) -> None:
    """What ends an interpreter, or a test, does not end the client's loop."""

    @tasks.task
    async def leave() -> None:
        raise SystemExit(3)

    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(leave)

    with TestClient(app) as client:
        with pytest.raises(AttemptFailed, match="ended by SystemExit: 3") as raised:
            client.post("/")
        assert isinstance(raised.value.__cause__, SystemExit)
        with pytest.raises(AttemptFailed):
            client.post("/")


def test_failures_can_be_looked_at_instead(tasks: Afterward, happened: list[str]) -> None:
    """The status says it, with all attempts. Retries wait for the clock, which stands still."""
    with Bench(tasks, raise_failures=False, now=NOON) as bench:

        @tasks.task(max_attempts=3, backoff=10)
        def fail_at_first() -> str:
            attempt = current_job().attempt
            happened.append(str(attempt))
            if attempt < 3:
                raise OSError(f"attempt {attempt}")
            return "done"

        fail_at_first.enqueue_sync()
        job = bench.assert_enqueued(fail_at_first)
        assert (job.status, job.failures) == (Status.queued, 1)
        assert NOON <= job.run_at <= NOON + timedelta(seconds=10)

        bench.clock.advance(10)
        assert [job.status for job in bench.drain_sync()] == [Status.queued]
        bench.clock.advance(timedelta(seconds=20))
        [job] = bench.drain_sync()
        assert (job.status, job.result, happened) == (Status.succeeded, '"done"', ["1", "2", "3"])
        assert [(a.number, a.failure and a.failure.message) for a in job.attempts] == [
            (1, "attempt 1"),
            (2, "attempt 2"),
        ]


@pytest.fixture
def fail(tasks: Afterward) -> Task[[str], Any]:
    """A durable task that fails, also where its request ends in an exception."""

    @tasks.task(run_on_error=True)
    async def fail(what: str) -> None:
        raise ValueError(what)

    return fail


@pytest.fixture
def failing(noting: FastAPI, fail: Task[[str], Any]) -> FastAPI:
    """An app whose endpoint fails, and whose task does."""

    @noting.post("/fail/{what}")
    async def endpoint(what: str, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(fail, what)
        raise KeyError("the endpoint's")

    return noting


def test_a_call_that_fails_tells_what_its_tasks_raised(bench: Bench, failing: FastAPI) -> None:
    """Both, in one group; the next call is innocent."""
    client = TestClient(failing)
    with pytest.raises(ExceptionGroup, match="the call failed, and so did an attempt") as raised:
        client.post("/fail/it")
    assert [repr(error) for error in raised.value.exceptions] == ['KeyError("the endpoint\'s")', "ValueError('it')"]
    assert client.post("/note/it").status_code == 202


@pytest.mark.anyio
async def test_what_failed_in_a_call_that_was_cancelled_is_raised_at_the_end(
    tasks: Afterward, failing: FastAPI, fail: Task[[str], Any], happened: list[str]
) -> None:
    """Of the block: the cancellation stays one, and the next call is innocent."""
    streaming = asyncio.Event()

    @failing.get("/stream")
    async def stream(background_tasks: BackgroundTasks) -> StreamingResponse:
        background_tasks.add_task(fail, "untold")

        async def body() -> AsyncIterator[str]:
            yield "first"
            streaming.set()
            await asyncio.Event().wait()

        return StreamingResponse(body())

    with ExitStack() as block:
        bench = block.enter_context(Bench(tasks))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(failing), base_url="http://test") as client:
            request = asyncio.create_task(client.get("/stream"))
            await streaming.wait()
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            assert bench.assert_enqueued(fail, "untold").failures == 1
            await client.post("/note/it")
        assert happened == ["it"]
        with pytest.raises(ValueError, match="untold"):
            block.close()


def test_a_request_that_a_job_makes_does_not_tell_of_others(
    bench: Bench, tasks: Afterward, noting: FastAPI, fail: Task[[str], Any], happened: list[str]
) -> None:
    """What failed before it is raised by the call that had both run."""

    @tasks.task
    async def ask() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(noting), base_url="http://test") as client:
            await client.post("/note/asked")
        happened.append("asking")

    with pytest.raises(ValueError, match="before"):
        tasks.enqueue_many_sync([fail.prepare("before"), ask.prepare()])
    assert happened == ["asking", "asked"]


def test_beginning_anew_forgets_failures(tasks: Afterward, failing: FastAPI, fail: Task[[str], Any]) -> None:
    """Those that nobody was told of."""
    with Bench(tasks, manual=True) as bench:
        fail.enqueue_sync("first")
        fail.enqueue_sync("second")
        with bench.crash_after("ended", nth=2):
            bench.drain_sync()
        bench.clear()
        assert TestClient(failing).post("/note/it").status_code == 202


def test_a_task_that_asks_to_be_tried_again_has_not_failed(bench: Bench, tasks: Afterward) -> None:
    """It is raised on purpose, and raised in the test only when no attempt is left."""

    @tasks.task(max_attempts=2)
    async def not_yet() -> None:
        raise Retry("not yet", in_=60)

    not_yet.enqueue_sync()
    assert bench.drain_sync() == []
    bench.clock.advance(60)
    with pytest.raises(Retry, match="not yet"):
        bench.drain_sync()
    assert [job.status for job in bench.jobs] == [Status.failed]


def test_follow_ups_and_results(tasks: Afterward) -> None:
    """What the store itself enqueues runs as well, and can be asked for; results are there at once."""
    with Bench(tasks, raise_failures=False) as bench:

        @tasks.task
        def ended(job: EndedJob) -> str:
            return f"{job.id} {job.status}"

        @tasks.task(on_success=ended, on_failure=ended, max_attempts=1)
        async def divide(number: int) -> float:
            return 1 / number

        good, bad = divide.enqueue_sync(4), divide.enqueue_sync(0)
        assert good.result_sync(timeout=5) == 0.25
        with pytest.raises(JobFailed, match="division by zero"):
            bad.result_sync(timeout=5)
        bench.assert_enqueued(ended)
        assert {job.result for job in bench.enqueued(ended)} == {f'"{good.id} succeeded"', f'"{bad.id} failed"'}


# Time.


def test_the_clock_stands_still_until_it_is_moved(bench: Bench, note: Task[[str], Any], happened: list[str]) -> None:
    """Delays wait for it, to the second; what is due runs at the next drain."""
    assert bench.clock.now == NOON
    note.options(delay=timedelta(days=1)).enqueue_sync("tomorrow")
    note.options(run_at=NOON + timedelta(days=2)).enqueue_sync("the day after")
    note.options(delay=0.1).enqueue_sync("soon")
    assert [job.created_at for job in bench.jobs] == [NOON] * 3
    assert bench.drain_sync() == []

    bench.clock.advance(0.1)
    bench.drain_sync()
    bench.clock.advance(86_399)
    bench.drain_sync()
    assert happened == ["soon"]
    bench.clock.set(NOON + timedelta(days=1))
    bench.drain_sync()
    assert happened == ["soon", "tomorrow"]
    bench.clock.advance(timedelta(days=1))
    [job] = bench.drain_sync()
    assert happened == ["soon", "tomorrow", "the day after"]
    assert job.finished_at == NOON + timedelta(days=2)


def test_the_clock_begins_with_now(tasks: Afterward) -> None:
    """With the second that it is; and it takes no time without a zone."""
    before = datetime.now(UTC).replace(microsecond=0)
    with Bench(tasks) as bench:
        assert before <= bench.clock.now <= datetime.now(UTC)
    with pytest.raises(ConfigurationError, match="time zone"):
        bench.clock.set(datetime(2024, 1, 1))  # noqa: DTZ001 - that is the mistake
    with pytest.raises(ConfigurationError, match="time zone"):
        Bench(tasks, now=datetime(2024, 1, 1))  # noqa: DTZ001 - that is the mistake


# Coming and going.


def test_the_real_store_is_never_touched(tmp_path: Path, happened: list[str]) -> None:
    """Not even opened; and after the block it is where jobs live again."""
    real = tmp_path / "real.db"
    with opened(Afterward(f"sqlite:///{real}")) as tasks:
        app = FastAPI()
        tasks.install(app)

        @tasks.task
        async def note(what: str) -> None:
            happened.append(what)

        @app.post("/{what}")
        async def endpoint(what: str, background_tasks: BackgroundTasks) -> None:
            background_tasks.add_task(note, what)

        for what in ("first", "second"):
            with Bench(tasks) as bench:
                with TestClient(app) as client:
                    client.post(f"/{what}")
                TestClient(app).post("/again")
                assert tasks.store.location != str(real)
                assert len(bench.jobs) == 2
            with pytest.raises(ConfigurationError, match="is over"):
                bench.drain_sync()
        assert happened == ["first", "again", "second", "again"]
        assert list(tmp_path.iterdir()) == []

        assert tasks.store.location == str(real)
        with TestClient(app) as client:
            client.post("/real")
            wait_until(lambda: happened[-1] == "real")
        assert real.exists()


def test_nothing_is_left_of_a_bench(tasks: Afterward, note: Task[[str], Any]) -> None:
    """Neither a file nor a thread."""
    before = set(threading.enumerate())
    with Bench(tasks) as bench:
        note.enqueue_sync("it")
        folder = Path(tasks.store.location).parent
        assert folder.exists()
        bench.restart()
        bench.clear()
    assert not folder.exists()
    wait_until(lambda: set(threading.enumerate()) <= before)


def test_a_bench_within_another(tasks: Afterward, note: Task[[str], Any], happened: list[str]) -> None:
    """The innermost counts; the other goes on when that has ended."""
    with Bench(tasks) as outer:
        note.enqueue_sync("outer")
        with Bench(tasks, manual=True) as inner:
            note.enqueue_sync("inner")
            assert happened == ["outer"]
            with pytest.raises(ConfigurationError, match="another one"):
                outer.drain_sync()
            with pytest.raises(ConfigurationError, match="another one"):
                outer.restart()
            inner.assert_not_enqueued(note, "outer")
        outer.assert_not_enqueued(note, "inner")
        note.enqueue_sync("outer again")
    assert happened == ["outer", "outer again"]


def test_a_bench_that_begins_while_the_application_lives(
    tasks: Afterward, noting: FastAPI, happened: list[str], stored: Callable[[], list[object]]
) -> None:
    """The worker that runs already sees nothing of it, and goes on after it."""
    with TestClient(noting) as client:
        with Bench(tasks) as bench:
            client.post("/note/bench")
            assert happened == ["bench"]
            assert stored() == []
            assert len(bench.jobs) == 1
        client.post("/note/life")
        wait_until(lambda: happened == ["bench", "life"])
        assert len(stored()) == 1


@pytest.fixture
def digest(tasks: Afterward, app: FastAPI) -> Task[[UploadFile, int], Any]:
    """A durable task that takes a file, which an endpoint has uploaded."""

    @tasks.task
    async def digest(file: UploadFile, pages: int) -> str:
        return f"{file.filename}: {await file.read()!r}"

    @app.post("/")
    async def endpoint(file: UploadFile, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(digest, file, 3)

    return digest


def test_files_are_stored_and_given_as_in_production(
    app: FastAPI, bench: Bench, digest: Task[[UploadFile, int], Any]
) -> None:
    """When the call returns, the task has read its file."""
    assert TestClient(app).post("/", files={"file": ("a.txt", b"text")}).status_code == 200
    job = bench.assert_enqueued(digest, ANY, 3)
    assert (job.status, job.result) == (Status.succeeded, "\"a.txt: b'text'\"")
    bench.assert_not_enqueued(digest, ANY, 4)


def test_files_are_compared_as_far_as_it_is_said(
    app: FastAPI, bench: Bench, digest: Task[[UploadFile, int], Any]
) -> None:
    """By content; and by name and content type, where the test says them."""
    TestClient(app).post("/", files={"file": ("a.txt", b"text", "text/plain")})
    for right in (
        upload(b"text"),
        upload(b"text", "a.txt"),
        upload(b"text", "a.txt", "text/plain"),
    ):
        bench.assert_enqueued(digest, right, 3)
    for wrong in (
        upload(b"test", "a.txt"),
        upload(b"text ", "a.txt"),
        upload(b"text", "b.txt"),
        upload(b"text", "a.txt", "text/html"),
    ):
        bench.assert_not_enqueued(digest, wrong, 3)
    stored = "UploadFile(filename='a.txt', content_type='text/plain', size=4, digest='982d9e3e')"
    with pytest.raises(AssertionError) as failed:
        bench.assert_enqueued(digest, upload(b"test", "a.txt"), 3)
    assert str(failed.value).splitlines() == [
        "not enqueued:",
        f"    {label(digest)}(UploadFile(filename='a.txt', size=4, digest='9f86d081'), 3)",
        "enqueued, in this order:",
        f"    {label(digest)}(file={stored}, pages=3)  succeeded",
    ]


def test_a_file_that_is_closed_by_now_is_the_same_file(bench: Bench, app: FastAPI, tasks: Afterward) -> None:
    """It is compared by what is known of it."""
    uploads: list[UploadFile] = []

    @tasks.task
    def join(files: list[UploadFile], cover: UploadFile | None = None) -> None: ...

    @app.post("/")
    async def endpoint(files: list[UploadFile], background_tasks: BackgroundTasks) -> None:
        uploads.extend(files)
        background_tasks.add_task(join, files)

    TestClient(app).post("/", files=[("files", ("a.txt", b"text")), ("files", ("b.txt", b"more text"))])
    bench.assert_enqueued(join, uploads)
    bench.assert_enqueued(join, [ANY, upload(b"more text", "b.txt")], cover=None)
    bench.assert_not_enqueued(join, uploads[::-1])
    bench.assert_not_enqueued(join, uploads[:1])


def upload(content: bytes, name: str | None = None, content_type: str | None = None) -> UploadFile:
    """A file that a test expects."""
    headers = None if content_type is None else Headers({"content-type": content_type})
    return UploadFile(BytesIO(content), filename=name, headers=headers)


# Transactions of the application's own


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_a_task_that_joins_a_transaction_is_stored_once_that_is_committed(tmp_path: Path, ends: str) -> None:
    """Whatever database the test has the app use: nothing of afterward's is in it."""
    tasks = Afterward("postgresql://localhost/shop")
    app = FastAPI()
    tasks.install(app)
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/shop.db", poolclass=NullPool)
    ran: list[str] = []

    def get_session() -> Iterator[Session]:
        with Session(engine) as session:
            yield session

    @tasks.task
    async def ship(item: str) -> None:
        ran.append(item)

    @app.post("/orders/{item}")
    def place_order(
        item: str, session: Annotated[Session, Depends(tasks.joining(get_session))], background_tasks: BackgroundTasks
    ) -> None:
        session.execute(sqlalchemy.text("SELECT 1"))
        background_tasks.add_task(ship, item)
        getattr(session, ends)()

    with Bench(tasks) as bench, TestClient(app) as client:
        assert client.post("/orders/lamp").status_code == 200
        assert ran == (["lamp"] if ends == "commit" else [])
        assert len(bench.jobs) == len(ran)


def test_a_task_that_ends_itself_has_succeeded_when_it_returns(tmp_path: Path) -> None:
    """A Bench does not look into the database of the test."""
    tasks = Afterward("postgresql://localhost/shop")
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/shop.db", poolclass=NullPool)

    @tasks.task
    def ship(item: str) -> int:
        with Session(engine) as session:
            finish_sync(session, result=5)
            session.commit()
        return 0

    with Bench(tasks):
        assert ship.enqueue_sync("lamp").result_sync() == 5
