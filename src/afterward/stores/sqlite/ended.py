"""What fails, and what has ended: how much of it there was, and how long it took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import apsw

from afterward.stores.rows import failure_in, time_of
from afterward.stores.seen import FailureGroup, Period
from afterward.stores.sql import load_queries

_Q = load_queries("afterward.stores.sqlite", "seen.sql")


def failures(connection: apsw.Connection, limit: int) -> list[FailureGroup]:
    """The jobs that have failed for good, or are tried again, in groups, as they are at one moment."""
    groups: list[FailureGroup] = []
    with connection:
        rows: list[Any] = connection.execute(_Q["failures"]).fetchall()
        latest = sorted(_groups(rows), key=lambda group: group[-1].last_at, reverse=True)[:limit]
        groups += [_group(connection, group) for group in latest]
    return groups


class _Failed(NamedTuple):
    """What failed of one task with one signature. `fate`: `failed` for good, or `retrying`."""

    fate: str
    signature: str
    task: str
    jobs: int
    first_at: float
    last_at: float


def _groups(rows: Iterable[Any]) -> list[list[_Failed]]:
    """By signature, or by task where there is none; what failed last comes last in each."""
    groups: dict[str | tuple[str], list[_Failed]] = {}
    for failed in map(_Failed._make, rows):
        groups.setdefault(failed.signature or (failed.task,), []).append(failed)
    return [sorted(group, key=lambda failed: failed.last_at) for group in groups.values()]


def _group(connection: apsw.Connection, group: Sequence[_Failed]) -> FailureGroup:
    last = group[-1]
    newest: Any = connection.execute(_Q[f"newest_{last.fate}"], (last.signature, last.task)).fetchone()
    return FailureGroup(
        last.signature,
        last.task,
        failure_in(newest[1], last.signature),
        sum(failed.jobs for failed in group if failed.fate == "failed"),
        sum(failed.jobs for failed in group if failed.fate == "retrying"),
        time_of(min(failed.first_at for failed in group)),
        time_of(last.last_at),
        newest[0],
    )


def history(connection: apsw.Connection, since: float, seconds: float) -> list[Period]:
    """What has ended since a time, by spans of so many seconds and by queue."""
    rows: list[Any] = connection.execute(_Q["history"], (since, seconds)).fetchall()
    return [_period(*row) for row in rows]


def _period(queue: str, began: float, succeeded: int, failed: int, cancelled: int, *times: float | None) -> Period:
    waited_middle, waited_high, ran_middle, ran_high = times
    waited = None if waited_middle is None or waited_high is None else (waited_middle, waited_high)
    ran = None if ran_middle is None or ran_high is None else (ran_middle, ran_high)
    return Period(queue, time_of(began), succeeded, failed, cancelled, waited, ran)
