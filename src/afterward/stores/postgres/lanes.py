"""The connections of one event loop: what is asked for together goes together, and waits behind nothing slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from afterward.stores.batch import Operation
from afterward.stores.postgres.lane import Lane
from afterward.stores.postgres.notices import Notices

_APART = 4
"""How many of those operations are under way at once that may have to wait for another transaction."""


class Lanes:
    """One lane for each sort of operation, made when it is needed. To be made and closed on its loop."""

    def __init__(self, make: Callable[[str], Lane], channel: str) -> None:
        self.loop = asyncio.get_running_loop()
        self.notices = Notices(channel, lambda operation: self.submit("writes", operation))
        self._make = make
        self._lanes: dict[str, Lane] = {}
        self._is_closed = False

    def submit(self, sort: str, operation: Operation) -> None:
        """Take an operation, from whatever loop. Raises `RuntimeError` when its own has ended."""
        if operation.loop is self.loop:
            self._submit(sort, operation)
        else:
            self.loop.call_soon_threadsafe(self._submit, sort, operation)

    def _submit(self, sort: str, operation: Operation) -> None:
        name = self._one_apart() if sort == "apart" else sort
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = self._make(sort)
            if self._is_closed:
                lane.end()
        lane.submit(operation)

    def _one_apart(self) -> str:
        """One that does nothing, if there is or may be one."""
        names = [f"apart {number}" for number in range(_APART)]
        return min(names, key=lambda name: self._lanes[name].waiting if name in self._lanes else 0)

    async def close(self) -> None:
        """Do what has been asked for, refuse all that comes after, and let go of the connections. Idempotent."""
        self._is_closed = True
        for lane in list(self._lanes.values()):
            await lane.close()
