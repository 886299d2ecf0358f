"""Tidying: round after round while there is something to do, and every round comes to its end."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from afterward.engine.tidier import CHUNKS, JOBS, keep_tidy, rounds
from afterward.job import Process, Status, Succeeded
from afterward.stores.sqlite import SQLiteStore
from tests.support.stores import Living, new_job, put, put_file, send

pytestmark = pytest.mark.anyio


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Living]:
    """A process that lives."""
    store = SQLiteStore(tmp_path / "jobs.db")
    await store.open()
    await store.join(Process("worker", 1, "example"))
    yield Living(store, "worker")
    await store.close()


async def test_a_backlog_of_files_is_freed_without_a_rest(worker: Living) -> None:
    """Far more than one transaction frees: what is uploaded without end is freed as fast."""
    files = [await put_file(worker, b"a") for _ in range(5 * CHUNKS)]
    await worker.give_all_back()
    tidying = asyncio.create_task(keep_tidy(worker.store, {}, period=3600))
    while await worker.store.get_chunk(files[-1].id, 0) is not None or await worker.store.get_chunk(files[0].id, 0):
        assert not tidying.done()
        await asyncio.sleep(0)
    tidying.cancel()


async def test_what_ends_meanwhile_is_left_to_the_next_time(worker: Living) -> None:
    """Else it would not come to an end where jobs end as fast as they are forgotten."""
    await end_many(worker, 2 * JOBS)
    pruned: list[int] = []
    async for tidied in rounds(worker.store, {Status.succeeded: 0.0}):
        pruned.append(tidied.pruned)
        assert len(pruned) < 20
        await end_many(worker, JOBS)
    # It came to an end. What had ended while a round was asked for may have been taken with it.
    assert sum(pruned) >= 2 * JOBS


async def end_many(worker: Living, count: int) -> None:
    await put(worker.store, *(new_job() for _ in range(count)))
    leases = (await worker.claim(send(count))).leases
    await worker.store.finish([(lease, Succeeded()) for lease in leases])
