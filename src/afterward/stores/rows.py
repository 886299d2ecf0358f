"""Jobs ↔ rows, as every store with tables has them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from afterward.errors import WorkerDied, kind_of
from afterward.job import Attempt, Failure, Job, Status
from afterward.signatures import signature_of

_END_OF_TIME = 253_402_300_799.0  # the last second that a datetime can name


def job_of(row: Any, attempts: Iterable[Any]) -> Job:
    """The job of a row of the queries `get` and `list`, with rows of the query `attempts`."""
    (_seq, id_, task, queue, priority, status, attempt, failures, deaths, arguments, result, failure, note, unique,
     process, created_at, run_at, started_at, finished_at, unfit_for, max_attempts,
     timeout, expires_at) = row  # fmt: skip
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
        failure=_failure(failure),
        note=note,
        unique=unique,
        process=process,
        created_at=_time(created_at),
        run_at=_time(run_at),
        started_at=_time_or_none(started_at),
        finished_at=_time_or_none(finished_at),
        unfit_for=unfit_for,
        max_attempts=max_attempts,
        timeout=timeout,
        expires_at=_time_or_none(expires_at),
        attempts=tuple(
            Attempt(number, outcome, _time_or_none(began), _time(ended), _failure(why), said)
            for number, outcome, began, ended, why, said in attempts
        ),
    )


def text_of_death() -> str:
    """What is stored of an attempt that the death of its process has ended."""
    kind, message = kind_of(WorkerDied), "the worker process died while running this job"
    return text_of(Failure(kind, message, signature=signature_of(kind, message)))


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(min(at, _END_OF_TIME), UTC)


def _time_or_none(at: float | None) -> datetime | None:
    return None if at is None else _time(at)


def text_of(failure: Failure) -> str:
    """A failure as the text that is stored."""
    return json.dumps(
        {
            "kind": failure.kind,
            "message": failure.message,
            "traceback": failure.traceback,
            "signature": failure.signature,
        }
    )


def _failure(text: str | None) -> Failure | None:
    return None if text is None else Failure(**json.loads(text))
