"""What there is to do: a look that counts, by index, and never far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from afterward.job import Status
from afterward.stores.base import COUNTED, QueueStats, Stats
from afterward.stores.sql import load_queries

_Q = load_queries("afterward.stores.sqlite")


@dataclass(frozen=True, slots=True)
class Waits:
    """Jobs of one lane that are due: how many (up to `COUNTED`), and since when the first.

    `unfit`: they did not fit somebody. `task`: empty for those that no claim has looked at since they came due.
    """

    queue: str
    task: str
    unfit: bool
    jobs: int
    since: float


def stats(connection: apsw.Connection, now: float, dead: Collection[str]) -> Stats:
    """All queues, as they are at one moment. `dead`: processes that do not live, whatever their rows say."""
    due: list[Waits] = []
    later: dict[str, int] = {}
    taken: Counter[tuple[str, str]] = Counter()
    living: set[str] = set()
    with connection:
        overdue, later = _scheduled(connection, now)
        due = _ready(connection) + overdue
        taken.update(_rows(connection, "taken_of_queues"))
        living.update(row[0] for row in _rows(connection, "living"))
    queues = {lane.queue for lane in due} | later.keys() | {queue for queue, _ in taken}
    counts = [
        QueueStats(
            queue,
            *_depth([lane for lane in due if lane.queue == queue], now),
            later=later.get(queue, 0),
            held=taken[queue, Status.queued],
            running=taken[queue, Status.running],
        )
        for queue in sorted(queues)
    ]
    return Stats(counts, processes=len(living.difference(dead)))


def waiting(connection: apsw.Connection, now: float) -> list[Waits]:
    """What is due, by lane."""
    return _ready(connection) + _scheduled(connection, now)[0]


def _ready(connection: apsw.Connection) -> list[Waits]:
    """What a claim would find, by lane."""
    return [
        Waits(queue, task, unfit_for != "", jobs, since)
        for queue, task, unfit_for in _rows(connection, "lanes")
        for jobs, since in _rows(connection, "lane_waits", queue, task, unfit_for, COUNTED)
        if jobs
    ]


def _scheduled(connection: apsw.Connection, now: float) -> tuple[list[Waits], dict[str, int]]:
    """What has come due since the last claim; and how many wait for their time, by queue."""
    rows = _rows(connection, "scheduled", now, COUNTED)
    overdue = [Waits(queue, "", False, jobs, since) for queue, jobs, since, _ in rows if jobs]
    return overdue, {queue: later for queue, _, _, later in rows if later}


def _depth(lanes: Sequence[Waits], now: float) -> tuple[int, float]:
    """How many jobs are ready in these lanes, and for how long the first."""
    since = min((lane.since for lane in lanes), default=now)
    return min(COUNTED, sum(lane.jobs for lane in lanes)), max(0.0, now - since)


def _rows(connection: apsw.Connection, query: str, *values: Any) -> list[Any]:
    return connection.execute(_Q[query], values).fetchall()
