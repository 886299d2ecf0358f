"""Those who wait for a job to end, in this process: told at once when it ends here."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterable, Sequence

_Waiting = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]


class Watchers:
    """Wakes those who wait for one of some jobs. Used from any thread and loop."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: dict[str, set[_Waiting]] = {}

    async def wait(self, jobs: Sequence[str], seconds: float) -> None:
        """Return when `tell` names one of these jobs, or after so many seconds."""
        loop = asyncio.get_running_loop()
        waiting: _Waiting = (loop, loop.create_future())
        watched = set(jobs)
        with self._mutex:
            for job in watched:
                self._waiting.setdefault(job, set()).add(waiting)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await waiting[1]
        finally:
            with self._mutex:
                for job in watched:
                    self._waiting[job].discard(waiting)
                    if not self._waiting[job]:
                        del self._waiting[job]

    def tell(self, jobs: Iterable[str]) -> None:
        """These jobs may have ended."""
        if not self._waiting:
            return
        with self._mutex:
            found = {waiting for job in jobs for waiting in self._waiting.get(job, ())}
        for loop, future in found:
            with contextlib.suppress(RuntimeError):  # that loop is closed: nobody is left to be woken
                loop.call_soon_threadsafe(_wake, future)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
