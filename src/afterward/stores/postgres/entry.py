"""new → queued or running: how jobs enter the table."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from operator import index
from typing import Any

from afterward.faults import crash_point
from afterward.job import NewJob, OnDuplicate, Placement, Stored
from afterward.stores.postgres import contents, reservations
from afterward.stores.postgres.connection import Connection, Row
from afterward.stores.postgres.desk import Desk

Entering = tuple[NewJob, Placement, str | None]
"""A job, how it enters, and the process that stores it."""


_NOTHING_STORED = {Stored.refused, Stored.incomplete, Stored.unreserved}


def is_plain(job: NewJob) -> bool:
    """Can it be stored with many others by one statement, whatever else goes on?"""
    return job.unique is None and not job.files and job.completes is None


async def enqueue_plain(desk: Desk, connection: Connection, entering: Sequence[Entering]) -> list[Stored]:
    """Jobs without unique keys and files, by one statement. One answer for each, in order."""
    answers = await _enter_plain(desk, connection, entering)
    crash_point("after_insert")
    return answers


async def enqueue_one(desk: Desk, connection: Connection, job: NewJob, channel: str) -> None:
    """A plain job for anybody. Who listens on the channel is called by the same statement, once it is stored."""
    expires_at, expires_in = _expiry(job)
    await connection.execute(
        desk["enqueue_one"], desk.now, job.id, job.task, job.queue, index(job.priority), job.delay or 0.0,
        _seconds(job.run_at), job.arguments, job.context, job.max_attempts, job.timeout, expires_at, expires_in,
        job.owner, job.origin, channel,
    )  # fmt: skip
    crash_point("after_insert")


async def enqueue_apart(desk: Desk, connection: Connection, entering: Sequence[Entering]) -> list[Stored]:
    """The jobs of one call, in a transaction of its own: all of them, or none when one is refused or incomplete.

    Or those of many calls, where they are plain and may be here already: that is looked for first, in all places at one
    moment. A statement that finds a job about to end, and waits for that, does not see it where it is then.
    """
    answers: list[Stored] = []
    transaction = connection.transaction()
    await transaction.start()
    try:
        answers = await enter_all(desk, connection, entering)
    except BaseException:
        if not connection.is_closed():
            await transaction.rollback()
        raise
    if not _NOTHING_STORED.isdisjoint(answers):
        await transaction.rollback()
    else:
        crash_point("after_insert")
        await transaction.commit()
    return answers


async def enter_all(desk: Desk, connection: Connection, entering: Sequence[Entering]) -> list[Stored]:
    """Within a transaction that has begun: one after the other, but for those that one statement can store."""
    unreserved = await reservations.lost(desk, connection, [job for job, _, _ in entering])
    if unreserved:
        return [Stored.unreserved if job.id in unreserved else Stored.dropped for job, _, _ in entering]
    present = await _present(desk, connection, entering)
    incomplete = {
        job.id
        for job, _, _ in entering
        if job.files and job.id not in present and not await contents.are_whole(desk, connection, job)
    }
    if incomplete:
        return [Stored.incomplete if job.id in incomplete else Stored.dropped for job, _, _ in entering]
    answers = present | await _strangers(desk, connection, entering)
    left = [one for one in entering if one[0].id not in answers]
    if len(left) > 1 and all(is_plain(job) for job, _, _ in left):
        answers |= zip([job.id for job, _, _ in left], await _enter_plain(desk, connection, left), strict=True)
    for one in left:
        if one[0].id not in answers:
            answers[one[0].id] = await _enter(desk, connection, one)
    told = [answers[job.id] for job, _, _ in entering]
    if Stored.refused in told:
        return [answer if answer is Stored.refused else Stored.dropped for answer in told]
    there = [job for job, _, _ in entering if answers[job.id] is not Stored.stranger]
    await reservations.complete(desk, connection, there)
    return told


async def _present(desk: Desk, connection: Connection, entering: Sequence[Entering]) -> dict[str, Stored]:
    """What is known of ids that are here already."""
    rows = await connection.fetch(desk["present"], [job.id for job, _, _ in entering])
    return {row["id"]: Stored.exists if row["leads"] else Stored.stored for row in rows}


async def _strangers(desk: Desk, connection: Connection, entering: Sequence[Entering]) -> dict[str, Stored]:
    """Those that are to be in the name of a process without a row."""
    owners = {process for _, placement, process in entering if placement is not Placement.free}
    alive = {row["id"] for row in await connection.fetch(desk["alive"], list(owners))} if owners else set[str]()
    return {
        job.id: Stored.stranger
        for job, placement, process in entering
        if placement is not Placement.free and process not in alive
    }


async def _enter(desk: Desk, connection: Connection, one: Entering) -> Stored:
    job = one[0]
    if job.unique is not None:
        stored = await _enter_unique(desk, connection, one)
    else:
        [stored] = await _enter_plain(desk, connection, [one])
    if stored is Stored.stored and job.files:
        await contents.link(desk, connection, job)
    return stored


async def _tell_origin(desk: Desk, connection: Connection, job: NewJob) -> None:
    """Of a job whose unique key it was not known to have before it was stored."""
    if _has_origin(job):
        await connection.execute(desk["tell_origin"], job.id, job.owner, job.origin)


def _has_origin(job: NewJob) -> bool:
    return job.owner is not None or job.origin is not None


async def _enter_plain(desk: Desk, connection: Connection, entering: Sequence[Entering]) -> list[Stored]:
    """Those without unique keys, by one statement. What is here already is not entered again."""
    alive = set((await _insert(desk, connection, entering))["alive"])
    return [
        Stored.stored if placement is Placement.free or process in alive else Stored.stranger
        for _, placement, process in entering
    ]


async def _enter_unique(desk: Desk, connection: Connection, one: Entering) -> Stored:
    """Again, as long as whoever had the key has let go of it before this could know."""
    job = one[0]
    while True:
        holder = await connection.fetchrow(desk["holder"], desk.now, job.task, job.unique)
        if holder is not None and await _makes_room(desk, connection, job, holder):
            holder = None
        if holder is None:
            row = await _insert(desk, connection, [one])
            if row["entered"]:
                await _tell_origin(desk, connection, job)
                return Stored.stored
            await asyncio.sleep(0)  # another came first; or it is there, and ends
            continue
        if job.on_duplicate is OnDuplicate.refuse:
            return Stored.refused
        await connection.execute(desk["alias"], job.id, holder["id"])
        return Stored.exists


async def _makes_room(desk: Desk, connection: Connection, job: NewJob, holder: Row) -> bool:
    """Does the job that has the key give it up? One that waits and has expired does, and one that is replaced."""
    waits = holder["status"] == "queued" and not holder["is_followed"]
    if waits and holder["has_expired"]:
        await connection.execute(desk["cancel"], desk.now, holder["id"], "expired")
        return True
    if job.on_duplicate is not OnDuplicate.replace:
        return False
    if waits:
        await connection.execute(desk["cancel"], desk.now, holder["id"], f"replaced by {job.id}")
    else:
        await connection.execute(desk["replace_running"], holder["id"], job.id)
    return True


async def _insert(desk: Desk, connection: Connection, entering: Sequence[Entering]) -> Row:
    row = await connection.fetchrow(desk["enqueue"], *_columns(desk, entering))
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    return row


def _columns(desk: Desk, entering: Sequence[Entering]) -> list[Any]:
    processes = [None if placement is Placement.free else process for _, placement, process in entering]
    jobs = [job for job, _, _ in entering]
    expiries = [_expiry(job) for job in jobs]
    known = [one for one in zip(jobs, processes, strict=True) if one[0].unique is None and _has_origin(one[0])]
    return [
        desk.now,
        list({process for process in processes if process is not None}),
        [job.id for job in jobs],
        [job.task for job in jobs],
        [job.queue for job in jobs],
        [index(job.priority) for job in jobs],  # the driver would cut off what is no whole number
        [placement is Placement.leased for _, placement, _ in entering],
        processes,
        [job.delay or 0.0 for job in jobs],
        [_seconds(job.run_at) for job in jobs],
        [job.unique for job in jobs],
        [job.arguments for job in jobs],
        [job.context for job in jobs],
        [job.max_attempts for job in jobs],
        [job.timeout for job in jobs],
        [at for at, _ in expiries],
        [within for _, within in expiries],
        [job.id for job, _ in known],
        [job.owner for job, _ in known],
        [job.origin for job, _ in known],
        [process for _, process in known],
    ]


def _expiry(job: NewJob) -> tuple[float | None, float | None]:
    """The moment that it expires at, or in how many seconds that is."""
    return (_seconds(job.expires), None) if isinstance(job.expires, datetime) else (None, job.expires)


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
