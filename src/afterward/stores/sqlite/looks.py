"""Looks at the table: each reads, and writes nothing."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import apsw

from afterward.job import TERMINAL, Job, Status
from afterward.stores import base
from afterward.stores.rows import job_of
from afterward.stores.sql import load_queries
from afterward.text import is_storable

_Q = load_queries("afterward.stores.sqlite")
_CREATED_AT = 15
_FROM = "FROM jobs\nWHERE"
_FEW = 1000
_LAST_CHARACTER = "\U0010ffff"


class Filters(NamedTuple):
    """What the query `list` lets pass. `statuses`: as JSON."""

    statuses: str | None = None
    task: str | None = None
    queue: str | None = None
    before: str | None = None
    oldest: float | None = None
    limit: int = 50
    unique: str | None = None
    owner: str | None = None
    signature: str | None = None


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


def listed(connection: apsw.Connection, filters: Filters, text: str | None = None) -> list[Any]:
    """Rows of the query `list`, up to the first that is older than its filter `oldest`; as they are at one moment.

    `text`: only such as have it in their arguments or failure, among the newest `SEARCHED` that the filters let pass.
    A text that no store can keep (a lone surrogate, say) is that of no job.
    """
    if not all(is_storable(said) for said in (*filters, text) if isinstance(said, str)):
        return []
    rows: list[Any] = []
    with connection:
        query, values = _by_index(connection, filters)
        if text is not None:
            query = f"WITH listed AS ({query}) {_Q['with_text']}"
            values |= {"text": text, "read": base.SEARCHED}
        for row in connection.execute(query, values):
            if filters.oldest is not None and row[_CREATED_AT] < filters.oldest:
                break
            rows.append(row)
    return rows


def _by_index(connection: apsw.Connection, filters: Filters) -> tuple[str, dict[str, Any]]:
    """The query `list`, said so that what it filters by is looked up where that is in an index, and its values."""
    few, table, where = None, "jobs", "TRUE"
    if filters.signature is not None:
        where = f"seq IN ({_Q['failing']})"
    elif filters.owner is not None:
        table, where = "jobs INDEXED BY jobs_owned", "owner = :owner"
    elif (few := _few(connection, filters.statuses)) is not None:
        where = "seq IN (SELECT value FROM json_each(:few))"
    query = _Q["list"].replace(_FROM, f"FROM {table} WHERE {where} AND")
    return query, filters._asdict() | {"few": few, "read": filters.limit}


def _few(connection: apsw.Connection, statuses: str | None) -> str | None:
    """The jobs with one of these statuses, and perhaps some others, if they are few; as JSON."""
    if statuses is None:
        return None
    found: list[Any] = []
    for query, *values in _places(json.loads(statuses)):
        found += connection.execute(_Q[query], (_FEW + 1, *values))
        if len(found) > _FEW:
            return None
    return json.dumps([seq for (seq,) in found])


def _places(statuses: Collection[str]) -> Iterator[tuple[str, ...]]:
    """The queries that find them by index, with what each is to look for."""
    for status in TERMINAL:
        if status in statuses:
            yield "ended_with", status.value
    if Status.queued in statuses:
        yield ("waiting",)
    if not TERMINAL.issuperset(statuses):
        yield ("taken",)


def asked_to_end(connection: apsw.Connection, process: str) -> dict[str, int]:
    """Of the jobs that a process runs, those that were asked to end, with their attempts."""
    rows: list[Any] = connection.execute(_Q["asked_to_end"], (process,)).fetchall()
    return dict(rows)


def changed(connection: apsw.Connection, oldest: float, limit: int) -> list[Job]:
    """What was stored or has ended since a time, and what is held or run; newest first."""
    rows: dict[str, Any] = {}
    with connection:
        rows |= {row[1]: row for row in listed(connection, Filters(oldest=oldest, limit=limit))}
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
