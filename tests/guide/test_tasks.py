"""What a task is: a function that is called as before, and that knows, while it runs, which job it is."""

import asyncio
import functools
import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import fastapi
import pytest
import starlette.background
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response
from fastapi.testclient import TestClient
from starlette._utils import is_async_callable

from afterward import (
    Afterward,
    ArgumentError,
    BackgroundTask,
    BackgroundTasks,
    ConfigurationError,
    NoCurrentJob,
    Status,
    Task,
    TaskError,
    current_job,
)
from tests.support.disk import Row
from tests.support.opening import opened
from tests.support.waiting import wait_until

Stored = Callable[[], list[Row]]


# Calling it


def test_calling_a_task_calls_its_function(tasks: Afterward, stored: Stored) -> None:
    """Here and now, with its result and its exceptions; nothing is stored."""

    @tasks.task
    def double(number: int) -> int:
        """Twice the number."""
        return 2 * number

    @tasks.task(max_attempts=3)
    async def fail() -> None:
        raise ValueError("no")

    assert double(4) == 8
    assert double(number=4) == 8
    with pytest.raises(ValueError, match="no"):
        asyncio.run(fail())
    with pytest.raises(TypeError):
        double()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert stored() == []


def test_a_task_looks_like_its_function(tasks: Afterward) -> None:
    """Name, text and module are the function's."""

    @tasks.task
    def double(number: int) -> int:
        """Twice the number."""
        return 2 * number

    assert double.__name__ == "double"
    assert double.__doc__ == "Twice the number."
    assert double.__module__ == __name__
    assert repr(double) == f"<Task {__name__}:test_a_task_looks_like_its_function.<locals>.double>"
    assert inspect.signature(double).parameters.keys() == {"number"}


def test_a_task_is_recognisably_async_when_its_function_is(tasks: Afterward) -> None:
    """Frameworks that look see what they would see of the function; copies with options too."""

    async def waits() -> None: ...

    def blocks() -> None: ...

    waiting, blocking = tasks.task(waits), tasks.task(blocks)

    assert is_async_callable(waiting)
    assert is_async_callable(waiting.options(delay=1))
    assert is_async_callable(functools.partial(waiting))
    assert not is_async_callable(blocking)


class Shop:
    """Something with methods."""

    def __init__(self, happened: list[str]) -> None:
        self.happened = happened

    def sell(self, what: str) -> None:
        self.happened.append(f"sold {what}")

    async def __call__(self, what: str) -> None:
        self.happened.append(f"called {what}")


def test_bound_methods_and_objects_can_be_tasks(
    tasks: Afterward, app: FastAPI, client: TestClient, happened: list[str]
) -> None:
    """What has no name of its own is given one."""
    shop = Shop(happened)
    sell = tasks.task(shop.sell)
    call = tasks.task(name="shop")(shop)
    part = tasks.task(name="part")(functools.partial(shop.sell, "a part"))

    @app.get("/")
    def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(sell, "a book")
        background_tasks.add_task(call, what="an object")
        background_tasks.add_task(part)

    assert client.get("/").status_code == 200
    wait_until(lambda: sorted(happened) == ["called an object", "sold a book", "sold a part"])


def test_what_cannot_be_a_task_is_refused_where_it_is_declared(tasks: Afterward) -> None:
    """With the mend."""
    with pytest.raises(TaskError, match="lambda"):
        tasks.task(lambda: None)
    with pytest.raises(TaskError, match="name="):
        tasks.task(functools.partial(print))

    @tasks.task
    def once() -> None: ...

    with pytest.raises(TaskError, match="twice"):
        tasks.task(once)


# Its keywords are its own


KEYWORDS = [
    "func", "self", "task", "args", "kwargs", "delay", "run_at", "queue", "priority", "unique", "run_on_error", "name",
    "job", "jobs", "owner", "origin", "options", "function", "timeout", "id", "cls", "arguments", "context",
]  # fmt: skip


