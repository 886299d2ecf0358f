"""Our functions as Celery tasks: what a worker of a fleet finds under the names that stand in our messages."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from celery.exceptions import Reject

from afterward.celery.host import Hosted
from afterward.celery.messages import start_of
from afterward.celery.pools import host, refusal

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

_hosted: WeakKeyDictionary[Any, dict[str, Hosted]] = WeakKeyDictionary()
"""Of each Celery app, what the tasks of these names belong to."""


def register(app: Any, name: str, hosted: Hosted) -> None:
    """Let the workers of a Celery app run this task. Of several by one name, the newest counts."""
    known = _hosted.setdefault(app, {})
    is_new = name not in known
    known[name] = hosted
    if is_new:
        app.task(_run, bind=True, name=name, **_OPTIONS)


def hosted_by(app: Any) -> list[Hosted]:
    """Whose tasks the workers of a Celery app run."""
    return list(dict.fromkeys(_hosted.get(app, {}).values()))


def _run(task: Any, *args: Any) -> None:
    """One message: its attempt is begun and run, or nothing is done. Acknowledged when this returns, and not before."""
    start = start_of(args)
    if (reason := refusal()) is not None:
        raise Reject(reason, requeue=False)
    if not host().run(_hosted[task.app][task.name], start):
        raise Reject("the store could not be asked", requeue=True)
