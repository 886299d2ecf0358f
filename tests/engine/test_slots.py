"""What a worker claims into its slots: for the loop, for threads, for child processes."""

import threading
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from afterward import Afterward
from afterward.engine.worker import WorkerOptions
from afterward.stores.base import Answer, Claimed, Wanted
from afterward.stores.sqlite import SQLiteStore
from tests.support.heavy import rest_in_thread
from tests.support.heavy import where as where_
from tests.support.said import items


@pytest.mark.anyio
async def test_a_waiting_def_job_starts_as_soon_as_a_thread_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SQLiteStore, "reconcile_seconds", 30.0)  # nothing but the freed slot wakes the worker
    tasks = Afterward(f"sqlite:///{tmp_path}/jobs.db")
    may_end = threading.Event()
    started: list[int] = []

    @tasks.task(name="blocks")
    def blocks(number: int) -> None:
        started.append(number)
        may_end.wait(10)

    async def until(count: int) -> None:
        with anyio.fail_after(5):
            while len(started) < count:  # noqa: ASYNC110 - it is a thread that appends
                await anyio.sleep(0.01)

    async with tasks.running(WorkerOptions(threads=1)):
        try:
            await blocks.enqueue(1)
            await until(1)
            await blocks.enqueue(2)
            await anyio.sleep(0.2)  # the worker has looked, with its one thread taken, and waits again
            may_end.set()
            await until(2)
        finally:
            may_end.set()
    assert started == [1, 2]


@pytest.mark.anyio
async def test_a_job_for_a_child_process_is_claimed_when_one_is_free_and_then_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SQLiteStore, "reconcile_seconds", 30.0)
    tasks = Afterward(f"sqlite:///{tmp_path}/jobs.db")
    rest, where = (tasks.task(name=task.name, executor="process")(task.function) for task in (rest_in_thread, where_))

    @tasks.task(name="quick")
    async def quick() -> None: ...

    async with tasks.running(WorkerOptions(children=1)):
        first, second = await tasks.enqueue_many([rest.prepare(), where.prepare()])
        while not await items(tasks, first):
            await tasks.store.watch([first.id], 1)
        await (await quick.enqueue()).result(timeout=10)
        waits = await second.job()
        assert waits is not None
        assert (waits.status, waits.attempt) == ("queued", 0), "it is for whoever has a child free"
        await tasks.cancel(first.id)
        await second.result(timeout=20)


@pytest.mark.anyio
async def test_nothing_is_claimed_for_slots_that_no_task_here_could_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads are free all the time; a claim for them alone would find nothing, between any two others."""
    tasks = Afterward(f"sqlite:///{tmp_path}/jobs.db")
    all_have_run = anyio.Event()
    wanted: list[Wanted] = []
    claim = SQLiteStore.claim

    def claim_noted(store: SQLiteStore, process: str, wants: Sequence[Wanted], token: str) -> Answer[Claimed]:
        wanted.extend(wants)
        return claim(store, process, wants, token)

    monkeypatch.setattr(SQLiteStore, "claim", claim_noted)

    @tasks.task(name="counts")
    async def counts(number: int) -> None:
        if number == 49:
            all_have_run.set()

    async with tasks.running(None):
        await tasks.enqueue_many(counts.prepare(number) for number in range(50))
        async with tasks.running(WorkerOptions(concurrency=10)):
            with anyio.fail_after(5):
                await all_have_run.wait()
    assert len(wanted) >= 5
    assert {tuple(want.tasks) for want in wanted} == {("counts",)}
