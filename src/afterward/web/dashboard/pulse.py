"""What has changed, for pages that are open: the word "changed" as server-sent events; the page is fetched again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Hashable
from contextlib import aclosing
from datetime import UTC, datetime

from afterward.errors import StoreError
from afterward.job import Job
from afterward.stores.base import Store
from afterward.stores.seen import Stream
from afterward.web.tail import Tail

LOOK_SECONDS = 2.0
"""How often the store is asked for what has changed."""

LONGEST_SECONDS = 300.0
"""How long one stream lasts at most; browsers come again by themselves."""

PACE_SECONDS = 0.25
"""How often the page of a job that says much hears of it, at most."""

_SILENT_LOOKS = 7
_CHANGES = 100
_CHANGED = b"event: changed\ndata: \n\n"
_ALIVE = b": \n\n"


async def pulse(store: Store, tail: Tail, job: str | None) -> AsyncGenerator[bytes]:
    """A word whenever this job has changed, or any; and signs of life meanwhile, so that who is gone is noticed."""
    clock = asyncio.get_running_loop()
    until, silent = clock.time() + LONGEST_SECONDS, 0
    yield b"retry: 2000\n\n"
    try:
        async with aclosing(_one(store, tail, job) if job else _all(store, tail)) as looks:
            async for has_changed in looks:
                silent = 0 if has_changed else silent + 1
                if has_changed:
                    yield _CHANGED
                elif silent % _SILENT_LOOKS == 0:
                    yield _ALIVE
                if clock.time() > until:
                    return
    except StoreError:
        return  # the browser comes again, and this process's heartbeat tells of it


async def _one(store: Store, tail: Tail, id_: str) -> AsyncGenerator[bool]:
    before, said = await _state_of(store, id_), 0
    while not await tail.ended(PACE_SECONDS):  # one that says much is not looked at each time
        said = await _more(tail, id_, said)
        now = await _state_of(store, id_)
        yield now != before
        before = now


async def _more(tail: Tail, id_: str, said: int) -> int:
    """Wait until the job has said more, or it is time to look; the number of the last that it said."""

    def is_news(stream: Stream) -> bool:
        return stream.last > said

    try:
        async with asyncio.timeout(LOOK_SECONDS):
            stream = await tail.more(id_, 2**53, is_news)
    except TimeoutError:
        return said
    if stream is None:  # it is forgotten, and not looked for again and again
        await tail.ended(LOOK_SECONDS)
        return said
    return stream.last


async def _state_of(store: Store, id_: str) -> Hashable:
    [job], [stream] = await store.get([id_]), await store.events([(id_, 2**53)], 1)
    return job and _state(job), stream and stream.last


async def _all(store: Store, tail: Tail) -> AsyncGenerator[bool]:
    since = max((job.created_at for job in await store.list(limit=1)), default=datetime.fromtimestamp(0, UTC))
    jobs: frozenset[Hashable] | None = None
    others: Hashable = None
    while True:
        found = await store.changed(since, _CHANGES)
        jobs_now, others_now = frozenset(map(_state, found)), await _others(store)
        yield jobs is not None and (bool(jobs_now - jobs) or others_now != others)
        jobs, others = jobs_now, others_now
        since = max((since, *(job.finished_at or job.created_at for job in found)))
        if await tail.ended(LOOK_SECONDS):
            return


async def _others(store: Store) -> Hashable:
    paused, processes = await store.paused(), await store.processes()
    return tuple(pause.queue for pause in paused), tuple(process.id for process in processes)


def _state(job: Job) -> Hashable:
    return job.id, job.status, job.attempt, job.run_at, job.cancel_asked_at, job.progress
