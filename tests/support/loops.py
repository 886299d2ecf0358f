"""Event loops in threads of their own."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Self, TypeVar

T = TypeVar("T")


class OtherLoop:
    """An event loop in another thread, as the one that a process's heart beats on, while the block lasts."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        if not self._thread.is_alive():
            self.loop.close()

    def do(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin something there; await it with `asyncio.wrap_future`."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)


async def answered(work: Coroutine[Any, Any, T], seconds: float = 10) -> T:
    """What `work` returns, done on a loop of its own; fails when that takes too long.

    For what might never be answered and cannot be cancelled: it would keep the loop of the test from ending.
    """
    with OtherLoop() as elsewhere:
        answer = asyncio.wrap_future(elsewhere.do(work))
        done, _ = await asyncio.wait([answer], timeout=seconds)
        assert done, f"no answer in {seconds} s"
        return answer.result()
