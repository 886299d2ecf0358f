"""Who among the other processes has stood still for so long that it is to be buried: told by counters, never by clocks.

Each beat is a look at the counters of the others, made in a transaction in which this process could beat itself: so a
locked store, a stopped machine or a clock set forward declares nobody dead.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Self

from afterward.stores.base import Beat

LOOKS = 5
"""How many looks without a change make a process frozen, at least: a lease is this many beats, or more."""

LONGEST_BEAT_SECONDS = 1.0
"""Where nothing proves a death, the most of the time until a sign of it is seen, whatever the lease."""

SIGN_BEATS = 1.25
"""How long a process that shows a sign of death has to stand still: whoever lives beats once in one beat."""


class Pace(NamedTuple):
    """How often a process beats, and after how many looks, one beat apart, one that stands still is frozen."""

    beat_seconds: float
    looks: int

    @classmethod
    def of(cls, lease: float, *, proves_death: bool) -> Self:
        """So that it is frozen when its lease (seconds) is over; and that a sign of death is seen soon."""
        beat_seconds = lease / LOOKS
        if proves_death or beat_seconds <= LONGEST_BEAT_SECONDS:
            return cls(beat_seconds, LOOKS)
        return cls(LONGEST_BEAT_SECONDS, math.ceil(lease / LONGEST_BEAT_SECONDS))


class Still(NamedTuple):
    """Processes that are to be buried, each with the counter at which it stands. `dead`: it shows a sign of it."""

    frozen: list[tuple[str, int]]
    dead: list[tuple[str, int]]


class _Sight(NamedTuple):
    """One process that stands still, as it was last seen.

    `since`: the end of the first look that saw it stand there. `looks`: how many there were after that, a beat apart,
    and `counted_at`: the beginning of the last of them. `sign_since`: the end of the first look since that also showed
    a sign of death, as each has done after it.
    """

    counter: int
    since: float
    looks: int
    counted_at: float
    sign_since: float | None


class Lookout:
    """Remembers what was seen of each process. Times are this process's own, of a clock that is never set."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._seen: dict[str, _Sight] = {}
        self._looks_without_signs = 0

    def look(self, beat: Beat, began: float, ended: float) -> Still:
        """See how the others stand, by a beat that was asked for and answered at these times.

        - Frozen is who stood still for as many looks, one beat apart, as its lease has beats.
        - Dead is who showed a sign of death and stood still since, for `SIGN_BEATS`. One whose counter moves is not,
          whatever signs it shows.
        """
        signs = beat.signs if not self._looks_without_signs else frozenset[str]()
        self._looks_without_signs = max(0, self._looks_without_signs - 1)
        self._seen = {
            process: self._sight(self._seen.get(process), counter, process in signs, began, ended)
            for process, counter in beat.others.items()
        }
        still = Still([], [])
        for process, sight in self._seen.items():
            if began >= self._dead_at(sight):
                still.dead.append((process, sight.counter))
            elif self._is_frozen(sight, began):
                still.frozen.append((process, sight.counter))
        return still

    def miss(self) -> None:
        """A look has failed, and the store may be out of reach for others as well.

        When it is back, they show signs of death until they have reached it too: none counts for some looks.
        """
        self._looks_without_signs = LOOKS

    def next_look(self, began: float) -> float:
        """When to look again, after the look that began then: a beat later, or as soon as a sign is worth a death.

        Never later than a beat: each look is a beat of this process, which others see stand still in between.
        """
        dead_at = [at for sight in self._seen.values() if (at := self._dead_at(sight)) > began]
        return min([began + self._pace.beat_seconds, *dead_at])

    def forget(self) -> None:
        """A new life begins: what was seen long ago says nothing of now."""
        self._seen = {}

    def _sight(self, last: _Sight | None, counter: int, sign: bool, began: float, ended: float) -> _Sight:
        sign_since = ended if sign else None
        if last is None or last.counter != counter:
            return _Sight(counter, ended, 0, began, sign_since)
        if sign and last.sign_since is not None:
            sign_since = last.sign_since
        if began >= last.counted_at + self._pace.beat_seconds:
            return last._replace(looks=last.looks + 1, counted_at=began, sign_since=sign_since)
        return last._replace(sign_since=sign_since)

    def _is_frozen(self, sight: _Sight, began: float) -> bool:
        beat_seconds, looks = self._pace
        return sight.looks >= looks and began >= sight.since + looks * beat_seconds

    def _dead_at(self, sight: _Sight) -> float:
        """When this sight is worth a death, if the next look shows the same."""
        return math.inf if sight.sign_since is None else sight.sign_since + SIGN_BEATS * self._pace.beat_seconds
