"""What is shown to people, and what they want of queues: the part of the contract that no job depends on."""

from __future__ import annotations

from afterward.stores.postgres.connection import Connection, Row
from afterward.stores.postgres.desk import Desk
from afterward.stores.rows import failure_in, served_of, text_of_served, time_of
from afterward.stores.seen import FailureGroup, Pause, Period, ProcessSeen, Served, TaskSeen

_SAMPLE = 500
"""Of so many jobs, or of twice as many, it is looked at how long they took."""


async def failures(desk: Desk, connection: Connection, limit: int) -> list[FailureGroup]:
    """What failed for good, or is tried again, by signature; what failed last comes first."""
    return [_group(*row) for row in await connection.fetch(desk["failures"], limit)]


def _group(  # noqa: PLR0917 - the columns of the query
    signature: str, task: str, failure: str, failed: int, retrying: int, first_at: float, last_at: float, newest: str
) -> FailureGroup:
    told = failure_in(failure, signature)
    return FailureGroup(signature, task, told, failed, retrying, time_of(first_at), time_of(last_at), newest)


async def history(desk: Desk, connection: Connection, since: float, seconds: float) -> list[Period]:
    """What has ended since a time, by queue and span."""
    return [_period(row, seconds) for row in await connection.fetch(desk["history"], since, seconds, _SAMPLE)]


def _period(row: Row, seconds: float) -> Period:
    queue, span, succeeded, failed, cancelled, waited, ran = row
    began = time_of(span * seconds)
    return Period(queue, began, succeeded, failed, cancelled, _two(waited), _two(ran))


def _two(percentiles: list[float] | None) -> tuple[float, float] | None:
    return None if percentiles is None else (percentiles[0], percentiles[1])


async def describe(desk: Desk, connection: Connection, process: str, served: Served) -> bool:
    """Say what a process runs jobs of; False for one without a row."""
    is_alive: bool = await connection.fetchval(
        desk["describe"], desk.now, process, text_of_served(served), list(served.tasks), served.version
    )
    return is_alive


async def processes(desk: Desk, connection: Connection) -> list[ProcessSeen]:
    """All that have a liveness row; the one that joined last comes first."""
    return [
        ProcessSeen(id_, pid, host, time_of(joined_at), None if served is None else served_of(served), running)
        for id_, pid, host, joined_at, served, running in await connection.fetch(desk["processes"])
    ]


async def tasks_seen(desk: Desk, connection: Connection) -> list[TaskSeen]:
    """All tasks that some process has served."""
    rows = await connection.fetch(desk["tasks_seen"])
    return [TaskSeen(task, version, time_of(seen_at)) for task, version, seen_at in rows]


async def pause(desk: Desk, connection: Connection, queue: str, by: str) -> bool:
    """Nothing is claimed from this queue; False when it is so already."""
    return await connection.fetchval(desk["pause"], desk.now, queue, by) is not None


async def resume(desk: Desk, connection: Connection, queue: str) -> bool:
    """Its jobs may be claimed again; False when they may already."""
    return await connection.fetchval(desk["resume"], queue) is not None


async def paused(desk: Desk, connection: Connection) -> list[Pause]:
    """The queues of which nothing is claimed."""
    return [Pause(queue, time_of(since), by) for queue, since, by in await connection.fetch(desk["paused"])]
