"""What the attempts of a test's jobs ended in: heard from the worker, and raised by the call that had them run."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from afterward.errors import AfterwardError, Retry
from afterward.job import Job, Lease, Status


class AttemptFailed(AfterwardError):
    """A job did not succeed, and it was not an `Exception` that ended it; that is its cause, if there was one."""


class Failures:
    """The failures of attempts, until they are raised. `are_raised`: are they at all?"""

    def __init__(self, *, are_raised: bool) -> None:
        self._are_raised = are_raised
        self._heard: dict[tuple[str, int], BaseException] = {}
        self._errors: list[Exception] = []
        self._untold: list[Exception] = []

    def hear(self, lease: Lease, error: BaseException) -> None:
        """An attempt has ended in this."""
        self._heard[lease.id, lease.attempt] = error

    def take_heard(self, lease: Lease) -> BaseException | None:
        """What this attempt has ended in, if anything was heard of it."""
        return self._heard.pop((lease.id, lease.attempt), None)

    def note(self, lease: Lease, job: Job, error: BaseException | None) -> None:
        """An attempt is over, and its job is stored like this: is that a failure to be raised?"""
        if not self._are_raised or (isinstance(error, Retry) and job.status is Status.queued):
            return
        if isinstance(error, Exception):
            self._errors.append(error)
        elif error is not None:
            failed = AttemptFailed(f"a job of task {lease.task} ended by {type(error).__name__}: {error}")
            failed.__cause__ = error
            self._errors.append(failed)
        elif job.status is Status.queued and job.attempt == lease.attempt and job.note is not None:
            self._errors.append(AttemptFailed(f"a job of task {lease.task} could not be run: {job.note}"))

    @contextmanager
    def told(self) -> Generator[None]:
        """What fails within the block is raised at its end: with the exception that the block ends in, if it does.

        A crash or a cancellation stays what it is. What had failed before it is raised by `raise_untold`.
        """
        try:
            yield
        except Exception as error:
            errors = self._take()
            if errors:
                message = f"the call failed, and so did {_attempts(errors)} that it had run"
                raise ExceptionGroup(message, [error, *errors]) from None
            raise
        except BaseException:
            self._untold += self._take()
            raise
        _raise(self._take())

    def raise_untold(self) -> None:
        """Raise what no call could raise."""
        untold, self._untold = self._untold, []
        _raise([*untold, *self._take()])

    def clear(self) -> None:
        """Forget them."""
        self._errors, self._untold = [], []

    def _take(self) -> list[Exception]:
        errors, self._errors = self._errors, []
        return errors


def _raise(errors: Sequence[Exception]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup(f"{_attempts(errors)} failed", errors)


def _attempts(errors: Sequence[Exception]) -> str:
    return "an attempt" if len(errors) == 1 else f"{len(errors)} attempts"
