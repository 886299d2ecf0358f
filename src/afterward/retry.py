"""Whether and when a failed attempt is tried again: a pure decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeAlias

from afterward.errors import GiveUp
from afterward.errors import Retry as RetryWanted
from afterward.job import Failed, Failure, Outcome, Retry

RetryRule: TypeAlias = Callable[[int, BaseException], bool | float | timedelta | None]
"""Decides after the n-th failure (from 1), by the error: False or None, give up; True, try again after the usual
back-off; a number of seconds or a `timedelta`, after that long. Anything else is told in the failure's message, and
leaves it at the usual back-off."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again: exponential back-off with full jitter.

    The n-th failure waits a random time between 0 and `min(max_backoff, backoff * 2**(n-1))` seconds
    ("full jitter": AWS Architecture Blog, "Exponential Backoff And Jitter", 2015).
    """

    max_attempts: int = 5
    backoff: float = 1.0
    max_backoff: float = 600.0
    retry_on: tuple[type[BaseException], ...] | RetryRule = (Exception,)
    give_up_on: tuple[type[BaseException], ...] = ()

    def wants(self, failures: int, error: BaseException) -> bool | float | timedelta | None:
        """What to do after the `failures`-th failure, as a `RetryRule` says it; `max_attempts` is no part of it.

        A rule that raises leaves it at the usual back-off.
        """
        if isinstance(error, GiveUp):
            return False
        if isinstance(error, RetryWanted):
            return True if error.seconds is None else error.seconds
        if isinstance(error, self.give_up_on):
            return False
        if not callable(self.retry_on):
            return isinstance(error, self.retry_on)
        try:
            return self.retry_on(failures, error)
        except Exception:  # noqa: BLE001 - whatever a user's rule raises: the job is no worse for it
            return True


def backoff_seconds(failures: int, policy: RetryPolicy, random: Callable[[], float]) -> float:
    """How long to wait after the `failures`-th failure."""
    ceiling = min(policy.max_backoff, policy.backoff * 2.0 ** min(failures - 1, 62))
    return random() * ceiling


def after_failure(  # noqa: PLR0917 - all that the decision depends on
    error: BaseException,
    failure: Failure,
    failures_before: int,
    policy: RetryPolicy,
    random: Callable[[], float],
    max_attempts: int | None = None,
) -> Outcome:
    """What becomes of an attempt that raised `error`, after `failures_before` earlier failures.

    `max_attempts`: what was said of the call in place of what the policy says.
    """
    failures = failures_before + 1
    wants = policy.wants(failures, error)
    if failures >= (max_attempts or policy.max_attempts) or wants is None or wants is False:
        return Failed(failure)
    if wants is not True:
        try:
            return Retry(failure, min(max(RetryWanted(in_=wants).seconds or 0.0, 0.0), 1e10))
        except ValueError:
            note = f"retry_on= answered a {type(wants).__name__} that is no span of time; the usual pause follows"
            failure = replace(failure, message=f"{failure.message} ({note})")
    return Retry(failure, backoff_seconds(failures, policy, random))
