"""The status document of a job: what is shown of it, and how a client is to go on from there. Pure."""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Any, Literal

from afterward.document import JobLinks, JobPage, JobProblem, JobProgress, JobStatus, JobSummary
from afterward.job import ALLOWED, TERMINAL, Job, Status
from afterward.redaction import redacted
from afterward.task import Task

__all__ = ["JobLinks", "JobPage", "JobProblem", "JobProgress", "JobStatus", "JobSummary"]

FAILED = "tag:afterward,2026:failed"
CANCELLED = "tag:afterward,2026:cancelled"
"""What kinds of problems a job can have (RFC 4151)."""

_LONGEST_PAUSE_SECONDS = 30

_Detail = Literal["scheduled", "retrying", "handed over", "cancelling"]


def status_of(
    job: Job, base: str, task: Task[..., Any] | None, now: datetime, *, is_admin: bool = False
) -> JobStatus[Any]:
    """The whole document. `base`: the path that the routes of jobs begin with; `task`: of the job, if known here."""
    return JobStatus[Any](**_facts_of(job, base, now, is_admin), result=_result_of(job, task))


def summary_of(job: Job, base: str, now: datetime, *, is_admin: bool = False) -> JobSummary:
    """The document without the result, which may be large."""
    return JobSummary(**_facts_of(job, base, now, is_admin))


def _facts_of(job: Job, base: str, now: datetime, is_admin: bool) -> dict[str, Any]:
    return {
        "id": job.id,
        "task": job.task,
        "status": job.status.value,
        "done": job.status in TERMINAL,
        "detail": detail_of(job, now),
        "attempt": job.attempt,
        "progress": None if job.progress is None else json.loads(job.progress),
        "error": error_of(job, is_admin=is_admin),
        "created_at": job.created_at,
        "run_at": job.run_at,
        "handed_at": job.handed_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "links": links_of(job, base),
    }


def detail_of(job: Job, now: datetime) -> _Detail | None:
    """What more there is to say of its status, in one word."""
    if job.status is Status.running:
        return None if job.cancel_asked_at is None else "cancelling"
    if job.status is not Status.queued:
        return None
    if job.handed_at is not None:
        return "handed over"
    if job.failures or job.deaths:
        return "retrying"
    return "scheduled" if job.run_at > now else None


def links_of(job: Job, base: str) -> JobLinks:
    """Where it is, and what can be asked of it now."""
    itself = f"{base}/{job.id}"
    moves = ALLOWED[job.status]
    return JobLinks(
        itself=itself,
        events=f"{itself}/events",
        cancel=f"{itself}/cancel" if Status.cancelled in moves else None,
        retry=f"{itself}/retry" if job.status in TERMINAL and Status.queued in moves else None,
    )


def error_of(job: Job, *, is_admin: bool) -> JobProblem | None:
    """What went wrong for good, without passwords in URLs; where it is tried again, nothing has yet."""
    if job.status is Status.cancelled:
        note = job.note if is_admin else _without_another(job.note)
        return JobProblem(type=CANCELLED, title="The job was cancelled.", detail=note, kind=None, traceback=None)
    if job.status is not Status.failed:
        return None
    failure = job.failure
    return JobProblem(
        type=FAILED,
        title="The job failed.",
        detail=failure and redacted(failure.message),
        kind=failure and failure.kind,
        traceback=redacted(failure.traceback) if failure is not None and is_admin else None,
    )


def _without_another(note: str | None) -> str | None:
    """Which job has replaced it is for those to know who may see that; it may be somebody else's."""
    return "replaced by another" if note and note.startswith("replaced by ") else note


def _result_of(job: Job, task: Task[..., Any] | None) -> Any:
    """As the return annotation of its task shows it; as it is stored, where that is not known here, or has changed."""
    if job.result is None:
        return None
    if task is not None:
        try:
            return task.result.show(job.result)
        except Exception:  # noqa: BLE001, S110 - whatever a user's type raises; what is stored is the truth
            pass
    return json.loads(job.result)


def pause_before_asking_again(job: Job, now: datetime) -> int | None:
    """Seconds for `Retry-After`; None when there is nothing to wait for.

    Soon for a job that has just begun, or begins soon; ever less often for one that takes long.
    """
    if job.status in TERMINAL:
        return None
    wait = (job.run_at - now).total_seconds() if job.status is Status.queued else 0.0
    age = (now - (job.started_at or job.created_at)).total_seconds() / 10
    return max(1, min(_LONGEST_PAUSE_SECONDS, math.ceil(max(wait, age))))
