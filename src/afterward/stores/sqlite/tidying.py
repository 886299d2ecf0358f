"""Doing away with what nobody needs, so little of it that nobody waits long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import apsw

from afterward.faults import crash_point
from afterward.job import Status
from afterward.stores.base import Tidied
from afterward.stores.sql import load_queries
from afterward.stores.sqlite import contents, events, reservations
from afterward.stores.sqlite.transaction import Transaction

_Q = load_queries("afterward.stores.sqlite")


def tidy(transaction: Transaction, ages: Mapping[Status, float], jobs: int, chunks: int) -> Tidied:
    """What has expired, what ended long ago, and what that left behind."""
    connection, now = transaction.connection, transaction.now
    connection.execute(_Q["expire"], (now, jobs))
    expired = connection.changes()
    pruned = _prune(connection, {status: now - age for status, age in ages.items()}, jobs)
    freed = contents.sweep(connection, chunks)
    freed += events.sweep(connection, chunks - freed)
    more = reservations.forget(connection, now, jobs)
    return Tidied(expired, pruned, freed, more=more or jobs in {expired, pruned} or freed == chunks)


def _prune(connection: apsw.Connection, until: Mapping[Status, float], limit: int) -> int:
    """Forget the oldest of those that ended with these statuses up to these times; how many they were."""
    pruned: list[Any] = []
    for status, time_ in until.items():
        rest = limit - len(pruned)
        pruned += connection.execute(_Q["prune"], (status, time_, rest)).fetchall() if rest else []
        crash_point("in_prune")
    connection.executemany(_Q["prune_aliases"], pruned)
    return len(pruned)
