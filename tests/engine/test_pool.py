"""Child processes between two attempts."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from afterward import Task
from afterward.engine.pool import Pool
from afterward.engine.reporter import Reporter
from afterward.engine.voice import AttemptVoice
from afterward.job import EventKind, Lease, Succeeded
from tests.support import heavy
from tests.support.reports import Listener, unheard
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool(no_chunks)
    yield pool
    await pool.closed()


async def no_chunks(_file: str) -> AsyncIterator[bytes]:
    return
    yield


async def result(pool: Pool, task: Task[..., Any], *args: Any, voice: AttemptVoice | None = None) -> Any:
    """What it returns in one attempt."""
    job = task.prepare(*args)
    outcome = await pool.run(task, Lease(job.id, 1, "process", job.task, job.arguments), voice or unheard())
    assert isinstance(outcome, Succeeded)
    return json.loads(str(outcome.result))


async def test_a_child_that_died_while_it_had_nothing_to_do_costs_the_next_job_nothing(pool: Pool) -> None:
    """Not even a moment's delay: it gets another, whether the death is known by then or not."""
    first = await result(pool, heavy.where)
    os.kill(first, signal.SIGKILL)
    assert await result(pool, heavy.where) != first


async def test_a_job_that_was_asked_to_end_too_late_is_not_mistaken_for_the_next_in_its_child(pool: Pool) -> None:
    """What was said of it may be on its way still when its child runs another."""
    listener = Listener()
    reporter = Reporter(listener, None)
    async with reporter.reporting():
        over, next_ = reporter.voice(LEASE), reporter.voice(LEASE)
        pid = await result(pool, heavy.where, voice=over)
        running = asyncio.ensure_future(result(pool, heavy.is_asked, 0.5, voice=next_))
        await soon(lambda: listener.of(EventKind.item) == [str(pid)], seconds=20)
        assert over.stop is not None
        over.stop()
        assert await running is False


LEASE = Lease("job", 1, "process", "task", "{}")
