"""What a person, or a service manager, wishes by signals."""

from __future__ import annotations

import signal
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
