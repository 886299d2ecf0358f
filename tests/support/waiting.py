"""Waiting for what must happen: never for time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

SECONDS = 20.0
"""How long it is waited for what nobody has promised to happen sooner: for a machine that has much else to do."""


def wait_until(condition: Callable[[], T], what: str = "", seconds: float = SECONDS) -> T:
    """The condition's first true value; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s, in vain, until {what or 'the condition holds'}"
        time.sleep(0.005)
    return value


async def soon(condition: Callable[[], T], what: str = "", seconds: float = SECONDS) -> T:
    """`wait_until`, on an event loop that goes on meanwhile."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s, in vain, until {what or 'the condition holds'}"
        await asyncio.sleep(0.005)
    return value


async def told(ask: Callable[[], Awaitable[T]], what: str = "", seconds: float = SECONDS) -> T:
    """`soon`, of what has to be asked for: the first true answer."""
    deadline = time.monotonic() + seconds
    while not (value := await ask()):
        assert time.monotonic() < deadline, f"waited {seconds} s, in vain, until {what or 'the answer is true'}"
        await asyncio.sleep(0.005)
    return value
