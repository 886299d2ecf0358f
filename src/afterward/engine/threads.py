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
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

Key = tuple[str, int]
"""Names one call: a job's id and its attempt."""


@dataclass(slots=True, eq=False)
class _Call:
    key: Key
    context: Context
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    future: asyncio.Future[tuple[Any, BaseException | None]]
    result: Any = None
    error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.context.run(self.function, *self.args, **self.kwargs)
        except BaseException as error:  # noqa: BLE001 - a failure of the task, whatever it is, is not one of this thread
            self.error = error


class Threads:
    """As many threads as are needed at once; who calls bounds their number."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[_Call | None] = SimpleQueue()
        self._done: deque[_Call] = deque()
        self._mutex = threading.Lock()
        self._delivering = False
        self._threads = 0
        self._running: dict[Key, Callable[[], None] | None] = {}

    def call(
        self, key: Key, context: Context, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> asyncio.Future[tuple[Any, BaseException | None]]:
        """Call `function` in a thread, in this context; the future has what it returned, and what it raised."""
        future: asyncio.Future[tuple[Any, BaseException | None]] = self._loop.create_future()
        self._running[key] = None
        if len(self._running) > self._threads:
            self._threads += 1
            threading.Thread(target=self._run, name=f"afterward-task-{self._threads}", daemon=True).start()
        self._work.put(_Call(key, context, function, args, kwargs, future))
        return future

    def when_returned(self, key: Key, callback: Callable[[], None]) -> bool:
        """If that call has not come back yet (nobody may be waiting for it any more): call `callback` when it does."""
        if key not in self._running:
            return False
        self._running[key] = callback
        return True

    def stop(self) -> None:
        """Let idle threads end; one that is in a function ends with it, or with the process."""
        for _ in range(self._threads):
            self._work.put(None)
        self._threads = 0

    def _run(self) -> None:
        while (call := self._work.get()) is not None:
            call.run()
            with self._mutex:
                self._done.append(call)
                first, self._delivering = not self._delivering, True
            del call  # an idle thread keeps nothing alive
            if first:
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop is closed: the process is ending, and its leases with it
                    return

    def _deliver(self) -> None:
        with self._mutex:
            self._delivering = False
            done = list(self._done)
            self._done.clear()
        for call in done:
            returned = self._running.pop(call.key)
            if returned is not None:
                returned()
            if not call.future.cancelled():
                call.future.set_result((call.result, call.error))
