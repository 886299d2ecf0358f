"""What there is to do: a look that counts, by index, and never far."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from typing import Any

import apsw

from afterward.stores.base import COUNTED, Stats
from afterward.stores.counts import Waits, stats_of
from afterward.stores.sql import load_queries
from afterward.text import is_storable

_Q = load_queries("afterward.stores.sqlite")


def stats(connection: apsw.Connection, now: float, dead: Collection[str]) -> Stats:
    """All queues, as they are at one moment. `dead`: processes that do not live, whatever their rows say."""
    due: list[Waits] = []
    later: dict[str, int] = {}
    handed: dict[str, int] = {}
    taken: Counter[tuple[str, str]] = Counter()
    living: set[str] = set()
    with connection:
        overdue, later, handed = _scheduled(connection, now)
        due = _ready(connection) + overdue
        taken.update(_rows(connection, "taken_of_queues"))
        living.update(row[0] for row in _rows(connection, "living"))
    return stats_of(due, later, taken, handed, now, len(living.difference(dead)))


def waiting(connection: apsw.Connection, now: float) -> list[Waits]:
    """What is due, by lane."""
    return _ready(connection) + _scheduled(connection, now)[0]


def ahead(  # noqa: PLR0917 - a place, and what may stand before it
    connection: apsw.Connection, job: str, tasks: Collection[str], queues: Collection[str], limit: int, now: float
) -> int:
    """How many jobs that are ready stand before one."""
    counts: list[int] = []
    with connection:
        for place in _rows(connection, "place", job) if is_storable(job) else ():
            lanes = {
                (queue, task) for queue, task, _ in _rows(connection, "lanes") if queue in queues and task in tasks
            }
            counts += [_count(connection, "ahead", *lane, *place, limit) for lane in lanes]
            named = json.dumps(sorted(tasks))
            counts += [_count(connection, "overdue_ahead", queue, named, *place, now, limit) for queue in set(queues)]
    return min(limit, sum(counts))


def _ready(connection: apsw.Connection) -> list[Waits]:
    """What a claim would find, by lane."""
    return [
        Waits(queue, task, unfit_for != "", jobs, since)
        for queue, task, unfit_for in _rows(connection, "lanes")
        for jobs, since in _rows(connection, "lane_waits", queue, task, unfit_for, COUNTED)
        if jobs
    ]


def _scheduled(connection: apsw.Connection, now: float) -> tuple[list[Waits], dict[str, int], dict[str, int]]:
    """What has come due since the last claim; how many wait for their time, and how many are handed over, by queue."""
    rows = _rows(connection, "scheduled", now, COUNTED)
    overdue = [Waits(queue, "", False, jobs, since) for queue, jobs, since, _, _ in rows if jobs]
    later = {queue: jobs for queue, _, _, jobs, _ in rows if jobs}
    return overdue, later, {queue: jobs for queue, _, _, _, jobs in rows if jobs}


def _rows(connection: apsw.Connection, query: str, *values: Any) -> list[Any]:
    return connection.execute(_Q[query], values).fetchall()


def _count(connection: apsw.Connection, query: str, *values: Any) -> int:
    [(count,)] = _rows(connection, query, *values)
    return int(count)
