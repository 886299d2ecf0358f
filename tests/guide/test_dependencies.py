"""What a task depends on: FastAPI's `Depends`, filled where the job runs, once for each attempt of it."""

import asyncio
import functools
import gc
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any
from weakref import ref

import pytest
from anyio.to_thread import current_default_thread_limiter
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from pydantic import BaseModel, field_serializer
from starlette.datastructures import State

from afterward import Afterward, ArgumentError, BackgroundTasks, Job, Status, Task, current_job, lifespan_state
from afterward.engine.worker import WorkerOptions
from afterward.testing import Bench
from tests.support.disk import Row
from tests.support.opening import opened
from tests.support.waiting import wait_until

Stored = Callable[[], list[Row]]
Run = Callable[..., Job]


@pytest.fixture
def run(tasks: Afterward, client: TestClient) -> Run:
    """Enqueues a task, and waits until its job has ended."""
    return functools.partial(ended, tasks, client)


def ended(tasks: Afterward, client: TestClient, task: Task[..., Any], *args: Any, **kwargs: Any) -> Job:
    handle = task.enqueue_sync(*args, **kwargs)

    def job() -> Job | None:
        assert client.portal is not None
        found = client.portal.call(tasks.get, handle.id)
        return found if found and found.status in {Status.succeeded, Status.failed} else None

    found = wait_until(job, "the job has ended")
    assert found is not None
    return found


# Asking for them


def get_greeting() -> str:
    return "hello"


class Session:
    """Something that must be opened and closed."""

    def __init__(self, happened: list[str]) -> None:
        self._happened = happened
        happened.append("open")

    def add(self, what: str) -> None:
        self._happened.append(what)

    def close(self) -> None:
        self._happened.append("close")


def test_a_task_may_depend_on_what_an_endpoint_depends_on(
    tasks: Afterward, app: FastAPI, client: TestClient, happened: list[str], stored: Stored
) -> None:
    """The same dependency, written in the same way; it is no argument of the job, and never stored."""

    def get_session() -> Iterator[Session]:
        session = Session(happened)
        yield session
        session.close()

    @tasks.task
    def write(line: str, session: Annotated[Session, Depends(get_session)]) -> None:
        session.add(line)

    @tasks.task
    async def append(line: str, session: Session = Depends(get_session)) -> None:
        session.add(line)

    @app.get("/")
    def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(write, "in a thread")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        background_tasks.add_task(append.options(delay=0), line="in the loop")

    assert client.get("/").status_code == 200

    wait_until(lambda: [row.status for row in stored()] == ["succeeded"] * 2)
    assert [row.arguments for row in stored()] == ['{"line":"in a thread"}', '{"line":"in the loop"}']
    assert sorted(happened) == ["close", "close", "in a thread", "in the loop", "open", "open"]


def test_dependencies_may_stand_between_arguments(tasks: Afterward, run: Run) -> None:
    """What is passed by position are the arguments alone, in their order."""

    @tasks.task
    def tell(who: Annotated[str, Depends(get_greeting)], first: int, second: int = 2) -> list[Any]:
        return [who, first, second]

    @tasks.task
    def collect(first: int, /, *rest: int, who: Annotated[str, Depends(get_greeting)], **more: int) -> list[Any]:
        return [who, first, *rest, more]

    task: Task[..., Any] = tell
    assert run(task, 1).result == '["hello",1,2]'
    assert run(task, 1, second=3).result == '["hello",1,3]'
    assert run(collect, 1, 2, 3, other=4).result == '["hello",1,2,3,{"other":4}]'


class Shop:
    """An object with methods, that can be called as well."""

    def __init__(self, name: str) -> None:
        self.name = name

    def owner(self) -> str:
        return f"owner of {self.name}"

    async def later(self) -> str:
        return f"{self.name}, later"

    async def __call__(self) -> AsyncIterator[str]:
        yield f"{self.name}, called"


class Clock:
    """A class that depends on something itself."""

    def __init__(self, zone: Annotated[str, Depends(lambda: "UTC")]) -> None:
        self.zone = zone


