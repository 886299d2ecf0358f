"""How a task ends itself: its success is written by its own transaction, together with what that does."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol

from afterward.context import current_job
from afterward.errors import ConfigurationError


class Ending(Protocol):
    """The end of the attempt that runs."""

    async def write(self, transaction: object, result: Any) -> None:
        """Write its success within a transaction."""
        ...

    def write_sync(self, transaction: object, result: Any) -> None:
        """The same, for code without an event loop."""
        ...


ENDING: ContextVar[Ending] = ContextVar("afterward.ending")


async def finish(transaction: Any, *, result: Any = None) -> None:
    """End the job that the calling code runs as, successfully, in a transaction of its own: then, and only then.

    To be called last before the commit. What the transaction does is then done exactly once: if the process dies before
    the commit, neither that nor the end of the job is there, and it is tried again; from the commit on, both are.

    `transaction`: a session of SQLAlchemy or SQLModel, or a connection of asyncpg or psycopg, to the database that the
    jobs are in. `result`: what `JobHandle.result()` gives; that of the function does not count any more.

    Raises `LeaseLost` when this attempt no longer holds its job: roll back then, as any exception makes you do. Raises
    `NoCurrentJob` outside of a job, `ResultError` for a result that cannot be stored, `ConfigurationError` where the
    transaction is none of the database that the jobs are in, and `StoreUnavailable` where what the job has said before
    cannot be stored.
    """
    await _ending().write(transaction, result)


def finish_sync(transaction: Any, *, result: Any = None) -> None:
    """`finish`, for a `def` task: on a session, or a connection, that blocks.

    Raises `ConfigurationError` in the event loop, too.
    """
    _ending().write_sync(transaction, result)


def _ending() -> Ending:
    ending = ENDING.get(None)
    if ending is None:
        job = current_job()
        raise ConfigurationError(
            f"task {job.task}: finish() joins a transaction of the database that the jobs are in, and these are in a "
            f"file of afterward's own; keep them in the application's PostgreSQL database: Afterward('postgresql://…')"
        )
    return ending
