"""Generators as tasks: each item that they yield is an event of their job, stored while they go on."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field

from afterward import Afterward, BackgroundTasks, JobFailed, TaskError
from afterward.engine import gathering
from afterward.engine.worker import WorkerOptions
from tests.support import speaking
from tests.support.said import items, suspect
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio


async def test_what_an_async_generator_yields_is_stored_item_by_item(tasks: Afterward) -> None:
    """Its job succeeds when it has come to its end, and its result is None."""

    @tasks.task
    async def answer(question: str) -> AsyncIterator[str]:
        for word in (question, "is", "a", "good", "question"):
            yield word
            await asyncio.sleep(0)

    async with tasks.running(WorkerOptions()):
        handle = await answer.enqueue("why")
        assert await handle.result(timeout=10) is None  # type: ignore[func-returns-value]
    assert await items(tasks, handle) == ["why", "is", "a", "good", "question"]


async def test_a_plain_generator_runs_in_a_thread(tasks: Afterward) -> None:
    loop = threading.get_ident()

    @tasks.task
    def rows(count: int) -> Iterator[dict[str, Any]]:
        for number in range(count):
            yield {"row": number, "in_loop": threading.get_ident() == loop}

    async with tasks.running(WorkerOptions()):
        handle = await rows.enqueue(2)
        await handle.result(timeout=10)
    assert await items(tasks, handle) == [{"row": 0, "in_loop": False}, {"row": 1, "in_loop": False}]


def test_it_is_added_in_a_request_like_any_other_task(tasks: Afterward, app: FastAPI, client: TestClient) -> None:
    """With dependencies, which live as long as it yields."""
    happened: list[str] = []

    def session() -> Iterator[str]:
        happened.append("open")
        yield "a session"
        happened.append("closed")

    @tasks.task
    async def rows(table: str, session: str = Depends(session)) -> AsyncIterator[str]:
        yield f"{table} by {session}"
        happened.append("read")

    @app.get("/")
    def endpoint(background_tasks: BackgroundTasks) -> dict[str, str]:
        return {"job": background_tasks.add_task(rows, "orders").id}

    job = client.get("/").json()["job"]
    tasks.run_sync(rows.handle(job).result(timeout=10))
    assert tasks.run_sync(items(tasks, rows.handle(job))) == ["orders by a session"]
    assert happened == ["open", "read", "closed"]


class Row(BaseModel):
    """An item with a type."""

    number: int = Field(serialization_alias="n")
    at: datetime


ROW = Row(number=1, at=datetime(2030, 1, 2, tzinfo=UTC))


async def in_loop() -> AsyncIterator[Row]:
    yield ROW


async def in_loop_sending() -> AsyncGenerator[Row, None]:
    yield ROW


def in_thread() -> Iterator[Row]:
    yield ROW


def in_thread_sending() -> Generator[Row, None, str]:
    yield ROW
    return "what it returns is not kept"


def in_thread_iterable() -> Iterable[Row]:
    yield ROW


def unsaid():  # type: ignore[no-untyped-def]
    yield ROW


class Rows:
    """An object that can be called, and its method."""

    async def __call__(self) -> AsyncIterator[Row]:
        yield ROW

    def method(self) -> Iterator[Row]:
        yield ROW


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(function, id=name)
        for name, function in {
            "AsyncIterator": in_loop,
            "AsyncGenerator": in_loop_sending,
            "Iterator": in_thread,
            "Generator": in_thread_sending,
            "Iterable": in_thread_iterable,
            "no annotation": unsaid,
            "object": Rows(),
            "method": Rows().method,
            "partial": partial(in_loop),
        }.items()
    ],
)
async def test_items_are_written_as_their_type_says(tasks: Afterward, function: Callable[[], Any]) -> None:
    """By Pydantic, as FastAPI writes responses."""
    task = tasks.task(name="rows")(function)
    async with tasks.running(WorkerOptions()):
        handle = await task.enqueue()
        assert await handle.result(timeout=10) is None
    assert await items(tasks, handle) == [{"n": 1, "at": "2030-01-02T00:00:00Z"}]


@pytest.mark.parametrize(
    ("item", "told"), [("one", "yielded what cannot be stored (str)"), (2 * [1] * 40_000, "65,536 allowed")]
)
async def test_an_item_that_is_no_such_type_or_too_large_fails_the_job_for_good(
    tasks: Afterward, item: Any, told: str
) -> None:
    """To try again would not help. The generator is closed; what came before stays."""
    happened: list[str] = []

    @tasks.task
    async def numbers() -> AsyncIterator[int | list[int]]:
        try:
            yield 1
            yield item
        finally:
            happened.append("closed")

    async with tasks.running(WorkerOptions()):
        handle = await numbers.enqueue()
        with pytest.raises(JobFailed, match="ResultError") as failed:
            await handle.result(timeout=10)
        job = await handle.job()
    assert told in str(failed.value)
    assert job is not None
    assert job.attempt == 1
    assert happened == ["closed"]
    assert await items(tasks, handle) == [1]


def test_a_return_annotation_that_names_what_is_not_there_is_refused_at_the_start(tasks: Afterward) -> None:
    def rows() -> Iterator["Missing"]:  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore[reportUndefinedVariable, reportUnknownParameterType]
        yield 1

    tasks.task(rows)  # pyright: ignore[reportUnknownArgumentType]
    with pytest.raises(TaskError, match="annotations cannot be resolved"):
        tasks.check()


async def test_a_generator_that_fails_is_tried_again_from_its_beginning(tasks: Afterward) -> None:
    """So its items are there again, as those of the next attempt."""
    failures = [OSError("hung up"), None]

    @tasks.task(backoff=0)
    async def words() -> AsyncIterator[str]:
        yield "one"
        if failure := failures.pop(0):
            raise failure
        yield "two"

    async with tasks.running(WorkerOptions()):
        handle = await words.enqueue()
        await handle.result(timeout=10)
    assert await items(tasks, handle) == ["one", "one", "two"]


async def test_a_generator_runs_in_a_child_process_as_well(tasks: Afterward) -> None:
    """Nothing of it is dropped."""
    count = tasks.task(name=speaking.count.name)(speaking.count.function)
    async with tasks.running(None):
        handle = await count.enqueue(500)
        await suspect(tasks, handle)
        async with tasks.running(WorkerOptions()):
            await handle.result(timeout=20)
    assert await items(tasks, handle) == list(range(500))


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_generator_is_held_back_rather_than_that_anything_of_it_is_dropped(
    tasks: Afterward, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    """Faster than the store takes it; the loop goes on meanwhile."""
    monkeypatch.setattr(gathering, "MAX_GATHERED", 10)

    @tasks.task(name="in loop")
    async def in_loop() -> AsyncIterator[int]:
        for number in range(50):
            yield number

    @tasks.task(name="in thread")
    def in_thread() -> Iterator[int]:
        yield from range(50)

    async with tasks.running(WorkerOptions()):
        handle = await (in_loop if is_async else in_thread).enqueue()
        await handle.result(timeout=10)
    assert await items(tasks, handle) == list(range(50))


# Closed, however it ends


class Endless:
    """Generators that never end by themselves, and what becomes of them."""

    def __init__(self, tasks: Afterward, **options: Any) -> None:
        self.happened: list[str] = []
        self.in_loop = tasks.task(name="in_loop", **options)(self._in_loop)
        self.in_thread = tasks.task(name="in_thread", **options)(self._in_thread)

    async def _in_loop(self) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(60)
        finally:
            self.happened.append("closed")

    def _in_thread(self) -> Iterator[int]:
        try:
            while True:
                yield 1
                threading.Event().wait(0.005)
        finally:
            self.happened.append("closed")


@pytest.mark.parametrize("kind", ["in_loop", "in_thread"])
async def test_it_is_closed_when_its_job_is_cancelled(tasks: Afterward, kind: str) -> None:
    endless = Endless(tasks)
    async with tasks.running(WorkerOptions()):
        handle = await getattr(endless, kind).enqueue()
        while not await items(tasks, handle):
            await tasks.store.watch([handle.id], 1)
        await tasks.cancel(handle.id)
        [job] = await tasks.ended([handle.id], timeout=10)
    assert job is not None
    assert job.status == "cancelled"
    assert endless.happened == ["closed"]


@pytest.mark.parametrize("kind", ["in_loop", "in_thread"])
async def test_it_is_closed_when_its_time_is_up(tasks: Afterward, kind: str) -> None:
    endless = Endless(tasks, timeout=0.1, max_attempts=1)
    async with tasks.running(WorkerOptions()):
        handle = await getattr(endless, kind).enqueue()
        [job] = await tasks.ended([handle.id], timeout=10)
        await soon(lambda: endless.happened == ["closed"])
    assert job is not None
    assert job.failure is not None
    assert job.failure.kind == "afterward.errors.AttemptTimedOut"


@pytest.mark.parametrize("kind", ["in_loop", "in_thread"])
async def test_it_is_closed_when_its_worker_is_shut_down(tasks: Afterward, kind: str) -> None:
    """What it has yielded by then is stored, and the job waits for the next worker."""
    endless = Endless(tasks)
    async with tasks.running(None):
        async with tasks.running(WorkerOptions(grace=0)):
            handle = await getattr(endless, kind).enqueue()
            while not await items(tasks, handle):
                await tasks.store.watch([handle.id], 1)
        await soon(lambda: endless.happened == ["closed"])
        job = await handle.job()
    assert job is not None
    assert job.status == "queued"


async def test_one_that_goes_on_though_it_was_cancelled_is_closed_at_its_next_item(tasks: Afterward) -> None:
    """That item is stored still."""
    happened: list[str] = []

    @tasks.task
    async def stubborn() -> AsyncIterator[str]:
        try:
            yield "begun"
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            yield "almost done"
            happened.append("it went on")
        finally:
            happened.append("closed")

    async with tasks.running(WorkerOptions()):
        handle = await stubborn.enqueue()
        while not await items(tasks, handle):
            await tasks.store.watch([handle.id], 1)
        await tasks.cancel(handle.id)
        [job] = await tasks.ended([handle.id], timeout=10)
    assert job is not None
    assert job.status == "cancelled"
    assert happened == ["closed"]
    assert await items(tasks, handle) == ["begun", "almost done"]
