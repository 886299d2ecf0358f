"""Looks at the table: each reads, and writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import apsw

from afterward.job import TERMINAL, Job, Status
from afterward.stores import base
from afterward.stores.rows import job_of
from afterward.stores.sql import load_queries
from afterward.text import is_storable

_Q = load_queries("afterward.stores.sqlite")
_CREATED_AT = 15
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


def listed(connection: apsw.Connection, filters: tuple[Any, ...], text: str | None = None) -> Iterator[Any]:
    """Rows of the query `list`, up to the first that is older than its fifth parameter.

    `text`: only such as have it in their arguments or failure, among the newest `SEARCHED` that the filters let pass.
    A text that no store can keep (a lone surrogate, say) is that of no job.
    """
    if not all(is_storable(said) for said in (*filters, text) if isinstance(said, str)):
        return
    oldest, limit = filters[4:6]
    if text is not None:
        filters = (*filters[:5], base.SEARCHED, *filters[6:], text, limit)
    query = _query(by_owner=filters[7] is not None, by_signature=filters[8] is not None, by_text=text is not None)
    for row in connection.execute(query, filters):
        if oldest is not None and row[_CREATED_AT] < oldest:
            return
        yield row


@cache
def _query(*, by_owner: bool, by_signature: bool, by_text: bool) -> str:
    """The query `list`, said so that an index is used where there is one, and only there."""
    query = _Q["list"]
    plain = "FROM jobs\nWHERE"
    if by_signature:
        alike = "SELECT seq FROM jobs INDEXED BY jobs_failed WHERE status = 'failed' AND signature = ?9"
        query = query.replace(plain, f"FROM jobs WHERE seq IN ({alike}) AND")
    elif by_owner:
        query = query.replace(plain, "FROM jobs INDEXED BY jobs_owned WHERE owner = ?8 AND")
    return f"WITH listed AS ({query}) {_Q['with_text']}" if by_text else query


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