shop = Shop("Ada's")


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Annotated[str, Depends(shop.owner)], "owner of Ada's"),
        (Annotated[str, Depends(shop.later)], "Ada's, later"),
        (Annotated[str, Depends(shop)], "Ada's, called"),
        (Annotated[str, Depends(functools.partial(Shop.owner, shop))], "owner of Ada's"),
        (Annotated[str, Depends(functools.partial(functools.partial(shop.later)))], "Ada's, later"),
        (Annotated[Clock, Depends()], "UTC"),
        (Annotated[Clock, Depends(Clock)], "UTC"),
    ],
    ids=["method", "async method", "object", "partial", "partial of partial", "class by its annotation", "class"],
)
@pytest.mark.parametrize("threaded", [True, False], ids=["def", "async def"])
def test_whatever_can_be_called_can_be_depended_on(
    tasks: Afterward, run: Run, annotation: Any, expected: str, threaded: bool
) -> None:
    """Functions, methods, classes, objects, partials; `def` or `async def`, with `yield` or without."""

    def tell(thing: Any) -> str:
        return str(getattr(thing, "zone", thing))

    async def tell_in_loop(thing: Any) -> str:
        return tell(thing)

    function: Callable[..., Any] = tell if threaded else tell_in_loop
    function.__annotations__["thing"] = annotation

    assert run(tasks.task(function)).result == f'"{expected}"'


@pytest.mark.parametrize("kind", ["method", "object", "partial"])
def test_methods_objects_and_partials_can_depend(tasks: Afterward, run: Run, kind: str) -> None:
    """A task need not be a plain function to have dependencies."""

    class Writer:
        def write(self, line: str, end: Annotated[str, Depends(lambda: "!")]) -> str:
            return line + end

        async def __call__(self, line: str, *, end: str = Depends(lambda: "!")) -> str:
            return line + end

    declared: dict[str, Callable[..., Any]] = {
        "method": Writer().write,
        "object": Writer(),
        "partial": functools.partial(Writer().write, line="hello"),
    }
    task = tasks.task(name=kind)(declared[kind])

    assert run(task, line="hello").result == '"hello!"'


def test_dependencies_have_dependencies(tasks: Afterward, run: Run) -> None:
    """`def` and `async def`, with `yield` and without, in any order and for both kinds of tasks."""

    def settings() -> dict[str, str]:
        return {"url": "db"}

    async def engine(settings: Annotated[dict[str, str], Depends(settings)]) -> AsyncIterator[str]:
        yield f"engine({settings['url']})"

    def session(engine: str = Depends(engine)) -> Iterator[str]:
        yield f"session({engine})"

    async def repository(session: Annotated[str, Depends(session)]) -> str:
        return f"repository({session})"

    @tasks.task
    async def load(name: str, repository: str = Depends(repository)) -> str:
        return f"{name} from {repository}"

    @tasks.task
    def load_in_thread(name: str, repository: str = Depends(repository)) -> str:
        return f"{name} from {repository}"

    for task in (load, load_in_thread):
        assert run(task, "Ada").result == '"Ada from repository(session(engine(db)))"'


def test_each_is_called_once_for_each_attempt(tasks: Afterward, run: Run) -> None:
    """However many ask for it; `use_cache=False` asks for one of its own. An attempt after a failure begins anew."""
    calls: list[int] = []

    def number() -> int:
        calls.append(len(calls))
        return calls[-1]

    def half(number: Annotated[int, Depends(number)]) -> int:
        return number

    @tasks.task(backoff=0)
    def compare(
        one: Annotated[int, Depends(number)],
        same: Annotated[int, Depends(half)],
        another: Annotated[int, Depends(number, use_cache=False)],
    ) -> list[int]:
        if current_job().attempt == 1:
            raise OSError("try again")
        return [one, same, another]

    assert run(compare).result == "[2,2,3]"
    assert calls == [0, 1, 2, 3]


def test_what_is_used_at_once_can_be_limited(
    tasks: Afterward, app: FastAPI, client: TestClient, stored: Stored
) -> None:
    """`max_concurrency`, in a FastAPI that has it, counts the jobs of a worker (and its requests apart from them)."""
    limits = "max_concurrency" in Depends.__annotations__
    limit: dict[str, Any] = {"max_concurrency": 2} if limits else {}
    in_use: list[int] = []
    most: list[int] = []

    async def scarce() -> AsyncIterator[None]:
        in_use.append(1)
        most.append(len(in_use))
        yield
        in_use.pop()

    @tasks.task
    async def use(_: None = Depends(scarce, **limit)) -> None:
        for _turn in range(20):
            await asyncio.sleep(0)

    tasks.enqueue_many_sync(use.prepare() for _ in range(10))
    wait_until(lambda: {row.status for row in stored()} == {"succeeded"})

    assert len(most) == 10
    assert max(most) == 2 if limits else max(most) > 2


