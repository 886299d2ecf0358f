"""Lines in the log of a job about what became of it in Celery."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from afterward.job import EventKind, Lease, NewEvent, Report
from afterward.stores.base import Store
from afterward.text import storable

_LONGEST = 2_000

_BEYOND = 2**53 - 1
"""Further than any event of a job."""


def line_of(level: Literal["INFO", "WARNING"], message: str) -> NewEvent:
    """One of them."""
    said = {"level": level, "logger": "afterward.celery", "message": storable(message[:_LONGEST])}
    return NewEvent(EventKind.log, json.dumps(said, ensure_ascii=False))


async def reports_of(store: Store, lines: Sequence[tuple[Lease, str]]) -> list[tuple[Lease, Report]]:
    """What the log of each is to tell. Its number comes after all that its job has said: so it is stored, and once.

    Whoever tells it must hold the attempt, and nobody else speaks for it meanwhile.
    """
    if not lines:
        return []
    streams = await store.events([(lease.id, _BEYOND) for lease, _ in lines], 1)
    return [
        (lease, Report(1 + (0 if stream is None else stream.last), (line_of("WARNING", line),)))
        for (lease, line), stream in zip(lines, streams, strict=True)
    ]
