"""Slots of one kind that are all taken do not make the worker deaf to what waits for them."""

import threading
from pathlib import Path

import anyio
import pytest

from afterward import Afterward
from afterward.engine.worker import WorkerOptions
from afterward.stores.sqlite import SQLiteStore


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
