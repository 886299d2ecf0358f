"""How long these tests wait for what must happen: long, for they share the machine with processes being started."""

from collections.abc import Callable
from typing import TypeVar

from tests.support import waiting

T = TypeVar("T")

SECONDS = 30


def wait_until(condition: Callable[[], T], what: str = "", seconds: float = SECONDS) -> T:
    """The condition's first true value; fails when there is none in time."""
    return waiting.wait_until(condition, what, seconds)


async def soon(condition: Callable[[], T], what: str = "", seconds: float = SECONDS) -> T:
    """`wait_until`, on an event loop that goes on meanwhile."""
    return await waiting.soon(condition, what, seconds)
