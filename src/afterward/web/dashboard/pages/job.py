"""One job: where it stands and why, its attempts, what it was given and gave, and what it said."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from fastapi import Response

from afterward.explaining import explain_found
from afterward.job import TERMINAL, Event, EventKind, Failure, Job, Status
from afterward.reasons import Cause, Reason
from afterward.redaction import redacted, shown
from afterward.states import fails, progress_in, state_of
from afterward.web.dashboard.lookup import found
from afterward.web.dashboard.timeline import timeline
from afterward.web.dashboard.visit import Visit

EVENTS = 200
"""How many of the events of a job are shown at once."""

_LONGEST = 20_000
_TONES = {"item": "item", "warning": "warn", "error": "bad", "critical": "bad"}
_HARMLESS = frozenset({Cause.scheduled, Cause.held, Cause.handed, Cause.soon, Cause.running, Cause.asked_to_end})


@dataclass(frozen=True, slots=True)
class Said:
    """An event, as text. `level`: of a line of the log, else what kind of event it is."""

    event: Event
    level: str
    text: str

    @property
    def tone(self) -> str:
        """How it is to stand out: `item`, `warn`, `bad`, or not at all."""
        return _TONES.get(self.level, "plain")


async def job(visit: Visit) -> Response:
    """The page of the job that the path names, or leads to."""
    job = await found(visit)
    if job.id != visit.request.path_params["id"]:
        return visit.go(f"/jobs/{job.id}")
    reasons = await _reasons(visit, job)
    said, first, last = await _events(visit, job)
    return visit.page(
        "job.html", page="jobs", job=job, state=state_of(job, visit.now), timeline=timeline(job, visit.now), said=said,
        first=first, last=last, arguments=pretty(job.arguments), result=pretty(job.result), progress=progress(job),
        origin=_origin(job), curl=_curl(visit, job), task=visit.host.tasks.get(job.task), moves=moves(job, visit),
        reasons=reasons, is_stuck=any(reason.cause not in _HARMLESS for reason in reasons),
        failure=_last_failure(job), fails=fails(job),
    )  # fmt: skip


def moves(job: Job, visit: Visit) -> Sequence[str]:
    """What a person can want of a job as it stands."""
    match job.status:
        case Status.queued | Status.running if job.cancel_asked_at is not None:
            return []
        case Status.queued:
            waits = job.handed_at is not None or job.run_at > visit.now
            return ["hasten", "cancel"] if waits and job.process is None else ["cancel"]
        case Status.running:
            return ["cancel"]
        case Status.failed | Status.cancelled:
            return ["retry"]
        case _:
            return []


def _last_failure(job: Job) -> Failure | None:
    """The failure to be shown in full: that which ended the job, or else of the last attempt that failed."""
    failed = (attempt.failure for attempt in reversed(job.attempts) if attempt.failure is not None)
    failure = None if job.status is Status.succeeded else job.failure or next(failed, None)
    return failure and replace(failure, message=redacted(failure.message), traceback=redacted(failure.traceback))


def pretty(data: str | None) -> str | None:
    """Stored JSON for people, without what looks secret; None for nothing."""
    if data is None:
        return None
    try:
        text = json.dumps(shown(data), indent=2, ensure_ascii=False)
    except RecursionError:  # what is read and written without indentation may be nested more deeply
        text = json.dumps(shown(data), ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}\n… {len(text) - _LONGEST:,} characters more"


def progress(job: Job) -> Mapping[str, Any] | None:
    """How far it is, as it said itself: `current`, `total`, `message`, `percent`."""
    said = shown(job.progress)
    if not isinstance(said, dict):
        return None
    facts = cast("dict[str, Any]", said)
    current, total = facts.get("current"), facts.get("total")
    is_known = isinstance(current, int | float) and isinstance(total, int | float) and total > 0
    percent = round(100 * min(max(current / total, 0), 1)) if is_known else None  # type: ignore[operator]
    return {"current": current, "total": total, "message": facts.get("message"), "percent": percent}


async def _reasons(visit: Visit, job: Job) -> Sequence[Reason]:
    """Why it is not done; nothing where that is plain: it runs, or has ended."""
    reasons = [] if job.status in TERMINAL else await explain_found(visit.store, job)
    return [] if [reason.cause for reason in reasons] == [Cause.running] else reasons


async def _events(visit: Visit, job: Job) -> tuple[Sequence[Said], int, int]:
    """The newest events, or those from the number on that the URL names; with the first and last number kept."""
    [stream] = await visit.store.events([(job.id, 2**53)], 1)
    if stream is None or not stream.last:
        return [], 0, 0
    asked = visit.query.get("after", "")
    after = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 10 else stream.last - EVENTS
    [stream] = await visit.store.events([(job.id, max(0, min(after, stream.last - 1)))], EVENTS)
    return ([], 0, 0) if stream is None else ([_said(event) for event in stream.events], stream.first, stream.last)


def _said(event: Event) -> Said:
    data = shown(event.data)
    if event.kind is EventKind.log and isinstance(data, dict):
        line = cast("dict[str, Any]", data)
        return Said(event, str(line.get("level", "info")).lower(), redacted(str(line.get("message", ""))))
    if event.kind is EventKind.progress:
        return Said(event, "progress", redacted(progress_in(event.data)))
    return Said(event, event.kind.value, data if isinstance(data, str) else json.dumps(data, ensure_ascii=False))


def _origin(job: Job) -> Mapping[str, str] | None:
    """The request that made it, as far as it is known."""
    said = shown(job.origin)
    if not isinstance(said, dict):
        return None
    return {name: str(value) for name, value in cast("dict[str, Any]", said).items() if value is not None}


def _curl(visit: Visit, job: Job) -> str | None:
    """The request that made it, to be filled in and sent again. Its query, body and credentials are not kept."""
    origin = _origin(job)
    if origin is None or "path" not in origin:
        return None
    url = f"{visit.request.url.scheme}://{visit.request.url.netloc}{origin['path']}"
    parts = [["curl", "--globoff", "--request", origin.get("method", "POST")], [url]]
    if "request_id" in origin:
        parts.append(["--header", f"X-Request-ID: {origin['request_id']}"])
    return " \\\n  ".join(map(shlex.join, parts))
