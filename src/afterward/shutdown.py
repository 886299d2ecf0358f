"""Hearing of a shutdown at once.

A server that waits for open connections reaches the end of the lifespan late or never; claiming must stop before.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def told_by_signals(tell: Callable[[], None]) -> Generator[None]:
    """While the block lasts, SIGTERM and SIGINT also call `tell`, before whoever handles them now.

    Only the main thread can be told; anywhere else this does nothing.
    """
    before: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        tell()
        before[number](number, frame)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler
                signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, handler)
