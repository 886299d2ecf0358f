"""Looks at the table: each reads, and writes nothing."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import apsw

from afterward.job import TERMINAL, Job, Status
from afterward.stores.rows import job_of
from afterward.stores.sql import load_queries
from afterward.text import is_storable

_Q = load_queries("afterward.stores.sqlite")
_CREATED_AT = 15
_LOWER = {ord(letter): letter.lower() for letter in string.ascii_uppercase}
_LAST_CHARACTER = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes of the file: all of them, and those that the next jobs can have."""

    total: int
    free: int


def get(connection: apsw.Connection, job: str) -> Job | None:
    """A job with its attempts, as they are at one moment."""
    if not is_storable(job):
        return None
    with connection:
        row: Any = connection.execute(_Q["get"], (job,)).fetchone()
        return job_of(row, connection.execute(_Q["attempts"], (row[0],)).fetchall()) if row else None


def listed(connection: apsw.Connection, filters: tuple[Any, ...]) -> Iterator[Any]:
    """Rows of the query `list`, up to the first that is older than its fifth parameter.

    A text that no store can keep (a lone surrogate, say) is that of no job.
    """
    if not all(is_storable(text) for text in filters if isinstance(text, str)):
        return
    oldest = filters[4]
    for row in connection.execute(_Q["list"], filters):
        if oldest is not None and row[_CREATED_AT] < oldest:
            return
        yield row


def found(connection: apsw.Connection, filters: tuple[Any, ...], text: str | None, limit: int) -> list[Job]:
    """Jobs of the query `list`; `text`: only such as have it in their arguments or failure, so many at most."""
    rows = listed(connection, filters)
    jobs = (job_of(row, []) for row in rows)
    if text is not None:
        wanted = _lower(text)
        jobs = islice((job for job in jobs if wanted in _lower(_searched(job))), limit)
    return list(jobs)


def _searched(job: Job) -> str:
    failure = job.failure
    return job.arguments if failure is None else f"{job.arguments}\0{failure.kind}\0{failure.message}"


def _lower(text: str) -> str:
    return text.translate(_LOWER)


def asked_to_end(connection: apsw.Connection, process: str) -> dict[str, int]:
    """Of the jobs that a process runs, those that were asked to end, with their attempts."""
    rows: list[Any] = connection.execute(_Q["asked_to_end"], (process,)).fetchall()
    return dict(rows)


def changed(connection: apsw.Connection, oldest: float, limit: int) -> list[Job]:
    """What was stored or has ended since a time, and what is held or run; newest first."""
    rows: dict[str, Any] = {}
    with connection:
        rows |= {row[1]: row for row in listed(connection, (None, None, None, None, oldest, limit, None, None, None))}
        ids = list(connection.execute(_Q["in_hand"], (limit,)))
        for status in TERMINAL:
            ids += connection.execute(_Q["ended_since"], (status.value, oldest, limit))
        for (job,) in ids:
            if job not in rows:
                rows[job] = connection.execute(_Q["get"], (job,)).fetchone()
    newest = sorted(rows.values(), key=lambda row: row[0], reverse=True)
    return [job_of(row, []) for row in newest[:limit]]


def find(connection: apsw.Connection, prefix: str, limit: int) -> list[str]:
    """Ids that begin with this text."""
    if not is_storable(prefix):
        return []
    return [id_ for (id_,) in connection.execute(_Q["find"], (prefix, prefix + _LAST_CHARACTER, limit))]


def prunable(connection: apsw.Connection, ages: Mapping[Status, float], now: float) -> int:
    """How many jobs have ended with one of these statuses so long ago."""
    counts = [connection.execute(_Q["prunable"], (status.value, now - age)).get for status, age in ages.items()]
    return sum(counts)


def space(connection: apsw.Connection) -> Space:
    """As SQLite counts it, in pages."""
    size, pages, free = (connection.pragma(name) for name in ("page_size", "page_count", "freelist_count"))
    return Space(pages * size, free * size)
