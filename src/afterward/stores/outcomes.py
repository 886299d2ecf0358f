"""What the end of an attempt means for those who wait for jobs."""

from __future__ import annotations

from afterward.job import Cancelled, Died, Outcome, Released, Retry


def leaves_work(outcome: Outcome) -> bool:
    """Is there a job to claim after this, now or soon?"""
    if isinstance(outcome, Retry | Released):
        return True
    if isinstance(outcome, Cancelled):
        return False
    return outcome.then is not None or (isinstance(outcome, Died) and not outcome.final)
