"""Jobs in the hands of another system: the contract of `stores.handing`.

A job that is handed over waits for a time that never comes; what else is kept of it is in a table of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from typing import Any

import apsw

from afterward.job import Lease, Status
from afterward.stores.handing import Followed, HandOver, Start, TakenBack
from afterward.stores.rows import time_of
from afterward.stores.sql import load_queries
from afterward.stores.sqlite import queues
from afterward.stores.sqlite.transaction import Transaction
from afterward.text import is_storable

_Q = load_queries("afterward.stores.sqlite", "handing.sql")
_EXISTS = load_queries("afterward.stores.sqlite")["exists"]

SWEPT = 1000
"""So much of what is kept one `take_back` looks at, whether it is still of a job that is in other hands."""


@dataclass(slots=True)
class Sweep:
    """How far what is kept has been looked at, job by job. Then it begins anew."""

    after: int = 0


def hand_over(transaction: Transaction, handed: HandOver) -> bool:
    """running → queued, handed over; or cancelled, if it was asked to end."""
    connection, now = transaction.connection, transaction.now
    lease, again, is_followed, is_sent = handed
    fence = (lease.id, lease.attempt, lease.process)
    again_at = None if again is None else now + again
    job = connection.execute(_Q["hand_over"], (*fence, int(is_followed), now, again_at, int(is_sent))).get
    if job is not None:
        connection.execute(_Q["lay_by"], (job, int(is_followed)))
        return True
    if connection.execute(_Q["cancel_asked"], (*fence, now)).get is not None:
        return True
    return bool(connection.execute(_Q["is_handed"], (lease.id, lease.attempt)).get)


def begin(transaction: Transaction, process: str, starts: Sequence[Start]) -> list[Lease | None]:
    """queued and handed over → running, for those whose message is the first of its attempt."""
    if not transaction.connection.execute(_EXISTS, (process,)).get:
        return [None] * len(starts)
    return [_begin(transaction, process, start) for start in starts]


def _begin(transaction: Transaction, process: str, start: Start) -> Lease | None:
    connection, now = transaction.connection, transaction.now
    if not (is_storable(start.id) and is_storable(start.sender)):
        return None
    row: Any = connection.execute(_Q["begin"], (*start, process, now)).fetchone()
    if row is None:
        row = connection.execute(_Q["begun"], (start.id, start.attempt, process)).fetchone()
        return None if row is None else Lease(*row)
    connection.execute(_Q["make_due"], (start.id, now))
    connection.execute(_Q["forget_begun"], (start.id,))
    connection.execute(_Q["leave_alone"], (start.id,))
    return Lease(*row)


def hand_back(transaction: Transaction, job: str, attempt: int, process: str) -> Status | None:
    """running → queued, handed over as before, or cancelled; None for a job that is not in other hands."""
    fence = (job, attempt, process)
    row: Any = transaction.connection.execute(_Q["hand_back"], (*fence, transaction.now)).fetchone()
    return None if row is None else Status(row[1])


def hand_all_back(transaction: Transaction, process: str) -> None:
    """The same for all that is in the name of a process."""
    transaction.connection.execute(_Q["hand_all_back"], (process, transaction.now))


def take_back(transaction: Transaction, process: str, tasks: Collection[str], limit: int, swept: Sweep) -> TakenBack:
    """queued and handed over → running, for those that are due again; what is kept in vain is forgotten."""
    connection, now = transaction.connection, transaction.now
    _sweep(connection, swept)
    if not connection.execute(_EXISTS, (process,)).get:
        return TakenBack([], [], more=False, next_due=None)
    lanes = list(_lanes(connection, tasks))
    due: list[Any] = [row for lane in lanes for row in connection.execute(_Q["due_again"], (*lane, now, limit + 1))]
    due.sort()
    chosen = [(job, process, now) for _, job, _ in due[:limit]]
    leases = [Lease(*row) for row in connection.executemany(_Q["take_back"], chosen)]
    later = [connection.execute(_Q["next_again"], (*lane, now)).get for lane in lanes]
    next_at = min((at for at in later if at is not None), default=None)
    waited = [max(0.0, now - handed_at) for _, _, handed_at in due[:limit]]
    return TakenBack(leases, waited, len(due) > limit, None if next_at is None else next_at - now)


def _lanes(connection: apsw.Connection, tasks: Collection[str]) -> Iterator[tuple[str, str]]:
    """The tasks and queues of which something is to be due again; not those that are paused."""
    paused = queues.names_of_paused(connection)
    for task in set(tasks):
        rows: list[Any] = connection.execute(_Q["queues_again"], (task,)).fetchall()
        for (queue,) in rows:
            if queue not in paused:
                yield task, queue


def _sweep(connection: apsw.Connection, swept: Sweep) -> None:
    """Forget what is kept of jobs that are in no other hands any more, among the next so many."""
    page: list[Any] = connection.execute(_Q["kept"], (swept.after, SWEPT)).fetchall()
    ended = [(job,) for job, is_in_other_hands in page if not is_in_other_hands]
    connection.executemany(_Q["give_time_back"], ended)
    connection.executemany(_Q["forget"], ended)
    swept.after = page[-1][0] if len(page) == SWEPT else 0


def followed(connection: apsw.Connection, tasks: Collection[str], after: str, limit: int) -> list[Followed]:
    """Jobs of these tasks that are followed, by their ids, as they are at one moment."""
    rows: list[Any] = []
    with connection:
        found = [connection.execute(_Q["followed"], (task, after, limit)).fetchall() for task in set(tasks)]
        rows += islice(merge(*found), limit)
    return [
        Followed(id_, attempt, task, time_of(at), process, bool(is_asked))
        for id_, attempt, task, at, process, is_asked in rows
    ]
