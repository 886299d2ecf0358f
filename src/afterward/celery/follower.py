"""Following what runs in a fleet whose code knows nothing of the store, by what Celery's result back end tells of it.

Each job has one follower at a time: whoever has begun its attempt, for it was told that it runs; before that whoever
asks first. One that dies hands its jobs back, and another goes on.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from afterward.celery.backend import UNREADABLE, Meta
from afterward.celery.lines import reports_of
from afterward.celery.messages import task_id_of
from afterward.celery.reader import Reader, ResultsUnreadable
from afterward.celery.told import End, end_of, failure_of, is_begun
from afterward.engine.patience import pause_after
from afterward.errors import StoreError
from afterward.faults import crash_point
from afterward.job import Cancelled, Failed, Lease, Outcome, Report, Succeeded
from afterward.liveness import Liveness
from afterward.observe import emit
from afterward.states import summary
from afterward.stores.base import Store
from afterward.stores.handing import Followed, Start
from afterward.stores.seen import Served

AT_ONCE = 500
"""So many jobs are looked at together."""

SHORTEST_SECONDS, LONGEST_SECONDS = 0.25, 5.0
"""How often it is asked for a job: the oftener the shorter its message is out."""

_PART = 0.1
"""The next question comes after such a part of the time that its message has been out."""

_FLOOR_SECONDS = 0.05
"""So much is between two looks at least."""

_SHARE = 0.2
"""Such a part of the time goes by in asking, at most."""

ASK_AGAIN_SECONDS = 10.0
"""How often a fleet is told that a task is to end: a worker that was not there has not heard of it."""

ASK_RUNNING_AGAIN_SECONDS = 60.0
"""The same for one that runs: whoever runs it was there, and may have no means to end it."""


@dataclass(slots=True)
class _Watched:
    """What is remembered of a job that is followed. `next_look`: when it is to be asked for, by the monotonic clock."""

    next_look: float = 0.0
    asked_to_end_at: float = -math.inf
    last_line: str = ""


@dataclass(frozen=True, slots=True)
class _Heard:
    """What was told of a job just now. `end`: how it has ended. `line`: what its log is to tell."""

    job: Followed
    end: End | None
    line: str

    @property
    def start(self) -> Start:
        return Start(self.job.id, self.job.attempt, "")


class Follower:
    """Follows the jobs of these tasks, while it runs. `revoke`: has a fleet end tasks, by their ids in Celery.

    `limit`: of what a task returned, in bytes.
    """

    def __init__(
        self,
        store: Store,
        liveness: Liveness,
        app: Any,
        tasks: Callable[[], Collection[str]],
        revoke: Callable[[Sequence[str]], Awaitable[bool]],
        *,
        limit: int,
    ) -> None:
        self._store = store
        self._liveness = liveness
        self._reader = Reader(app)
        self._tasks = tasks
        self._revoke = revoke
        self._limit = limit
        self._watched: dict[tuple[str, int], _Watched] = {}
        self._more = asyncio.Event()
        self._stopped = asyncio.Event()
        self._floor = _FLOOR_SECONDS

    async def run(self) -> None:
        """Follow until `stop`. Whoever comes next goes on with what is not at its end."""
        self._reader.start()
        with self._liveness.serving(self._served):
            await self._follow()

    def _served(self) -> Served:
        """What keeps it from hearing of anything, for those who look. From any thread."""
        return Served({}, (), 0, 0, results_trouble=self._reader.trouble)

    async def _follow(self) -> None:
        failures = 0
        try:
            while not self._stopped.is_set():
                self._more.clear()
                try:
                    pause, failures = await self._look(), 0
                except ResultsUnreadable:  # the reader has told it
                    failures += 1
                    pause = pause_after(failures)
                except StoreError as error:
                    failures += 1
                    pause = pause_after(failures)
                    emit(logging.WARNING, "follower.store_unavailable", reason=str(error), retry_in=pause)
                except Exception as error:  # noqa: BLE001 - a mistake of ours must not end it
                    pause = LONGEST_SECONDS
                    emit(logging.ERROR, "follower.broken", error)
                await self._pause(pause)
        finally:
            self._reader.stop()
            self._liveness.holdings.forget(self._watched)  # the next heartbeat hands them back

    def stop(self) -> None:
        """Follow nothing more. Lawful twice, and before `run`. On its loop."""
        self._stopped.set()
        self._reader.stop()
        self._more.set()

    def hear(self) -> None:
        """More has been handed over. On its loop."""
        self._more.set()

    async def _pause(self, seconds: float) -> None:
        """Not shorter than asking has to be apart, also when more is handed over meanwhile."""
        await _wait(self._stopped, self._floor)
        if not self._stopped.is_set():
            await _wait(self._more, seconds - self._floor)

    async def _look(self) -> float:
        """Look at all that are followed; seconds until that is to be done again."""
        tasks = self._tasks()
        if not tasks:
            return LONGEST_SECONDS
        process = await self._liveness.start()
        began = time.monotonic()
        watched: dict[tuple[str, int], _Watched] = {}
        after = ""
        while True:
            page = await self._store.followed(tasks, after, AT_ONCE)
            mine = [job for job in page if job.process in {None, process}]
            watched |= {key: self._watched.get(key) or _Watched() for key in map(_key, mine)}
            self._watched |= watched
            await self._look_at(mine, process)
            if len(page) < AT_ONCE or self._stopped.is_set():
                break
            after = page[-1].id
        self._watched = watched
        return self._seconds_to_look(began)

    def _seconds_to_look(self, began: float) -> float:
        now = time.monotonic()
        soonest = min((one.next_look for one in self._watched.values()), default=now + LONGEST_SECONDS)
        self._floor = min(SHORTEST_SECONDS, max(_FLOOR_SECONDS, (now - began) / _SHARE))
        return max(self._floor, min(LONGEST_SECONDS, max(SHORTEST_SECONDS, soonest - now)))

    async def _look_at(self, jobs: Sequence[Followed], process: str) -> None:
        now = time.monotonic()
        for job in jobs:
            if job.process is not None:  # in its name, whatever else of this process has let go of that attempt since
                self._liveness.holdings.have(*_key(job))
        asked = [job for job in jobs if job.is_asked]
        due = [job for job in jobs if job.is_asked or self._watched[_key(job)].next_look <= now]
        await self._have_ended([job for job in asked if self._is_to_be_told(job, now)], now)
        if not due:
            return
        metas = await self._reader.read([task_id_of(*_key(job)) for job in due])
        heard: list[_Heard] = []
        for job, meta in zip(due, metas, strict=True):
            self._watched[_key(job)].next_look = now + _pause_of(job)
            if meta is not None and is_begun(meta):
                heard.append(self._heard(job, meta))
        await self._store_heard([one for one in heard if one.end or one.line or one.job.process is None], process)

    def _is_to_be_told(self, job: Followed, now: float) -> bool:
        pause = ASK_AGAIN_SECONDS if job.process is None else ASK_RUNNING_AGAIN_SECONDS
        return now - self._watched[_key(job)].asked_to_end_at >= pause

    async def _have_ended(self, jobs: Sequence[Followed], now: float) -> None:
        if jobs and await self._revoke([task_id_of(*_key(job)) for job in jobs]):
            for job in jobs:
                self._watched[_key(job)].asked_to_end_at = now

    def _heard(self, job: Followed, meta: Meta) -> _Heard:
        """What it means; a line that was the last one already is not said again."""
        end = end_of(meta, job.task, self._limit)
        line = (end.line or "") if end is not None else _line(meta, job.task)
        watched = self._watched[_key(job)]
        is_new = line != watched.last_line
        watched.last_line = line
        return _Heard(job, end, line if is_new else "")

    # the store

    async def _store_heard(self, heard: Sequence[_Heard], process: str) -> None:
        """Begin what was told to run, have the log of each tell what it is to, and end what has ended."""
        if not heard:
            return
        holdings = self._liveness.holdings
        expected = [key for key in (_key(one.job) for one in heard) if not holdings.has(*key)]
        for key in expected:
            holdings.expect(*key)
        held: list[tuple[_Heard, Lease]] = []
        try:
            leases = await self._store.begin(process, [one.start for one in heard])
            crash_point("after_follower_begin")
            held = [(one, lease) for one, lease in zip(heard, leases, strict=True) if lease is not None]
            for _, lease in held:
                holdings.have(lease.id, lease.attempt)
        finally:
            had = {(lease.id, lease.attempt) for _, lease in held}
            holdings.forget(key for key in expected if key not in had)
        reports = dict(await reports_of(self._store, [(lease, one.line) for one, lease in held if one.line]))
        await self._report([(lease, reports[lease]) for one, lease in held if one.end is None and lease in reports])
        await self._finish(
            [(lease, _with(one.end.outcome, reports.get(lease))) for one, lease in held if one.end is not None]
        )

    async def _report(self, reports: Sequence[tuple[Lease, Report]]) -> None:
        if reports:
            await self._store.report(reports)

    async def _finish(self, ends: Sequence[tuple[Lease, Outcome]]) -> None:
        """Of one that could not be stored, it is told once more in the next look."""
        if not ends:
            return
        keys = [(lease.id, lease.attempt) for lease, _ in ends]
        self._liveness.holdings.leave(keys)
        answers = await self._store.finish(ends)
        crash_point("after_follower_finish")
        self._liveness.holdings.forget(keys)
        for (lease, outcome), accepted in zip(ends, answers, strict=True):
            _tell(lease, outcome, accepted)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        return


def _key(job: Followed) -> tuple[str, int]:
    return job.id, job.attempt


def _pause_of(job: Followed) -> float:
    """Less often the longer it takes; by the clocks of two machines, which may differ a little."""
    out = (datetime.now(UTC) - job.handed_at).total_seconds()
    return min(LONGEST_SECONDS, max(SHORTEST_SECONDS, _PART * out))


def _line(meta: Meta, task: str) -> str:
    """What the log is to tell of a job that has not ended."""
    if meta is UNREADABLE:
        return "what Celery's result back end keeps of it is no JSON, and is not read: its end will not be heard of"
    if meta.state == "RETRY":
        return f"Celery tries it again, after {summary(failure_of(meta, task))}"
    return ""


def _with(outcome: Outcome, report: Report | None) -> Outcome:
    if report is None:
        return outcome
    assert isinstance(outcome, Succeeded | Failed | Cancelled)  # noqa: S101 - Celery tells of no other ends
    return replace(outcome, report=report)


def _tell(lease: Lease, outcome: Outcome, accepted: bool) -> None:
    emit(
        logging.WARNING if isinstance(outcome, Failed) or not accepted else logging.INFO,
        "job.finished" if accepted else "job.refused",
        job_id=lease.id,
        task=lease.task,
        attempt=lease.attempt,
        outcome=type(outcome).__name__.lower(),
        failure=outcome.failure.kind if isinstance(outcome, Failed) else None,
    )
