"""Everything afterward raises, in one small tree."""

from __future__ import annotations

import math
from datetime import timedelta


class AfterwardError(Exception):
    """The root of all errors of this library."""


def kind_of(error: type[BaseException]) -> str:
    """The qualified name of an exception's class, as it is stored."""
    return error.__qualname__ if error.__module__ == "builtins" else f"{error.__module__}.{error.__qualname__}"


class ConfigurationError(AfterwardError):
    """The set-up or an option is wrong. Trying again does not help."""


class TaskError(ConfigurationError):
    """A task was declared, or its options were given, in a way that cannot work."""


class ArgumentError(AfterwardError, TypeError):
    """A call was refused: its arguments do not fit the function, or could not be stored and read back equal."""


class FileTooLarge(ArgumentError):
    """A file is larger than `Afterward(max_file_bytes=…)` allows; nothing was stored.

    Raised by `add_task` and `enqueue`. In a request, where it is found as the response starts, the client gets 413.
    """


class FileUnreadable(ArgumentError):
    """A file is closed, or cannot be read from its start as bytes; nothing was stored."""


class FileLost(AfterwardError):
    """What is recorded of a job whose file is not in the store, though its arguments name it."""


class ArgumentsDoNotFit(AfterwardError):
    """Stored arguments no longer fit the function known here; the job waits for a process that they fit."""


class ResultError(AfterwardError):
    """A task returned what cannot be stored."""


class NotInARequest(AfterwardError, RuntimeError):
    """A durable task was added outside of a request, or after it was over."""


class NotCommitted(AfterwardError):
    """What was written in a transaction of the application's own was not committed when it should have been.

    In a request whose response starts before the commit, the client gets 500. Of a task that called `finish` and then
    returned without a commit, it is what is recorded of the attempt.
    """


class LeaseLost(AfterwardError):
    """`finish` was called by an attempt that no longer holds its job: another may run it, or has. Roll back."""


class NoCurrentJob(AfterwardError, RuntimeError):
    """`current_job()`, or another function that is for running jobs, was called outside of one."""


class TaskCancelled(AfterwardError):
    """Raised inside a task, by `check_cancelled()`: let it pass, and a job that was asked to end is cancelled.

    Raised without being asked, it is a failure as any other.
    """


class LifespanFailed(AfterwardError):
    """The lifespan of an application failed where a worker process ran it."""


class WorkerDied(AfterwardError):
    """What is recorded of a job whose worker process died while running it."""


class AttemptTimedOut(AfterwardError, TimeoutError):
    """What is recorded of an attempt that ran longer than its task's `timeout`."""


class MemoryExceeded(AfterwardError):
    """What is recorded of an attempt whose process took more than its task's `memory`."""


class Retry(AfterwardError):
    """Raised inside a task: this attempt has failed, try again `in_` seconds (or a `timedelta`) from now.

    Without `in_`, after the task's usual back-off. It counts as a failure: after the last of `max_attempts`, the job
    has failed for good. Raises `ValueError` for an `in_` that is no span of time; below 0 is at once.
    """

    def __init__(self, message: str = "", *, in_: float | timedelta | None = None) -> None:
        super().__init__(message)
        self.seconds = None if in_ is None else _seconds(in_)


def _seconds(span: float | timedelta) -> float:
    try:
        seconds = span.total_seconds() if isinstance(span, timedelta) else float(span)
    except Exception:  # noqa: BLE001 - whatever it is
        seconds = math.nan
    if isinstance(span, str) or not math.isfinite(seconds):
        raise ValueError(
            f"Retry(in_=…) takes a timedelta, or a number of seconds; this {type(span).__name__} is neither"
        )
    return seconds


class GiveUp(AfterwardError):
    """Raised inside a task: the job has failed for good, whatever attempts are left."""


class JobFailed(AfterwardError):
    """`result()` of a job that failed for good: the message is the task's own error, as text.

    `job`: the job's id. `kind`: the qualified name of the exception that the task raised. `traceback`: its text.
    """

    def __init__(self, job: str, task: str, kind: str, message: str, traceback: str) -> None:
        super().__init__(f"job {job} of task {task} failed: {kind}" + (f": {message}" if message else ""))
        self.job, self.kind, self.traceback = job, kind, traceback


class JobCancelled(AfterwardError):
    """`result()` of a job that was cancelled, replaced, or has expired."""


class JobUnknown(AfterwardError):
    """The store does not have this job: never stored, not stored yet, or pruned since."""


class ResultTimeout(AfterwardError, TimeoutError):
    """`result(timeout=…)` of a job that had not ended in that time. The job goes on."""


class StoreError(AfterwardError):
    """The store could not do what it was asked."""


class DuplicateJob(StoreError):
    """A call with `on_duplicate="refuse"` whose unique key an unfinished job has; nothing was stored.

    Raised by `enqueue`. In a request, where it is found as the response starts, the client gets 409.
    """


class ReservationLost(StoreError):
    """The `Idempotency-Key` of a request is its own no more, for its process was taken for dead; nothing was stored.

    Another request may have the key by now. The client gets 409.
    """


class StoreUnavailable(StoreError):
    """The store cannot answer now (locked, full, failing); trying again later may work."""


class StoreUnusable(StoreError, ConfigurationError):
    """The store can never work like this: not our file, a newer schema, a network file system."""