# Tearing down


def test_they_are_torn_down_in_reverse_after_the_function(tasks: Afterward, run: Run, happened: list[str]) -> None:
    """What was set up last goes first; the result is stored while they are still there."""

    def outer() -> Iterator[str]:
        happened.append("outer up")
        yield "outer"
        happened.append("outer down")

    async def inner(outer: Annotated[str, Depends(outer)]) -> AsyncIterator[str]:
        happened.append(f"inner up in {outer}")
        yield "inner"
        happened.append("inner down")

    class Result(BaseModel):
        text: str

        @field_serializer("text")
        def read(self, text: str) -> str:
            happened.append("stored")
            return text

    @tasks.task
    def work(inner: str = Depends(inner)) -> Result:
        happened.append(f"work in {inner}")
        return Result(text="done")

    assert run(work).result == '{"text":"done"}'
    assert list(dict.fromkeys(happened)) == [
        "outer up", "inner up in outer", "work in inner", "stored", "inner down", "outer down",
    ]  # fmt: skip
    assert happened[-2:] == ["inner down", "outer down"]


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("task_kind", ["def", "async def"])
def test_an_exception_of_the_function_is_seen_by_them(
    tasks: Afterward, run: Run, happened: list[str], kind: str, task_kind: str
) -> None:
    """They roll back, as in a request; the attempt has failed with that exception, whatever they do about it."""

    def outer() -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            happened.append(f"outer: {type(error).__name__}")
            raise

    def swallowing(_: Annotated[None, Depends(outer)]) -> Iterator[None]:
        try:
            yield
            happened.append("commit")
        except LookupError as error:
            happened.append(f"rollback: {error}")

    async def swallowing_in_loop(_: Annotated[None, Depends(outer)]) -> AsyncIterator[None]:
        try:
            yield
            happened.append("commit")
        except LookupError as error:
            happened.append(f"rollback: {error}")

    dependency = swallowing if kind == "def" else swallowing_in_loop

    def fail(_: Annotated[None, Depends(dependency)]) -> None:
        raise LookupError("no such customer")

    async def fail_in_loop(_: Annotated[None, Depends(dependency)]) -> None:
        raise LookupError("no such customer")

    job = run(tasks.task(max_attempts=1)(fail if task_kind == "def" else fail_in_loop))

    assert job.failure is not None
    assert (job.failure.kind, job.failure.message) == ("LookupError", "no such customer")
    assert happened == ["rollback: no such customer", "outer: LookupError"]


def test_they_may_make_another_exception_of_it(tasks: Afterward, run: Run) -> None:
    """That is then what the attempt has failed with: what is tried again is said of it."""

    async def translating() -> AsyncIterator[None]:
        try:
            yield
        except KeyError as error:
            raise ConnectionError("the cache is away") from error

    @tasks.task(backoff=0, max_attempts=2, retry_on=[ConnectionError])
    async def fail(_: None = Depends(translating)) -> None:
        raise KeyError("key")

    job = run(fail)

    assert job.failure is not None
    assert job.failure.message == "the cache is away"
    assert job.attempt == 2


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_failing_teardown_fails_the_attempt(tasks: Afterward, run: Run, kind: str) -> None:
    """A commit that fails is no success: the job is tried again."""
    commits: list[str] = []

    def commit() -> None:
        commits.append("tried")
        if len(commits) == 1:
            raise OSError("deadlock")

    def session() -> Iterator[None]:
        yield
        commit()

    async def session_in_loop() -> AsyncIterator[None]:
        yield
        commit()

    @tasks.task(backoff=0)
    async def write(_: Annotated[None, Depends(session if kind == "def" else session_in_loop)]) -> str:
        return "written"

    job = run(write)

    assert (job.status, job.attempt, job.failures, job.result) == ("succeeded", 2, 1, '"written"')
    assert [attempt.failure and attempt.failure.message for attempt in job.attempts] == ["deadlock"]


