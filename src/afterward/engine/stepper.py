"""A worker that does nothing by itself: it claims and runs one job, whole, each time that it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from afterward.engine.executor import Hear
from afterward.engine.voice import AttemptVoice
from afterward.engine.worker import Worker
from afterward.faults import Crash, crash_point
from afterward.identity import new_id
from afterward.job import Lease, Outcome
from afterward.stores.base import Wanted
from afterward.task import Task


class Stepper(Worker):
    """Runs jobs one after the other, most urgent first, as `Worker` would if it had one slot in all."""

    @asynccontextmanager
    async def working(self, hear: Hear | None = None) -> AsyncGenerator[None]:
        """`claim` and `attempt` work within the block. `hear` is told the exceptions that attempts end in."""
        async with self._working(hear):
            yield

    async def claim(self) -> Lease | None:
        """A lease of the most urgent job that is due; None when nothing is."""
        process = self._liveness.process or await self._liveness.start()
        holdings = self._liveness.holdings
        token = new_id()
        holdings.expect_claim(token)
        try:
            claimed = await self._store.claim(process, [Wanted(self._tasks.keys(), 1, self._options.queues)], token)
            for lease in claimed.leases:
                crash_point("after_claim")
                holdings.have(lease.id, lease.attempt)
                return lease
        finally:
            holdings.forget_claim(token)
        return None

    async def attempt(self, lease: Lease) -> None:
        """Run one attempt to its end, and write how it ended. Raises `Crash` when a test has the process die of it."""
        self._slots.take(self._tasks[lease.task].executor)
        self.start(lease)
        try:
            await self._end_of(lease)
        except Crash:  # the dead release nothing
            self._running.clear()
            self._finisher.drop()
            raise

    async def _end_of(self, lease: Lease) -> None:
        running = self._running.get((lease.id, lease.attempt))
        if running is not None:
            await asyncio.wait({running[0]})
            running[0].result()
        await self._finisher.written(raises=True)

    async def _run_apart(self, task: Task[..., Any], lease: Lease, voice: AttemptVoice) -> Outcome:
        """Here, like any other: what a test replaces in its own process, a child would not see."""
        return await self._executor.run(task, lease, voice)
