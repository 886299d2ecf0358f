"""What a running task can know of its own job."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple, Protocol

from afterward.errors import NoCurrentJob
from afterward.job import EventKind


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


class Voice(Protocol):
    """By which one attempt speaks, and is spoken to. Used from any thread."""

    @property
    def job(self) -> RunningJob:
        """Whose attempt it is."""
        ...

    @property
    def is_asked(self) -> bool:
        """Has a person asked its job to end?"""
        ...

    @property
    def is_to_end(self) -> bool:
        """Was it asked to end, or is it over already: out of time, released, lost?"""
        ...

    def takes_line(self, level: int) -> bool:
        """Is a line of the log of this level wanted of it?"""
        ...

    def say(self, kind: EventKind, data: str) -> None:
        """Say something. Raises nothing for the store's sake."""
        ...

    async def give(self, kind: EventKind, data: str) -> None:
        """Say something that is not to be dropped, and return when there is room for the next."""
        ...

    async def settle(self) -> None:
        """Return when all that was said is stored; what is said from now on goes with the end of the attempt.

        Raises `StoreUnavailable` when it cannot be stored soon.
        """
        ...

    def settle_sync(self) -> None:
        """The same, from a thread; it blocks. Raises `ConfigurationError` in the loop that is to store it."""
        ...


VOICE: ContextVar[Voice] = ContextVar("afterward.voice")
"""Set where an attempt runs, and wherever its context goes."""


def current_job() -> RunningJob:
    """The job being run, in the loop, in a thread or in a child process.

    Raises `NoCurrentJob` when the calling code does not run as a job.
    """
    try:
        return VOICE.get().job
    except LookupError:
        raise NoCurrentJob(
            "current_job() was called outside of a job; it works only while a worker runs the task "
            "(calling a task directly just calls its function)"
        ) from None
