"""What a process knows to hold, and what the store holds in its name: where the two differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from afterward.holdings import Known
from afterward.stores.base import Beat, Held


class Differences(NamedTuple):
    """`lost`: attempts, by job id, that the process held and the store does not name any more.

    `unknown`, `unknown_files`, `unknown_reservations`: attempts, files that are no job's, and reservations that are not
    completed, that the store names and the process does not know of. They are to be given back.
    """

    lost: dict[str, int]
    unknown: list[tuple[str, int]]
    unknown_files: list[str]
    unknown_reservations: tuple[str, ...] = ()

    @property
    def has_unknown(self) -> bool:
        """Is there anything to give back?"""
        return bool(self.unknown or self.unknown_files or self.unknown_reservations)


def differences(before: Known, beat: Beat, after: Known) -> Differences:
    """Compare what a beat answered with what was known before it was asked for, and after it was answered.

    Nothing stands still meanwhile, so each snapshot alone would mistake what is on its way.

    - Lost is what both are certain of, and the beat does not name. What was certain before was stored before the beat;
      what is certain after was not let go until then: an attempt that is let go is certain never again.
    - Unknown is what neither knows. What is stored in a process's name was expected before that; so if the process does
      not know it afterwards, it has been let go meanwhile, or nobody will ever let it go. The beat cannot tell which,
      nor need it: to give back compares and swaps, and finds nothing to give back of what has been let go by then, for
      an attempt is never in a process's name twice.
    """
    if not beat.has_looked:
        return Differences({}, [], [])
    return Differences(
        {job: attempt for job, attempt in before.certain.items() if _is_lost(job, attempt, beat, after)},
        list(_unknown(before, beat, after)),
        sorted(beat.files - before.files - after.files),
        tuple(sorted(beat.reservations - before.reservations - after.reservations)),
    )


def _is_lost(job: str, attempt: int, beat: Beat, after: Known) -> bool:
    held = beat.held.get(job)
    return after.certain.get(job) == attempt and (held is None or held.attempt != attempt)


def _unknown(before: Known, beat: Beat, after: Known) -> Iterator[tuple[str, int]]:
    for job, held in beat.held.items():
        if not _is_known(job, held, before) and not _is_known(job, held, after):
            yield job, held.attempt


def _is_known(job: str, held: Held, known: Known) -> bool:
    return held.attempt in (known.certain.get(job), known.possible.get(job)) or held.token in known.tokens