def test_a_failing_set_up_fails_the_attempt_before_the_function_is_called(
    tasks: Afterward, run: Run, happened: list[str]
) -> None:
    """What was set up before it is torn down, and sees the exception."""

    def first() -> Iterator[None]:
        try:
            yield
        except OSError:
            happened.append("first down")
            raise

    async def second() -> None:
        raise OSError("no connection")

    @tasks.task(max_attempts=1)
    def work(_: Annotated[None, Depends(first)], __: Annotated[None, Depends(second)]) -> None:
        happened.append("called")

    job = run(work)

    assert job.failure is not None
    assert job.failure.message == "no connection"
    assert happened == ["first down"]


def test_a_result_that_cannot_be_stored_rolls_back(tasks: Afterward, run: Run, happened: list[str]) -> None:
    """The job has failed for good; what it did in a transaction has not happened."""

    def session() -> Iterator[None]:
        try:
            yield
            happened.append("commit")
        except Exception as error:
            happened.append(f"rollback after {type(error).__name__}")
            raise

    @tasks.task
    def work(_: Annotated[None, Depends(session)]) -> object:
        return object()

    assert run(work).status == "failed"
    assert happened == ["rollback after ResultError"]


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_timeout_tears_down(tasks: Afterward, run: Run, happened: list[str], kind: str) -> None:
    """It counts for the dependencies too. They see a cancellation, and roll back, though the function let it pass."""
    may_end = threading.Event()

    def session() -> Iterator[None]:
        try:
            yield
            happened.append("commit")
        except asyncio.CancelledError:
            happened.append("rollback")
            raise

    def work(_: Annotated[None, Depends(session)]) -> None:
        may_end.wait(10)

    async def work_in_loop(_: Annotated[None, Depends(session)]) -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            happened.append("ignored")

    job = run(tasks.task(max_attempts=1, timeout=1)(work if kind == "def" else work_in_loop))
    before = list(happened)
    may_end.set()

    assert job.failure is not None
    assert "timeout" in job.failure.message
    wait_until(lambda: happened[-1:] == ["rollback"], "it has been torn down")
    # A thread cannot be stopped: the session is not taken away from under it.
    assert before == ([] if kind == "def" else ["ignored", "rollback"])


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_timeout_while_a_dependency_is_torn_down(tasks: Afterward, run: Run, happened: list[str], kind: str) -> None:
    """What has failed is not committed by those that end after it, though it has let its cancellation pass."""
    may_end = threading.Event()

    def session() -> Iterator[None]:
        try:
            yield
            happened.append("commit")
        except asyncio.CancelledError:
            happened.append("rollback")
            raise

    def lock(_: Annotated[None, Depends(session)]) -> Iterator[None]:
        yield
        may_end.wait(10)

    async def lock_in_loop(_: Annotated[None, Depends(session)]) -> AsyncIterator[None]:
        yield
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(30)

    @tasks.task(max_attempts=1, timeout=1)
    async def work(_: Annotated[None, Depends(lock if kind == "def" else lock_in_loop)]) -> None: ...

    job = run(work)
    may_end.set()
    assert job.failure is not None
    assert "timeout" in job.failure.message
    wait_until(lambda: happened == ["rollback"])


def test_a_timeout_while_a_dependency_is_set_up(tasks: Afterward, run: Run, happened: list[str]) -> None:
    """What a thread sets up too late is torn down; the function is not called."""
    may_begin = threading.Event()

    def slow() -> Iterator[None]:
        may_begin.wait(10)
        happened.append("up")
        try:
            yield
        finally:
            happened.append("down")

    @tasks.task(max_attempts=1, timeout=0.1)
    async def work(_: Annotated[None, Depends(slow)]) -> None:
        happened.append("called")

    job = run(work)
    assert job.failure is not None
    assert "timeout" in job.failure.message
    assert happened == []
    may_begin.set()
    wait_until(lambda: happened == ["up", "down"])


def test_a_shutdown_tears_down(tmp_path: Path, happened: list[str]) -> None:
    """What is released to run elsewhere has rolled back here."""
    with opened(Afterward(f"sqlite:///{tmp_path}/jobs.db")) as tasks:
        app = FastAPI()
        tasks.install(app, grace=0)
        running = threading.Event()

        async def session() -> AsyncIterator[None]:
            try:
                yield
                happened.append("commit")
            except asyncio.CancelledError:
                happened.append("rollback")
                raise

        @tasks.task
        async def work(_: None = Depends(session)) -> None:
            running.set()
            await asyncio.sleep(30)

        with TestClient(app):
            job = work.enqueue_sync()
            assert running.wait(10)

        found = asyncio.run(tasks.get(job.id))
        assert happened == ["rollback"]
        assert found is not None
        assert (found.status, found.failures) == ("queued", 0)


