"""Stores that a test opens by itself, without a lifespan."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from afterward import Afterward


@contextmanager
def opened(tasks: Afterward) -> Generator[Afterward]:
    """Leave and close the store at the end, if anything has opened it."""
    try:
        yield tasks
    finally:
        asyncio.run(tasks._liveness.stop())  # pyright: ignore[reportPrivateUsage]
