"""Where a job stands, in words: its status, what follows from its other facts at one moment, and what it rules out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from afterward.executors import FOREIGN
from afterward.job import TERMINAL, Failure, Job, Status

OVERDUE = timedelta(seconds=10)
"""A job due for longer than this waits for something; a free worker that knows it takes it within seconds."""

_ONCE_MORE = "it has succeeded; to do it once more, add another: afterward enqueue"
_RUNNING = "it is running; wait for its end"
_RETRY_FIRST = "it is {job.status.value}; queue it again first: afterward retry {job.id}"
_RULED_OUT = {
    "retry": {
        Status.queued: "it waits to run already",
        Status.running: _RUNNING,
        Status.succeeded: _ONCE_MORE,
    },
    "cancel": {
        Status.succeeded: "it has succeeded already",
        Status.failed: "it has failed already",
        Status.cancelled: "it is cancelled already",
    },
    "hasten": {
        Status.queued: "it is due already; see what it waits for: afterward why {job.id}",
        Status.running: _RUNNING,
        Status.succeeded: _ONCE_MORE,
        Status.failed: _RETRY_FIRST,
        Status.cancelled: _RETRY_FIRST,
    },
    "run": {
        Status.running: _RUNNING,
        Status.succeeded: _ONCE_MORE,
        Status.failed: _RETRY_FIRST,
        Status.cancelled: _RETRY_FIRST,
    },
}
"""Which status rules out what a person may want of a job, and what to do instead."""


@dataclass(frozen=True, slots=True)
class State:
    """`word`: a status; or for a queued job `scheduled`, `retrying`, `waiting`, `held` or `handed`, which is to Celery;
    and for one that runs and was asked to end `cancelling`. `detail` says more.
    """

    word: str
    detail: str


def state_of(job: Job, now: datetime) -> State:
    """What can be told from the store alone. A job that an attempt has ended of is judged by its attempts, if given."""
    match job.status:
        case Status.queued:
            return _queued(job, now) if job.handed_at is None else _handed(job, now, job.handed_at)
        case Status.running:
            return _running(job, now)
        case Status.failed:
            return State("failed", "" if job.failure is None else summary(job.failure))
        case _:
            return State(job.status.value, "")


def summary(failure: Failure) -> str:
    """One line of a failure."""
    first = failure.message.strip().partition("\n")[0]
    return f"{failure.kind}: {first}" if first else failure.kind


def fails(job: Job) -> bool:
    """Has it failed for good, or failed and is tried again? Then it is in the group of those that fail alike."""
    if job.failure is None or job.status in TERMINAL:
        return job.status is Status.failed
    return job.failures + job.deaths > 0


def why_not(want: str, job: Job) -> str | None:
    """Why the status of a job rules out to `retry`, `cancel`, `hasten` or `run` it, and the mend; or None."""
    if job.status is Status.queued and want == "hasten" and job.cancel_asked_at is not None:
        return "it was asked to end; wait for its end"
    reason = _RULED_OUT[want].get(job.status)
    return None if reason is None else reason.format(job=job)


def span(time: timedelta) -> str:
    """A span of time for people: `4 s`, `3 min`, `2 h`, `5 d`."""
    seconds = max(0, round(time.total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 120 * 60:
        return f"{seconds // 60} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h"
    return f"{seconds // 86400} d"


def progress_in(data: str | None) -> str:
    """How far a job is, as it has said itself: `40 of 100: resizing`; nothing when it has said nothing."""
    said: dict[str, Any] = json.loads(data or "{}")
    far = " of ".join(f"{said[name]:,}" for name in ("current", "total") if isinstance(said.get(name), int | float))
    return ": ".join(str(text) for text in (far, said.get("message")) if text)


def _running(job: Job, now: datetime) -> State:
    since = f"attempt {job.attempt}, for {span(now - (job.started_at or now))}"
    detail = ", ".join(text for text in (since, progress_in(job.progress)) if text)
    if job.cancel_asked_at is None:
        return State("running", detail)
    return State("cancelling", f"{detail}; asked to end {span(now - job.cancel_asked_at)} ago")


def _handed(job: Job, now: datetime, since: datetime) -> State:
    heard = "not heard of since" if is_foreign(job) else "not begun there yet"
    detail = f"with Celery for {span(now - since)}, {heard}"
    if job.cancel_asked_at is not None:
        detail = f"{detail}; asked to end {span(now - job.cancel_asked_at)} ago"
    return State("handed", detail)


def _queued(job: Job, now: datetime) -> State:
    if job.process is not None:
        return State("held", "waits for the end of the request that added it")
    if job.run_at > now:
        when = f"in {span(job.run_at - now)}"
        if job.note is not None:
            return State("waiting", f"{job.note}; tried again {when}")
        if job.failures or job.deaths:
            return State("retrying", f"{when}, after {last_trouble(job)}")
        return State("scheduled", when)
    overdue = now - due_since(job)
    if overdue > OVERDUE or job.unfit_for:
        said = "" if job.note is None else f"{job.note}; "
        wanted = f"waits for a worker that knows {job.task}, serves queue {job.queue} and is free"
        return State("waiting", f"{said}due for {span(overdue)}: {wanted}")
    return State("queued", job.note or "")


def is_foreign(job: Job) -> bool:
    """Is it of a task that is Celery's own, of which is known only what Celery tells?"""
    return job.task.startswith(FOREIGN)


def last_trouble(job: Job) -> str:
    """One line of what was wrong with the last attempt that was not released."""
    failure = next((a.failure for a in reversed(job.attempts) if a.failure is not None), job.failure)
    return "the death of its worker" if failure is None else summary(failure)


def due_since(job: Job) -> datetime:
    """Since when nothing but the lack of a free worker keeps it waiting, as far as its own facts tell."""
    return max(at for at in (job.run_at, job.started_at, *(a.ended_at for a in job.attempts)) if at is not None)
