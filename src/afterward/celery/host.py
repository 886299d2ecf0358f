"""A Celery worker's process, as far as it runs our functions: one thread with an event loop, which outlives each run.

It is there from the first message on, and never before the pool has forked: neither a thread nor a connection would be
whole in a child. What it does for an attempt is what every worker does; only where attempts come from is another.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import signal
import threading
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from celery.exceptions import SoftTimeLimitExceeded
from starlette.applications import Starlette

from afterward.apps import Apps
from afterward.celery.kept import Kept
from afterward.engine.given import GivenWorker
from afterward.engine.patience import pause_after
from afterward.errors import AfterwardError, StoreUnavailable
from afterward.job import Job, Lease, Ruling, Status
from afterward.life import Life
from afterward.lifespans import begin
from afterward.loops import loop_factory
from afterward.observe import emit
from afterward.stores.handing import Start
from afterward.task import Task

PATIENCE_SECONDS = 30.0
"""How long a message waits in its place of the pool for a store that does not answer, before it is put back."""

_LEAVE_SECONDS = 10.0
"""What a process that ends gives its lifespans to end in, and itself to leave the store."""


class Hosted(Protocol):
    """An `Afterward`, as the process of a Celery worker sees it."""

    life: Life
    apps: Apps
    tasks: dict[str, Task[..., Any]]

    async def get(self, job: str, /) -> Job | None: ...

    async def cancel(self, job: str, /) -> Ruling: ...

    def hosting(self) -> AbstractAsyncContextManager[GivenWorker]:
        """Live, while the block lasts, and run what its worker is given."""
        ...


class Host:
    """Runs the attempts that messages begin, in this process: once it is started, for any thread that calls `run`.

    `slots`: how many at once there are at most. `is_alone`: there is one at most, and this process may be ended with
    it.
    """

    def __init__(self, *, slots: int, is_alone: bool) -> None:
        self.pid = os.getpid()
        self._slots = slots
        self._is_alone = is_alone
        self._loop = (loop_factory() or asyncio.new_event_loop)()
        self._stopping = asyncio.Event()
        self._lifespans = Kept(_lifespan)
        self._workers = Kept(self._hosting)
        self._here: set[tuple[str, int]] = set()
        self._thread = threading.Thread(target=self._serve, name="afterward-host", daemon=True)

    def start(self) -> None:
        """Be ready for messages."""
        self._thread.start()

    async def prepare(self, hosted: Hosted) -> None:
        """On its loop: be ready for its messages. Where that fails, it is tried again for each that comes."""
        try:
            await self._workers.get(hosted)
        except AfterwardError as error:
            emit(logging.WARNING, "host.not_ready", reason=str(error))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine on its loop, and wait for nothing. From any thread."""
        asyncio.run_coroutine_threadsafe(work, self._loop)

    def stop(self) -> None:
        """Leave the stores: what still runs is released. Lawful twice; it does not wait for ever."""
        with contextlib.suppress(RuntimeError):  # it has stopped before
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_LEAVE_SECONDS)

    def run(self, hosted: Hosted, start: Start) -> bool:
        """Begin the attempt and run it to its end, unless it is begun already, or is not to be any more.

        Returns when its outcome is on its way to the store, which knows of the attempt: the message is of no use any
        more. False: the store could not be asked, and the message is to come again.
        """
        running = asyncio.run_coroutine_threadsafe(self._run(hosted, start), self._loop)
        while True:
            try:
                return running.result()
            except SoftTimeLimitExceeded:  # of an app that has one for all tasks: a job has a time limit of its own
                continue
            except concurrent.futures.CancelledError:  # this process ends, and has released it
                return True

    # on its loop

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        await self._stopping.wait()
        await self._workers.leave()
        await self._lifespans.leave()

    @asynccontextmanager
    async def _hosting(self, hosted: Hosted) -> AsyncGenerator[GivenWorker]:
        """What runs attempts of one store, within the lifespans of its applications."""
        for app in hosted.apps:
            await self._lifespans.get(app)
        async with hosted.hosting() as worker:
            worker.slots = self._slots
            worker.end = _end_process if self._is_alone else None
            yield worker

    async def _run(self, hosted: Hosted, start: Start) -> bool:
        key = start.id, start.attempt
        if key in self._here:
            _tell_dropped(start, "it runs in this process")
            return True
        holdings = hosted.life.liveness.holdings
        self._here.add(key)
        holdings.expect(*key)
        lease: Lease | None = None
        try:
            worker, lease = await self._begun_in_time(hosted, start)
            if lease is not None:
                await worker.attempt(lease)
        except _NotAsked:
            return False
        finally:
            if lease is None:  # else its worker forgets it
                holdings.forget([key])
            self._here.discard(key)
        return True

    async def _begun_in_time(self, hosted: Hosted, start: Start) -> tuple[GivenWorker, Lease | None]:
        """The lease, or None where there is none to be had. Raises `_NotAsked` when nobody can say."""
        until = self._loop.time() + PATIENCE_SECONDS
        failures = 0
        while True:
            try:
                worker = await self._workers.get(hosted)
                worker.write_ended()
                return worker, await _begin(hosted.life, start)
            except AfterwardError as error:
                failures += 1
                pause = pause_after(failures)
                if self._stopping.is_set() or self._loop.time() + pause > until:
                    _tell_not_begun(start, error, None)
                    raise _NotAsked from error
                _tell_not_begun(start, error, pause)
                await asyncio.sleep(pause)


class _NotAsked(Exception):
    """The store could not be asked in time."""


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncGenerator[None]:
    async with AsyncExitStack() as lifespans:
        await begin(app, lifespans)
        yield


async def _begin(life: Life, start: Start) -> Lease | None:
    """queued and handed over → running here; None for an attempt that is not to be begun any more."""
    process = await life.liveness.start()
    [lease] = await life.store.begin(process, [start])
    if lease is not None:
        life.liveness.holdings.have(lease.id, lease.attempt)
        return lease
    [job] = await life.store.get([start.id])
    if job is not None and _could_begin(job, start):
        await life.liveness.another_identity(process)
        raise StoreUnavailable("this process was taken for dead by another; it has a new identity now")
    _tell_dropped(start, _where(job, start))
    return None


def _could_begin(job: Job, start: Start) -> bool:
    """Would a process that is known to the store have got it?"""
    is_there = job.status is Status.queued and job.handed_at is not None
    is_on_its_way = job.status is Status.running and job.process == start.sender
    is_in_time = job.expires_at is None or job.expires_at > datetime.now(UTC)
    return job.attempt == start.attempt and is_in_time and (is_there or is_on_its_way)


def _where(job: Job | None, start: Start) -> str:
    if job is None:
        return "its job is not in the store"
    if job.attempt != start.attempt:
        return f"its job is at attempt {job.attempt}"
    return f"its job is {job.status} already"


def _end_process(lease: Lease) -> None:
    emit(
        logging.WARNING,
        "job.killed",
        job_id=lease.id,
        task=lease.task,
        attempt=lease.attempt,
        reason="it was asked to end and did not heed it, so the process that ran it ends itself",
    )
    os.kill(os.getpid(), signal.SIGKILL)


def _tell_dropped(start: Start, reason: str) -> None:
    emit(logging.INFO, "job.message_dropped", job_id=start.id, attempt=start.attempt, reason=reason)


def _tell_not_begun(start: Start, error: AfterwardError, pause: float | None) -> None:
    level = logging.WARNING if isinstance(error, StoreUnavailable) else logging.ERROR
    emit(level, "job.not_begun", job_id=start.id, attempt=start.attempt, reason=str(error), retry_in=pause)
