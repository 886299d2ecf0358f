"""Looking into a store without taking part in its life: nothing is written, and none is created."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from afterward.app import DEFAULT_URL, store_of
from afterward.errors import AfterwardError
from afterward.job import Job, Status
from afterward.stores.base import Store
from afterward.stores.sqlite import SQLiteStore


async def newest(
    url: str | None, *, status: Status | None, task: str | None, queue: str | None, limit: int
) -> tuple[list[Job], bool]:
    """Jobs, newest first, and whether there are more. Those that wait after an attempt come with their attempts."""
    async with _reading(url) as store:
        found = await store.list(status=status, task=task, queue=queue, limit=limit + 1)
        again = [job.id for job in found if job.status is Status.queued and job.attempt]
        fuller = {job.id: job for job in await store.get(again) if job is not None}
    return [fuller.get(job.id, job) for job in found[:limit]], len(found) > limit


async def one(url: str | None, id: str) -> Job:  # noqa: A002 - it is the job's
    """The job of this id. Raises `AfterwardError` when there is none."""
    async with _reading(url) as store:
        [found] = await store.get([id])
    if found is None:
        raise AfterwardError(f"there is no job {id} in {store.location}")
    return found


@asynccontextmanager
async def _reading(url: str | None) -> AsyncGenerator[Store]:
    store = store_of(url or os.environ.get("AFTERWARD_URL") or DEFAULT_URL)
    if isinstance(store, SQLiteStore) and not _has_content(Path(store.location)):
        raise AfterwardError(
            f"there is no store at {store.location}; start your app, which makes it, "
            f"or name another: --store sqlite:////absolute/path.db, or AFTERWARD_URL"
        )
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
