"""How a worker process is told to end: by signals, or by its supervisor.

What it is told passes through one queue, in which a signal handler may put (`SimpleQueue` is reentrant), to one
thread: neither a blocked event loop nor a lock that the interrupted code holds can keep the process from ending. Only
code that never lets another thread run can, as a library may that keeps the interpreter's lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from afterward.cli.signals import Signals
from afterward.cli.wishes import Wishes
from afterward.observe import emit

STOP = b"stop\n"
HURRY = b"hurry\n"
"""What a supervisor writes to a worker's standard input. Its end means `STOP` too: the supervisor is gone."""

MARGIN_SECONDS = 15.0
"""How long after its grace a process may take: its last writes wait for a locked store, each for some seconds."""

_HURRIED_SECONDS = 3.0
_EXIT_SECONDS = 3.0


class _Order(Enum):
    signal = 1
    stop = 2
    hurry = 3
    done = 4


@dataclass(frozen=True, slots=True)
class _Service:
    """What runs jobs here, on its event loop."""

    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[object] | None
    stopping: asyncio.Event


class Control:
    """Ends this process in time. A second signal hurries it: what runs is then released at once.

    `supervised`: its supervisor says when to hurry, and signals only ask: a terminal, or a service manager, sends
    them to every process of the service while the supervisor passes them on.
    """

    def __init__(self, grace: float, *, supervised: bool) -> None:
        self._grace = grace
        self._supervised = supervised
        self._orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        self._deadline: float | None = None
        self._code = 1
        self._wishes = Wishes()
        self._asked_at: float | None = None
        self._hurried = False
        self._service: _Service | None = None
        self._signals = Signals((signal.SIGTERM, signal.SIGINT), lambda: self._orders.put(_Order.signal))

    def listen(self) -> None:
        """From now on, SIGTERM, SIGINT and the supervisor end this process."""
        self._signals.listen()
        threading.Thread(target=self._obey, name="afterward-control", daemon=True).start()
        if self._supervised:
            orders = _take_standard_input()
            threading.Thread(target=self._read, args=(orders,), name="afterward-supervisor", daemon=True).start()

    @contextmanager
    def attached(self) -> Generator[asyncio.Event]:
        """Inside: the event that tells the calling coroutine to end; if it must hurry, it is cancelled."""
        self._service = service = _Service(asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event())
        self._tell(service)
        with self._signals.within_loop():
            yield service.stopping

    @property
    def hurried(self) -> bool:
        """Was the process told not to wait for running jobs?"""
        return self._hurried

    def done(self, code: int) -> None:
        """The work has come to its end: threads that it left behind must not keep the process, nor a signal end it."""
        self._signals.ignore()
        self._code = code
        self._orders.put(_Order.done)

    def _obey(self) -> None:
        while True:
            try:
                order = self._orders.get(timeout=self._seconds_left())
            except queue.Empty:
                self._end()
            match order:
                case _Order.signal:
                    self._heed_signal()
                case _Order.stop:
                    self._ask()
                case _Order.hurry:
                    self._hurry()
                case _Order.done:
                    self._deadline = time.monotonic() + _EXIT_SECONDS

    def _seconds_left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _heed_signal(self) -> None:
        if not self._wishes.is_another():
            return
        if self._asked_at is None or self._supervised:
            self._ask()
        else:
            self._hurry()

    def _ask(self) -> None:
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            self._deadline = self._asked_at + self._grace + MARGIN_SECONDS
            emit(logging.INFO, "worker.stopping", grace=self._grace)
            self._tell_loop()

    def _hurry(self) -> None:
        self._ask()
        if not self._hurried:
            self._hurried = True
            self._deadline = time.monotonic() + _HURRIED_SECONDS
            emit(logging.INFO, "worker.hurrying")
            self._tell_loop()

    def _tell_loop(self) -> None:
        service = self._service
        if service is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nothing is left to be told
                service.loop.call_soon_threadsafe(self._tell, service)

    def _tell(self, service: _Service) -> None:
        if self._asked_at is not None:
            service.stopping.set()
        if self._hurried and service.task is not None:
            # Not at once: it must be waiting for its jobs by then, else the cancellation would only begin that.
            service.loop.call_later(0.05, service.task.cancel)

    def _end(self) -> NoReturn:
        if self._code != 0:
            emit(logging.ERROR, "worker.cut_off", reason="running jobs could not be released; others will find them")
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(self._code)

    def _read(self, orders: int) -> None:
        heard = b""
        while chunk := os.read(orders, 64):
            heard += chunk
            self._orders.put(_Order.hurry if HURRY in heard else _Order.stop)
        self._orders.put(_Order.stop)


def _take_standard_input() -> int:
    """The supervisor's end of standard input, for us alone: what tasks start finds an empty one in its place."""
    ours = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return ours