def takes_everything(happened: list[Any]) -> Callable[..., None]:
    """A function with all of these parameters, each of them by keyword."""
    space: dict[str, Any] = {"happened": happened}
    parameters = ", ".join(f"{name}: str" for name in KEYWORDS)
    exec(f"def everything(*, {parameters}) -> None: happened.append(dict(sorted(locals().items())))", space)
    space["everything"].__module__ = __name__
    return space["everything"]


def test_no_option_collides_with_a_keyword_of_the_function(
    tasks: Afterward, app: FastAPI, client: TestClient, happened: list[Any]
) -> None:
    """A parameter may have any name: every way to call the task passes it on."""
    given = dict(sorted((name, f"the {name}") for name in KEYWORDS))
    everything = tasks.task(takes_everything(happened))

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> Response:
        background_tasks.add_task(everything, **given)
        await everything.enqueue(**given)
        await tasks.enqueue_many([everything.prepare(**given)])
        background_tasks.add_task(everything.options(queue="other", priority=3), **given)
        return PlainTextResponse("ok", background=BackgroundTask(everything, **given))

    everything(**given)
    assert client.get("/").text == "ok"
    wait_until(lambda: len(happened) == 6)
    everything.enqueue_sync(**given)
    wait_until(lambda: len(happened) == 7)
    assert happened == [given] * 7


def test_a_function_may_take_any_arguments(
    tasks: Afterward, app: FastAPI, client: TestClient, happened: list[Any]
) -> None:
    """Positional-only, `*args`, `**kwargs`; and `func=` by keyword, as the stock class takes it."""

    @tasks.task
    def anything(first: int, /, second: int = 2, *args: int, third: int = 3, **kwargs: int) -> None:
        happened.append((first, second, args, third, kwargs))

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(anything, 1)
        background_tasks.add_task(anything, 1, 5, 6, 7, third=8, first=9, fourth=10)

    assert client.get("/").status_code == 200
    expected: list[Any] = [(1, 2, (), 3, {}), (1, 5, (6, 7), 8, {"first": 9, "fourth": 10})]
    wait_until(lambda: sorted(happened, key=str) == expected)


def test_the_function_may_be_given_by_keyword(
    tasks: Afterward, app: FastAPI, client: TestClient, happened: list[str]
) -> None:
    """As with the stock class, whose `add_task` takes `func=`."""

    @tasks.task
    def note(what: str) -> None:
        happened.append(what)

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> Response:
        add, single = cast("Any", background_tasks.add_task), cast("Any", BackgroundTask)
        add(func=note, what="added")
        return PlainTextResponse("ok", background=single(func=note, what="single"))

    assert client.get("/").text == "ok"
    wait_until(lambda: sorted(happened) == ["added", "single"])


# Refused early


def test_arguments_that_do_not_fit_or_cannot_be_stored_are_refused_at_the_call(
    tasks: Afterward, app: FastAPI, stored: Stored
) -> None:
    """In the request, naming the argument and the mend; every way to call it refuses."""

    @tasks.task
    async def note(number: int, what: str = "") -> None: ...

    wrong: Task[..., None] = cast("Task[..., None]", note)
    refusals: list[str] = []

    @app.get("/")
    async def endpoint(request: fastapi.Request, background_tasks: BackgroundTasks) -> None:
        calls: list[Callable[[], Any]] = [
            lambda: background_tasks.add_task(wrong),
            lambda: background_tasks.add_task(wrong, 1, "a", "b"),
            lambda: background_tasks.add_task(wrong, 1, nothing=2),
            lambda: background_tasks.add_task(wrong, "one"),
            lambda: background_tasks.add_task(wrong, 1, what=request),
            lambda: BackgroundTask(wrong, "one"),
            lambda: wrong.prepare("one"),
            lambda: wrong.enqueue_sync("one"),
        ]
        for call in calls:
            with pytest.raises(ArgumentError) as refused:
                call()
            refusals.append(str(refused.value))
        with pytest.raises(ArgumentError):
            await wrong.enqueue("one")

    with TestClient(app) as client:
        assert client.get("/").status_code == 200
    assert len(refusals) == 8
    assert all("note" in refusal for refusal in refusals)
    assert "'what'" in refusals[4]
    assert "pass what the task needs of the request" in refusals[4]
    assert stored() == []


