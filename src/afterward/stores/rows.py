"""Jobs ↔ rows, as every store with tables has them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from afterward.errors import WorkerDied, kind_of
from afterward.job import Attempt, Failure, Job, Status
from afterward.signatures import signature_of
from afterward.stores.seen import Served

_END_OF_TIME = 253_402_300_799.0  # the last second that a datetime can name


def job_of(row: Any, attempts: Iterable[Any]) -> Job:
    """The job of a row of the queries `get` and `list`, with rows of the query `attempts`."""
    (_seq, id_, task, queue, priority, status, attempt, failures, deaths, arguments, result, failure, note, unique,
     process, created_at, run_at, started_at, finished_at, unfit_for, max_attempts,
     timeout, expires_at, *seen) = row  # fmt: skip
    signature, owner, origin, cancel_asked_at, progress, handed_at = (*seen, *[None] * 6)[:6]
    return Job(
        id=id_,
        task=task,
        queue=queue,
        priority=priority,
        status=Status(status),
        attempt=attempt,
        failures=failures,
        deaths=deaths,
        arguments=arguments,
        result=result,
        failure=failure_of(failure, signature),
        note=note,
        unique=unique,
        process=process,
        created_at=time_of(created_at),
        run_at=time_of(run_at),
        started_at=_time_or_none(started_at),
        finished_at=_time_or_none(finished_at),
        unfit_for=unfit_for,
        max_attempts=max_attempts,
        timeout=timeout,
        expires_at=_time_or_none(expires_at),
        attempts=tuple(
            Attempt(number, outcome, _time_or_none(began), time_of(ended), failure_of(why, *signed), said)
            for number, outcome, began, ended, why, said, *signed in attempts
        ),
        owner=owner,
        origin=origin,
        cancel_asked_at=_time_or_none(cancel_asked_at),
        handed_at=_time_or_none(handed_at),
        progress=progress,
    )


def death() -> Failure:
    """What went wrong in an attempt that the death of its process has ended."""
    kind, message = kind_of(WorkerDied), "the worker process died while running this job"
    return Failure(kind, message, signature=signature_of(kind, message))


def time_of(at: float) -> datetime:
    """Seconds since 1970 as a time."""
    return datetime.fromtimestamp(min(at, _END_OF_TIME), UTC)


def _time_or_none(at: float | None) -> datetime | None:
    return None if at is None else time_of(at)


def text_of(failure: Failure) -> str:
    """A failure as the text that is stored.

    Without its signature, which has a column of its own: the version before reads this text, and knows nothing of that.
    """
    return json.dumps({"kind": failure.kind, "message": failure.message, "traceback": failure.traceback})


def failure_of(text: str | None, signature: str | None = None) -> Failure | None:
    """A failure that is stored as text, and its signature beside it."""
    return None if text is None else failure_in(text, signature)


def failure_in(text: str, signature: str | None = None) -> Failure:
    """The same of a text that is there."""
    said: dict[str, str] = json.loads(text)
    return Failure(**(said | {"signature": signature} if signature else said))


def text_of_served(served: Served) -> str:
    """What a process serves, as the text that is stored."""
    queues = None if served.queues is None else list(served.queues)
    sets = {"threaded": served.threaded, "apart": served.apart, "relays": served.relays, "hosted": served.hosted}
    lists = {name: sorted(names) for name, names in sets.items()}
    return json.dumps(asdict(replace(served, tasks=dict(served.tasks), queues=queues, **lists)))


def served_of(text: str) -> Served:
    """What a process serves, of a text that was stored: by a version that may say more, or less."""
    said: dict[str, Any] = json.loads(text)
    return Served(**{name: said[name] for name in Served.__dataclass_fields__ if name in said})
