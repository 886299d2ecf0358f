"""One stay in a store, from a start to its stop: its thread, and the event loop that runs there."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any


class Stay:
    """Runs `live` on an event loop in a thread of its own, so that a blocked application loop does not look like death.

    `before`: the stay before this one, which is to be over first; it would close the store under this one.
    """

    def __init__(self, live: Callable[[Stay], Coroutine[Any, Any, None]], before: Stay | None = None) -> None:
        self.joined: concurrent.futures.Future[str] = concurrent.futures.Future()
        self.joined.set_running_or_notify_cancel()  # many may wait for it: one that is cancelled cancels it for none
        self.stop = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._live = live
        self._before = before
        self._is_over = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, in its thread."""
        self._thread = threading.Thread(target=self._run, name="afterward-liveness", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Have it leave. From any thread, also before it has begun."""
        self._is_over = True
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # its loop has ended already
                self.loop.call_soon_threadsafe(self.stop.set)

    def wait_until_over(self, seconds: float | None = None) -> None:
        """Block until it has left, so many seconds at most."""
        if self._thread is not None:
            self._thread.join(seconds)

    async def begin(self) -> None:
        """Live, on the running loop."""
        self.loop = asyncio.get_running_loop()
        if self._is_over:
            self.stop.set()
        await self._live(self)

    def _run(self) -> None:
        before, self._before = self._before, None
        if before is not None:
            before.wait_until_over()
        asyncio.run(self.begin())
