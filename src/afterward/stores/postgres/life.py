"""The signs of life: rows, locks and beats of processes; and what becomes of what the dead held."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence

from afterward.job import Process
from afterward.stores.base import Beat, Held, Reaped
from afterward.stores.postgres import reservations
from afterward.stores.postgres.connection import Connection
from afterward.stores.postgres.desk import Desk
from afterward.stores.rows import death, text_of

PAGE = 200
"""How many jobs one call of `reap` queues again at most."""

_TRIES, _TRY_SECONDS = 5, 0.02

_END_OTHER_SESSIONS = """
SELECT pg_terminate_backend(l.pid) FROM hashtextextended($1, 0) AS key CROSS JOIN pg_locks l
WHERE l.locktype = 'advisory' AND l.mode = 'ExclusiveLock' AND l.granted AND l.pid <> pg_backend_pid()
    AND l.objsubid = 1 AND l.classid::bigint = (key >> 32) & 4294967295 AND l.objid::bigint = key & 4294967295
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

_DEATH = death()


async def join(desk: Desk, connection: Connection, process: Process, has_lock: bool) -> None:
    """Write the row of a process; with a lock that the server drops when its session ends."""
    if has_lock:
        await lock(connection, process.id)
    await connection.execute(desk["join"], desk.now, process.id, process.pid, process.host, has_lock)


async def lock(connection: Connection, process: str) -> bool:
    """Take the lock that shows a process to live; False when it is not to be had yet.

    Others look at it by sharing it for a moment: then it waits a little. And a session of this same process may have it
    that the server has not missed yet: it is ended, for it would show a life for as long as the server believes in it.
    """
    for _ in range(_TRIES):
        if await connection.fetchval("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", process):
            return True
        await connection.fetch(_END_OTHER_SESSIONS, process)
        await asyncio.sleep(_TRY_SECONDS)
    return False


async def leave(desk: Desk, connection: Connection, process: str, has_lock: bool) -> None:
    """Remove the row of a process and its lock; what it holds is anybody's, or cancelled if that was asked for."""
    async with connection.transaction():
        await connection.execute(desk["leave"], process)
        await connection.execute(desk["leave_asked"], desk.now, process)
        await connection.execute(desk["gone"], process)
    if has_lock:
        await connection.execute("SELECT pg_advisory_unlock(hashtextextended($1, 0))", process)


Asked = dict[str, int]
"""Of the jobs that a process runs, those that are asked to end, each with its attempt."""


async def beat(desk: Desk, connection: Connection, process: str, waits: bool) -> tuple[Beat | None, Asked]:
    """One beat more; None without a row. It looks at what is held, too, unless that takes too much of the time."""
    looks, began, was_long = desk.looks.is_due(), time.monotonic(), True
    try:
        row = await connection.fetchrow(desk["beat"], process, waits, looks, desk.bookmarks.most_dead)
        was_long = row is not None and row["was_long"]
    finally:
        if looks:  # where it gave no answer in time, those that follow are not to do the same
            desk.looks.done(time.monotonic() - began if was_long else 0.0)
    if row is None:
        return None, {}
    asked: Asked = json.loads(row["asked"] or "{}")
    others: dict[str, tuple[int, bool]] = json.loads(row["others"] or "{}")
    held: dict[str, tuple[int, str | None]] = json.loads(row["held"] or "{}")
    seen = Beat(
        others={id_: count for id_, (count, _) in others.items()},
        signs=frozenset(id_ for id_, (_, is_unlocked) in others.items() if is_unlocked),
        held={id_: Held(attempt, token) for id_, (attempt, token) in held.items()},
        files=frozenset(json.loads(row["files"] or "[]")),
        has_orphans=row["has_orphans"],
        has_looked=looks,
        reservations=frozenset(json.loads(row["reservations"] or "[]")),
    )
    return seen, asked


async def give_back(  # noqa: PLR0917 - as the operation has them
    desk: Desk,
    connection: Connection,
    process: str,
    attempts: Sequence[tuple[str, int]],
    files: Sequence[str],
    reserved: Sequence[str] = (),
) -> list[bool]:
    """What a process does not know of is anybody's, or cancelled if that was asked for.

    Its files and reservations are nobody's.
    """
    columns = [job for job, _ in attempts], [number for _, number in attempts]
    async with connection.transaction():
        given = {row["id"] for row in await connection.fetch(desk["give_back"], process, *columns)}
        if len(given) < len(attempts):
            rows = await connection.fetch(desk["give_back_asked"], desk.now, process, *columns)
            given |= {row["id"] for row in rows}
    if files:
        await connection.execute(desk["drop_files"], process, files)
    if reserved:
        await reservations.give_back(desk, connection, process, reserved)
    return [job in given for job, _ in attempts]


async def reap(
    desk: Desk,
    connection: Connection,
    buried: Sequence[tuple[str, int | None]],
    suspect_after: int,
    suspect_delay: float,
) -> Reaped:
    """Bury the dead, and queue a page of what nobody living has again."""
    if buried:
        await connection.execute(desk["bury"], [id_ for id_, _ in buried], [count for _, count in buried])
    told = text_of(_DEATH), suspect_after, suspect_delay, _DEATH.signature
    queued, cancelled = await connection.fetchrow(desk["adopt"], desk.now, PAGE, *told) or (0, 0)
    return Reaped(queued, more=queued + cancelled == PAGE)
