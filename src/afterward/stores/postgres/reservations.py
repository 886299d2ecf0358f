"""Keys of requests: reserved before a request is answered, completed with the job that it stores."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from afterward.job import NewJob
from afterward.stores.postgres.connection import Connection, Row
from afterward.stores.postgres.desk import Desk
from afterward.stores.seen import Reservation, Reserved


async def reserve(  # noqa: PLR0917 - as the operation has them
    desk: Desk, connection: Connection, reservation: str, scope: str, key: str, fingerprint: str, process: str
) -> Reservation:
    """Again, as long as whoever had the key has let go of it, or another was faster, before this could know."""
    while True:
        found = await connection.fetchrow(desk["reservation"], scope, key, process)
        if found is None or not found["is_here"]:
            return Reservation(Reserved.stranger)
        if (known := _known(found, reservation, fingerprint)) is not None:
            return known
        row = await connection.fetchval(desk["reserve"], desk.now, reservation, scope, key, fingerprint, process)
        if row is not None:
            return Reservation(Reserved.reserved)
        await asyncio.sleep(0)


def _known(found: Row, reservation: str, fingerprint: str) -> Reservation | None:
    """What there is to say of whoever has the key; None where nobody has it."""
    if found["id"] is None or (found["answer"] is None and not found["is_held"]):
        return None
    if found["id"] == reservation:
        return Reservation(Reserved.reserved)
    if found["fingerprint"] != fingerprint:
        return Reservation(Reserved.other)
    if found["answer"] is not None:
        return Reservation(Reserved.completed, found["answer"])
    return Reservation(Reserved.in_flight)


async def lost(desk: Desk, connection: Connection, jobs: Sequence[NewJob]) -> set[str]:
    """The ids of jobs whose reservation is there no more; the others keep theirs until the end of the transaction."""
    named = {job.id: job.completes.reservation for job in jobs if job.completes is not None}
    if not named:
        return set()
    there = {row["id"] for row in await connection.fetch(desk["hold_reservations"], list(set(named.values())))}
    return {job for job, reservation in named.items() if reservation not in there}


async def complete(desk: Desk, connection: Connection, jobs: Sequence[NewJob]) -> None:
    """They are stored, or were before. Of several that complete the same, the last says the answer."""
    told = {job.completes.reservation: job.completes.answer for job in jobs if job.completes is not None}
    if told:
        await connection.execute(desk["complete"], desk.now, list(told), list(told.values()))


async def amend(desk: Desk, connection: Connection, reservation: str, answer: str) -> bool:
    """Replace the answer of one that is completed."""
    return await connection.fetchval(desk["amend"], reservation, answer) is not None


async def give_back(desk: Desk, connection: Connection, process: str, reservations: Sequence[str]) -> None:
    """Those in the name of a process that are not completed, nor about to be."""
    await connection.execute(desk["give_back_reservations"], process, reservations)


async def drop(desk: Desk, connection: Connection, reservations: Sequence[str]) -> None:
    """Those that are not completed."""
    await connection.execute(desk["drop_reservations"], reservations)
