"""The end of a child process when its worker is gone, however that ended: nobody would hear of what it does.

The child learns of it by the end of its standard input, as soon as one of its threads can run. Where the system can
say it, a thread need not run for that: a pipe into which nobody writes ends with the worker, and the system then kills
the child and all that is in its group, though C code may be holding its interpreter.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from typing import NoReturn

_NONE = -1


class Lifeline:
    """The worker's end. `theirs`: what the child inherits, if anything."""

    def __init__(self) -> None:
        self._theirs = self._ours = _NONE
        if sys.platform == "linux":
            self._theirs, self._ours = os.pipe()

    @property
    def theirs(self) -> list[int]:
        return [] if self._theirs == _NONE else [self._theirs]

    def have_handed_over(self) -> None:
        """The child has its end, or there is none."""
        if self._theirs != _NONE:
            os.close(self._theirs)
            self._theirs = _NONE

    def close(self) -> None:
        """Kill the child, if it lives. Lawful twice."""
        if self._ours != _NONE:
            os.close(self._ours)
            self._ours = _NONE


def end_with(lifeline: int) -> None:
    """In the child: have the system kill this process, and its group, when that pipe ends."""
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):  # a system that looks like Linux, and is not
            fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
            fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
        if select.select([lifeline], [], [], 0)[0]:  # it has ended before
            end_all()


def end_all() -> NoReturn:
    """End this process, and what it has started: all that is in the group that it leads."""
    if sys.platform != "win32" and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
