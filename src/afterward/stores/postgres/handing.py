"""Jobs in the hands of another system: the contract of `stores.handing`.

A job that is handed over waits for a time that never comes; what else is kept of it is in a table of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

from afterward.job import Lease
from afterward.stores.handing import Followed, HandOver, Start, TakenBack
from afterward.stores.postgres.claims import LEASE
from afterward.stores.postgres.connection import Connection, Row
from afterward.stores.postgres.desk import Desk
from afterward.stores.rows import time_of
from afterward.text import is_storable

T = TypeVar("T")

SWEPT = 1000
"""So much of what is kept one `take_back` looks at, whether it is still of a job that is in other hands."""

_ATTEMPTS = range(1, 2**31)
_LEASE, _WAITED = slice(0, LEASE), LEASE


class Message(NamedTuple):
    """One that has come to a process of the other system."""

    process: str
    start: Start


async def hand_over(
    desk: Desk, connection: Connection, handed: Sequence[HandOver], *, waits: bool = True
) -> list[bool | None]:
    """running → queued, handed over, for attempts that still hold their jobs; or cancelled, if they were asked to end.

    What another transaction has locked is passed over at first. `waits`: it is waited for then, one by one; else it is
    answered with None.
    """
    answers: list[bool | None] = [False] * len(handed)
    left = list(enumerate(handed))
    while left:
        now, left = _first_of_each(left, lambda one: one.lease.id)
        rows = await connection.fetch(desk["hand_over"], desk.now, *_columns_of([one for _, one in now]))
        accepted = {row["id"] for row in rows}
        refused: list[tuple[int, HandOver]] = []
        for number, one in now:
            answers[number] = one.lease.id in accepted
            if not answers[number]:
                refused.append((number, one))
        locked = await _look_at_refused(desk, connection, refused, answers) if refused else []
        if waits:
            await _wait_for(desk, connection, [one.lease.id for _, one in locked])
            left += locked
    return answers


async def _look_at_refused(
    desk: Desk, connection: Connection, refused: Sequence[tuple[int, HandOver]], answers: list[bool | None]
) -> list[tuple[int, HandOver]]:
    """Accept what is handed over already; those that hold their jobs, which somebody else had locked."""
    leases = [one.lease for _, one in refused]
    rows = await connection.fetch(desk["not_handed_over"], *_fences(leases))
    for (number, _), row in zip(refused, rows, strict=True):
        answers[number] = None if row["holds"] else row["is_handed"]
    return [one for one in refused if answers[one[0]] is None]


async def begin(
    desk: Desk, connection: Connection, messages: Sequence[Message], *, waits: bool = True
) -> dict[int, Lease | None]:
    """queued and handed over → running, for messages that are the first of their attempts. By their places.

    What another transaction has locked is passed over at first. `waits`: it is waited for then, one by one; else it is
    left out.
    """
    answers: dict[int, Lease | None] = {
        number: None for number, message in enumerate(messages) if not _is_sound(message.start)
    }
    left = [(number, message) for number, message in enumerate(messages) if number not in answers]
    while left:
        now, left = _first_of_each(left, lambda message: message.start.id)
        rows = await connection.fetch(desk["begin"], desk.now, *_columns_of_messages(now))
        begun = {row["id"]: Lease(*row) for row in rows}
        answers |= {number: begun[message.start.id] for number, message in now if message.start.id in begun}
        refused = [one for one in now if one[0] not in answers]
        locked = await _look_at_late(desk, connection, refused, answers) if refused else []
        if waits:
            await _wait_for(desk, connection, [message.start.id for _, message in locked])
            left += locked
    return answers


async def _look_at_late(
    desk: Desk, connection: Connection, refused: Sequence[tuple[int, Message]], answers: dict[int, Lease | None]
) -> list[tuple[int, Message]]:
    """Answer messages that come too late; those whose attempts may begin, for somebody else had their jobs locked."""
    rows = await connection.fetch(desk["not_begun"], desk.now, *_columns_of_messages(refused))
    for (number, _), (may_begin, *begun) in zip(refused, rows, strict=True):
        if not may_begin:
            answers[number] = None if begun[0] is None else Lease(*begun)
    return [one for one in refused if one[0] not in answers]


async def take_back(desk: Desk, connection: Connection, process: str, tasks: Collection[str], limit: int) -> TakenBack:
    """queued and handed over → running, for those that are due again; what is kept in vain is forgotten."""
    await _sweep(desk, connection)
    rows = await connection.fetch(desk["take_back"], desk.now, process, list(set(tasks)), limit)
    first, taken = rows[0], [tuple(row) for row in rows if row["id"] is not None]
    next_due: float | None = first["next_due"]
    return TakenBack([Lease(*row[_LEASE]) for row in taken], [row[_WAITED] for row in taken], first["more"], next_due)


async def _sweep(desk: Desk, connection: Connection) -> None:
    """Forget what is kept of jobs that are in no other hands any more, among the next so many."""
    swept = desk.swept
    jobs, last = await connection.fetchrow(desk["forget_handed"], desk.now, swept.after, SWEPT) or (0, "")
    swept.after = last if jobs == SWEPT else ""


async def followed(
    desk: Desk, connection: Connection, tasks: Collection[str], after: str, limit: int
) -> list[Followed]:
    """Jobs of these tasks that are followed, by their ids, as they are at one moment."""
    rows = await connection.fetch(desk["followed"], list(set(tasks)), after, limit)
    return [_followed(row) for row in rows]


def _followed(row: Row) -> Followed:
    id_, attempt, task, handed_at, process, is_asked = row
    return Followed(id_, attempt, task, time_of(handed_at), process, is_asked)


async def _wait_for(desk: Desk, connection: Connection, jobs: Sequence[str]) -> None:
    """Until nobody else has these jobs locked."""
    for job in jobs:
        await connection.execute(desk["wait_for"], job)


def _first_of_each(
    numbered: Sequence[tuple[int, T]], key: Callable[[T], Hashable]
) -> tuple[list[tuple[int, T]], list[tuple[int, T]]]:
    """The first with each key, and the rest."""
    first: dict[Hashable, tuple[int, T]] = {}
    rest = [one for one in numbered if first.setdefault(key(one[1]), one) is not one]
    return list(first.values()), rest


def _is_sound(start: Start) -> bool:
    """Can the store hold what it says? A message comes from elsewhere."""
    return is_storable(start.id) and is_storable(start.sender) and start.attempt in _ATTEMPTS


def _fences(leases: Sequence[Lease]) -> list[list[Any]]:
    return [[lease.id for lease in leases], [lease.attempt for lease in leases], [lease.process for lease in leases]]


def _columns_of(handed: Sequence[HandOver]) -> list[list[Any]]:
    return [
        *_fences([one.lease for one in handed]),
        [one.again for one in handed],
        [one.is_followed for one in handed],
        [one.is_sent for one in handed],
    ]


def _columns_of_messages(messages: Sequence[tuple[int, Message]]) -> list[list[Any]]:
    starts = [message.start for _, message in messages]
    return [
        [message.process for _, message in messages],
        [start.id for start in starts],
        [start.attempt for start in starts],
        [start.sender for start in starts],
    ]
