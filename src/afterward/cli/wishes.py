"""What a person, or a service manager, wishes by signals."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

SAME_WISH_SECONDS = 0.3
"""Some process managers send a signal to a process and to its group: both are one wish."""


class Wishes:
    """Tells the signals that are a wish of their own. May be used in a signal handler."""

    def __init__(self) -> None:
        self._last: float | None = None

    def is_another(self) -> bool:
        """Is the signal that has just been heard not the echo of one before?"""
        now = time.monotonic()
        if self._last is not None and now <= self._last + SAME_WISH_SECONDS:
            return False
        self._last = now
        return True


@contextmanager
def ctrl_c_breaks_in() -> Generator[None]:
    """Ctrl-C raises `KeyboardInterrupt` at once, though an event loop or a handler of ours wants to hear of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def until_typed() -> None:
    """Return when a line can be read from the terminal; or raise what the handler of a signal raises, on the way.

    A signal that comes just before a read is heard when that returns, and not at once: one that waits for what is typed
    would leave Ctrl-C unheard. So it is waited for both, where the system has that.
    """
    if sys.platform == "win32":
        return
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    before = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        while sys.stdin not in select.select([sys.stdin, woken], [], [])[0]:
            os.read(woken, 1)
    finally:
        signal.set_wakeup_fd(before)
        os.close(woken)
        os.close(wake)
