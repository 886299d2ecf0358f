"""What follows a job that has ended: another one, stored in the same transaction as its end."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from typing import Any, Protocol

from afterward.errors import AfterwardError, ArgumentError, TaskError
from afterward.job import Died, Failed, Failure, Lease, NewJob, OnDuplicate, Outcome, Status, Succeeded
from afterward.observe import emit
from afterward.task import Task


@dataclass(frozen=True, slots=True)
class EndedJob:
    """What the tasks given as `on_success=` and `on_failure=` are called with.

    `arguments`: by parameter name, as JSON knows them; `result`: the same, None unless it succeeded; `failure`: None
    unless it failed.
    """

    id: str
    task: str
    status: Status
    attempt: int
    arguments: dict[str, Any]
    result: Any = None
    failure: Failure | None = None


class Hook(Protocol):
    """A task that can be called with an `EndedJob` alone: its other parameters are dependencies, or have defaults."""

    def __call__(self, ended: EndedJob, /) -> Any: ...

    def prepare(self, ended: EndedJob, /) -> NewJob: ...


def check_hooks(task: str, on_success: Task[..., Any] | None, on_failure: Task[..., Any] | None) -> None:
    """Raise `TaskError` for one that cannot be called with an `EndedJob`."""
    if on_success is not None:
        _try(task, "on_success", on_success, EndedJob("", "", Status.succeeded, 1, {}))
    if on_failure is not None:
        _try(task, "on_failure", on_failure, EndedJob("", "", Status.failed, 1, {}, failure=Failure("", "")))


def _try(task: str, option: str, hook: Task[..., Any], ended: EndedJob) -> None:
    if hook.call_options.on_duplicate is OnDuplicate.refuse:
        raise TaskError(
            f'task {task}: {option}={hook.name} has on_duplicate="refuse", and there is nobody to be told of it; '
            f'take "keep" or "replace"'
        )
    if hook.joins_one_transaction:
        raise TaskError(
            f"task {task}: {option}={hook.name} has transaction=, and what follows a job is stored with its end; "
            f"leave it out"
        )
    try:
        hook.arguments.dump((ended,), {}, limited=False)
    except ArgumentError as error:
        raise TaskError(
            f"task {task}: {option}={hook.name} cannot be called with an EndedJob alone ({error}); annotate its first "
            f"parameter EndedJob, and let the others be dependencies, or have defaults"
        ) from error
    except TaskError:  # its own annotations cannot be read, or not yet: what checks it by itself tells of that
        return


def with_follow_up(task: Task[..., Any], lease: Lease, outcome: Outcome) -> Outcome:
    """The same outcome, with the job that is to follow it, if its task wants one.

    How a job has ended never depends on what follows: what cannot be stored is told, and left out.
    """
    if isinstance(outcome, Succeeded):
        hook, status, result, failure = task.task_options.on_success, Status.succeeded, outcome.result, None
    elif isinstance(outcome, Failed) or (isinstance(outcome, Died) and outcome.final):
        hook, status, result, failure = task.task_options.on_failure, Status.failed, None, outcome.failure
    else:
        return outcome
    if hook is None:
        return outcome
    try:
        ended = EndedJob(
            id=lease.id,
            task=lease.task,
            status=status,
            attempt=lease.attempt,
            arguments=json.loads(lease.arguments),
            result=None if result is None else json.loads(result),
            failure=failure,
        )
        return replace(outcome, then=_job(hook, ended, lease))
    except Exception as error:  # noqa: BLE001 - whatever the types of the other task raise, say
        reason = str(error) if isinstance(error, AfterwardError) else type(error).__name__  # no argument is in the log
        emit(logging.ERROR, "job.follow_up_refused", job_id=lease.id, task=lease.task, then=hook.name, reason=reason)
        return outcome


def _job(hook: Task[..., Any], ended: EndedJob, lease: Lease) -> NewJob:
    """Its arguments may be larger than what is allowed to a caller: they hold what was allowed to the job before."""
    return hook.new_job((ended,), {}, limited=False)._replace(context=lease.context)
