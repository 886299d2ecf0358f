"""Numbers and times for people."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from afterward.states import span
from afterward.stores.base import COUNTED


def duration(seconds: float | None) -> str:
    """How long something took: `12 ms`, `1.3 s`, `42 s`, `3 min`; a dash when nobody knows."""
    if seconds is None:
        return "\N{EN DASH}"
    if seconds < 0.9995:
        return f"{max(0, seconds) * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 9.95 else span(timedelta(seconds=seconds))


def ago(at: datetime, now: datetime) -> str:
    """When something was, or will be: `3 min ago`, `in 2 h`, `now`."""
    past = now - at
    if abs(past) < timedelta(seconds=1):
        return "now"
    return f"in {span(-past)}" if past < timedelta() else f"{span(past)} ago"


def moment(at: datetime) -> str:
    """A time to the second, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def clock(at: datetime) -> str:
    """A time of the day, in UTC."""
    return f"{at.astimezone(UTC):%H:%M}"


def per_minute(count: int, seconds: float) -> str:
    """A rate: `0`, `0.4`, `12`, `1,234`."""
    rate = count * 60 / seconds
    if 0 < rate < 0.095:
        return "< 0.1"
    return f"{rate:.1f}".removesuffix(".0") if rate < 9.95 else f"{rate:,.0f}"


def counted(number: int) -> str:
    """A number that is counted up to a limit."""
    return f"{number:,}+" if number >= COUNTED else f"{number:,}"


def summed(numbers: Iterable[int]) -> str:
    """Numbers that are each counted up to a limit, together."""
    found = list(numbers)
    return f"{sum(found):,}{'+' if any(number >= COUNTED for number in found) else ''}"


def sentence(text: str) -> str:
    """Words as a sentence of their own; a command of the command line stays as it is."""
    if text.startswith("afterward "):
        return text
    whole = text[:1].upper() + text[1:]
    return whole if "afterward " in whole or whole.endswith((".", "?", "!")) else f"{whole}."


def precise(at: datetime) -> str:
    """A time of the day to the millisecond, in UTC."""
    return f"{at.astimezone(UTC):%H:%M:%S.%f}"[:-3]
