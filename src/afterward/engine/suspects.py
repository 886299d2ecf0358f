"""Jobs whose process has died too often: each runs in a child process of its own, when it is its turn."""

from __future__ import annotations

import asyncio
import random

from afterward.engine.pool import Pool, processors
from afterward.engine.voice import AttemptVoice
from afterward.job import Lease, Outcome, Released
from afterward.liveness import SUSPECT_AFTER
from afterward.task import Task

MOST_SUSPECTS = 100
"""How many of them a worker holds at once; others are given back."""


def is_suspect(task: Task[..., object], lease: Lease) -> bool:
    """Is it to run apart? One that runs in a child process of the pool does so by itself."""
    return lease.deaths >= SUSPECT_AFTER and task.executor != "process"


class Suspects:
    """Take turns: one at a time for each processor."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._turns = asyncio.Semaphore(processors())
        self._count = 0

    async def run(self, task: Task[..., object], lease: Lease, voice: AttemptVoice) -> Outcome:
        """One attempt."""
        if self._count >= MOST_SUSPECTS:
            pause = random.uniform(5, 10)  # noqa: S311 - so that they do not come back all at once
            return Released("waits for a process of its own, as many others do", pause)
        self._count += 1
        try:
            async with self._turns:
                return await self._pool.run(task, lease, voice)
        finally:
            self._count -= 1
