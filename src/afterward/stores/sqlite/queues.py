"""Queues that somebody has paused."""

from __future__ import annotations

import apsw

from afterward.stores.rows import time_of
from afterward.stores.seen import Pause
from afterward.stores.sql import load_queries
from afterward.stores.sqlite.life import know_others
from afterward.stores.sqlite.transaction import Transaction

_Q = load_queries("afterward.stores.sqlite", "seen.sql")


def pause(transaction: Transaction, queue: str, by: str) -> bool:
    """Nothing of it is claimed from here on; False when that is so already."""
    know_others(transaction)  # whoever pauses rings, also if it never joined
    return transaction.connection.execute(_Q["pause"], (queue, transaction.now, by)).get is not None


def resume(transaction: Transaction, queue: str) -> bool:
    """Its jobs may be claimed again; False when they may already."""
    know_others(transaction)
    return transaction.connection.execute(_Q["resume"], (queue,)).get is not None


def paused(connection: apsw.Connection) -> list[Pause]:
    """All of them, by name."""
    return [Pause(queue, time_of(since), by) for queue, since, by in connection.execute(_Q["paused"])]


def names_of_paused(connection: apsw.Connection) -> frozenset[str]:
    """For a claim."""
    return frozenset(queue for queue, _, _ in connection.execute(_Q["paused"]))
