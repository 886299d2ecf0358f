"""Our own functions, as they are published: a message names the job and its attempt, and the store has the rest."""

from __future__ import annotations

from typing import Any

from afterward.celery.messages import Message, arguments_of, task_id_of
from afterward.job import Lease
from afterward.stores.handing import Start
from afterward.task import Task

DEFAULT_QUEUE = "default"
"""A job of this queue goes where Celery's routes lead its task; one of another to Celery's queue of that name."""

MARGIN_SECONDS = 60.0
"""So long after the time limit of an attempt Celery ends the process that still runs it, where it can."""

_MOST_URGENT = 9


class Own:
    """The jobs of one task, with `executor="celery"`. `smaller_first`: the broker begins with the smallest priority."""

    is_followed = False
    republishes = True
    republish_after = None

    def __init__(self, task: Task[..., Any], *, smaller_first: bool) -> None:
        self._task = task
        self._smaller_first = smaller_first

    @property
    def fingerprint(self) -> str:
        return self._task.arguments.fingerprint

    def message(self, lease: Lease) -> Message:
        start = Start(lease.id, lease.attempt, lease.process)
        options: dict[str, Any] = {}
        if lease.queue != DEFAULT_QUEUE:
            options["queue"] = lease.queue
        if lease.priority:
            options["priority"] = urgency(lease.priority, smaller_first=self._smaller_first)
        timeout = lease.timeout if lease.timeout is not None else self._task.task_options.timeout
        if timeout is not None:
            options["time_limit"] = timeout + MARGIN_SECONDS
        return Message(lease.task, arguments_of(start), {}, task_id_of(lease.id, lease.attempt), options, is_ours=True)

    def end(self, lease: Lease) -> None:
        """It is begun by its message, and ends as any attempt."""

    def line(self, lease: Lease) -> None:
        """A message that comes twice begins once: there is nothing to be told."""


def urgency(priority: int, *, smaller_first: bool) -> int:
    """A job's priority as the broker has it, from 0 to 9. One of 0 is what the broker takes where nothing is said.

    That is the least urgent, or where the smallest comes first the most urgent: there none can be put before it, and
    elsewhere none behind.
    """
    return min(_MOST_URGENT, max(0, -priority if smaller_first else priority))