# The job that is running


def test_a_running_task_knows_its_job(tasks: Afterward, app: FastAPI, client: TestClient, happened: list[Any]) -> None:
    """In the loop and in threads, and in what it calls; the key is the same at every attempt."""

    def note() -> None:
        job = current_job()
        happened.append((job.id, job.task, job.attempt, job.idempotency_key))
        if job.attempt == 1:
            raise ValueError

    @tasks.task(backoff=0)
    async def waiting() -> None:
        await asyncio.sleep(0)
        note()

    @tasks.task(backoff=0)
    def blocking() -> None:
        note()

    @app.get("/{kind}")
    async def endpoint(kind: str, background_tasks: BackgroundTasks) -> str:
        job = background_tasks.add_task(waiting if kind == "async" else blocking)
        assert job.task == (waiting if kind == "async" else blocking).name
        return job.id

    for kind, task in (("async", waiting), ("def", blocking)):
        happened.clear()
        job = client.get(f"/{kind}").json()
        wait_until(lambda: len(happened) == 2)
        assert happened == [(job, task.name, 1, job), (job, task.name, 2, job)]


def test_there_is_no_current_job_elsewhere(tasks: Afterward, app: FastAPI, client: TestClient) -> None:
    """Not in a request, not in what runs in memory, and not in a task that is called directly."""

    @tasks.task
    def asks() -> str:
        return current_job().id

    errors: list[Exception] = []

    def in_memory() -> None:
        try:
            current_job()
        except NoCurrentJob as error:
            errors.append(error)

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        with pytest.raises(NoCurrentJob, match="outside of a job"):
            current_job()
        background_tasks.add_task(in_memory)

    assert client.get("/").status_code == 200
    assert len(errors) == 1
    with pytest.raises(NoCurrentJob, match="calling a task directly just calls its function"):
        asks()


def test_a_task_that_was_called_by_another_task_is_part_of_its_job(
    tasks: Afterward, app: FastAPI, client: TestClient, happened: list[str]
) -> None:
    """Calling it just calls it; `enqueue` makes a job of its own."""

    @tasks.task
    async def inner(caller: str) -> None:
        happened.append("same" if current_job().id == caller else "own")

    @tasks.task
    async def outer() -> None:
        await inner(current_job().id)
        await inner.enqueue(current_job().id)

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(outer)

    client.get("/")
    wait_until(lambda: happened == ["same", "own"])


# Context variables


tenant = ContextVar[str]("tenant")
language = ContextVar[dict[str, int] | None]("language", default=None)
undeclared = ContextVar[str]("undeclared", default="unset")


def test_declared_context_variables_travel_to_every_attempt(database: Path, happened: list[Any]) -> None:
    """As they were at `add_task`; what an attempt sets is not seen by the next; what is not declared stays behind."""
    with opened(Afterward(f"sqlite:///{database}", context_variables=[tenant, language])) as tasks:
        app = FastAPI()
        tasks.install(app)

        def note() -> None:
            happened.append((tenant.get("unset"), language.get(), undeclared.get()))
            tenant.set("set by an attempt")
            if current_job().attempt == 1:
                raise ValueError

        @tasks.task(backoff=0)
        async def waiting() -> None:
            note()

        @tasks.task(backoff=0)
        def blocking() -> None:
            note()

        @app.get("/{kind}")
        def endpoint(kind: str, background_tasks: BackgroundTasks) -> None:
            undeclared.set("set")
            if kind != "unset":
                tenant.set(kind)
                language.set({kind: 1})
            background_tasks.add_task(waiting if kind == "async" else blocking)
            tenant.set("changed after add_task")

        with TestClient(app) as client:
            for kind in ("async", "def", "unset"):
                client.get(f"/{kind}")
            wait_until(lambda: len(happened) == 6)
    expected: list[Any] = [("async", {"async": 1}, "unset"), ("def", {"def": 1}, "unset"), ("unset", None, "unset")]
    assert sorted(happened, key=str) == [seen for seen in expected for _ in range(2)]


