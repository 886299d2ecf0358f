"""The life of a job as a row of steps: how long each attempt waited, and ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from afterward.job import Attempt, Job, Status

SHOWN = 30
"""So many of the latest attempts are shown."""


@dataclass(frozen=True, slots=True)
class Step:
    """An attempt. `waited`, `ran`: in seconds. `start`, `wait_width`, `run_width`: of the whole time, in per mille."""

    number: int
    outcome: str
    began: datetime | None
    ended: datetime | None
    waited: float
    ran: float | None
    attempt: Attempt | None
    start: float = 0.0
    wait_width: float = 0.0
    run_width: float = 0.0


class Timeline(NamedTuple):
    """The latest steps, in order, and how many came before them."""

    steps: Sequence[Step]
    earlier: int


def timeline(job: Job, now: datetime) -> Timeline:
    """The attempts of a job, and at last what it waits for now, if it does."""
    found: list[Step] = []
    since = job.created_at
    for attempt in sorted(job.attempts, key=lambda each: each.number):
        began = attempt.started_at
        start = began or attempt.ended_at
        ran = None if began is None else _seconds(began, attempt.ended_at)
        found.append(
            Step(attempt.number, attempt.outcome, began, attempt.ended_at, _seconds(since, start), ran, attempt)
        )
        since = attempt.ended_at
    last = _last(job, since, now)
    if last is not None and not any(step.number == last.number for step in found):
        found.append(last)
    return Timeline(_placed(found[-SHOWN:]), max(0, len(found) - SHOWN))


def _last(job: Job, since: datetime, now: datetime) -> Step | None:
    """What no attempt that has failed tells of: the one that runs or succeeded, or the wait for the next."""
    if job.status is Status.queued and job.handed_at is not None:
        return Step(job.attempt, "handed", None, None, _seconds(since, now), None, None)
    if job.status is Status.queued:
        return Step(job.attempt + 1, "waiting", None, None, _seconds(since, now), None, None)
    if job.status not in {Status.running, Status.succeeded} or job.started_at is None:
        return None
    ended = job.finished_at
    ran = _seconds(job.started_at, ended or now)
    return Step(job.attempt, job.status.value, job.started_at, ended, _seconds(since, job.started_at), ran, None)


def _placed(steps: Sequence[Step]) -> Sequence[Step]:
    """The same, with their places on one line of time."""
    whole = sum(step.waited + (step.ran or 0) for step in steps) or 1.0
    placed: list[Step] = []
    start = 0.0
    for step in steps:
        wait, run = step.waited * 1000 / whole, (step.ran or 0) * 1000 / whole
        placed.append(replace(step, start=round(start, 1), wait_width=round(wait, 1), run_width=round(run, 1)))
        start += wait + run
    return placed


def _seconds(began: datetime, ended: datetime) -> float:
    return max(0.0, (ended - began).total_seconds())
