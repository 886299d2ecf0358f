"""What there is to do: a look that counts, by index, and never far."""

from __future__ import annotations

from collections.abc import Collection

from afterward.stores.base import COUNTED, Stats
from afterward.stores.counts import Joined, Waits, stats_of
from afterward.stores.postgres.connection import Connection
from afterward.stores.postgres.desk import Desk
from afterward.text import is_storable


async def stats(desk: Desk, connection: Connection) -> Stats:
    """All queues, as they are at one moment."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        now: float = await connection.fetchval(desk["now"], desk.now)
        due, later, handed = await _waiting(desk, connection)
        taken = {(row["queue"], row["status"]): row["jobs"] for row in await connection.fetch(desk["taken_counts"])}
        processes = len(await connection.fetch(desk["living"]))
    return stats_of(due, later, taken, handed, now, processes)


async def ahead(  # noqa: PLR0917 - a place, and what may stand before it
    desk: Desk, connection: Connection, job: str, tasks: Collection[str], queues: Collection[str], limit: int
) -> int:
    """How many jobs that are ready stand before one."""
    if not is_storable(job):
        return 0
    jobs: int = await connection.fetchval(desk["ahead"], job, list(tasks), list(set(queues)), limit, desk.now)
    return jobs


async def waiting(desk: Desk, connection: Connection) -> list[Waits]:
    """What is due, by lane."""
    due, _, _ = await _waiting(desk, connection)
    return due


async def joined(desk: Desk, connection: Connection) -> list[Joined]:
    """Who has joined."""
    return [Joined(*row) for row in await connection.fetch(desk["living"])]


async def _waiting(desk: Desk, connection: Connection) -> tuple[list[Waits], dict[str, int], dict[str, int]]:
    """What is due, by lane; and by queue, what waits for its time, and what is in other hands."""
    lanes = await connection.fetch(desk["lane_counts"], COUNTED)
    scheduled = await connection.fetch(desk["scheduled_counts"], desk.now, COUNTED)
    due = [Waits(row["queue"], row["task"], row["unfit_for"] != "", row["jobs"], row["since"]) for row in lanes]
    due += [Waits(row["queue"], "", False, row["overdue"], row["since"]) for row in scheduled if row["overdue"]]
    later, handed = [{row["queue"]: row[sort] for row in scheduled if row[sort]} for sort in ("later", "handed")]
    return due, later, handed
