"""queued → running: what a worker has room for."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from afterward.job import Lease
from afterward.stores.base import Claimed, Wanted
from afterward.stores.postgres.connection import Connection, Row
from afterward.stores.postgres.desk import Desk

LEASE = len(Lease._fields)
"""So many columns, of those first, a row has of a lease."""

CARE = 1000
"""How many jobs whose time has come one claim makes ready at most, and how many it finds expired."""


async def claim(desk: Desk, connection: Connection, process: str, wanted: Sequence[Wanted], token: str) -> Claimed:
    """The most urgent of what is wanted; with what came due or expired before seen to."""
    named = [want for want in wanted if want.only is not None]
    if named:
        return await _claim_named(desk, connection, process, named, token)
    if (marks := desk.bookmarks.text()) is not None:
        claimed = await _claim_on(desk, connection, process, wanted, token, marks)
        if claimed.leases or claimed.next_due:
            return claimed
    return await _look(desk, connection, process, wanted, token)


async def _look(desk: Desk, connection: Connection, process: str, wanted: Sequence[Wanted], token: str) -> Claimed:
    """A full look at all that is ready."""
    began = time.monotonic()
    text = _text(wanted)
    most = desk.bookmarks.most_dead
    rows = await connection.fetch(desk["claim"], desk.now, process, token, text, True, most)
    if rows[0]["needs_care"]:
        await _care(desk, connection)
        began = time.monotonic()
        rows = await connection.fetch(desk["claim"], desk.now, process, token, text, False, most)
    first = rows[0]
    desk.bookmarks.looked(time.monotonic() - began, first["bookmarks"])
    if not first["is_alive"]:
        return Claimed([], more=False, next_due=None, paused=_paused(first))
    next_due = first["next_due"]
    next_due = None if next_due is None else max(0.0, next_due)
    return Claimed(_leases(rows), first["more"], next_due, first["for_others"], _paused(first))


async def _claim_on(  # noqa: PLR0917 - a claim, and where it begins
    desk: Desk, connection: Connection, process: str, wanted: Sequence[Wanted], token: str, marks: str
) -> Claimed:
    """What stands at the bookmarks or behind them. Where that is little, there may be more to find by a full look."""
    rows = await connection.fetch(desk["claim_on"], desk.now, process, token, _text(wanted), marks)
    first = rows[0]
    if not first["is_alive"]:
        return Claimed([], more=False, next_due=None, paused=_paused(first))
    desk.bookmarks.move(first["bookmarks"])
    leases = _leases(rows)
    until_look = desk.bookmarks.seconds_until_look()
    return Claimed(
        leases, bool(leases), until_look, for_others=True, paused=_paused(first)
    )  # there may be some for others


async def _care(desk: Desk, connection: Connection) -> None:
    """What has expired is cancelled, and what has come due made ready."""
    await connection.execute(desk["expire"], desk.now, CARE)
    await connection.execute(desk["promote"], desk.now, CARE)


async def _claim_named(
    desk: Desk, connection: Connection, process: str, wanted: Sequence[Wanted], token: str
) -> Claimed:
    await _care(desk, connection)
    ids = [id_ for want in wanted for id_ in want.only or ()]
    rows = await connection.fetch(desk["claim_named"], desk.now, process, token, _text(wanted), ids)
    return Claimed(_leases(sorted(rows, key=lambda row: row["place"])), more=False, next_due=None)


def _text(wanted: Sequence[Wanted]) -> str:
    """What is wanted, as the query takes it."""
    return json.dumps([_said(number, want) for number, want in enumerate(wanted)])


def _said(number: int, want: Wanted) -> dict[str, Any]:
    said: dict[str, Any] = {
        "number": number, "tasks": list(want.tasks), "unfit_for": list(want.unfit_for), "room": want.limit,
    }  # fmt: skip
    if want.queues is not None:
        said["queues"] = list(want.queues)
    if want.only is not None:
        said["only"] = list(want.only)
    return said


def _paused(row: Row) -> frozenset[str]:
    return frozenset(row["paused"] or ())


def _leases(rows: Sequence[Row]) -> list[Lease]:
    return [Lease(*row[:LEASE]) for row in map(tuple, rows) if row[0] is not None]