def test_a_thread_that_does_not_return_does_not_hold_up_the_end_of_the_process(
    tmp_path: Path, happened: list[str]
) -> None:
    """Its job is released. What the function still uses is not torn down under it."""
    with opened(Afterward(f"sqlite:///{tmp_path}/jobs.db")) as tasks:
        app = FastAPI()
        tasks.install(app, grace=0)
        running, may_end = threading.Event(), threading.Event()

        def session() -> Iterator[None]:
            try:
                yield
            finally:
                happened.append("down")

        @tasks.task
        def work(_: None = Depends(session)) -> None:
            running.set()
            may_end.wait(30)
            happened.append("ended")

        with TestClient(app):
            job = work.enqueue_sync()
            assert running.wait(10)

        found = asyncio.run(tasks.get(job.id))
        assert happened == []
        assert found is not None
        assert (found.status, found.failures) == ("queued", 0)
        may_end.set()
        wait_until(lambda: happened[:1] == ["ended"])


# Where they run


def test_they_neither_block_the_loop_nor_take_the_threads_of_endpoints(
    tasks: Afterward, app: FastAPI, client: TestClient, happened: list[str]
) -> None:
    """While every thread for endpoints is taken, and a dependency blocks its own, jobs and requests go on."""
    blocked, free = threading.Event(), threading.Event()

    def blocking() -> Iterator[None]:
        blocked.set()
        free.wait(10)
        yield

    @tasks.task
    async def wait(_: None = Depends(blocking)) -> None:
        happened.append("waited")

    @tasks.task
    async def other(_: None = Depends(lambda: None)) -> None:
        happened.append("other")

    @app.get("/")
    async def endpoint() -> None: ...

    assert client.portal is not None
    limiter = client.portal.call(current_default_thread_limiter)
    total, limiter.total_tokens = limiter.total_tokens, 0
    try:
        wait.enqueue_sync()
        assert blocked.wait(10)
        assert client.get("/").status_code == 200
        other.enqueue_sync()
        wait_until(lambda: happened == ["other"])
        free.set()
        wait_until(lambda: happened == ["other", "waited"])
    finally:
        free.set()
        limiter.total_tokens = total


tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_def_task_sees_the_context_variables_of_its_dependencies(tasks: Afterward, run: Run, kind: str) -> None:
    """As do they of one another; a token is good until the end. Another job sees nothing of it."""

    def enter() -> Iterator[None]:
        token = tenant.set("Ada's")
        yield
        tenant.reset(token)

    async def enter_in_loop() -> AsyncIterator[None]:
        token = tenant.set("Ada's")
        yield
        tenant.reset(token)

    def extend(_: Annotated[None, Depends(enter if kind == "def" else enter_in_loop)]) -> None:
        tenant.set(f"{tenant.get()} shop")

    @tasks.task
    def tell(_: Annotated[None, Depends(extend)]) -> str:
        return f"{tenant.get()}, attempt {current_job().attempt}"

    @tasks.task
    def tell_plainly() -> str:
        return tenant.get()

    assert run(tell).result == '"Ada\'s shop, attempt 1"'
    assert run(tell_plainly).result == '"nobody"'


def test_calling_a_task_calls_its_function(tasks: Afterward) -> None:
    """As it is: dependencies are filled by a worker alone, so that a test may pass its own."""

    @tasks.task
    def greet(name: str, greeting: str = Depends(lambda: "hello")) -> str:
        return f"{greeting} {name}"

    assert greet("Ada", "good day") == "good day Ada"
    assert "Depends" in greet("Ada")


# Overriding them


def get_salutation(greeting: Annotated[str, Depends(get_greeting)]) -> str:
    return f"{greeting} dear"


