"""Doing away with what nobody needs any more, in steps so small that nobody waits for them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Mapping

from afterward.errors import StoreError
from afterward.job import Status
from afterward.observe import emit
from afterward.stores.base import Store, Tidied

JOBS = 100
"""How many jobs are forgotten in one transaction: a few milliseconds."""

CHUNKS = 8
"""How much of the content of files is freed in one transaction: a millisecond or so for two mebibytes."""

RECONCILIATIONS = 2
"""How much rarer than for jobs it is looked whether there is anything to tidy."""


async def rounds(store: Store, ages: Mapping[Status, float]) -> AsyncGenerator[Tidied]:
    """Tidy until nothing is left to do; between two rounds the store is left to others for as long as the last took.

    `ages`: as `Store.tidy` has them, now. What grows so old meanwhile is left to the next time.
    """
    clock = asyncio.get_running_loop().time
    first = began = clock()
    more = True
    while more:
        tidied = await store.tidy({status: age + began - first for status, age in ages.items()}, JOBS, CHUNKS)
        more = tidied.more
        yield tidied
        if more:
            await asyncio.sleep(clock() - began)
            began = clock()


async def keep_tidy(store: Store, ages: Mapping[Status, float], period: float | None = None) -> None:
    """Until it is cancelled, tidy again and again. Every process may do it: each thing is done once.

    `period`: seconds from one look to the next; by default what such a look may cost this store.
    """
    period = RECONCILIATIONS * store.reconcile_seconds if period is None else period
    while True:
        pruned = 0
        try:
            async for tidied in rounds(store, ages):
                pruned += tidied.pruned
        except StoreError as error:
            emit(logging.WARNING, "tidy.store_unavailable", reason=str(error))
        if pruned:
            emit(logging.INFO, "jobs.pruned", jobs=pruned)
        await asyncio.sleep(period * random.uniform(0.5, 1.5))  # noqa: S311 - so that processes do not meet
