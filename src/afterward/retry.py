"""Whether and when a failed attempt is tried again: a pure decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from afterward.job import Failed, Failure, Outcome, Retry


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again: exponential back-off with full jitter.

    The n-th failure waits a random time between 0 and `min(max_backoff, backoff * 2**(n-1))` seconds
    ("full jitter": AWS Architecture Blog, "Exponential Backoff And Jitter", 2015).
    """

    max_attempts: int = 5
    backoff: float = 1.0
    max_backoff: float = 600.0
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    give_up_on: tuple[type[BaseException], ...] = ()

    def wants(self, error: BaseException) -> bool:
        """Is this error one that another attempt may mend?"""
        return isinstance(error, self.retry_on) and not isinstance(error, self.give_up_on)


def backoff_seconds(failures: int, policy: RetryPolicy, random: Callable[[], float]) -> float:
    """How long to wait after the `failures`-th failure."""
    ceiling = min(policy.max_backoff, policy.backoff * 2.0 ** min(failures - 1, 62))
    return random() * ceiling


def after_failure(
    error: BaseException, failure: Failure, failures_before: int, policy: RetryPolicy, random: Callable[[], float]
) -> Outcome:
    """What becomes of an attempt that raised `error`, after `failures_before` earlier failures."""
    failures = failures_before + 1
    if failures >= policy.max_attempts or not policy.wants(error):
        return Failed(failure)
    return Retry(failure, backoff_seconds(failures, policy, random))
