"""Why a job is not done yet, as it is told to people and to programs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """What keeps a job where it is."""

    unknown = "unknown"
    """The store does not have it."""
    ended = "ended"
    """Nothing: it has succeeded, failed for good, or was cancelled."""
    running = "running"
    """An attempt is under way."""
    asked_to_end = "asked_to_end"
    """It runs, somebody wants it to end, and it has not yet."""
    orphaned = "orphaned"
    """The process that had it is gone; it is about to be queued again."""
    held = "held"
    """The request that added it is not over."""
    expired = "expired"
    """It waited too long: no attempt begins any more."""
    scheduled = "scheduled"
    """Its time has not come."""
    retrying = "retrying"
    """An attempt has ended without success, and the next one is due later."""
    paused = "paused"
    """Somebody has paused its queue."""
    no_worker = "no_worker"
    """No live process runs jobs."""
    no_queue = "no_queue"
    """No live worker takes its queue."""
    unknown_task = "unknown_task"
    """No live worker that takes its queue knows its function."""
    unfit = "unfit"
    """Its arguments do not fit its function as the live workers have it."""
    handed = "handed"
    """It is with Celery, and has not begun there, as far as is known."""
    no_broker = "no_broker"
    """It is for a Celery worker, and no process that would publish it reaches the broker."""
    busy = "busy"
    """The workers that could run it have no room."""
    soon = "soon"
    """Nothing: a worker has room for it."""


START_A_WORKER = "start the application, or: afterward worker MODULE:NAME"
"""What can be done where no live process runs jobs."""


def serve(queue: str) -> str:
    """What can be done where no live worker takes a queue."""
    return f"start one that does: afterward worker MODULE:NAME --queue {queue}"


def resume(queue: str) -> str:
    """The command that has a queue served that is paused."""
    return f"afterward resume {queue}"


@dataclass(frozen=True, slots=True)
class Reason:
    """One sentence of why, and what can be done about it, if anything can."""

    cause: Cause
    text: str
    mend: str | None = None
