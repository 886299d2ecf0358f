"""SQLite: whose doorbell is rung, and whose is not."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from afterward.job import Process
from afterward.stores.sqlite import SQLiteStore
from tests.support.stores import Living, new_job

pytestmark = pytest.mark.anyio


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[list[Living]]:
    """Two processes that live."""
    two = [Living(SQLiteStore(tmp_path / "jobs.db"), name) for name in ("one", "another")]
    for living in two:
        await living.store.open()
        await living.store.join(Process(living.id, 4711, "example"))
    yield two
    for living in two:
        await living.store.leave(living.id)
        await living.store.close()


async def test_who_leaves_rings_only_if_there_is_something_to_claim(two: list[Living]) -> None:
    """Of many that end at once, each would have all others look for nothing."""
    leaving, other = two
    waiting = asyncio.create_task(other.store.wait(60))
    await asyncio.sleep(0)
    await other.claim()
    await leaving.enqueue(new_job(delay=60))
    await leaving.store.leave(leaving.id)
    await asyncio.wait([waiting], timeout=0.1)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])
