"""Ids: UUIDv7 (RFC 9562), ordered by the time they were made."""

from __future__ import annotations

import os
import time
from collections import deque

_last = 0
_noise: deque[str] = deque()


def new_id() -> str:
    """A UUIDv7 as text. Ids made by one thread sort in the order they were made (RFC 9562, 6.2, method 3)."""
    global _last  # noqa: PLW0603 - a race between threads costs the order of two ids, never their uniqueness
    ticks = time.time_ns() * 512 // 125_000  # 4096 to the millisecond
    _last = ticks = ticks if ticks > _last else _last + 1
    try:
        noise = _noise.popleft()
    except IndexError:
        noise = _more_noise()
    stamp = f"{ticks >> 12:012x}"
    return f"{stamp[:8]}-{stamp[8:]}-7{ticks & 0xFFF:03x}-{'89ab'[ticks & 3]}{noise[1:4]}-{noise[4:]}"


def _more_noise() -> str:
    """Random bits for many ids by one call of the operating system."""
    block = os.urandom(2048).hex()
    _noise.extend(block[start : start + 16] for start in range(16, len(block), 16))
    return block[:16]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_noise.clear)
