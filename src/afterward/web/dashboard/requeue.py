"""A new job with the arguments of another, as a person has edited them. Secrets stay hidden, and come along."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from fastapi import Response

from afterward.errors import AfterwardError, StoreError
from afterward.job import Job, NewJob
from afterward.origin import origin_of
from afterward.redaction import REDACTED, Misplaced, hidden, restored
from afterward.task import Task
from afterward.web.dashboard.audit import audit
from afterward.web.dashboard.guard import Refused
from afterward.web.dashboard.lookup import found
from afterward.web.dashboard.visit import Visit

_SHORTEST_SECRET = 4
"""What is shorter is in many words, and is no secret."""


async def edit(visit: Visit) -> Response:
    """The form, with the arguments as they are, but for secrets."""
    job = await found(visit)
    _task(visit, job)
    try:
        shown, _ = hidden(_loaded(job))
        return _form(visit, job, json.dumps(shown, indent=2, ensure_ascii=False))
    except RecursionError:
        raise Refused("This cannot be done", "The arguments are nested too deeply to be shown.", 409) from None


async def requeue(visit: Visit, form: Mapping[str, str]) -> Response:
    """Store the new job, or show what is wrong with its arguments."""
    job = await found(visit)
    task = _task(visit, job)
    text = form.get("arguments", "")
    try:
        new = _new_job(visit, job, task, text)
        [handle] = await visit.host.enqueue_many([new])
    except StoreError:
        raise
    except (Misplaced, AfterwardError) as error:
        return _form(visit, job, text, _without_secrets(str(error), job))
    except RecursionError:
        return _form(visit, job, text, "the arguments are nested too deeply")
    audit(visit, "requeue", job_id=job.id, new_job_id=handle.id)
    return visit.go(f"/jobs/{handle.id}", said="requeued")


def _without_secrets(reason: str, job: Job) -> str:
    """The types of a task may name in their errors what does not fit them, and that was put back unseen."""
    for secret in hidden(_loaded(job))[1]:
        if isinstance(secret, str) and len(secret) >= _SHORTEST_SECRET:
            reason = reason.replace(secret, REDACTED)
    return reason


def _form(visit: Visit, job: Job, text: str, error: str | None = None) -> Response:
    return visit.page("requeue.html", status=422 if error else 200, job=job, arguments=text, error=error)


def _task(visit: Visit, job: Job) -> Task[..., Any]:
    task = visit.host.tasks.get(job.task)
    if task is None:
        raise Refused("This cannot be done here", f"This process does not know {job.task}, so it cannot check.", 409)
    if task.arguments.take_files:
        raise Refused("This cannot be done", "Among the arguments are files, which belong to the first job.", 409)
    return task


def _new_job(visit: Visit, job: Job, task: Task[..., Any], text: str) -> NewJob:
    """Checked by the task's own codec, and what is said of the first job said of this one. It has no unique key."""
    arguments = restored(_parsed(text), hidden(_loaded(job))[1])
    args, kwargs = task.arguments.load(json.dumps(arguments))
    new = task.new_job(args, kwargs)
    return new._replace(
        queue=job.queue, priority=job.priority, delay=None, run_at=None, unique=None,
        max_attempts=job.max_attempts, timeout=job.timeout, owner=job.owner, origin=origin_of(visit.request.scope),
    )  # fmt: skip


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Misplaced(f"this is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise Misplaced("the arguments are a JSON object: their names, and their values")
    return cast("dict[str, Any]", value)


def _loaded(job: Job) -> Any:
    return json.loads(job.arguments)
