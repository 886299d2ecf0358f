"""The threads in which `def` tasks run: their own, so that tasks never eat the endpoints' threads.

Daemon threads: a function that never returns must not keep the process from ending. The results of several threads
go back to the event loop in one hand-over.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context
from queue import SimpleQueue
from typing import Any

_Work = tuple[asyncio.Future[Any], Context, Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Threads:
    """As many threads as are needed at once; who calls bounds their number."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._mutex = threading.Lock()
        self._delivering = False
        self._threads = 0
        self._busy = 0

    def call(
        self, context: Context, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> asyncio.Future[Any]:
        """Call `function` in a thread, in this context; the future has what it returned or raised."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._busy += 1
        if self._busy > self._threads:
            self._threads += 1
            threading.Thread(target=self._run, name=f"afterward-task-{self._threads}", daemon=True).start()
        self._work.put((future, context, function, args, kwargs))
        return future

    def stop(self) -> None:
        """Let idle threads end; one that is in a function ends with it, or with the process."""
        for _ in range(self._threads):
            self._work.put(None)
        self._threads = 0

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, context, function, args, kwargs = work
            del work
            result, error = None, None
            try:
                result = context.run(function, *args, **kwargs)
            except BaseException as raised:  # a failure of the task, whatever it is, is not one of this thread
                error = raised
            self._give(future, result, error)
            del future, context, function, args, kwargs, result, error

    def _give(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        with self._mutex:
            self._done.append((future, result, error))
            if self._delivering:
                return
            self._delivering = True
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # the loop is closed: the process is ending, and its leases with it
            return

    def _deliver(self) -> None:
        with self._mutex:
            self._delivering = False
            done = list(self._done)
            self._done.clear()
        for future, result, error in done:
            self._busy -= 1
            if not future.cancelled():
                future.set_result((result, error))
