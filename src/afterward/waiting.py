"""Waiting for jobs to end, in whatever process they run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from afterward.errors import ResultTimeout
from afterward.job import TERMINAL, Job
from afterward.stores.base import Store

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.25
"""How long it takes at most to see that a job has ended in another process; in this one, it is told at once."""


async def until_ended(store: Store, jobs: Sequence[str], seconds: float | None) -> list[Job | None]:
    """The jobs, in order, once each of them has ended or is unknown. Raises `ResultTimeout`."""
    until = None if seconds is None else asyncio.get_running_loop().time() + seconds
    ended: dict[str, Job | None] = {}
    names = await _look(store, jobs, ended)  # in any case: a timeout of 0 asks whether they have ended
    pause = _FIRST_PAUSE
    try:
        async with asyncio.timeout_at(until):
            while names:
                await store.watch(names, pause)
                pause = min(_LONGEST_PAUSE, pause * 1.5)
                names = await _look(store, jobs, ended)
    except TimeoutError:
        raise ResultTimeout(
            _not_ended([job for job in dict.fromkeys(jobs) if job not in ended], jobs, seconds)
        ) from None
    return [ended[job] for job in jobs]


async def until_seen(
    store: Store, job: str, is_enough: Callable[[Job], bool], seconds: float, has_ended: Callable[[], bool]
) -> Job | None:
    """The job, as soon as that is enough to be seen of it; or as it is after so many seconds, or once all has ended."""
    clock = asyncio.get_running_loop().time
    until, pause = clock() + seconds, _FIRST_PAUSE
    while True:
        [found] = await store.get([job])
        left = until - clock()
        if found is None or is_enough(found) or left <= 0 or has_ended():
            return found
        await store.watch(list({job, found.id}), min(pause, left))
        pause = min(_LONGEST_PAUSE, pause * 1.5)


async def _look(store: Store, jobs: Sequence[str], ended: dict[str, Job | None]) -> list[str]:
    """Put those that have ended, or are unknown, with the others that have; the ids to watch until all have."""
    waiting = list(dict.fromkeys(job for job in jobs if job not in ended))
    found = await store.get(waiting)
    ended |= {id_: job for id_, job in zip(waiting, found, strict=True) if job is None or job.status in TERMINAL}
    if len(ended) == len(set(jobs)):
        return []
    # An id may lead to another job, which is the one that ends.
    return sorted({*waiting, *(job.id for job in found if job is not None)} - ended.keys())


def _not_ended(late: Sequence[str], jobs: Sequence[str], seconds: float | None) -> str:
    of = f"job {late[0]}" if len(set(jobs)) == 1 else f"{len(late)} of {len(set(jobs))} jobs"
    return f"{of} had not ended after {seconds:g} s; {'it goes' if len(late) == 1 else 'they go'} on"
