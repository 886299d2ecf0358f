"""Spans of time as people type them: `90`, `90s`, `5m`, `2h`, `7d`."""

from __future__ import annotations

import re

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 10_000 * 86400


def duration(text: str) -> float:
    """So many seconds. Raises `ValueError`, with the mend, for what is no span of time."""
    found = _SPAN.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r} is no span of time; write 90, 90s, 5m, 2h or 7d")
    seconds = float(found[1]) * _SECONDS[found[2]]
    if seconds > _LONGEST:
        raise ValueError(f"{text!r} is too long; the longest is {_LONGEST // 86400:,}d")
    return seconds
