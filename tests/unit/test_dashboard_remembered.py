"""What was costly to find out is remembered for a while; what was not, is found out anew."""

import pytest

from afterward.web.dashboard.remembered import TIMES, Remembered
from tests.support.stores import Clock

pytestmark = pytest.mark.anyio


class Costly:
    """Answers with a number, which is one more each time; that takes so many seconds."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self.asked = 0

    async def __call__(self) -> int:
        self._clock.advance(self._seconds)
        self.asked += 1
        return self.asked


async def test_an_answer_is_remembered_for_as_long_as_it_is_worth() -> None:
    clock = Clock(0.0)
    remembered, ask = Remembered[int](clock), Costly(clock, 0.5)
    assert [await remembered.get("a", ask) for _ in range(3)] == [1, 1, 1]
    clock.advance(TIMES * 0.5 - 0.1)
    assert await remembered.get("a", ask) == 1
    clock.advance(0.2)
    assert await remembered.get("a", ask) == 2
    assert await remembered.get("b", ask) == 3


async def test_what_costs_nothing_is_always_new() -> None:
    clock = Clock(0.0)
    remembered, ask = Remembered[int](clock), Costly(clock, 0.0)
    assert [await remembered.get("a", ask) for _ in range(3)] == [1, 2, 3]
