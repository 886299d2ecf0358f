"""Cancelling a job that runs: it is asked to end, and shows as cancelled once it has.

What becomes of it when its process dies or stands still meanwhile: `tests/faults/test_cancelling.py`.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Annotated, Any

import pytest
from fastapi import Depends

from afterward import (
    Afterward,
    Job,
    JobCancelled,
    JobHandle,
    Ruling,
    Status,
    TaskCancelled,
    cancel_asked,
    check_cancelled,
    emit,
)
from afterward.engine import voice
from afterward.engine.worker import WorkerOptions
from afterward.liveness import Liveness
from tests.support import speaking
from tests.support.said import items, suspect
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio

Cancel = Callable[[JobHandle[Any]], Awaitable[Job]]


async def until_begun(tasks: Afterward, handle: JobHandle[Any]) -> None:
    """A task of these tests says something as it begins."""
    while not await items(tasks, handle):
        await tasks.store.watch([handle.id], 1)


@pytest.fixture
def cancel(tasks: Afterward) -> Cancel:
    """Cancels a job once it has begun, and gives it as it has ended."""

    async def cancel(handle: JobHandle[Any]) -> Job:
        await until_begun(tasks, handle)
        assert await tasks.cancel(handle.id) is Ruling.asked
        [job] = await tasks.ended([handle.id], timeout=20)
        assert job is not None
        return job

    return cancel


# In the loop


@pytest.mark.parametrize("timeout", [None, 60])
async def test_an_async_task_is_cancelled_where_it_awaits(
    tasks: Afterward, cancel: Cancel, happened: list[str], timeout: float | None
) -> None:
    """It can clean up, and say something still."""

    @tasks.task(timeout=timeout)
    async def bake() -> None:
        emit("begun")
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            emit("oven is off")

    async with tasks.running(WorkerOptions()):
        handle = await bake.enqueue()
        job = await cancel(handle)
        assert (job.status, job.note, job.failures, job.failure) == ("cancelled", "cancelled while running", 0, None)
        assert job.cancel_asked_at is not None
        with pytest.raises(JobCancelled):
            await handle.result()
    assert await items(tasks, handle) == ["begun", "oven is off"]


async def test_it_is_not_shown_as_cancelled_before_it_has_ended(tasks: Afterward, cancel: Cancel) -> None:
    """Until then it runs, though somebody has asked it to end."""
    may_end = asyncio.Event()

    @tasks.task
    async def bake() -> None:
        emit("begun")
        try:
            await asyncio.sleep(60)
        finally:
            emit("cleaning up")
            await may_end.wait()

    async with tasks.running(WorkerOptions()):
        handle = await bake.enqueue()
        cancelling = asyncio.ensure_future(cancel(handle))
        while len(await items(tasks, handle)) < 2:
            await tasks.store.watch([handle.id], 1)
        job = await handle.job()
        assert job is not None
        assert job.status == "running"
        assert job.cancel_asked_at is not None
        may_end.set()
        assert (await cancelling).status == "cancelled"


@pytest.mark.parametrize("timeout", [None, 60])
async def test_a_task_that_comes_to_its_end_all_the_same_has_succeeded(
    tasks: Afterward, cancel: Cancel, timeout: float | None
) -> None:
    """What is done is done, and is shown so."""

    @tasks.task(timeout=timeout)
    async def bake() -> str:
        emit("begun")
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return "half a loaf"

    async with tasks.running(WorkerOptions()):
        job = await cancel(await bake.enqueue())
    assert (job.status, job.result) == ("succeeded", '"half a loaf"')


async def test_what_a_dependency_has_done_stands_or_falls_with_the_outcome(
    tasks: Afterward, cancel: Cancel, happened: list[str]
) -> None:
    """A session commits for a task that has succeeded all the same; for one that is cancelled, it does not."""

    async def session() -> AsyncIterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            happened.append("rolled back")
            raise
        happened.append("committed")

    @tasks.task(timeout=60)
    async def bake(is_stubborn: bool, session: Annotated[None, Depends(session)]) -> None:
        emit("begun")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if not is_stubborn:
                raise

    async with tasks.running(WorkerOptions()):
        for is_stubborn, status, does in [(True, "succeeded", "committed"), (False, "cancelled", "rolled back")]:
            job = await cancel(await bake.enqueue(is_stubborn))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
            assert job.status == status
            assert happened.pop() == does


async def test_a_failure_while_it_cleans_up_is_not_tried_again(tasks: Afterward, cancel: Cancel) -> None:
    """It is cancelled, as it was asked; and the attempt tells what went wrong."""

    @tasks.task(backoff=0)
    async def bake() -> None:
        emit("begun")
        try:
            await asyncio.sleep(60)
        finally:
            raise OSError("the oven is stuck")

    async with tasks.running(WorkerOptions()):
        job = await cancel(await bake.enqueue())
    assert (job.status, job.attempt) == ("cancelled", 1)
    [attempt] = job.attempts
    assert attempt.failure is not None
    assert attempt.failure.message == "the oven is stuck"


async def test_a_clean_up_is_bounded(
    tasks: Afterward, cancel: Cancel, monkeypatch: pytest.MonkeyPatch, happened: list[str]
) -> None:
    """One that takes longer is cancelled as well, and so on until the function has ended. The log tells of it."""
    monkeypatch.setattr(voice, "CLEAN_UP_SECONDS", 0.1)

    @tasks.task
    async def bake() -> None:
        emit("begun")
        try:
            await asyncio.sleep(60)
        finally:
            try:
                await asyncio.sleep(60)
            finally:
                happened.append("its clean-up was cancelled")

    async with tasks.running(WorkerOptions()):
        job = await cancel(await bake.enqueue())
    assert job.status == "cancelled"
    assert happened == ["its clean-up was cancelled"]


async def test_one_that_waits_for_its_turn_in_a_task_group_is_cancelled_as_a_whole(
    tasks: Afterward, cancel: Cancel
) -> None:
    """That its parts raise `TaskCancelled` is no failure, though a group comes of it."""

    async def part() -> None:
        while True:
            await asyncio.sleep(0.005)
            check_cancelled()

    @tasks.task
    async def bake() -> None:
        emit("begun")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(part())
                group.create_task(part())
        except asyncio.CancelledError:
            raise ExceptionGroup("parts", [TaskCancelled(), TaskCancelled()]) from None

    async with tasks.running(WorkerOptions()):
        assert (await cancel(await bake.enqueue())).status == "cancelled"


# In a thread


async def test_a_def_task_asks_whether_it_is_to_end(tasks: Afterward, cancel: Cancel, happened: list[str]) -> None:
    """For nobody can stop a thread."""

    @tasks.task
    def bake() -> None:
        emit("begun")
        while True:
            time.sleep(0.005)
            try:
                check_cancelled()
            except TaskCancelled:
                happened.append("oven is off")
                raise

    async with tasks.running(WorkerOptions()):
        assert (await cancel(await bake.enqueue())).status == "cancelled"
    assert happened == ["oven is off"]


async def test_a_def_task_that_ends_its_work_early_has_succeeded(tasks: Afterward, cancel: Cancel) -> None:
    @tasks.task
    def bake() -> int:
        emit("begun")
        loaves = 1
        while not cancel_asked():
            time.sleep(0.005)
        return loaves

    async with tasks.running(WorkerOptions()):
        job = await cancel(await bake.enqueue())
    assert (job.status, job.result) == ("succeeded", "1")


async def test_a_def_task_that_does_not_heed_it_goes_on(tasks: Afterward, cancel: Cancel) -> None:
    may_end, asked = threading.Event(), list[bool]()

    @tasks.task
    def bake() -> str:
        emit("begun")
        while not cancel_asked():
            time.sleep(0.005)
        asked.append(True)
        may_end.wait(10)
        return "baked"

    async with tasks.running(WorkerOptions()):
        handle = await bake.enqueue()
        cancelling = asyncio.ensure_future(cancel(handle))
        await soon(lambda: asked)
        may_end.set()
        assert (await cancelling).status == "succeeded"


async def test_a_thread_that_was_left_behind_learns_that_its_attempt_is_over(
    tasks: Afterward, happened: list[str]
) -> None:
    """Its time was up: nobody has cancelled the job, and yet it should end."""

    @tasks.task(timeout=0.1, max_attempts=1)
    def bake() -> None:
        while not cancel_asked():
            time.sleep(0.005)
        happened.append("it has ended")

    async with tasks.running(WorkerOptions()):
        [job] = await tasks.ended([(await bake.enqueue()).id], timeout=10)
        await soon(lambda: happened)
    assert job is not None
    assert job.status == "failed"


async def test_to_be_cancelled_without_being_asked_is_a_failure(tasks: Afterward) -> None:
    @tasks.task(max_attempts=1)
    async def bake() -> None:
        check_cancelled()
        raise TaskCancelled("by itself")

    async with tasks.running(WorkerOptions()):
        [job] = await tasks.ended([(await bake.enqueue()).id], timeout=10)
    assert job is not None
    assert job.failure is not None
    assert (job.status, job.failure.kind) == ("failed", "afterward.errors.TaskCancelled")


# In a child process


@pytest.mark.parametrize(
    ("task", "status", "said"),
    [
        (speaking.rest, Status.cancelled, ["begun", "cleaned up"]),
        (speaking.rest_in_thread, Status.succeeded, ["begun"]),
    ],
)
async def test_a_child_process_is_asked_as_well(
    tasks: Afterward, cancel: Cancel, task: Any, status: Status, said: list[str]
) -> None:
    """In its loop and in its thread, as in its worker's."""
    apart = tasks.task(name=task.name)(task.function)
    async with tasks.running(None):
        handle = await apart.enqueue()
        await suspect(tasks, handle)
        async with tasks.running(WorkerOptions()):
            assert (await cancel(handle)).status is status
    assert await items(tasks, handle) == said


