"""A worker that claims nothing: it runs the attempts that it is given, for somebody who waits for their end."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from afterward.engine.finishing import Finisher
from afterward.engine.suspects import is_suspect
from afterward.engine.worker import Worker
from afterward.job import Lease, Outcome, Released
from afterward.liveness import Liveness
from afterward.stores.base import Store
from afterward.stores.seen import Served
from afterward.task import Task

GATHERING_SECONDS = 0.01
"""How long an outcome waits for the next attempt to begin, while they come one after the other."""


class GivenWorker(Worker):
    """Runs tasks with `executor="celery"`, as many at once as it is given; `slots`: how many that are at most.

    `end`: ends this process. Where it is set, an attempt that does not heed its cancellation in the time for its
    clean-up is ended so.
    """

    slots = 1
    end: Callable[[Lease], None] | None = None

    def __init__(
        self, store: Store, liveness: Liveness, tasks: Mapping[str, Task[..., Any]], *args: Any, **kwargs: Any
    ):
        super().__init__(store, liveness, tasks, *args, **kwargs)
        self._finisher = _GatheringFinisher(store, liveness, tasks, self._stopped.is_set)
        self._ready = asyncio.Event()

    async def run(self) -> None:
        """Serve until `stop`. What has not ended in its grace is released."""
        async with self._working():
            self._ready.set()
            try:
                await self._stopped.wait()
            finally:
                self._ready.clear()
            self._pool.close()
            await self._let_end()

    def write_ended(self) -> None:
        """How those before have ended is written now: whoever calls is about to write, and both are one transaction."""
        self._finisher.write()

    async def attempt(self, lease: Lease) -> None:
        """Run it; returns when nothing of it runs any more, and how it ended is on its way to the store.

        Whoever was told of its end by this may forget it: should this process die before it is stored, the attempt is
        that of a dead process.
        """
        await self._ready.wait()
        key = lease.id, lease.attempt
        if lease.task not in self._tasks:
            self._refuse(lease)
            return
        self._slots.take(self._tasks[lease.task].executor)
        self.start(lease)
        if key in self._running:
            attempt, voice = self._running[key]
            if self.end is not None and not is_suspect(self._tasks[lease.task], lease):
                voice.stop = _Stop(voice.stop, lease, self.end)
            await asyncio.wait({attempt})
        returned = asyncio.Event()
        if self._threads.when_returned(key, returned.set):
            await returned.wait()

    def _refuse(self, lease: Lease) -> None:
        released = Released(f"function {lease.task} is not known here", min(60.0, 2.0 ** min(lease.attempt, 6)))
        self._finisher.end(lease, released, time.monotonic())

    def _served(self) -> Served:
        tasks = {name: task for name, task in list(self._tasks.items()) if task.executor == "celery"}
        return Served(
            tasks={name: task.arguments.fingerprint for name, task in tasks.items()},
            queues=None,
            concurrency=self.slots,
            threads=0,
            version=self._version,
            hosted=sorted(tasks),
        )


class _Stop:
    """Asks an attempt to end at first, and ends its process when it is to end once more."""

    def __init__(self, stop: Callable[[], object] | None, lease: Lease, end: Callable[[Lease], None]) -> None:
        self._stop = stop
        self._lease = lease
        self._end = end
        self._has_asked = False

    def __call__(self) -> None:
        if self._has_asked:
            self._end(self._lease)
        self._has_asked = True
        if self._stop is not None:
            self._stop()


class _GatheringFinisher(Finisher):
    """Where one attempt follows the other, waits for the next: its beginning and this end are one transaction then."""

    _ended_at = -math.inf
    _is_busy = False

    def end(self, lease: Lease, outcome: Outcome, began: float) -> None:
        self._ended_at = time.monotonic()
        super().end(lease, outcome, began)

    def write(self) -> None:
        self._is_busy = time.monotonic() - self._ended_at < GATHERING_SECONDS
        super().write()

    def _schedule(self, write: Callable[[], None]) -> asyncio.Handle:
        loop = asyncio.get_running_loop()
        if self._is_busy:
            return loop.call_later(GATHERING_SECONDS, self._write_alone, write)
        return loop.call_soon(write)

    def _write_alone(self, write: Callable[[], None]) -> None:
        self._is_busy = False
        write()
