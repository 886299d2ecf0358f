"""Doing away with what nobody needs, a little at a time."""

from __future__ import annotations

from collections.abc import Mapping

from afterward.faults import crash_point
from afterward.job import Status
from afterward.stores.base import Tidied
from afterward.stores.postgres import contents
from afterward.stores.postgres.connection import Connection
from afterward.stores.postgres.desk import Desk

_EVENTS = 20_000
"""Once the jobs that are forgotten together have said so much, no more are: each may have said half as much."""

_RESERVED_SECONDS = 86_400.0
"""How long a key of a request that is completed is kept; or one that nobody is going to complete."""


async def tidy(desk: Desk, connection: Connection, ages: Mapping[Status, float], jobs: int, chunks: int) -> Tidied:
    """Cancel what has expired, forget what ended long ago, free what is no job's: at most so many of each.

    One look, mostly: there is nothing to do.
    """
    columns = [status.value for status in ages], [float(age) for age in ages.values()]
    found = await connection.fetchrow(desk["untidy"], desk.now, *columns, _RESERVED_SECONDS) or (True,) * 4
    has_expired, has_old, has_loose, has_reserved = found
    expired = len(await connection.fetch(desk["expire"], desk.now, jobs)) if has_expired else 0
    pruned, is_cut = await _prune(desk, connection, ages, jobs) if has_old else (0, False)
    freed = await contents.sweep(desk, connection, chunks) if has_loose or pruned else 0
    forgotten = await _forget(desk, connection, jobs) if has_reserved else 0
    if jobs and not desk.leftovers.are_gone:
        desk.leftovers.are_gone = await connection.fetchval(desk["forget_left"], jobs) == 0
    return Tidied(expired, pruned, freed, more=is_cut or jobs in {expired, pruned, forgotten} or freed == chunks)


async def _forget(desk: Desk, connection: Connection, limit: int) -> int:
    """Forget keys of requests that were completed long ago, or that nobody will complete; how many they were."""
    return len(await connection.fetch(desk["forget_reservations"], desk.now, _RESERVED_SECONDS, limit))


async def _prune(desk: Desk, connection: Connection, ages: Mapping[Status, float], limit: int) -> tuple[int, bool]:
    """Forget the oldest of those that ended with these statuses so long ago: how many, and is more of that left?"""
    pruned = 0
    for status, age in ages.items():
        if pruned < limit:
            asked = status.value, float(age), limit - pruned, _EVENTS
            gone, is_cut = await connection.fetchrow(desk["prune"], desk.now, *asked) or (0, False)
            pruned += gone
            if is_cut:
                return pruned, True
        crash_point("in_prune")
    return pruned, False
