"""Why a job is not running, asked by a program. What there is to be said: tests/unit/test_why.py."""

import asyncio
import threading
from pathlib import Path

import pytest

from afterward import Afterward, Cause, Ruling
from afterward.engine.worker import WorkerOptions

pytestmark = pytest.mark.anyio


async def causes(tasks: Afterward, job: str) -> list[Cause]:
    return [reason.cause for reason in await tasks.why(job)]


async def until(tasks: Afterward, job: str, expected: list[Cause]) -> None:
    """Until this is told of the job, which takes no longer than a heartbeat."""
    async with asyncio.timeout(20):
        while await causes(tasks, job) != expected:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.005)


async def until_known(tasks: Afterward) -> None:
    """Until a worker has said what it serves, which it does within a heartbeat."""
    async with asyncio.timeout(20):
        while all(process.served is None for process in await tasks.store.processes()):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.005)


async def test_a_handle_tells_what_its_job_waits_for(tasks: Afterward) -> None:
    """Nothing keeps it any more: then it has run."""

    @tasks.task
    async def send() -> None: ...

    handle = await send.options(delay=3600).enqueue()
    assert [reason.cause for reason in await handle.why()] == [Cause.scheduled, Cause.no_worker]
    async with tasks.running(WorkerOptions()):
        await until_known(tasks)
        assert await causes(tasks, handle.id) == [Cause.scheduled]
        assert await tasks.store.hasten([handle.id]) == [Ruling.done]
        await handle.result(timeout=10)
    assert await causes(tasks, handle.id) == [Cause.ended]
    assert await causes(tasks, "nothing") == [Cause.unknown]


async def test_a_task_that_is_declared_while_the_worker_runs_is_known(tasks: Afterward) -> None:
    @tasks.task
    async def send() -> None: ...

    async with tasks.running(WorkerOptions(queues=["mail"])):
        await until_known(tasks)

        @tasks.task
        async def resize() -> None: ...

        handle = await resize.options(queue="mail", delay=60).enqueue()
        await until(tasks, handle.id, [Cause.scheduled])


async def test_a_process_that_runs_jobs_no_more_does_not_count(tasks: Afterward) -> None:
    """Though it lives on, and serves requests."""

    @tasks.task
    async def send() -> None: ...

    async with tasks.running(None):
        async with tasks.running(WorkerOptions()):
            await until_known(tasks)
        handle = await send.options(delay=60).enqueue()
        await until(tasks, handle.id, [Cause.scheduled, Cause.no_worker])


async def test_threads_that_are_all_taken_are_told_from_places_in_the_loop(tasks: Afterward) -> None:
    """By the worker itself, which says what it serves, and how."""
    begun, go_on = threading.Event(), threading.Event()

    @tasks.task
    def pack(number: int) -> None:
        begun.set()
        go_on.wait(20)

    first = await pack.enqueue(1)
    second, third = await pack.enqueue(2), await pack.enqueue(3)
    async with tasks.running(WorkerOptions(threads=1)):
        try:
            await asyncio.to_thread(begun.wait, 20)
            await until_known(tasks)
            [runs], [busy] = await first.why(), await third.why()
        finally:
            go_on.set()
        await tasks.results([first, second, third], timeout=20)
    assert (runs.cause, busy.cause) == (Cause.running, Cause.busy)
    assert busy.text.startswith("the workers are full: 1 job stands before it, and the only thread is taken, on ")


async def test_a_function_that_nobody_knows_any_more_is_told_with_its_version(tasks: Afterward, database: Path) -> None:
    """That of the application that served it last; it is known though its process is gone."""
    former = Afterward(f"sqlite:///{database}", version="1.4.0")

    @former.task(name="send")
    async def send() -> None: ...

    try:
        async with former.running(WorkerOptions()):
            await until_known(former)
        handle = await send.enqueue()
    finally:
        await former.life.liveness.stop()

    @tasks.task
    async def resize() -> None: ...

    async with tasks.running(WorkerOptions()):
        await until_known(tasks)
        [unknown] = await tasks.why(handle.id)
    assert unknown.cause is Cause.unknown_task
    assert unknown.text.startswith("no live worker knows function send; it was last seen at ")
    assert unknown.text.endswith(" in version 1.4.0")
