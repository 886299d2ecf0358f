"""Ids: UUIDv7 (RFC 9562), ordered by the time they were made."""

from __future__ import annotations

import os
import time

_last = 0


def new_id() -> str:
    """A UUIDv7 as text. Ids made by one thread sort in the order they were made (RFC 9562, 6.2, method 3)."""
    global _last  # noqa: PLW0603 - a race between threads costs the order of two ids, never their uniqueness
    ticks = time.time_ns() * 512 // 125_000  # 4096 to the millisecond
    _last = ticks = ticks if ticks > _last else _last + 1
    stamp, noise = f"{ticks >> 12:012x}", os.urandom(8).hex()
    return f"{stamp[:8]}-{stamp[8:]}-7{ticks & 0xFFF:03x}-{'89ab'[ticks & 3]}{noise[1:4]}-{noise[4:]}"
