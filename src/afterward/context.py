"""What a running task can know of its own job."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple

from afterward.errors import NoCurrentJob


class RunningJob(NamedTuple):
    """The job that the calling code is an attempt of.

    `idempotency_key` is the same for every attempt of a job: give it to services that refuse to do a thing twice.
    `attempt` grows with every attempt: give it to services that can refuse an older attempt than one they have seen.
    """

    id: str
    task: str
    attempt: int

    @property
    def idempotency_key(self) -> str:
        """The same text at every attempt of this job, and of no other job."""
        return self.id


RUNNING: ContextVar[RunningJob] = ContextVar("afterward.running_job")


def current_job() -> RunningJob:
    """The job being run, in the loop, in a thread or in a child process.

    Raises `NoCurrentJob` when the calling code does not run as a job.
    """
    try:
        return RUNNING.get()
    except LookupError:
        raise NoCurrentJob(
            "current_job() was called outside of a job; it works only while a worker runs the task "
            "(calling a task directly just calls its function)"
        ) from None
