"""Doing away with what nobody needs, a little at a time."""

from __future__ import annotations

from collections.abc import Mapping

from afterward.faults import crash_point
from afterward.job import Status
from afterward.stores.base import Tidied
from afterward.stores.postgres import contents
from afterward.stores.postgres.connection import Connection
from afterward.stores.postgres.desk import Desk


async def tidy(desk: Desk, connection: Connection, ages: Mapping[Status, float], jobs: int, chunks: int) -> Tidied:
    """Cancel what has expired, forget what ended long ago, free what is no job's: at most so many of each.

    One look, mostly: there is nothing to do.
    """
    columns = [status.value for status in ages], [float(age) for age in ages.values()]
    has_expired, has_old, has_loose = await connection.fetchrow(desk["untidy"], desk.now, *columns) or (True,) * 3
    expired = len(await connection.fetch(desk["expire"], desk.now, jobs)) if has_expired else 0
    pruned = await _prune(desk, connection, ages, jobs) if has_old else 0
    freed = await contents.sweep(desk, connection, chunks) if has_loose or pruned else 0
    return Tidied(expired, pruned, freed, more=jobs in {expired, pruned} or freed == chunks)


async def _prune(desk: Desk, connection: Connection, ages: Mapping[Status, float], limit: int) -> int:
    """Forget the oldest of those that ended with these statuses so long ago; how many they were."""
    pruned = 0
    for status, age in ages.items():
        if pruned < limit:
            rows = await connection.fetch(desk["prune"], desk.now, status.value, float(age), limit - pruned)
            pruned += len(rows)
        crash_point("in_prune")
    return pruned
