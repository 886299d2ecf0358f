"""Waiting for jobs to end, in whatever process they run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from afterward.errors import ResultTimeout
from afterward.job import TERMINAL, Job
from afterward.stores.base import Store

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.25
"""How long it takes at most to see that a job has ended in another process; in this one, it is told at once."""


async def until_ended(store: Store, jobs: Sequence[str], seconds: float | None) -> list[Job | None]:
    """The jobs, in order, once each of them has ended or is unknown. Raises `ResultTimeout`."""
    try:
        async with asyncio.timeout(seconds):
            return await _until_ended(store, jobs)
    except TimeoutError:
        raise ResultTimeout(f"not all of {len(jobs)} job(s) had ended after {seconds:g} s; they go on") from None


async def _until_ended(store: Store, jobs: Sequence[str]) -> list[Job | None]:
    ended: dict[str, Job | None] = {}
    pause = _FIRST_PAUSE
    while True:
        waiting = list(dict.fromkeys(job for job in jobs if job not in ended))
        found = await store.get(waiting)
        ended |= {id_: job for id_, job in zip(waiting, found, strict=True) if job is None or job.status in TERMINAL}
        if len(ended) == len(set(jobs)):
            return [ended[job] for job in jobs]
        # An id may lead to another job, which is the one that ends.
        names = {*waiting, *(job.id for job in found if job is not None)} - ended.keys()
        await store.watch(sorted(names), pause)
        pause = min(_LONGEST_PAUSE, pause * 1.5)
