"""What the end of an attempt means for those who wait for jobs."""

from __future__ import annotations

from collections.abc import Sequence

from afterward.job import Cancelled, Died, Lease, Outcome, Released, Retry, Succeeded


def leave_work(ends: Sequence[tuple[Lease, Outcome]]) -> bool:
    """Is there a job to claim after these, now or soon?"""
    for _, outcome in ends:
        if isinstance(outcome, Succeeded):  # as most do
            if outcome.then is not None:
                return True
        elif _leaves_work(outcome):
            return True
    return False


def _leaves_work(outcome: Outcome) -> bool:
    if isinstance(outcome, Retry | Released):
        return True
    if isinstance(outcome, Cancelled):
        return False
    return outcome.then is not None or (isinstance(outcome, Died) and not outcome.final)
