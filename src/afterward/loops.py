"""The event loop of a process that runs jobs: uvloop's where that is installed, as uvicorn has it."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import cast


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop; None: the standard library does."""
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return None
    return cast("Callable[[], asyncio.AbstractEventLoop]", uvloop.new_event_loop)
