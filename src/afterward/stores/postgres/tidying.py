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
    """Cancel what has expired, forget what ended long ago, free what is no job's: at most so many of each."""
    expired = len(await connection.fetch(desk["expire"], desk.now, jobs))
    pruned = 0
    for status, age in ages.items():
        if pruned < jobs:
            rows = await connection.fetch(desk["prune"], desk.now, status.value, float(age), jobs - pruned)
            pruned += len(rows)
        crash_point("in_prune")
    freed = await contents.sweep(desk, connection, chunks)
    return Tidied(expired, pruned, freed, more=jobs in {expired, pruned} or freed == chunks)
