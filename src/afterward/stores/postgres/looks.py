"""Looks at the tables: each reads, and writes nothing."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from afterward.job import Job, Status
from afterward.stores import base
from afterward.stores.postgres.connection import Connection
from afterward.stores.postgres.desk import Desk
from afterward.stores.rows import job_of
from afterward.text import is_storable

_CREATED_AT = 15
_OLDEST, _LIMIT = 4, 5
"""Of the parameters of the query `list`."""

_STATUSES = 0
_FEW = 1000
"""So many jobs with some statuses are looked up by their ids. Of more than these, some are soon found among all."""

_WHERE = "WHERE (created_at < $5"
_OF_FEW = "WHERE id = ANY ($8::text[]) AND (created_at < $5"
"""Of the query `list`, in both tables; and where it is to look at these alone."""

_SMALL = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_LAST_CHARACTER = "\U0010ffff"


async def get(desk: Desk, connection: Connection, jobs: Sequence[str]) -> list[Job | None]:
    """Jobs with their attempts, as they are at one moment."""
    asked = [job for job in jobs if is_storable(job)]
    rows = await connection.fetch(desk["get"], list(set(asked)))
    found = {row[0]: job_of(tuple(row)[1:-1], json.loads(row["attempts"] or "[]")) for row in rows}
    return [found.get(job) for job in jobs]


async def listed(desk: Desk, connection: Connection, filters: tuple[Any, ...]) -> list[Job]:
    """Jobs of the query `list`, up to the first that is older than its fifth parameter."""
    return [job_of(row, ()) for row in await _rows(desk, connection, filters)]


async def searched(  # noqa: PLR0917 - what jobs are asked for
    desk: Desk,
    connection: Connection,
    filters: tuple[Any, ...],
    owner: str | None,
    signature: str | None,
    text: str | None,
) -> list[Job]:
    """The same, of those of one owner, or that fail with this signature, or that have this text in them."""
    sought = (*filters, owner, signature, filters[_LIMIT] if text is None else base.SEARCHED, *_needles(text))
    if not all(is_storable(said) for said in sought if isinstance(said, str)):
        return []
    query = "list_owned" if owner is not None else "list_failed" if signature is not None else "list_text"
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        rows = await connection.fetch(desk[query], *sought)
        jobs = await get(desk, connection, [row["id"] for row in rows])
    found = [replace(job, attempts=()) for job in jobs if job is not None]
    oldest = filters[_OLDEST]
    return list(takewhile(lambda job: oldest is None or job.created_at.timestamp() >= oldest, found))


def _needles(text: str | None) -> tuple[str | None, str | None]:
    """A text as it is looked for in arguments, and in what is a JSON string."""
    if text is None:
        return None, None
    return _lowered(text), _lowered(json.dumps(text)[1:-1])


def _lowered(text: str) -> str:
    """In small letters, as far as they are of ASCII."""
    return text.translate(_SMALL)


async def _rows(desk: Desk, connection: Connection, filters: tuple[Any, ...]) -> list[Any]:
    if not all(is_storable(text) for text in filters if isinstance(text, str)):
        return []
    oldest = filters[_OLDEST]
    rows: list[Any] = []
    few = await _few(desk, connection, filters[_STATUSES])
    query, more = (desk["list"], ()) if few is None else (desk["list"].replace(_WHERE, _OF_FEW), (few,))
    for row in await connection.fetch(query, *filters, *more):
        if oldest is not None and row[_CREATED_AT] < oldest:
            break
        rows.append(row)
    return rows


async def _few(desk: Desk, connection: Connection, statuses: Sequence[str] | None) -> list[str] | None:
    """The ids of the jobs with one of these statuses, and perhaps some others, if they are few."""
    if statuses is None:
        return None
    rows = await connection.fetch(desk["few"], statuses, _FEW + 1)
    return None if len(rows) > _FEW else [row["id"] for row in rows]


async def changed(desk: Desk, connection: Connection, oldest: float, limit: int) -> list[Job]:
    """What was stored or has ended since a time, and what is held or run; newest first."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        rows = await _rows(desk, connection, (None, None, None, None, oldest, limit, None))
        ids = {row[0] for row in await connection.fetch(desk["changed"], oldest, limit)} - {row[1] for row in rows}
        others = await get(desk, connection, sorted(ids))
    jobs = [job_of(row, ()) for row in rows] + [replace(job, attempts=()) for job in others if job is not None]
    return sorted(jobs, key=lambda job: job.id, reverse=True)[:limit]


async def find(desk: Desk, connection: Connection, prefix: str, limit: int) -> list[str]:
    """Ids that begin with this text."""
    if not is_storable(prefix):
        return []
    rows = await connection.fetch(desk["find"], prefix, prefix + _LAST_CHARACTER, limit)
    return [row["id"] for row in rows]


async def prunable(desk: Desk, connection: Connection, ages: Mapping[Status, float]) -> int:
    """How many jobs have ended with one of these statuses so long ago."""
    return sum(
        [
            await connection.fetchval(desk["prunable"], desk.now, status.value, float(age))
            for status, age in ages.items()
        ]
    )
