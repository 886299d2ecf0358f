"""The end of a child process when its worker is gone, however that ended: nobody would hear of what it does."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import NoReturn

_SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG, of <linux/prctl.h>."""


def die_with(parent: int) -> None:
    """Have the system kill this process when its parent ends, where a system does: also while it holds the GIL.

    Elsewhere it learns of it by the end of its standard input, as soon as one of its threads can run.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            end_all()


def end_all() -> NoReturn:
    """End this process, and what it has started: all that is in the group that it leads."""
    if sys.platform != "win32" and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
