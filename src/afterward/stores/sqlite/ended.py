"""What has ended: how it failed, how much of it there was, and how long it took."""

from __future__ import annotations

from typing import Any

import apsw

from afterward.stores.rows import failure_in, time_of
from afterward.stores.seen import FailureGroup, Period
from afterward.stores.sql import load_queries

_Q = load_queries("afterward.stores.sqlite", "seen.sql")


def failures(connection: apsw.Connection, limit: int) -> list[FailureGroup]:
    """The jobs that have failed for good, in groups, as they are at one moment."""
    groups: list[FailureGroup] = []
    with connection:
        rows: list[Any] = connection.execute(_Q["failures"], (limit,)).fetchall()
        groups += [_group(connection, *row) for row in rows]
    return groups


def _group(  # noqa: PLR0917 - a row
    connection: apsw.Connection, signature: str, jobs: int, first_at: float, last_at: float, task: str
) -> FailureGroup:
    newest: Any = connection.execute(_Q["newest_failure"], (signature, task, last_at)).fetchone()
    id_, task, failure = newest
    return FailureGroup(signature, task, failure_in(failure, signature), jobs, time_of(first_at), time_of(last_at), id_)


def history(connection: apsw.Connection, since: float, seconds: float) -> list[Period]:
    """What has ended since a time, by spans of so many seconds and by queue."""
    rows: list[Any] = connection.execute(_Q["history"], (since, seconds)).fetchall()
    return [_period(*row) for row in rows]


def _period(queue: str, began: float, succeeded: int, failed: int, cancelled: int, *times: float | None) -> Period:
    waited_middle, waited_high, ran_middle, ran_high = times
    waited = None if waited_middle is None or waited_high is None else (waited_middle, waited_high)
    ran = None if ran_middle is None or ran_high is None else (ran_middle, ran_high)
    return Period(queue, time_of(began), succeeded, failed, cancelled, waited, ran)
