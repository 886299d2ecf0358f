"""Waking those who wait for jobs: here at once, elsewhere through the server's notifications.

Who is woken here may not be the one that it was rung for: that shows when he has looked, and then it is passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable


class Bell:
    """Rung from any thread; waited for on any loop. `ring_elsewhere` is called when nobody waits here."""

    def __init__(self, ring_elsewhere: Callable[[], None]) -> None:
        self._ring_elsewhere = ring_elsewhere
        self._mutex = threading.Lock()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._has_rung = False
        self._has_rung_here_alone = False
        self.was_waited_for = False
        """Has anybody waited here for jobs? Who does is one that runs them."""

    @property
    def is_waited_for(self) -> bool:
        """Does anybody wait here just now?"""
        return bool(self._waiting)

    def ring(self) -> None:
        """Wake one who waits: here if there is one, else in another process."""
        if self._wake():
            self._has_rung_here_alone = True
        else:
            self._ring_elsewhere()

    def ring_all(self) -> None:
        """Wake all who wait here, and one in each other process."""
        self._wake(most=None)
        self._ring_elsewhere()

    def has_looked(self, *, sees_others_jobs: bool) -> None:
        """Somebody here has looked for jobs. `sees_others_jobs`: there are some that nobody here wants."""
        rung, self._has_rung_here_alone = self._has_rung_here_alone, False
        if rung and sees_others_jobs:
            self._ring_elsewhere()

    def hear(self) -> None:
        """Somebody has rung elsewhere."""
        self._wake()

    def _wake(self, most: int | None = 1) -> bool:
        with self._mutex:
            waiting = self._waiting[:most]
            self._has_rung = True
        woken = [_set(loop, event) for loop, event in waiting]
        return any(woken)

    async def wait(self, seconds: float) -> None:
        """Until it rings, or for so many seconds. A ring since the last wait counts."""
        event = asyncio.Event()
        entry = (asyncio.get_running_loop(), event)
        with self._mutex:
            self.was_waited_for = True
            if self._has_rung:
                self._has_rung = False
                return
            self._waiting.append(entry)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await event.wait()
        finally:
            with self._mutex:
                self._waiting.remove(entry)
                self._has_rung = False


def _set(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> bool:
    if loop is running_loop():
        event.set()
        return True
    try:
        loop.call_soon_threadsafe(event.set)
    except RuntimeError:  # it is closed
        return False
    return True


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that the calling code runs on, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
