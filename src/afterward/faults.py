"""Crash points: named places where a test can have this process killed, as power cuts and `kill -9` do.

`AFTERWARD_CRASH=point:n` kills the process with SIGKILL when it passes the point for the n-th time. A test in the same
process can have something else done there (`armed`). Unarmed, a point is a look into an empty dictionary.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager

_armed: dict[str, Callable[[], None]] = {}


class Crash(BaseException):
    """Unwinds code whose process is to have died, in a test that plays a death within its own process.

    Not an `Exception`: nothing that handles errors may go on after it.
    """


def crash_point(name: str) -> None:
    """Die here, if a test said so."""
    if _armed and name in _armed:
        _armed[name]()


@contextmanager
def armed(name: str, action: Callable[[], None]) -> Generator[None]:
    """While the block lasts, whoever passes the point does `action`, in whatever thread that is."""
    before = _armed.get(name)
    _armed[name] = action
    try:
        yield
    finally:
        if before is None:
            del _armed[name]
        else:
            _armed[name] = before


def _kill_at_pass(nth: int) -> Callable[[], None]:
    passes = 0

    def count() -> None:
        nonlocal passes
        passes += 1
        if passes == nth:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    return count


if _setting := os.environ.get("AFTERWARD_CRASH"):
    _point, _, _nth = _setting.partition(":")
    _armed[_point] = _kill_at_pass(int(_nth or "1"))
