"""Processes and what they run: as they say it themselves."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import apsw

from afterward.stores.rows import served_of, text_of_served, time_of
from afterward.stores.seen import ProcessSeen, Served, TaskSeen
from afterward.stores.sql import load_queries
from afterward.stores.sqlite.transaction import Transaction

_Q = load_queries("afterward.stores.sqlite", "seen.sql")


def describe(transaction: Transaction, process: str, served: Served) -> bool:
    """Keep what a process runs jobs of, and that its tasks were seen; False when it has no row."""
    connection = transaction.connection
    if connection.execute(_Q["describe"], (process, text_of_served(served))).get is None:
        return False
    seen = [(task, served.version, transaction.now) for task in served.tasks]
    connection.executemany(_Q["see_task"], seen)
    return True


def processes(connection: apsw.Connection, dead: Collection[str]) -> list[ProcessSeen]:
    """Those that have a row, with what each runs at the same moment, but for the `dead`."""
    seen: list[ProcessSeen] = []
    with connection:
        rows: list[Any] = connection.execute(_Q["processes"]).fetchall()
        seen += [_seen(connection, row) for row in rows if row[0] not in dead]
    return seen


def _seen(connection: apsw.Connection, row: Any) -> ProcessSeen:
    id_, pid, host, joined_at, served = row
    running = [job for (job,) in connection.execute(_Q["runs"], (id_,))]
    return ProcessSeen(id_, pid, host, time_of(joined_at), None if served is None else served_of(served), running)


def tasks_seen(connection: apsw.Connection) -> list[TaskSeen]:
    """All that were ever served, by name."""
    return [TaskSeen(task, version, time_of(at)) for task, version, at in connection.execute(_Q["tasks"])]
