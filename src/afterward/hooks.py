"""What follows a job that has ended: another one, stored in the same transaction as its end."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Protocol

from afterward.job import Died, Failed, Failure, Lease, NewJob, Outcome, Status, Succeeded
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


def with_follow_up(task: Task[..., Any], lease: Lease, outcome: Outcome) -> Outcome:
    """The same outcome, with the job that is to follow it, if its task wants one."""
    if isinstance(outcome, Succeeded):
        hook, status, result, failure = task.task_options.on_success, Status.succeeded, outcome.result, None
    elif isinstance(outcome, Failed) or (isinstance(outcome, Died) and outcome.final):
        hook, status, result, failure = task.task_options.on_failure, Status.failed, None, outcome.failure
    else:
        return outcome
    if hook is None:
        return outcome
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


def _job(hook: Task[..., Any], ended: EndedJob, lease: Lease) -> NewJob:
    """Its arguments may be larger than what is allowed to a caller: they hold what was allowed to the job before."""
    return hook.new_job((ended,), {}, limited=False)._replace(context=lease.context)
