"""How many more jobs a worker takes, of each kind: in the loop, in threads, in child processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

from afterward.executors import Executor


class Slots:
    """Those that are free. `ring` has the worker look again at what waits."""

    def __init__(self, sizes: Mapping[Executor, int], ring: Callable[[], None]) -> None:
        self._free = dict(sizes)
        self._ring = ring
        self._freed = asyncio.Event()
        self._unasked: set[Executor] = set()
        self._has_rung = False
        self._direct = 0

    def take_direct(self, kind: Executor) -> bool:
        """Take one for a job that is not claimed, unless others of its kind may wait in the store."""
        if self._free[kind] <= 0 or kind in self._unasked:
            return False
        self._free[kind] -= 1
        self._direct += 1
        return True

    def take(self, kind: Executor) -> None:
        """Take one, free or not."""
        self._free[kind] -= 1

    def free(self, kind: Executor) -> None:
        """Give one back."""
        self._free[kind] += 1
        if kind in self._unasked and not self._has_rung:
            self._has_rung = True
            self._ring()  # nobody knows yet what waits for this kind of slot
        if not self._freed.is_set():
            self._freed.set()

    def share(self, kinds: Collection[Executor]) -> dict[Executor, int]:
        """How many jobs to claim; half of what is free where direct starts want some.

        None of a kind that no task here is of: a claim for that alone would find nothing, time and again. Where no task
        is declared yet, of all: what is not wanted now would be waited for without end.
        """
        divisor = 2 if self._direct else 1
        self._direct = 0
        return {kind: -(-free // divisor) if not kinds or kind in kinds else 0 for kind, free in self._free.items()}

    def set_apart(self, limits: Mapping[Executor, int]) -> None:
        """These are for a claim that is about to be made; what is freed of a kind that it does not ask for, rings."""
        for kind, limit in limits.items():
            self._free[kind] -= limit
        self._unasked = {kind for kind, limit in limits.items() if not limit}
        self._has_rung = False

    def put_back(self, limits: Mapping[Executor, int]) -> None:
        """Those that the claim has left."""
        for kind, limit in limits.items():
            self._free[kind] += limit

    async def until_freed(self) -> None:
        """Until one is freed from now on, or somebody wakes who waits."""
        self._freed.clear()
        await self._freed.wait()

    def wake(self) -> None:
        """Let who waits go on."""
        self._freed.set()
