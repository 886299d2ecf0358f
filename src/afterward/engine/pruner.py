"""Forgetting jobs that ended long ago, in steps so small that nobody waits for them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping

from afterward.errors import StoreError
from afterward.job import Status
from afterward.observe import emit
from afterward.stores.base import Store

PAGE = 100
"""How many jobs are forgotten in one transaction: a few milliseconds."""

PERIOD_SECONDS = 60.0
"""How often it is looked whether there are any."""


async def keep_pruning(store: Store, ages: Mapping[Status, float], period: float = PERIOD_SECONDS) -> None:
    """Until it is cancelled, forget jobs that ended, with one of these statuses, more than so many seconds ago.

    Every process may do it: each job goes once, and who finds none rests. Between two pages, the store is left to
    others for as long as the last one took.
    """
    clock = asyncio.get_running_loop().time
    pruned = 0
    while True:
        began = clock()
        try:
            page = await store.prune(ages, PAGE)
        except StoreError as error:
            emit(logging.WARNING, "prune.store_unavailable", reason=str(error))
            page = 0
        pruned += page
        if page == PAGE:
            await asyncio.sleep(clock() - began)
            continue
        if pruned:
            emit(logging.INFO, "jobs.pruned", jobs=pruned)
            pruned = 0
        await asyncio.sleep(period * random.uniform(0.5, 1.5))  # noqa: S311 - so that processes do not meet
