"""The requests that code runs in: found by its context, or by the scope of one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, cast

from starlette.types import Scope

from afterward.errors import ConfigurationError, NotInARequest
from afterward.foreign import is_of_celery
from afterward.job import NewJob
from afterward.observe import emit
from afterward.options import Joinable
from afterward.request import Call
from afterward.task import Owner, Task
from afterward.transactions.joined import Joined

SCOPE_KEY = "afterward.calls"
CALLS: ContextVar[dict[Owner, Call]] = ContextVar("afterward.calls")
"""The requests that the calling code runs in, by whose tasks they take; in the scope, too, under `SCOPE_KEY`."""


def calls_in(scope: Scope) -> dict[Owner, Call]:
    calls: dict[Owner, Call] | None = scope.get(SCOPE_KEY)
    return {} if calls is None else calls


def is_answered() -> bool:
    """Does the calling code run in a request whose response has left?"""
    return any(call.is_answered for call in CALLS.get({}).values())


def is_in_a_request(owner: Owner) -> bool:
    """Does the calling code run in a request that tasks of `owner` can be added to?"""
    return owner in CALLS.get({})


def taken_in_request(owner: object, jobs: Sequence[NewJob], transaction: Joinable | None) -> Sequence[NewJob]:
    """Where the calling code runs in a request: these jobs, as that has them stored; None: at once.

    Raises `ConfigurationError` where that cannot be.
    """
    call = CALLS.get({}).get(cast("Owner", owner))
    if call is None or not jobs:
        return jobs
    if transaction is not None:
        return call.taken(jobs, transaction)
    call.refuse_at_once(jobs)
    return jobs


def signed_in_request(owner: object, jobs: Sequence[NewJob]) -> Sequence[NewJob]:
    """Where the calling code runs in a request: the same jobs, with whose they are, and the request that made them."""
    call = CALLS.get({}).get(cast("Owner", owner))
    return jobs if call is None else call.signed(jobs)


def watch_in_request(owner: object, joined: Joined) -> None:
    """Where the calling code runs in a request: its response says so only once these jobs are committed."""
    call = CALLS.get({}).get(cast("Owner", owner))
    if call is not None:
        call.watch(joined)


def durable_of(thing: Any, calls: dict[Owner, Call] | None) -> Task[..., Any] | None:
    """What is added, as a task to be stored: a task is one, and what is of Celery; None for any other function.

    `calls`: as for `call_of`. What is of Celery is any other function where nothing is handed over to Celery. Raises
    `ConfigurationError` where it is of another app than those to which something is.
    """
    if isinstance(thing, Task):
        return cast("Task[..., Any]", thing)
    if not is_of_celery(thing):
        return None
    owners = calls or CALLS.get({})
    if not owners:
        raise NotInARequest(
            f"{thing!r:.100} was added outside of a request of an app that its Afterward is installed on; call "
            f"tasks.install(app) where the app is made, or use `await tasks.celery_task(…).enqueue(…)` elsewhere"
        )
    refusal: ConfigurationError | None = None
    for owner in owners:
        try:
            if (task := owner.foreign_task(thing)) is not None:
                return task
        except ConfigurationError as error:
            refusal = refusal or error
    if refusal is not None:
        raise refusal
    emit(
        logging.WARNING,
        "task.in_memory",
        task=str(getattr(thing, "name", None) or getattr(thing, "task", "")),
        reason="a Celery task was added, and runs here, in memory only, as with fastapi.BackgroundTasks; give its app, "
        "Afterward(celery=…), to have it handed over",
    )
    return None


def call_of(task: Task[..., Any], calls: dict[Owner, Call] | None) -> Call:
    """The request that a task is added in: that of the container, or that of the calling code."""
    call = (calls or CALLS.get({})).get(task.owner)
    if call is None:
        raise NotInARequest(
            f"task {task.name} was added outside of a request of an app that its Afterward is installed on; call "
            f"tasks.install(app) where the app is made, or use `await {task.__name__}.enqueue(…)` outside of requests"
        )
    return call
