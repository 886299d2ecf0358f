"""Looking into a store without taking part in its life: none is created, and none brought to another schema."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from afterward.errors import AfterwardError
from afterward.job import Job, Status
from afterward.states import fails
from afterward.stores.address import DEFAULT_URL, store_of
from afterward.stores.base import Store
from afterward.waiting import until_ended

SHORTEST_PREFIX = 8
"""How many characters of an id are enough to look it up by, if no other begins with them."""

NO_STORE_MEND = (
    "make it (start your app, or: afterward migrate), or name another: "
    "--store sqlite:////absolute/path.db, or AFTERWARD_URL"
)

_SHOWN_CANDIDATES = 5
_ID_LENGTH = 36


@dataclass(frozen=True, slots=True)
class Filters:
    """Which jobs are meant. None lets everything pass."""

    statuses: Sequence[Status] | None = None
    task: str | None = None
    queue: str | None = None
    since: datetime | None = None
    owner: str | None = None
    signature: str | None = None

    @property
    def are_said(self) -> bool:
        """Has anything been said of which jobs are meant?"""
        return self != Filters()

    def match(self, job: Job) -> bool:
        """Is this job, as it is, one of those?"""
        return (
            (self.statuses is None or job.status in self.statuses)
            and (self.task is None or job.task == self.task)
            and (self.queue is None or job.queue == self.queue)
            and (self.since is None or job.created_at >= self.since)
            and (self.owner is None or job.owner == self.owner)
            and (self.signature is None or _fails_with(job) == self.signature)
        )

    async def page(self, store: Store, limit: int, before: str | None = None) -> list[Job]:
        """The newest of those jobs, or the newest before one."""
        return await store.list(
            status=self.statuses, task=self.task, queue=self.queue, since=self.since, before=before, limit=limit,
            owner=self.owner, signature=self.signature,
        )  # fmt: skip


def filters(
    statuses: Sequence[Status] | None,
    task: str | None,
    queue: str | None,
    since_seconds: float | None,
    *,
    owner: str | None = None,
    signature: str | None = None,
) -> Filters:
    """What was typed, as filters."""
    since = None if since_seconds is None else datetime.now(UTC) - timedelta(seconds=since_seconds)
    return Filters(list(statuses) if statuses else None, task, queue, since, owner, signature)


def _fails_with(job: Job) -> str | None:
    return job.failure.signature if job.failure is not None and fails(job) else None


async def newest(url: str | None, wanted: Filters, limit: int) -> tuple[list[Job], bool]:
    """Jobs, newest first, and whether there are more. Those that wait after an attempt come with their attempts."""
    async with opened(url) as store:
        found = await wanted.page(store, limit + 1)
        return await with_attempts(store, found[:limit]), len(found) > limit


async def with_attempts(store: Store, jobs: Sequence[Job]) -> list[Job]:
    """The same jobs; those that wait after an attempt with their attempts, which say why."""
    again = [job.id for job in jobs if job.status is Status.queued and job.attempt]
    fuller = {job.id: job for job in await store.get(again) if job is not None}
    return [fuller.get(job.id, job) for job in jobs]


async def one(url: str | None, id: str) -> Job:  # noqa: A002 - it is the job's
    """The job of this id, or of the only one that begins so. Raises `AfterwardError` when there is none."""
    async with opened(url) as store:
        return await found_in(store, id)


async def ended(url: str | None, id: str, seconds: float | None) -> Job:  # noqa: A002 - as above
    """`one`, once it has ended. Raises `ResultTimeout`."""
    async with opened(url) as store:
        job = await found_in(store, id)
        return await ended_in(store, job.id, seconds)


async def ended_in(store: Store, id: str, seconds: float | None) -> Job:  # noqa: A002 - as above
    """The job of this id, once it has ended. Raises `ResultTimeout`; `AfterwardError` when it is not there any more."""
    [job] = await until_ended(store, [id], seconds)
    if job is None:
        raise AfterwardError(
            f"job {id} has ended and was pruned before it could be looked at; "
            f"to keep jobs for longer: Afterward(keep=…, keep_failed=…)"
        )
    return job


async def found_in(store: Store, id: str) -> Job:  # noqa: A002 - as above
    """The job of this id, or of the only one that begins so. Raises `AfterwardError` when there is none."""
    [job] = await store.get([id])
    if job is not None:
        return job
    ids = await _beginning_with(store, id)
    [job] = await store.get(ids) if len(ids) == 1 else [None]
    if job is not None:
        return job
    if not ids:
        raise unknown(store, id)
    shown = ", ".join(ids[:_SHOWN_CANDIDATES]) + (" …" if len(ids) > _SHOWN_CANDIDATES else "")
    raise AfterwardError(f"several jobs begin with {id}; write more of the one you mean: {shown}")


def unknown(store: Store, id: str) -> AfterwardError:  # noqa: A002 - as above
    """What to say of an id that leads to no job."""
    return AfterwardError(f"there is no job {id} in {store.location}")


async def _beginning_with(store: Store, prefix: str) -> list[str]:
    if not SHORTEST_PREFIX <= len(prefix) <= _ID_LENGTH:
        return []
    return list(await store.find(prefix.lower(), _SHOWN_CANDIDATES + 1))


@asynccontextmanager
async def opened(url: str | None) -> AsyncGenerator[Store]:
    """The store of this URL, or the default one, if it is there. Raises `AfterwardError` when it is not.

    One of an older schema is refused, for once it is brought up to date, no process of an older version can start: that
    is for the app to do, or for `afterward migrate`.
    """
    store = store_of(url_or_default(url))
    if not (await store.schema()).found:
        raise AfterwardError(f"there is no store at {store.location}; {NO_STORE_MEND}")
    await store.open(migrate=False)
    try:
        yield store
    finally:
        await store.close()


def url_or_default(url: str | None) -> str:
    """Where to look, if nothing or something was said of it."""
    return url or os.environ.get("AFTERWARD_URL") or DEFAULT_URL
