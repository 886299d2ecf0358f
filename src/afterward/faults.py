"""Crash points: named places where a test can have this process killed, as power cuts and `kill -9` do.

`AFTERWARD_CRASH=point:n` kills the process with SIGKILL when it passes the point for the n-th time. Unset, a point
is a look into an empty dictionary.
"""

from __future__ import annotations

import os
import signal

_armed: dict[str, int] = {}
if _setting := os.environ.get("AFTERWARD_CRASH"):
    _point, _, _nth = _setting.partition(":")
    _armed[_point] = int(_nth or "1")


def crash_point(name: str) -> None:
    """Die here, if a test said so."""
    if _armed and name in _armed:
        _armed[name] -= 1
        if _armed[name] == 0:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