def test_context_variables_are_taken_where_the_call_is_made(database: Path, happened: list[str]) -> None:
    """Also by calls without a request, prepared one by one, from plain code."""
    with opened(Afterward(f"sqlite:///{database}", context_variables=[tenant])) as tasks:
        app = FastAPI()
        tasks.install(app)

        @tasks.task
        def note() -> None:
            happened.append(tenant.get())

        def prepared() -> Iterator[Any]:
            for name in ("c", "d"):
                tenant.set(name)
                yield note.prepare()

        with TestClient(app):
            tenant.set("a")
            note.enqueue_sync()
            tenant.set("b")
            asyncio.run(enqueue(note))
            tasks.enqueue_many_sync(prepared())
            wait_until(lambda: sorted(happened) == ["a", "b", "c", "d"])


async def enqueue(task: Task[[], Any]) -> None:
    await task.enqueue()


def test_a_context_variable_that_cannot_be_stored_is_refused_at_the_call(database: Path) -> None:
    """With its name; and two of the same name are refused at once."""
    lock = ContextVar[Any]("lock")
    with opened(Afterward(f"sqlite:///{database}", context_variables=[lock])) as tasks:

        @tasks.task
        def note() -> None: ...

        lock.set(threading.Lock())
        with pytest.raises(ArgumentError, match="context variable"):
            note.prepare()
        lock.set({1, 2})
        with pytest.raises(ArgumentError, match="'lock'"):
            note.prepare()
        lock.set("text")
        assert note.prepare().context == '{"lock":"text"}'
    with pytest.raises(ConfigurationError, match="same name"):
        Afterward(f"sqlite:///{database}", context_variables=[lock, ContextVar[Any]("lock")])


# Options of one call


def test_options_of_one_call_are_those_of_a_copy_of_the_task(
    tasks: Afterward, app: FastAPI, client: TestClient, stored: Stored
) -> None:
    """The same copy is good for every way to call it; the task itself is as it was."""

    @tasks.task(queue="mail", priority=1)
    async def note(what: str) -> None: ...

    urgent = note.options(queue="urgent", priority=9, delay=3600)

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "plain")
        background_tasks.add_task(urgent, "added")
        background_tasks.add_task(urgent.options(priority=5), "more")
        await urgent.enqueue("enqueued")

    client.get("/")
    rows = {job.arguments: (job.queue, job.priority) for job in stored()}
    assert rows == {
        '{"what":"plain"}': ("mail", 1),
        '{"what":"added"}': ("urgent", 9),
        '{"what":"more"}': ("urgent", 5),
        '{"what":"enqueued"}': ("urgent", 9),
    }


@pytest.mark.parametrize("kind", ["delay in seconds", "delay as timedelta", "run_at"])
def test_a_task_may_run_later(
    tasks: Afterward, app: FastAPI, client: TestClient, happened: list[str], kind: str
) -> None:
    """`delay` from when it is stored, or `run_at` with a time zone: not before then. Its siblings do not wait."""

    @tasks.task
    def note(what: str) -> None:
        happened.append(what)

    def later(seconds: float) -> Task[[str], None]:
        if kind == "delay in seconds":
            return note.options(delay=seconds)
        if kind == "delay as timedelta":
            return note.options(delay=timedelta(seconds=seconds))
        return note.options(run_at=datetime.now(UTC) + timedelta(seconds=seconds))

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> str:
        job = background_tasks.add_task(later(3600), "in an hour")
        background_tasks.add_task(later(0.1), "soon")
        background_tasks.add_task(note, "now")
        return job.id

    asked = datetime.now(UTC)
    job_id = client.get("/").json()
    wait_until(lambda: happened == ["now", "soon"])
    assert datetime.now(UTC) - asked >= timedelta(seconds=0.1)
    job = asyncio.run(tasks.get(job_id))
    assert job is not None
    assert job.status is Status.queued
    assert timedelta(minutes=59) < job.run_at - asked < timedelta(minutes=61)


