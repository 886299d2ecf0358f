"""How often something is done that may take long."""

from __future__ import annotations

import time
from collections.abc import Callable

_PAUSE_FOR_SECOND = 9


class Pace:
    """What keeps this pace takes a tenth of the time at most, however long it takes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._done_at = self._took = 0.0

    def done(self, took: float) -> None:
        """It has just been done, in so many seconds."""
        self._done_at, self._took = self._clock(), took

    @property
    def seconds_left(self) -> float:
        """How long to wait before it is done again."""
        return max(0.0, self._done_at + self._took * _PAUSE_FOR_SECOND - self._clock())

    def is_due(self) -> bool:
        """May it be done again?"""
        return self.seconds_left == 0
