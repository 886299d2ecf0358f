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
    """As many threads as are needed at once; who calls bounds their number.

    One thread is woken at a time, and wakes the next if it leaves work behind: many short calls are done by one thread
    that need not hand the GIL to another for each, while long ones spread over as many threads as there are calls.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.stopped: asyncio.Future[None] = self._loop.create_future()
        self._mutex = threading.Lock()
        self._calls: deque[_Call | None] = deque()
        self._idle: list[threading.Lock] = []
        self._threads = 0
        self._waking = False
        self._done: list[_Call] = []
        self._running: dict[Key, tuple[Callable[[], None], ...]] = {}

    def call(
        self, key: Key, context: Context, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> asyncio.Future[tuple[Any, BaseException | None]]:
        """Call `function` in a thread, in this context; the future has what it returned, and what it raised."""
        future: asyncio.Future[tuple[Any, BaseException | None]] = self._loop.create_future()
        self._running[key] = ()
        with self._mutex:
            self._calls.append(_Call(key, context, function, args, kwargs, future))
            self._wake_one()
        return future

    def when_returned(self, key: Key, callback: Callable[[], None]) -> bool:
        """If that call has not come back yet (nobody may be waiting for it any more): call `callback` when it does."""
        if key not in self._running:
            return False
        self._running[key] += (callback,)
        return True

    def stop(self) -> None:
        """Let idle threads end; one that is in a function ends with it, or with the process. Lawful twice."""
        if not self.stopped.done():
            self.stopped.set_result(None)
        with self._mutex:
            self._calls.extend([None] * self._threads)
            self._wake_one()

    def _wake_one(self) -> None:
        """With the mutex held: have a thread look at the calls, unless one is on its way to them already."""
        if self._waking or not self._calls:
            return
        if self._idle:
            self._waking = True
            self._idle.pop().release()
        elif self._threads < len(self._running):
            self._waking = True
            self._threads += 1
            threading.Thread(target=self._run, name=f"afterward-task-{self._threads}", daemon=True).start()

    def _run(self) -> None:
        parked = threading.Lock()
        parked.acquire()
        while True:
            with self._mutex:
                self._waking = False  # woken, or just begun: here it is
                calling = bool(self._calls)
                if not calling:
                    self._idle.append(parked)
            if not calling:
                parked.acquire()
            elif not self._work_off():
                return

    def _work_off(self) -> bool:
        """Do calls until there are none; False when this thread is to end."""
        while True:
            with self._mutex:
                if not self._calls:
                    return True
                call = self._calls.popleft()
                self._wake_one()
            if call is None:
                return False
            call.run()
            if not self._give(call):
                return False

    def _give(self, call: _Call) -> bool:
        with self._mutex:
            self._done.append(call)
            if len(self._done) > 1:
                return True
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # the loop is closed: the process is ending, and its leases with it
            return False
        return True

    def _deliver(self) -> None:
        with self._mutex:
            done, self._done = self._done, []
        for call in done:
            for returned in self._running.pop(call.key):
                returned()
            if not call.future.cancelled():
                call.future.set_result((call.result, call.error))
