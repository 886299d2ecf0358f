"""Jobs as they change, until somebody has seen enough."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from rich.live import Live

from afterward.cli import output
from afterward.cli.reading import Filters, opened, with_attempts
from afterward.job import Job
from afterward.stores.base import Store

PERIOD_SECONDS = 0.4
"""How often it is looked."""

MOST_CHANGES = 5_000
"""How many changes one look tells at most."""

_OVERLAP = timedelta(seconds=3)
"""How far a look reaches back: what has the time of a moment ago may have been written since."""

_WATCHED = 100
"""How many of the jobs told last are looked at again, whatever their status."""

_Mark: TypeAlias = tuple[object, ...]


async def follow(url: str | None, wanted: Filters, limit: int, *, as_json: bool) -> None:
    """Show the newest jobs, and from then on every change of one that is wanted. Ends when it is cancelled."""
    async with opened(url) as store:
        follower = Follower(store, wanted)
        console = output.plain_console()
        if as_json or not console.is_terminal:
            await _print_lines(follower, limit, as_json=as_json)
        else:
            await _draw(follower, min(limit, max(1, console.height - 2)), Live(console=console, auto_refresh=False))


async def _print_lines(follower: Follower, limit: int, *, as_json: bool) -> None:
    for job in reversed(await follower.first(limit)):
        output.print_change(job, as_json=as_json)
    while True:
        await asyncio.sleep(PERIOD_SECONDS)
        changed = [job for job in await follower.changes() if follower.wanted.match(job)]
        for job in sorted(changed, key=_last_move):
            output.print_change(job, as_json=as_json)


async def _draw(follower: Follower, rows: int, live: Live) -> None:
    shown = {job.id: job for job in await follower.first(rows)}
    with live:
        while True:
            live.update(output.table_of(list(shown.values()), datetime.now(UTC)), refresh=True)
            await asyncio.sleep(PERIOD_SECONDS)
            shown = _newest(shown, await follower.changes(), follower.wanted, rows)


def _last_move(job: Job) -> datetime:
    return max(at for at in (job.created_at, job.started_at, job.finished_at) if at is not None)


def _newest(shown: dict[str, Job], changed: Iterable[Job], wanted: Filters, rows: int) -> dict[str, Job]:
    """What is to be shown after these changes."""
    jobs = shown | {job.id: job for job in changed}
    newest = sorted(jobs.values(), key=lambda job: (job.created_at, job.id), reverse=True)
    return {job.id: job for job in [job for job in newest if wanted.match(job)][:rows]}


class Follower:
    """Looks at a store again and again, and remembers as much as it takes to know what is new."""

    def __init__(self, store: Store, wanted: Filters) -> None:
        self._store = store
        self.wanted = wanted
        self._known: dict[str, _Mark] = {}
        self._in_hand: set[str] = set()
        self._told: dict[str, None] = {}  # in the order in which they were told last
        self._looked_at = datetime.now(UTC)

    async def first(self, limit: int) -> list[Job]:
        """The newest jobs that are wanted; what changes from now on is told by `changes`."""
        await self.changes()
        found = await with_attempts(self._store, await self.wanted.page(self._store, limit))
        self._known |= {job.id: _mark(job) for job in found}
        self._remember_told(reversed(found))
        return found

    async def changes(self) -> list[Job]:
        """Jobs that are not as they were at the last look, whether they are wanted or not."""
        since, self._looked_at = self._looked_at - _OVERLAP, datetime.now(UTC)
        found = {job.id: job for job in await self._store.changed(since, MOST_CHANGES)}
        # What was held or run, and is no more, may have been queued again; so may what has failed, by a person.
        others = (self._in_hand | set(self._told)) - found.keys()
        found |= {job.id: job for job in await self._store.get(sorted(others)) if job is not None}
        marks = {id_: _mark(job) for id_, job in found.items()}
        changed = [job for id_, job in found.items() if self._known.get(id_) != marks[id_]]
        self._known = marks
        self._in_hand = {id_ for id_, job in found.items() if job.process is not None}
        self._remember_told(changed)
        return await with_attempts(self._store, changed)

    def _remember_told(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self._told.pop(job.id, None)
            self._told[job.id] = None
        for id_ in list(self._told)[:-_WATCHED]:
            del self._told[id_]


def _mark(job: Job) -> _Mark:
    """What tells that a job has changed."""
    return (job.status, job.attempt, job.failures, job.deaths, job.process, job.finished_at, job.run_at)