def test_what_the_app_overrides_is_overridden_for_tasks(tasks: Afterward, app: FastAPI, run: Run) -> None:
    """At any depth, looked up when the job runs; what stands in may depend on something else itself."""

    @tasks.task
    def greet(name: str, salutation: Annotated[str, Depends(get_salutation)]) -> str:
        return f"{salutation} {name}"

    def loud(greeting: Annotated[str, Depends(lambda: "HEY")]) -> Iterator[str]:
        yield greeting

    assert run(greet, name="Ada").result == '"hello dear Ada"'
    app.dependency_overrides[get_greeting] = loud
    assert run(greet, name="Ada").result == '"HEY dear Ada"'
    app.dependency_overrides = {get_salutation: lambda: "dear"}
    assert run(greet, name="Ada").result == '"dear Ada"'
    app.dependency_overrides.clear()
    assert run(greet, name="Ada").result == '"hello dear Ada"'


def test_an_override_that_needs_the_request_fails_the_job(tasks: Afterward, app: FastAPI, run: Run) -> None:
    """It says so; and so does one that asks for what it overrides."""

    @tasks.task(max_attempts=1)
    def greet(greeting: Annotated[str, Depends(get_greeting)]) -> str:
        return greeting

    def from_query(q: str) -> str:
        return q

    def endless(greeting: Annotated[str, Depends(get_greeting)]) -> str:
        return greeting

    reasons: dict[Callable[..., str], str] = {
        from_query: "from_query → q needs the request",
        endless: "depends on itself",
    }
    for override, reason in reasons.items():
        app.dependency_overrides[get_greeting] = override
        job = run(greet)
        assert job.failure is not None
        assert job.failure.kind == "afterward.errors.TaskError"
        assert reason in job.failure.message


def test_of_several_apps_those_that_live_are_heard_and_the_newest_before_the_others(
    tasks: Afterward, app: FastAPI, run: Run
) -> None:
    """Tasks belong to all the apps they are installed on."""
    second = FastAPI()
    tasks.install(second)

    @tasks.task
    def greet(greeting: Annotated[str, Depends(get_greeting)]) -> str:
        return greeting

    second.dependency_overrides[get_greeting] = lambda: "second"
    assert run(greet).result == '"hello"'
    app.dependency_overrides[get_greeting] = lambda: "first"
    assert run(greet).result == '"first"'
    with TestClient(second):
        assert run(greet).result == '"second"'
        second.dependency_overrides.clear()
        assert run(greet).result == '"first"'


@pytest.mark.parametrize("lives", [True, False], ids=["with its lifespan", "without"])
def test_an_app_that_another_test_has_made_overrides_nothing(
    tasks: Afterward, happened: list[str], *, lives: bool
) -> None:
    """As where each test calls a factory of apps, and the tasks are those of a module."""

    @tasks.task
    async def greet(greeting: str = Depends(get_greeting)) -> None:
        happened.append(greeting)

    def create_app() -> FastAPI:
        app = FastAPI()
        tasks.install(app)

        @app.post("/")
        def endpoint(background_tasks: BackgroundTasks) -> None:
            background_tasks.add_task(greet)

        return app

    apps = [create_app() for _ in range(2)]
    apps[0].dependency_overrides[get_greeting] = lambda: "one"
    apps[1].dependency_overrides[get_greeting] = lambda: "two"
    for app in (*apps, create_app()):
        client = TestClient(app)
        with Bench(tasks), client if lives else nullcontext():
            client.post("/")
    apps.append(create_app())
    with Bench(tasks):
        greet.enqueue_sync()

    assert happened == ["one", "two", "hello", "hello"]


def test_an_app_is_not_kept_by_the_tasks_that_are_installed_on_it(tasks: Afterward) -> None:
    """A test suite makes many."""
    app = FastAPI()
    tasks.install(app)
    assert list(tasks.apps) == [app]
    gone = ref(app)
    del app
    gc.collect()
    assert gone() is None
    assert list(tasks.apps) == []


# What the lifespan has yielded


class Lifespan:
    """An app with a lifespan that yields a state, and tasks installed on it."""

    def __init__(self, database: Path, happened: list[str]) -> None:
        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
            happened.append("startup")
            app.state.name = "of the app"
            yield {"pool": "the pool"}
            happened.append("shutdown")

        self.app = FastAPI(lifespan=lifespan)
        self.tasks = Afterward(f"sqlite:///{database}")
        self.tasks.install(self.app)


