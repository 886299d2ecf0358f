"""New jobs → rows of the table."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from afterward.job import NewJob, Placement


def row_of(job: NewJob, placement: Placement, process: str | None, now: float) -> tuple[Any, ...]:
    """The row of a new job, in the order of the query `enqueue`."""
    leased = placement is Placement.leased
    run_at = job.run_at.timestamp() if job.run_at else now + (job.delay or 0.0)
    return (
        job.id,
        job.task,
        job.queue,
        job.priority,
        "running" if leased else "queued",
        1 if leased else 0,
        None if placement is Placement.free else process,
        1 if run_at <= now else 0,
        run_at,
        job.unique,
        job.arguments,
        job.context,
        now,
        now if leased else None,
        job.max_attempts,
        job.timeout,
        _expiry(job.expires, now),
        job.owner,
        job.origin,
    )


def _expiry(expires: float | datetime | None, now: float) -> float | None:
    if expires is None:
        return None
    return expires.timestamp() if isinstance(expires, datetime) else now + expires
