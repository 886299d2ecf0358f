"""Our functions as Celery tasks: what a worker of a fleet finds under the names that stand in our messages."""

from __future__ import annotations

import logging
from typing import Any
from weakref import WeakSet

from celery import signals
from celery.app import app_or_default
from celery.exceptions import Reject

from afterward.celery.host import Hosted
from afterward.celery.messages import start_of
from afterward.celery.pools import hear_of_pool, host, is_child, is_run_here, refusal
from afterward.celery.revoked import cancel_revoked
from afterward.observe import emit

_NEVER_SECONDS = 10 * 365 * 86400
"""A time limit that is none: where a task has none of its own, it has that of its app."""

_OPTIONS: dict[str, Any] = {
    "acks_late": True,
    "reject_on_worker_lost": True,
    "acks_on_failure_or_timeout": True,
    "ignore_result": True,
    "store_errors_even_if_ignored": False,
    "serializer": "json",
    "time_limit": _NEVER_SECONDS,
    "shared": False,
    "typing": False,
}

_made_here: WeakSet[Any] = WeakSet()
"""The Celery apps that were made for afterward."""


def register(app: Any, name: str, hosted: Hosted, *, is_ours: bool) -> None:
    """Let the workers of a Celery app run this task. Of several by one name, the newest counts.

    `is_ours`: the app was made for afterward, and is nobody else's.
    """
    if is_ours:
        _made_here.add(app)
    known = _hosted(app)
    is_new = name not in known
    known[name] = hosted
    if is_new:
        app.task(_run, bind=True, name=name, **_OPTIONS)


def _hosted(app: Any) -> dict[str, Hosted]:
    """What the tasks of these names belong to. Kept by the app: with it, they go."""
    attributes: dict[str, Any] = app.__dict__
    known: dict[str, Hosted] = attributes.setdefault("afterward", {})
    return known


def _prepare(app: Any) -> None:
    """Be seen, and ready for messages, from the start: where all that the app's workers run is ours.

    A worker of a user's own app may never be given any of it, and is left as it is until then.
    """
    if app in _made_here:
        for hosted in dict.fromkeys(_hosted(app).values()):
            host().spawn(host().prepare(hosted))


def _run(task: Any, *args: Any) -> None:
    """One message: its attempt is begun and run, or nothing is done. Acknowledged when this returns, and not before."""
    start = start_of(args)
    if (reason := refusal()) is not None:
        emit(logging.ERROR, "celery.pool_refused", job_id=start.id, task=task.name, reason=reason)
        raise Reject(reason, requeue=False)
    if not host().run(_hosted(task.app)[task.name], start):
        raise Reject("the store could not be asked", requeue=True)


@signals.task_revoked.connect
def _hear_of_revoked(sender: Any, request: Any, *, terminated: bool, expired: bool, **_: Any) -> None:
    hosted = _hosted(sender.app).get(sender.name)
    if hosted is not None and not expired:
        cancel_revoked(hosted, sender.name, start_of(request.args), has_begun=terminated)


@signals.worker_process_init.connect
def _hear_of_child(**_: Any) -> None:
    """A child of the prefork pool has begun, whose app is the current one; or a pool that is in Celery's process."""
    if is_child():
        _prepare(app_or_default())


@signals.worker_ready.connect
def _hear_of_worker(sender: Any, **_: Any) -> None:
    hear_of_pool(sender.controller)
    if (reason := refusal()) is not None and _hosted(sender.app):
        emit(logging.ERROR, "celery.pool_refused", reason=reason)
    if is_run_here():
        _prepare(sender.app)
