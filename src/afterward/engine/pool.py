"""The child processes of one worker: started when they are needed, and kept as long as they are good for more."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, TypeAlias

from afterward.engine.executor import failure_of
from afterward.engine.files import Chunks
from afterward.engine.memory import MemoryWatch, taken_alone
from afterward.engine.process import Child, Host, NotBegun
from afterward.engine.voice import AttemptVoice
from afterward.errors import WorkerDied
from afterward.job import Died, Lease, Outcome, Released
from afterward.liveness import SUSPECT_AFTER
from afterward.task import Task

Leave: TypeAlias = Callable[[Lease], None]

JOBS_PER_CHILD = 100
"""So many attempts are run by one child; the next gets a new one."""

IDLE_SECONDS = 60.0
"""How long a child is kept that has nothing to do."""

_PART_OF_CAP = 0.5
"""A child that takes more of an attempt's `memory` before it begins has kept something of those before."""


def processors() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Pool:
    """Who calls bounds how many run at once. `leave`: called with a lease whose attempt is about to end itself."""

    def __init__(self, chunks: Chunks, leave: Leave = lambda _: None, jobs_per_child: int = JOBS_PER_CHILD) -> None:
        self._host = Host(chunks, leave, MemoryWatch())
        self._jobs_per_child = jobs_per_child
        self._idle: dict[Child, asyncio.TimerHandle] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._is_closing = False

    async def run(self, task: Task[..., Any], lease: Lease, voice: AttemptVoice) -> Outcome:
        """One attempt, in a child that nothing else runs in. Cancelled, it is killed.

        A suspect gets a new one: what it dies of is its own doing, and not what another has left behind.
        """
        if "<locals>" in task.name_in_code:
            return _cannot_be_tried(task, lease)
        is_new = lease.deaths >= SUSPECT_AFTER
        while True:
            try:
                child = await self._take(task, is_new=is_new)
            except OSError as error:  # no memory, no process, no descriptor left: nothing that the job has done
                return _not_begun(f"no child process could be started: {error}", lease)
            try:
                return await child.run(task, lease, voice, self._host)
            except NotBegun as error:
                if child.runs == 1 or not error.has_ended:
                    return _not_begun(str(error), lease)
                is_new = True  # that one had died since its last attempt
            finally:
                self._give_back(child, is_kept=task.executor == "process")

    def close(self) -> None:
        """Let those end that have nothing to do, and the others when they have ended their attempts."""
        self._is_closing = True
        for child in [*self._idle]:
            self._let_end(child)

    async def closed(self) -> None:
        """`close`, and return when all have ended."""
        self.close()
        if self._ending:
            await asyncio.wait(self._ending)
        self._host.memory.stop()

    async def _take(self, task: Task[..., Any], *, is_new: bool) -> Child:
        if is_new and self._idle:  # as many as there may be are there, perhaps
            self._let_end(next(iter(self._idle)))
        while self._idle and not is_new:
            child, timer = self._idle.popitem()
            timer.cancel()
            if child.is_alive and not _is_too_big(child, task.memory):
                return child
            self._end(child)
        return await Child.start()

    def _give_back(self, child: Child, *, is_kept: bool) -> None:
        if child.is_gone:
            return
        if is_kept and child.is_fit and child.is_alive and child.runs < self._jobs_per_child and not self._is_closing:
            self._idle[child] = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._let_end, child)
        else:
            self._end(child)

    def _let_end(self, child: Child) -> None:
        self._idle.pop(child).cancel()
        self._end(child)

    def _end(self, child: Child) -> None:
        ending = asyncio.get_running_loop().create_task(child.end())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


def _is_too_big(child: Child, cap: int | None) -> bool:
    return cap is not None and taken_alone(child.pid) > _PART_OF_CAP * cap


def _cannot_be_tried(task: Task[..., Any], lease: Lease) -> Died:
    _, _, path = task.name_in_code.partition(":")
    reason = WorkerDied(
        f"its worker process died {lease.deaths} times while running it; it cannot be tried in a process of its "
        f"own, for {path} is defined inside a function: define it at module level"
    )
    return Died(failure_of(reason, task.name), 0.0, final=True)


def _not_begun(why: str, lease: Lease) -> Released:
    return Released(why, min(60.0, 2.0 ** min(lease.attempt - SUSPECT_AFTER, 6)))
