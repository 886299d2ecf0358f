"""Ids: UUIDv7 (RFC 9562), ordered by the time they were made."""

from __future__ import annotations

import os
import time

_last = 0


def new_id() -> str:
    """A UUIDv7 as text. Ids made by one process sort in the order they were made (RFC 9562, 6.2, method 3)."""
    global _last  # noqa: PLW0603 - a race between threads costs only the order of two ids, never their uniqueness
    ticks = time.time_ns() * 4096 // 1_000_000
    _last = ticks = ticks if ticks > _last else _last + 1
    value = (
        (ticks >> 12) << 80 | 0x7 << 76 | (ticks & 0xFFF) << 64 | 0b10 << 62 | int.from_bytes(os.urandom(8)) >> 2
    )
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
