"""queued → running: which jobs a process may have."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import apsw

from afterward.job import Lease
from afterward.stores.base import Claimed, Wanted
from afterward.stores.sql import load_queries
from afterward.stores.sqlite import queues
from afterward.stores.sqlite.transaction import Transaction

_Q = load_queries("afterward.stores.sqlite")

PROMOTED = 1000
"""How many jobs whose time has come one transaction makes ready at most, and how many it finds expired."""


def promote(transaction: Transaction) -> None:
    """What has come due is ready; what has expired is cancelled."""
    transaction.connection.execute(_Q["expire"], (transaction.now, PROMOTED))
    transaction.connection.execute(_Q["promote"], (transaction.now, PROMOTED))


def claim(transaction: Transaction, process: str, wanted: Sequence[Wanted], token: str) -> Claimed:
    """The leases given, or those that an earlier call with the same token was given."""
    connection, now = transaction.connection, transaction.now
    paused = queues.names_of_paused(connection)
    if not connection.execute(_Q["exists"], (process,)).get:
        return Claimed([], more=False, next_due=None, paused=paused)
    again = [Lease(*row) for row in connection.execute(_Q["claimed"], (process, token))]
    if again:
        return Claimed(again, more=True, next_due=None, paused=paused)
    lanes = [lane for lane in connection.execute(_Q["lanes"]).fetchall() if lane[0] not in paused]
    leases: list[Lease] = []
    more = False
    for want in wanted:
        candidates = _candidates(connection, want, lanes)
        candidates.sort()
        more = more or len(candidates) > want.limit
        chosen = [(seq, process, token, now) for _, _, seq in candidates[: want.limit]]
        leases += [Lease(*row) for row in connection.executemany(_Q["claim"], chosen)]
    due = connection.execute(_Q["next_due"]).get
    return Claimed(leases, more, None if due is None else max(0.0, due - now), paused=paused)


def _candidates(connection: apsw.Connection, want: Wanted, lanes: Iterable[Any]) -> list[tuple[int, float, int]]:
    """The most urgent of each lane that is wanted; or what is wanted by name."""
    if want.only is not None:
        return _named(connection, want, want.only)
    found: list[tuple[int, float, int]] = []
    for lane in lanes:
        if _is_wanted(lane, want):
            found += connection.execute(_Q["candidates"], (*lane, want.limit + 1))
    return found


def _named(connection: apsw.Connection, want: Wanted, jobs: Collection[str]) -> list[tuple[int, float, int]]:
    named: list[Any] = [row for job in jobs for row in connection.execute(_Q["named"], (job,))]
    return [row[3:] for row in named if _is_wanted(row[:3], want)]


def _is_wanted(lane: Sequence[str], want: Wanted) -> bool:
    queue, task, unfit_for = lane
    return task in want.tasks and (want.queues is None or queue in want.queues) and unfit_for not in want.unfit_for
