"""Asking a store why a job is not done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from afterward.job import TERMINAL, Job, Status
from afterward.reasons import Cause, Reason
from afterward.stores.base import COUNTED, Store
from afterward.stores.seen import Pause
from afterward.why import Surroundings, why
from afterward.workforce import Worker, able, kin, workers_of

_PAGE = 100
"""So many jobs that run are looked at in one transaction."""


async def explain(store: Store, job: str) -> list[Reason]:
    """Why the job of this id is not done, or how it has ended: what matters most comes first."""
    [found] = await store.get([job])
    if found is None:
        text = (
            f"the store knows no job {job}: what a request adds is stored as its response starts, and jobs that ended "
            f"are forgotten after a while"
        )
        return [Reason(Cause.unknown, text)]
    return await explain_found(store, found)


async def explain_found(store: Store, job: Job) -> list[Reason]:
    """`explain`, for a job that has just been looked up, with its attempts."""
    if job.status in TERMINAL:
        return why(job, datetime.now(UTC), Surroundings())
    processes, pauses, tasks = await asyncio.gather(store.processes(), store.paused(), store.tasks_seen())
    around = Surroundings(pauses, processes, tasks)
    workers = able(job, workers_of(processes))
    if job.status is Status.queued and workers:
        running = await _running(store, workers)
        around = replace(around, running=running, ahead=await _ahead(store, job, workers, pauses))
    return why(job, datetime.now(UTC), around)


async def _running(store: Store, workers: Sequence[Worker]) -> dict[str, Job]:
    ids = [id_ for worker in workers for id_ in worker.process.running]
    found: list[Job | None] = []
    for start in range(0, len(ids), _PAGE):
        found += await store.get(ids[start : start + _PAGE])
    return {job.id: job for job in found if job is not None}


async def _ahead(store: Store, job: Job, workers: Sequence[Worker], pauses: Sequence[Pause]) -> int:
    """How many jobs stand before it, of those that these workers take and may begin."""
    paused = {pause.queue for pause in pauses}
    waiting = {counts.queue for counts in (await store.stats()).queues} - paused
    queues = [queue for queue in waiting if any(worker.takes(queue) for worker in workers)]
    return await store.ahead(job.id, sorted(kin(job, workers)), queues, COUNTED)
