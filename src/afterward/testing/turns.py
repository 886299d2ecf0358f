"""One at a time, in the order they came, on whatever event loop and in whatever thread each of them is."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Turns:
    """A queue of those who wait for each other."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._last: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._last.set_result(None)

    @asynccontextmanager
    async def one(self) -> AsyncGenerator[None]:
        """Wait for all who came before; who comes later waits until the block is left."""
        mine: concurrent.futures.Future[None] = concurrent.futures.Future()
        with self._mutex:
            before, self._last = self._last, mine
        try:
            await asyncio.shield(asyncio.wrap_future(before))
            yield
        finally:  # who is cancelled while it waits lets nobody pass who was not to pass before
            before.add_done_callback(lambda _: mine.set_result(None))
