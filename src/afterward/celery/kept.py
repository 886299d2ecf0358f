"""Contexts that are entered when they are first needed, and left together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

from afterward.observe import emit

K = TypeVar("K")
T = TypeVar("T")


class Kept(Generic[K, T]):
    """One context for each key. `enter` makes it; it is entered and left by a task of its own, as some have to be."""

    def __init__(self, enter: Callable[[K], AbstractAsyncContextManager[T]]) -> None:
        self._enter = enter
        self._entered: dict[K, asyncio.Future[T]] = {}
        self._keeping: set[asyncio.Task[None]] = set()
        self._leaving = asyncio.Event()

    async def get(self, key: K) -> T:
        """What the context of this key gives. Raises what entering it did; who asks later has it tried again."""
        if key not in self._entered:
            self._begin(key)
        return await asyncio.shield(self._entered[key])

    async def leave(self) -> None:
        """Leave all of them; raises nothing of what that raises, and what is entered later is left at once."""
        self._leaving.set()
        while self._keeping:
            await asyncio.wait(self._keeping)

    def _begin(self, key: K) -> None:
        self._entered[key] = entered = asyncio.get_running_loop().create_future()
        keeping = asyncio.create_task(self._keep(key, entered))
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)

    async def _keep(self, key: K, entered: asyncio.Future[T]) -> None:
        try:
            async with self._enter(key) as value:
                entered.set_result(value)
                await self._leaving.wait()
        except Exception as error:  # noqa: BLE001 - whatever a lifespan of the user's raises
            if entered.done():
                emit(logging.ERROR, "host.broken", error)
            else:
                entered.set_exception(error)
        finally:
            del self._entered[key]