async def test_a_child_process_that_does_not_heed_it_is_killed(
    tasks: Afterward, cancel: Cancel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time for its clean-up. That is no death of the job's: it ended as it was asked to."""
    monkeypatch.setattr(voice, "CLEAN_UP_SECONDS", 0.3)
    apart = tasks.task(name=speaking.hear_nothing.name)(speaking.hear_nothing.function)
    async with tasks.running(None):
        handle = await apart.enqueue()
        await suspect(tasks, handle)
        async with tasks.running(WorkerOptions()):
            job = await cancel(handle)
    assert (job.status, job.deaths) == ("cancelled", 2)
    assert "its process was killed" in str(job.note)


# How soon


async def test_a_worker_of_the_same_process_hears_of_it_at_once(
    tasks: Afterward, cancel: Cancel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others look at the store several times a second."""

    may_look = threading.Event()

    async def wait(_: Liveness) -> None:
        await asyncio.to_thread(may_look.wait)

    @tasks.task
    async def bake() -> None:
        emit("begun")
        await asyncio.sleep(60)

    async with tasks.running(WorkerOptions()):
        handle = await bake.enqueue()
        await until_begun(tasks, handle)
        monkeypatch.setattr(Liveness, "_bury_the_dead", wait)
        await asyncio.sleep(0.4)  # by now no look comes in its turn
        try:
            assert (await cancel(handle)).status == "cancelled"
        finally:
            may_look.set()


async def test_a_worker_of_another_process_hears_of_it_soon(tasks: Afterward) -> None:
    """As a process without a hand in it: by its own looks at the store."""

    @tasks.task
    async def bake() -> None:
        emit("begun")
        await asyncio.sleep(60)

    async with tasks.running(WorkerOptions()):
        handle = await bake.enqueue()
        await until_begun(tasks, handle)
        assert await tasks.store.cancel([handle.id]) == [Ruling.asked]  # it tells nobody here
        [job] = await tasks.ended([handle.id], timeout=10)
    assert job is not None
    assert job.status == "cancelled"
