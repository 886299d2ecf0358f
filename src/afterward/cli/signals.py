"""Hearing signals in a process whose main thread may be deaf.

Python runs a handler in the main thread, between two of its instructions: not while that is in a library's code, nor
when a signal came just before it went to sleep. The byte that the interpreter writes for each signal comes at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Signals:
    """Tells of these signals, in a thread of its own or in the main one. It is used in the main thread."""

    def __init__(self, numbers: Sequence[signal.Signals], tell: Callable[[], object]) -> None:
        self._numbers = numbers
        self._tell = tell
        self._heard, self._written = socket.socketpair()
        self._written.setblocking(False)
        self._loop: int | None = None
        self._passing = threading.Lock()
        self._before: dict[signal.Signals, Any] = {}
        self._forking = threading.local()

    def listen(self) -> None:
        """From now on, tell."""
        self._take_over()
        self._before = {number: signal.signal(number, self._handle) for number in self._numbers}
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._hold, after_in_parent=self._let_go, after_in_child=self._leave)
        threading.Thread(target=self._read, name="afterward-signals", daemon=True).start()

    @contextmanager
    def within_loop(self) -> Generator[None]:
        """Inside, in a running event loop: that gets to know of each signal too, as if it had been told first."""
        loops = self._take_over()
        self._pass_to(loops if loops not in {-1, self._written.fileno()} else None)  # never back to ourselves
        try:
            yield
        finally:  # before the loop closes it, and something else has that number
            self._pass_to(None)

    def ignore(self) -> None:
        """From now on, these signals do nothing."""
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN)

    def _hold(self) -> None:
        """A process is about to be forked, which has our end of the socket: until it leaves, it is to hear nothing."""
        self._forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def _let_go(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._forking.mask)

    def _leave(self) -> None:
        """In a process that was forked from this one: what is sent to it is no affair of this one's."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._let_go()

    def _take_over(self) -> int:
        return signal.set_wakeup_fd(self._written.fileno(), warn_on_full_buffer=False)

    def _pass_to(self, loop: int | None) -> None:
        with self._passing:
            self._loop = loop

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        current = self._take_over()
        if current != self._written.fileno():  # somebody else is told of signals, as by `loop.add_signal_handler`
            signal.set_wakeup_fd(current)
            self._tell()

    def _read(self) -> None:
        while numbers := self._heard.recv(64):
            with self._passing, contextlib.suppress(OSError):
                if self._loop is not None:
                    os.write(self._loop, numbers)
            for number in numbers:
                if number in self._numbers:
                    self._tell()
