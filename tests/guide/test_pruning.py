"""Jobs that ended are kept for a while, and forgotten after it."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from afterward import Afterward, GiveUp, JobHandle
from afterward.engine.tidier import JOBS, keep_tidy
from afterward.engine.worker import WorkerOptions
from afterward.job import Status
from afterward.stores.sqlite import SQLiteStore
from tests.support.opening import opened
from tests.support.stores import Clock
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> Clock:
    """The store's clock."""
    return Clock()


@pytest.fixture
def keeping(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., Afterward]]:
    """Makes an `Afterward` that keeps its jobs for so long, by that clock."""
    with ExitStack() as stack:

        def keep(**said: Any) -> Afterward:
            return stack.enter_context(opened(Afterward(store=SQLiteStore(tmp_path / "jobs.db", clock=clock), **said)))

        yield keep


async def ended_jobs(tasks: Afterward) -> dict[str, JobHandle]:
    """One job of each end."""

    @tasks.task
    async def end(how: str) -> None:
        if how == "failed":
            raise GiveUp

    async with tasks.running(WorkerOptions()):
        handles = {how: await end.enqueue(how) for how in ("succeeded", "failed")}
        handles["cancelled"] = await end.options(delay=60).enqueue("cancelled")
        await tasks.cancel(handles["cancelled"].id)
        await tasks.ended([handle.id for handle in handles.values()], 10)
    return handles


async def there(handles: dict[str, JobHandle]) -> set[str]:
    return {how for how, handle in handles.items() if await handle.job() is not None}


async def test_a_day_by_default_and_a_week_for_what_failed(clock: Clock, keeping: Callable[..., Afterward]) -> None:
    """By the store's clock, while a worker lives."""
    tasks = keeping()
    handles = await ended_jobs(tasks)
    for days, left in [(0.9, {*handles}), (0.2, {"failed"}), (5.8, {"failed"}), (0.2, set[str]())]:
        clock.advance(days * 86_400)
        async with tasks.running(WorkerOptions()):
            await soon_there(handles, left)


async def soon_there(handles: dict[str, JobHandle], left: set[str]) -> None:
    found = await there(handles)
    while found != left:
        assert found >= left
        await asyncio.sleep(0.01)
        found = await there(handles)
    await asyncio.sleep(0.05)
    assert await there(handles) == left


async def test_it_can_be_said_how_long_and_for_ever(clock: Clock, keeping: Callable[..., Afterward]) -> None:
    tasks = keeping(keep=timedelta(minutes=1), keep_failed=None)
    handles = await ended_jobs(tasks)
    clock.advance(10**8)
    async with tasks.running(WorkerOptions()):
        await soon_there(handles, {"failed"})


async def test_what_has_not_ended_is_kept_however_old_it_is(clock: Clock, keeping: Callable[..., Afterward]) -> None:
    tasks = keeping(keep=60, keep_failed=60)

    @tasks.task
    async def end() -> None: ...

    waiting = await end.options(queue="nobody serves").enqueue()
    ended = await end.options(queue="served").enqueue()
    async with tasks.running(WorkerOptions(queues=["served"])):
        await ended.result(timeout=10)
    clock.advance(10**8)
    async with tasks.running(WorkerOptions(queues=["served"])):
        await soon_there({"ended": ended, "waiting": waiting}, {"waiting"})


async def test_many_are_forgotten_page_by_page_while_others_are_stored(tasks: Afterward) -> None:
    """Nobody waits for all of them."""

    @tasks.task
    async def end(number: int) -> None: ...

    async with tasks.running(WorkerOptions()):
        handles = await tasks.enqueue_many([end.prepare(number) for number in range(10 * JOBS)])
        await tasks.ended([handle.id for handle in handles], 30)
        tidying = asyncio.create_task(keep_tidy(tasks.store, {Status.succeeded: 0.0}))
        stored = 0
        while len(await tasks.list(status=Status.succeeded, limit=10 * JOBS)) > JOBS:
            await end.options(delay=60).enqueue(0)
            stored += 1
        tidying.cancel()
    assert stored > 2
    assert len(await tasks.list(status=Status.queued, limit=10_000)) == stored


async def test_trouble_with_the_store_does_not_end_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = SQLiteStore(tmp_path / "jobs.db")
    tidying = asyncio.create_task(keep_tidy(store, {Status.succeeded: 0.0}, period=0.01))
    await soon(lambda: caplog.text.count("tidy.store_unavailable") >= 2)
    assert not tidying.done()
    tidying.cancel()
