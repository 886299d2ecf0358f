"""Ids: UUIDv7 (RFC 9562), ordered by the time they were made."""

from __future__ import annotations

import os
import time
from collections import deque

_last = 0
_stamp = (0, "")
_noise: deque[str] = deque()
_VARIANT = bytes(byte & 0x3F | 0x80 for byte in range(256))
"""Of a random byte, the bits that the variant leaves (RFC 9562, 4.1)."""


def new_id() -> str:
    """A UUIDv7 as text. Ids made by one thread sort in the order they were made (RFC 9562, 6.2, method 3)."""
    global _last, _stamp  # noqa: PLW0603 - a race between threads costs the order of two ids, never their uniqueness
    ticks = time.time_ns() * 512 // 125_000  # 4096 to the millisecond
    _last = ticks = ticks if ticks > _last else _last + 1
    try:
        noise = _noise.popleft()
    except IndexError:
        noise = _more_noise()
    milliseconds, stamp = _stamp
    if milliseconds != ticks >> 12:
        milliseconds = ticks >> 12
        stamp = f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-7"
        _stamp = milliseconds, stamp
    return f"{stamp}{ticks & 0xFFF:03x}-{noise}"


def _more_noise() -> str:
    """Random bits for many ids, as their ends, by one call of the operating system."""
    noise = bytearray(os.urandom(2048))
    noise[::8] = noise[::8].translate(_VARIANT)
    ends = [noise[at : at + 8].hex("-", 6) for at in range(0, len(noise), 8)]
    _noise.extend(ends[1:])
    return ends[0]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_noise.clear)
