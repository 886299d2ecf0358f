"""Figures that cost something: not asked for again by each page that is open, at every change."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

TIMES = 20
"""An answer is remembered for so many times as long as it took: what is quick is always new."""


class Remembered(Generic[T]):
    """The last answers, by what was asked."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: dict[Hashable, tuple[float, T]] = {}

    async def get(self, asked: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer, which may be remembered."""
        began = self._clock()
        if asked in self._answers and began < self._answers[asked][0]:
            return self._answers[asked][1]
        answer = await ask()
        ended = self._clock()
        self._answers[asked] = (ended + TIMES * (ended - began), answer)
        return answer
