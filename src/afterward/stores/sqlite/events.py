"""What attempts say while they run: appended to the log of their job, trimmed, read, and freed a few at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from afterward.job import Event, EventKind, Lease, NewEvent, Report, Status
from afterward.stores.base import EVENTS_KEPT
from afterward.stores.rows import time_of
from afterward.stores.seen import Stream
from afterward.stores.sql import load_queries
from afterward.stores.sqlite.bulk import execute_for_all
from afterward.text import is_storable

_Q = load_queries("afterward.stores.sqlite", "events.sql")

PER_CHUNK = 100
"""So many events are freed in the time in which one chunk of a file is."""


def report(connection: apsw.Connection, lease: Lease, said: Report, now: float) -> bool:
    """Append what is new of it, if the attempt still holds its job."""
    row: Any = connection.execute(_Q["stream"], (lease.id, lease.attempt, lease.process)).fetchone()
    if row is None:
        return False
    job, stream, last, attempt, count, progress = row
    known = count if attempt == lease.attempt else 0
    new = said.events[max(0, known - said.first + 1) :]
    if not new:
        return True
    number = (last or 0) + 1
    end = (number + len(new) - 1, lease.attempt, said.first + len(said.events) - 1, _progress_of(new) or progress)
    if stream is None:
        stream = connection.execute(_Q["begin_stream"], (job, *end)).get
    else:
        connection.execute(_Q["extend_stream"], (stream, *end))
    rows = [
        (stream, number + offset, lease.attempt, event.kind.value, event.data, now - event.age)
        for offset, event in enumerate(new)
    ]
    execute_for_all(connection, _Q["append"], rows)
    if end[0] > EVENTS_KEPT:
        connection.execute(_Q["trim"], (stream, end[0] - EVENTS_KEPT + 1))
    return True


def _progress_of(events: Sequence[NewEvent]) -> str | None:
    """The last that they say of it."""
    return next((event.data for event in reversed(events) if event.kind is EventKind.progress), None)


def stream(connection: apsw.Connection, job: str, after: int, limit: int) -> Stream | None:
    """What a job has said after a number, as it is at one moment."""
    if not is_storable(job):
        return None
    row: Any = None
    events: list[Any] = []
    with connection:
        row = connection.execute(_Q["stream_of"], (job,)).fetchone()
        if row is not None:
            events += connection.execute(_Q["events"], (row[3], after, limit))
    return None if row is None else _stream(row, events)


def _stream(row: Any, events: Iterable[Any]) -> Stream:
    id_, status, attempt, _, last, first = row
    said = [Event(number, by, EventKind(kind), data, time_of(at)) for number, by, kind, data, at in events]
    return Stream(id_, Status(status), attempt, said, first or 0, last or 0)


def sweep(connection: apsw.Connection, limit: int) -> int:
    """Free as many events of forgotten jobs as weigh so many chunks; how many chunks that was, rounded up."""
    left = limit * PER_CHUNK
    while left > 0 and (seq := connection.execute(_Q["unwanted_stream"]).get) is not None:
        connection.execute(_Q["free_events"], (seq, left))
        freed = connection.changes()
        if freed < left or not freed:
            connection.execute(_Q["free_stream"], (seq,))
        left -= max(freed, 1)
    return limit - max(0, left) // PER_CHUNK
