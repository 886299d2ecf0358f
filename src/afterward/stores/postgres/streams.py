"""What attempts say: appended to the logs of their jobs, many by one statement; and read from there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from afterward.job import Event, EventKind, Lease, Report, Status
from afterward.stores import base
from afterward.stores.postgres.connection import Connection, Row
from afterward.stores.postgres.desk import Desk
from afterward.stores.rows import time_of
from afterward.stores.seen import Stream
from afterward.text import is_storable

Said = tuple[Lease, Report]

_REMOVED_TOGETHER = 10
"""Once there are more events than are kept, by this part of them, what is too much is removed: together, so cheaply."""


async def report(desk: Desk, connection: Connection, said: Sequence[Said], *, waits: bool) -> list[bool | None]:
    """Append what attempts say that hold their jobs. What another transaction has locked is answered with None.

    `waits`: it is waited for instead.
    """
    answers: list[bool | None] = [False] * len(said)
    left = list(range(len(said)))
    while left:
        now, left = _one_of_each_job(said, left)
        accepted = await _append(desk, connection, [said[number] for number in now], is_fenced=True)
        for number in now:
            answers[number] = said[number][0].id in accepted
        locked = await _locked(desk, connection, said, [number for number in now if not answers[number]])
        for number in locked:
            answers[number] = None
        if waits:
            for number in locked:
                await connection.execute(desk["wait_for"], said[number][0].id)
            left = sorted([*locked, *left])
    return answers


async def append(desk: Desk, connection: Connection, said: Sequence[Said]) -> None:
    """Append the last that attempts say, which have held their jobs in this same transaction: one of each job."""
    await _append(desk, connection, said, is_fenced=False)


def _one_of_each_job(said: Sequence[Said], numbers: Iterable[int]) -> tuple[list[int], list[int]]:
    """The first report of each job, and the rest."""
    first: dict[str, int] = {}
    rest = [number for number in numbers if first.setdefault(said[number][0].id, number) != number]
    return list(first.values()), rest


async def _append(desk: Desk, connection: Connection, said: Sequence[Said], *, is_fenced: bool) -> set[str]:
    """By one statement; the ids of those that were accepted."""
    kept = base.EVENTS_KEPT
    rows = await connection.fetch(
        desk["report"],
        desk.now,
        is_fenced,
        [lease.id for lease, _ in said],
        [lease.attempt for lease, _ in said],
        [lease.process for lease, _ in said],
        [report.first for _, report in said],
        [len(report.events) for _, report in said],
        kept,
        kept // _REMOVED_TOGETHER,
        [_progress(report) for _, report in said],
        *_columns(said),
    )
    return {row["id"] for row in rows}


def _progress(report: Report) -> str | None:
    """The last that it tells of that."""
    return next((event.data for event in reversed(report.events) if event.kind is EventKind.progress), None)


def _columns(said: Sequence[Said]) -> list[list[Any]]:
    """Of all events: whose they are, and what."""
    events = [
        (lease, place, event) for lease, report in said for place, event in enumerate(report.events, report.first)
    ]
    return [
        [lease.id for lease, _, _ in events],
        [lease.attempt for lease, _, _ in events],
        [place for _, place, _ in events],
        [event.kind.value for _, _, event in events],
        [event.data for _, _, event in events],
        [event.age for _, _, event in events],
    ]


async def _locked(desk: Desk, connection: Connection, said: Sequence[Said], refused: Sequence[int]) -> list[int]:
    """Those of the refused whose attempts hold their jobs, which somebody else had locked."""
    if not refused:
        return []
    leases = [said[number][0] for number in refused]
    rows = await connection.fetch(
        desk["holding"],
        [lease.id for lease in leases],
        [lease.attempt for lease in leases],
        [lease.process for lease in leases],
    )
    return [number for number, row in zip(refused, rows, strict=True) if row["holds"]]


async def events(
    desk: Desk, connection: Connection, asked: Sequence[tuple[str, int]], limit: int
) -> list[Stream | None]:
    """What jobs have said after a number, and how they stand, at one moment."""
    known = [(number, id_, after) for number, (id_, after) in enumerate(asked) if is_storable(id_)]
    ids, afters = [id_ for _, id_, _ in known], [after for _, _, after in known]
    answers: list[Stream | None] = [None] * len(asked)
    rows = await connection.fetch(desk["events"], ids, afters, limit, base.EVENTS_KEPT)
    for place, of_job in groupby(rows, lambda row: row["place"]):
        answers[known[place - 1][0]] = _stream(list(of_job))
    return answers


def _stream(rows: Sequence[Row]) -> Stream:
    _, id_, status, attempt, last, *_ = rows[0]
    events = [
        Event(number, said_by, EventKind(kind), data, time_of(at))
        for *_, number, said_by, kind, data, at in rows
        if number is not None
    ]
    first = max(1, last - base.EVENTS_KEPT + 1) if last else 0
    return Stream(id_, Status(status), attempt, events, first, last)