def test_one_unfinished_job_for_a_unique_key(
    tasks: Afterward, app: FastAPI, client: TestClient, happened: list[str], stored: Stored
) -> None:
    """While it is unfinished no other is stored; every handle leads to it. When it is over the key is free."""
    may_end = threading.Event()

    @tasks.task
    def rebuild(what: str) -> None:
        may_end.wait(10)
        happened.append(what)

    @app.get("/{what}")
    async def endpoint(what: str, background_tasks: BackgroundTasks) -> list[str]:
        once = rebuild.options(unique="index")
        added = [background_tasks.add_task(once, what).id for _ in range(2)]
        return [*added, (await once.enqueue(what)).id]

    ids = [*client.get("/first").json(), *client.get("/second").json()]
    assert len(stored()) == 1
    assert len(set(ids)) == 6
    found = [asyncio.run(tasks.get(job)) for job in ids]
    assert {job.id for job in found if job} == {stored()[0].id}
    assert None not in found
    assert happened == []

    may_end.set()
    wait_until(lambda: [job.status for job in stored()] == ["succeeded"])
    client.get("/third")
    wait_until(lambda: len(happened) == 2)
    assert happened == ["first", "third"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delay": 1, "run_at": datetime.now(UTC)}, "exclude each other"),
        ({"run_at": datetime(2030, 1, 1)}, "no time zone"),  # noqa: DTZ001
        ({"delay": -1}, "0 or more"),
        ({"delay": float("nan")}, "0 or more"),
        ({"queue": ""}, "queue"),
        ({"priority": 2**31}, "priority"),
        ({"unique": ""}, "unique"),
        ({"unique": "\0"}, "cannot be stored"),
        ({"queue": "\udc80"}, "cannot be stored"),
    ],
)
def test_options_that_make_no_sense_are_refused(tasks: Afterward, options: dict[str, Any], message: str) -> None:
    """Where they are written, not when the job is stored."""

    @tasks.task
    def note() -> None: ...

    with pytest.raises(TaskError, match=message):
        note.options(**options)


# Handed to the stock class


def loud(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if "task.run_by_stock" in record.message]


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("way", ["injected", "by hand", "single"])
def test_a_durable_task_given_to_the_stock_class_runs_and_says_that_it_is_not_durable(
    *,
    tasks: Afterward,
    app: FastAPI,
    client: TestClient,
    happened: list[str],
    stored: Stored,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    way: str,
) -> None:
    """It runs as any function there, in memory; a warning names the task."""

    def note(what: str) -> None:
        happened.append(what)

    async def async_note(what: str) -> None:
        happened.append(what)

    task: Task[[str], Any] = tasks.task(note if kind == "def" else async_note)

    @app.get("/injected")
    async def injected(background_tasks: fastapi.BackgroundTasks) -> None:
        background_tasks.add_task(task, "ran")

    @app.get("/by hand")
    async def by_hand() -> Response:
        background = starlette.background.BackgroundTasks()
        background.add_task(task, "ran")
        return Response(background=background)

    @app.get("/single")
    async def single() -> Response:
        return Response(background=starlette.background.BackgroundTask(task, "ran"))

    assert client.get(f"/{way}").status_code == 200
    assert happened == ["ran"]
    assert stored() == []
    [record] = loud(caplog)
    assert record.levelno >= logging.WARNING
    assert task.name in record.message


def test_a_task_that_runs_as_a_job_or_is_called_says_nothing(
    tasks: Afterward, app: FastAPI, client: TestClient, happened: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The warning is for the stock class alone."""

    @tasks.task
    async def note(what: str) -> None:
        happened.append(what)

    @app.get("/")
    async def endpoint(background_tasks: BackgroundTasks) -> Response:
        await note("called")
        background_tasks.add_task(note, "job")
        return Response(background=background_tasks)

    client.get("/")
    wait_until(lambda: happened == ["called", "job"])
    assert loud(caplog) == []
