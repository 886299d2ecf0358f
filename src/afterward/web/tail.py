"""Following what jobs say: one look at the store for all streams of an event loop.

- Who asks for more is looked for at once, then with all others: when the store tells of one of their jobs, as it does
  where that runs in this process, and in any case after a pause, for it may run elsewhere.
- Nothing is kept for a stream that does not ask: a slow client is only later, and holds up no other.
- The store tells of what is said from before a look on, so that nothing is missed between two of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextvars import Context
from dataclasses import dataclass

from afterward.errors import StoreError, StoreUnavailable
from afterward.stores.base import Store
from afterward.stores.seen import Stream

PAGE = 32
"""How many events of one job are got at once: what one stream holds in memory at most, 2 MiB of the largest."""

TASKS = "afterward-streams"

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 0.5
"""How long it takes at most to see what a job says in another process, while nothing is said."""

_Key = tuple[str, int]


@dataclass(eq=False, slots=True)
class _Asked:
    key: _Key
    is_news: Callable[[Stream], bool]
    answer: asyncio.Future[Stream | None]


class Tail:
    """What the streams of one event loop follow in one store. `has_ended`: they are not to go on."""

    def __init__(self, store: Store, *, has_ended: bool = False) -> None:
        self._store = store
        self._has_ended = asyncio.Event()
        if has_ended:
            self._has_ended.set()
        self._asked: dict[_Key, set[_Asked]] = {}
        self._fresh: set[_Key] = set()
        self._stirred = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._watched: AbstractSet[str] = frozenset()
        self._pause = _FIRST_PAUSE

    async def more(self, job: str, after: int, is_news: Callable[[Stream], bool]) -> Stream | None:
        """What a job has said after that number, as soon as there is news in it; None when the stream is to end, for
        the job is forgotten, or this process stops serving.
        """
        if self._has_ended.is_set():
            return None
        asked = _Asked((job, after), is_news, asyncio.get_running_loop().create_future())
        self._asked.setdefault(asked.key, set()).add(asked)
        self._fresh.add(asked.key)
        self._stirred.set()
        if self._looking is None:
            # Of nobody's context: it outlives the request that has it begin.
            looking = asyncio.get_running_loop().create_task(self._look_on(), context=Context(), name=TASKS)
            self._looking = looking
            looking.add_done_callback(self._see_end)
        try:
            return await asked.answer
        finally:
            self._forget(asked)

    async def ended(self, seconds: float) -> bool:
        """Wait so many seconds; True, and at once, when streams are to end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._has_ended.wait()
        return self._has_ended.is_set()

    def end(self) -> None:
        """Have all streams end; on their loop."""
        self._has_ended.set()
        for asked in self._all():
            self._answer(asked, None)

    async def _look_on(self) -> None:
        """Until nobody asks."""
        while self._asked:
            self._stirred.clear()  # first: who asks while this begins is seen next
            await self._look(await self._to_look_at())
            if self._asked:
                await self._stirred.wait()
        self._rest()  # now: who asks next begins it anew

    async def _to_look_at(self) -> list[_Key]:
        """All that is asked for, where the store has told of something, or the pause is over; else what is new."""
        jobs = {job for job, _ in self._asked}
        if self._watching is not None and not self._watching.done() and jobs <= self._watched:
            keys = [key for key in self._fresh if key in self._asked]
        else:
            await self._watch(jobs)
            keys = list(self._asked)
        self._fresh.clear()
        return keys

    async def _watch(self, jobs: AbstractSet[str]) -> None:
        self._stop_watching()
        if not jobs <= self._watched:
            self._pause = _FIRST_PAUSE
        self._watched = jobs
        self._watching = asyncio.create_task(_until_told(self._store, list(jobs), self._pause), name=TASKS)
        self._watching.add_done_callback(lambda _: self._stirred.set())
        self._pause = min(self._pause * 1.5, _LONGEST_PAUSE)
        await asyncio.sleep(0)  # now it watches

    async def _look(self, keys: list[_Key]) -> None:
        try:
            found = await self._store.events(keys, PAGE) if keys else []
        except StoreUnavailable:
            return  # they wait on, and this process's heartbeat tells of it
        for key, stream in zip(keys, found, strict=True):
            for asked in list(self._asked.get(key, ())):
                if stream is None or asked.is_news(stream):
                    self._answer(asked, stream)
                    self._pause = _FIRST_PAUSE

    def _all(self) -> list[_Asked]:
        return [asked for several in self._asked.values() for asked in several]

    def _answer(self, asked: _Asked, stream: Stream | None) -> None:
        if not asked.answer.done():
            asked.answer.set_result(stream)
        self._forget(asked)

    def _forget(self, asked: _Asked) -> None:
        several = self._asked.get(asked.key, set())
        several.discard(asked)
        if not several:
            self._asked.pop(asked.key, None)
        if not self._asked and self._looking is not None and asyncio.current_task() is not self._looking:
            self._looking.cancel()
            self._rest()

    def _rest(self) -> None:
        self._looking = None
        self._stop_watching()
        self._watched = frozenset()

    def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def _see_end(self, looking: asyncio.Task[None]) -> None:
        """Nobody is left waiting for what looks no more."""
        if looking is self._looking:
            self._rest()
        error = None if looking.cancelled() else looking.exception()
        if error is not None:
            for asked in self._all():
                if not asked.answer.done():
                    asked.answer.set_exception(error)


async def _until_told(store: Store, jobs: list[str], seconds: float) -> None:
    try:
        await store.watch(jobs, seconds)
    except StoreError:  # as if it had told nothing
        await asyncio.sleep(seconds)


class Tails:
    """The streams of this process, on all its loops and stores."""

    def __init__(self) -> None:
        self._tails: dict[tuple[asyncio.AbstractEventLoop, Store], Tail] = {}  # never changed: replaced
        self._have_ended = False

    def at(self, store: Store) -> Tail:
        """What the streams of the running loop follow in this store."""
        key = (asyncio.get_running_loop(), store)
        tail = self._tails.get(key)
        if tail is None:
            tail = Tail(store, has_ended=self._have_ended)
            self._tails = {key: tail, **{of: other for of, other in self._tails.items() if not of[0].is_closed()}}
        return tail

    @property
    def have_ended(self) -> bool:
        """Is nobody to be kept waiting here any more?"""
        return self._have_ended

    def begin(self) -> None:
        """From here on streams go on until they are ended."""
        self._tails, self._have_ended = {}, False

    def end(self) -> None:
        """Have all streams end, now and from here on. May be called from a signal handler or another thread."""
        self._have_ended = True
        for (loop, _), tail in self._tails.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(tail.end)  # never directly: the interrupted code may be at work on it