@pytest.fixture
def lived(database: Path, happened: list[str]) -> Iterator[Lifespan]:
    """An app whose lifespan has not begun."""
    lived = Lifespan(database, happened)
    with opened(lived.tasks):
        yield lived


def test_one_dependency_gives_the_state_of_the_lifespan_to_requests_and_to_tasks(
    lived: Lifespan, happened: list[str]
) -> None:
    """Directly, or through others; in websockets too. Each has a copy of its own, so that none changes another's."""

    def get_pool(state: Annotated[State, Depends(lifespan_state)]) -> str:
        state.pool += "!"
        return str(state.pool)

    @lived.tasks.task
    async def tell(pool: str = Depends(get_pool), state: State = Depends(lifespan_state)) -> str:
        happened.append("task")
        return f"{pool} {state.pool} {lived.app.state.name}"

    @lived.app.get("/")
    def endpoint(pool: Annotated[str, Depends(get_pool)]) -> str:
        return pool

    @lived.app.websocket("/")
    async def websocket(websocket: WebSocket, pool: Annotated[str, Depends(get_pool)]) -> None:
        await websocket.accept()
        await websocket.send_text(pool)

    with TestClient(lived.app) as client:
        for _ in range(2):
            assert client.get("/").json() == "the pool!"
            with client.websocket_connect("/") as connection:
                assert connection.receive_text() == "the pool!"
            assert ended(lived.tasks, client, tell).result == '"the pool! the pool! of the app"'

    assert happened == ["startup", "task", "task", "shutdown"]


def test_the_lifespan_of_a_router_that_is_included_later_counts(lived: Lifespan, happened: list[str]) -> None:
    """Its state is there, and no job runs before its start-up or after its shutdown."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        await asyncio.sleep(0.1)
        happened.append("router's startup")
        yield {"mail": "the mail"}
        happened.append("router's shutdown")

    @lived.tasks.task
    async def tell(state: State = Depends(lifespan_state)) -> str:
        happened.append("task")
        return f"{state.mail} {state.pool}"

    tell.enqueue_sync()
    lived.app.include_router(APIRouter(lifespan=lifespan))

    with TestClient(lived.app) as client:
        assert ended(lived.tasks, client, tell).result == '"the mail the pool"'

    assert happened == ["startup", "router's startup", "task", "task", "router's shutdown", "shutdown"]


def test_without_a_lifespan_a_task_that_asks_for_its_state_says_what_is_missing(tasks: Afterward) -> None:
    """Rather than that some attribute is missing."""

    @tasks.task(max_attempts=1)
    async def tell(state: State = Depends(lifespan_state)) -> None: ...

    async def failed() -> Job:
        async with tasks.running(WorkerOptions()):
            handle = await tell.enqueue()
            while (job := await tasks.get(handle.id)) is None or job.status is not Status.failed:  # noqa: ASYNC110 - the store is asked
                await asyncio.sleep(0.01)
            return job

    job = asyncio.run(asyncio.wait_for(failed(), 10))

    assert job.failure is not None
    assert "start the worker with the app, as in `afterward worker main:app`" in job.failure.message


# What cannot be


def test_a_value_for_a_dependency_cannot_be_passed(tasks: Afterward) -> None:
    """By name or by position: it could not be stored. What is wrong with other arguments is said as before."""

    @tasks.task
    def write(line: str, session: Annotated[str, Depends(get_greeting)], copies: int = 1) -> None: ...

    @tasks.task
    def collect(*lines: str, session: str = Depends(get_greeting), **more: str) -> None: ...

    passing: list[tuple[Task[..., None], tuple[Any, ...], dict[str, Any]]] = [
        (write, ("line",), {"session": "mine"}),
        (write, ("line", "mine", 2), {}),
        (collect, ("line",), {"session": "mine"}),
    ]
    for task, args, kwargs in passing:
        with pytest.raises(ArgumentError, match=r"'session' is a dependency.*leave it out"):
            task.prepare(*args, **kwargs)
    wrong: list[tuple[tuple[Any, ...], dict[str, Any]]] = [((), {}), (("a", 2, 3, 4), {}), (("a",), {"other": 1})]
    for args, kwargs in wrong:
        with pytest.raises(ArgumentError, match=r"task .*write\(line: str, copies: int = 1\)"):
            write.prepare(*args, **kwargs)  # type: ignore[arg-type]
