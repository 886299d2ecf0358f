"""The geometry of charts: numbers in, rectangles out; templates draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from afterward.stores.seen import Period


@dataclass(frozen=True, slots=True)
class Slot:
    """What ended within one span of time."""

    began: datetime
    succeeded: int
    failed: int
    cancelled: int


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of a column, in the chart's units, and what it stands for. `kind`: `good` or `bad`."""

    x: float
    y: float
    width: float
    height: float
    kind: str


@dataclass(frozen=True, slots=True)
class Column:
    """All bars of one slot, which is told in words as `title`."""

    slot: Slot
    x: float
    width: float
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class Chart:
    """`highest`: what the whole height stands for."""

    width: float
    height: float
    highest: int
    columns: Sequence[Column]


def slots(periods: Sequence[Period], began: datetime, seconds: float, count: int) -> list[Slot]:
    """Periods of one queue or of many, as slots without gaps."""
    found = [Slot(began + timedelta(seconds=seconds * number), 0, 0, 0) for number in range(count)]
    for period in periods:
        number = int((period.began - began).total_seconds() // seconds)
        if 0 <= number < count:
            slot = found[number]
            found[number] = Slot(
                slot.began,
                slot.succeeded + period.succeeded,
                slot.failed + period.failed,
                slot.cancelled + period.cancelled,
            )
    return found


def chart(slots: Sequence[Slot], width: float, height: float, gap: float = 0.25) -> Chart:
    """Columns of what succeeded and failed, one upon the other. `gap`: the part of a column that stays free."""
    highest = max((slot.succeeded + slot.failed for slot in slots), default=0)
    step = width / len(slots)
    columns = [
        Column(slot, number * step, step, _bars(slot, number * step, step * (1 - gap), height, highest))
        for number, slot in enumerate(slots)
    ]
    return Chart(width, height, highest, columns)


def _bars(slot: Slot, x: float, width: float, height: float, highest: int) -> list[Bar]:
    bars: list[Bar] = []
    top = height
    for count, kind in ((slot.succeeded, "good"), (slot.failed, "bad")):
        if count:
            tall = max(1.5, height * count / highest)  # one among thousands is still to be seen
            top = max(0.0, top - tall)
            bars.append(Bar(round(x, 2), round(top, 2), round(width, 2), round(tall, 2), kind))
    return bars
