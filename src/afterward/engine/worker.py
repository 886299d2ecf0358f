"""wait → claim → run → finish: the loop of one worker, in the application's process or in its own."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import os
import random
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from afterward.engine.endings import Endings
from afterward.engine.executor import Executor, Hear, failure_of
from afterward.engine.files import chunks_of
from afterward.engine.process import run_in_child
from afterward.engine.threads import Key, Threads
from afterward.errors import StoreError
from afterward.faults import crash_point
from afterward.hooks import with_follow_up
from afterward.identity import new_id
from afterward.job import Failed, Lease, NewJob, Outcome, Released, Retry, Succeeded
from afterward.liveness import SUSPECT_AFTER, Liveness
from afterward.observe import emit, is_enabled
from afterward.stores.base import Store, Wanted
from afterward.task import Task

UNFIT_SECONDS = 60.0
"""How long a worker passes over jobs whose arguments do not fit a function here, before it looks at them again."""

MOST_SUSPECTS = 100
"""How many jobs that are to run in processes of their own a worker holds at once; others are given back."""

_CANCEL_SECONDS = 1.0
"""How long a cancelled job may take to heed it."""

_IDENTITY_SECONDS = 0.1
"""How long a process that was taken for dead waits before it asks for its new identity again."""

_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.05, 2.0
"""Between two tries at a store that cannot answer; each may have taken as long as the store's own patience."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """`concurrency`: jobs at once on the event loop; `threads`: `def` jobs at once; `queues`: None serves all.

    `grace`: seconds that running jobs get to end at a shutdown before they are released.
    """

    concurrency: int = 100
    threads: int = 16
    queues: Collection[str] | None = None
    grace: float = 10.0


class Worker:
    """Runs the jobs of the tasks that this process knows, as many at once as it has slots."""

    def __init__(
        self,
        store: Store,
        liveness: Liveness,
        tasks: Mapping[str, Task[..., Any]],
        options: WorkerOptions,
        restore: Callable[[str], None],
    ) -> None:
        self._store = store
        self._liveness = liveness
        self._tasks = tasks
        self._options = options
        self._restore = restore
        self._free = {True: options.concurrency, False: options.threads}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_working = False
        self._context = contextvars.copy_context()
        self._running: dict[Key, tuple[asyncio.Task[None], Lease]] = {}
        self._abandoned: set[asyncio.Task[None]] = set()
        self._finishing: set[asyncio.Task[None]] = set()
        self._ended: list[tuple[Lease, Outcome]] = []
        self._durations: list[float] = []
        self._lost: set[Key] = set()
        self._unfit: dict[str, float] = {}
        self._apart = asyncio.Semaphore(os.cpu_count() or 1)
        self._suspects = 0
        self._draining = False
        self._stopped = asyncio.Event()
        self._slot_freed = asyncio.Event()
        self._backlog = True
        self._unasked: set[bool] = set()
        self._called = False
        self._direct = 0

    async def run(self) -> None:
        """Serve until `stop`; returns when nothing runs any more. What could not end in its grace is released."""
        async with self._working(), asyncio.TaskGroup() as group:
            claiming = group.create_task(self._claim_until_draining())
            await self._stopped.wait()
            await claiming
            await self._let_end()

    @asynccontextmanager
    async def _working(self, hear: Hear | None = None) -> AsyncGenerator[None]:
        """Ready to start attempts. In the end, what still runs is released, and each outcome written."""
        self._loop = asyncio.get_running_loop()
        self._threads = Threads()
        endings = Endings.of(self._store, self._liveness)
        self._executor = Executor(self._threads, self._restore, chunks_of(self._store.get_chunk), hear, endings)
        self._is_working = True
        with self._liveness.telling_lost(self._hear_of_lost):
            try:
                yield
            finally:
                self._is_working = False
                await self._cancel_running()
                while self._ended or self._finishing:  # also when this is cancelled: an outcome is never dropped
                    await asyncio.wait(self._finishing) if self._finishing else await asyncio.sleep(0)
                self._threads.stop()

    def drain(self) -> None:
        """Claim nothing more. May be called from a signal handler or another thread, any number of times."""
        self._draining = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)  # never directly: the interrupted code may hold the bell's lock

    def _wake(self) -> None:
        self._slot_freed.set()
        self._store.ring()

    def stop(self) -> None:
        """Claim nothing more, and let `run` come to its end. Lawful twice, and before `run`."""
        self.drain()
        self._stopped.set()

    # the fast path (afterward.intake.Direct)

    def reserve(self, job: NewJob) -> bool:
        if (
            self._backlog
            or self._draining
            or not self._is_working
            or job.delay is not None
            or job.run_at is not None
            or job.unique is not None  # until its request is over, another may still take its place
            or job.expires is not None  # which may be before its request is over
            or (task := self._tasks.get(job.task)) is None
            or self._free[task.is_async] <= 0
            or task.is_async in self._unasked
            or (self._options.queues is not None and job.queue not in self._options.queues)
            or asyncio.get_running_loop() is not self._loop
        ):
            return False
        self._free[task.is_async] -= 1
        self._direct += 1
        return True

    def give_up(self, task: str) -> None:
        self._free_slot(self._tasks[task].is_async)

    def start(self, lease: Lease) -> None:
        if not self._is_working or self._loop is None or not self._liveness.is_recent:
            # Not to be begun: this process is ending, or has slept so long that the job may be another's by now. If it
            # is still this process's own, the next heartbeat or the end gives it back.
            self._liveness.holdings.forget([(lease.id, lease.attempt)])
            self.give_up(lease.task)
            return
        if self._draining:
            self.give_up(lease.task)
            self._end(lease, Released("released by a shutdown"), time.monotonic())
            return
        running = self._run(self._tasks[lease.task], lease)
        # Not in the group: that would wait for a function that does not heed its cancellation.
        attempt = self._loop.create_task(running, context=self._context.copy())
        self._running[lease.id, lease.attempt] = attempt, lease

    # claiming

    async def _claim_until_draining(self) -> None:
        failures = 0
        while not self._draining:
            limits = self._limits()
            if not any(limits.values()):
                self._backlog = True  # whoever waits in the store comes before new jobs of this process
                self._slot_freed.clear()
                await self._slot_freed.wait()
                continue
            try:
                pause = await self._claim(limits)
                failures = 0
            except StoreError as error:
                failures += 1
                pause = _pause(failures)
                emit(logging.WARNING, "worker.store_unavailable", reason=str(error), retry_in=pause)
                await asyncio.sleep(pause)
                continue
            if pause > 0:
                await self._store.wait(pause)

    def _limits(self) -> dict[bool, int]:
        """How many jobs to claim, for the loop and for threads; half of what is free where direct starts want some.

        None of a kind that no task here is of: a claim for that alone would find nothing, time and again. Where no task
        is declared yet, of both: what is not wanted now would be waited for without end.
        """
        share = 2 if self._direct else 1
        self._direct = 0
        kinds = {task.is_async for task in self._tasks.values()} or {True, False}
        return {kind: -(-free // share) if kind in kinds else 0 for kind, free in self._free.items()}

    async def _claim(self, limits: dict[bool, int]) -> float:
        """Claim into slots set apart for it, start what was got; seconds to wait before the next claim."""
        process = self._liveness.process
        if process is None:  # not yet started, or taken for dead and about to take a new identity
            await self._liveness.start()
            return _IDENTITY_SECONDS
        for kind, limit in limits.items():
            self._free[kind] -= limit
        self._unasked = {kind for kind, limit in limits.items() if not limit}
        self._called = False
        token = new_id()
        holdings = self._liveness.holdings
        holdings.expect_claim(token)
        try:
            unfit = {mark for mark, since in self._unfit.items() if time.monotonic() - since < UNFIT_SECONDS}
            wanted = [
                Wanted({n for n, t in self._tasks.items() if t.is_async is kind}, limit, self._options.queues, unfit)
                for kind, limit in limits.items()
                if limit
            ]
            claimed = await self._store.claim(process, wanted, token)
            crash_point("after_claim")
            for lease in claimed.leases:
                kind = self._tasks[lease.task].is_async
                limits[kind] -= 1
                holdings.have(lease.id, lease.attempt)
                self.start(lease)
        finally:
            holdings.forget_claim(token)
            for kind, limit in limits.items():
                self._free[kind] += limit
        self._backlog = claimed.more
        if claimed.more:
            self._store.ring()  # another process may have room for the rest
            return 0.0
        longest = self._store.reconcile_seconds
        return longest if claimed.next_due is None else min(longest, claimed.next_due + 0.001)

    # running

    async def _run(self, task: Task[..., Any], lease: Lease) -> None:
        began = time.monotonic()
        key = lease.id, lease.attempt
        if is_enabled(logging.INFO):
            emit(logging.INFO, "job.started", job_id=lease.id, task=lease.task, attempt=lease.attempt)
        crash_point("running")
        outcome: Outcome | None = None
        is_suspect = lease.deaths >= SUSPECT_AFTER
        if is_suspect:  # it takes no slot here, so that nobody waits behind those that wait for a process of their own
            self._free_slot(task.is_async)
        try:
            if is_suspect:
                outcome = await self._run_apart(task, lease)
            else:
                outcome = await self._executor.run(task, lease)
        except asyncio.CancelledError:
            outcome = None if key in self._lost else Released("released by a shutdown")
        except Exception as error:  # noqa: BLE001 - a mistake of ours, not of the job: it must end neither job nor worker
            emit(logging.ERROR, "worker.attempt_broken", error, job_id=lease.id, task=lease.task, attempt=lease.attempt)
            outcome = Released(
                f"it could not be run here: {failure_of(error).message}", min(60.0, 2.0 ** min(lease.attempt, 6))
            )
        finally:
            del self._running[key]
            self._lost.discard(key)
            if is_suspect:
                pass
            elif task.is_async or not self._threads.when_returned(key, self._free_thread_slot):
                self._free_slot(task.is_async)
        if self._abandoned and asyncio.current_task() in self._abandoned:
            return
        if outcome is None:
            emit(logging.WARNING, "job.lost", job_id=lease.id, task=lease.task, attempt=lease.attempt)
        else:
            self._end(lease, outcome, began)

    async def _run_apart(self, task: Task[..., Any], lease: Lease) -> Outcome:
        """A suspect's attempt, in a child process: one at a time for each processor, while the others wait."""
        if self._suspects >= MOST_SUSPECTS:
            pause = random.uniform(5, 10)  # noqa: S311 - so that they do not come back all at once
            return Released("waits for a process of its own, as many others do", pause)
        self._suspects += 1
        try:
            async with self._apart:
                return await run_in_child(task, lease, chunks_of(self._store.get_chunk), self._let_end_itself)
        finally:
            self._suspects -= 1

    def _let_end_itself(self, lease: Lease) -> None:
        """Its child process is about to end it: when it holds its job no more, it is not lost."""
        self._liveness.holdings.leave([(lease.id, lease.attempt)])

    # finishing

    def _end(self, lease: Lease, outcome: Outcome, began: float) -> None:
        """An attempt has ended: it is written with all others that end in the same turn of the loop."""
        if isinstance(outcome, Released) and outcome.unfit_for:
            self._pass_over(outcome.unfit_for)
        elif (task := self._tasks[lease.task]).has_hooks:
            outcome = with_follow_up(task, lease, outcome)
        self._ended.append((lease, outcome))
        self._durations.append(time.monotonic() - began)
        if len(self._ended) == 1:
            asyncio.get_running_loop().call_soon(self._finish_ended)

    def _pass_over(self, unfit_for: str) -> None:
        """Leave jobs with this mark to others, for a while: a process started later may have other code."""
        since = self._unfit.get(unfit_for, -math.inf)
        if time.monotonic() - since >= UNFIT_SECONDS:
            self._unfit[unfit_for] = time.monotonic()

    def _finish_ended(self) -> None:
        ended, self._ended = self._ended, []
        durations, self._durations = self._durations, []
        self._liveness.holdings.leave((lease.id, lease.attempt) for lease, _ in ended)
        self._spawn_finish(ended, durations)

    def _spawn_finish(self, ended: Sequence[tuple[Lease, Outcome]], durations: Sequence[float]) -> None:
        """Not in the group: one that is cancelled starts nothing more."""
        finishing = asyncio.get_running_loop().create_task(self._finish(ended, durations))
        self._finishing.add(finishing)
        finishing.add_done_callback(self._finishing.discard)

    async def _finish(self, ended: Sequence[tuple[Lease, Outcome]], durations: Sequence[float]) -> None:
        """Write how attempts ended, until the store has taken it or this process ends: an outcome is never dropped."""
        crash_point("before_finish")
        answers: list[bool] | None = None
        failures = 0
        while answers is None:
            try:
                answers = await self._store.finish(ended)
            except StoreError as error:
                if self._stopped.is_set():  # the next heartbeat gives the jobs back, or the end of this process does
                    self._liveness.holdings.forget((lease.id, lease.attempt) for lease, _ in ended)
                    return
                failures += 1
                pause = _pause(failures)
                emit(logging.WARNING, "worker.store_unavailable", reason=str(error), retry_in=pause)
                await asyncio.sleep(pause)
                if len(ended) > 1:  # one that cannot be written must not hold up the others
                    for one, duration in zip(ended, durations, strict=True):
                        self._spawn_finish([one], [duration])
                    return
        crash_point("after_finish")
        self._liveness.holdings.forget((lease.id, lease.attempt) for lease, _ in ended)
        is_told = is_enabled(logging.INFO)
        for (lease, outcome), duration, accepted in zip(ended, durations, answers, strict=True):
            if is_told or not accepted or not isinstance(outcome, Succeeded):
                _tell(lease, outcome, accepted, duration)

    def _free_slot(self, kind: bool) -> None:
        self._free[kind] += 1
        if kind in self._unasked and not self._called:
            self._called = True
            self._store.ring()  # nobody knows yet what waits for this kind of slot
        if not self._slot_freed.is_set():
            self._slot_freed.set()

    def _free_thread_slot(self) -> None:
        self._free_slot(False)

    # ending

    async def _let_end(self) -> None:
        if self._running:
            await asyncio.wait([attempt for attempt, _ in self._running.values()], timeout=self._options.grace)

    async def _cancel_running(self) -> None:
        """Release what runs; what does not heed its cancellation is released all the same, and left behind."""
        running = [attempt for attempt, _ in self._running.values()]
        for attempt in running:
            asyncio.get_running_loop().call_soon(attempt.cancel)  # not before its first step: it would never know
        if running:
            await asyncio.wait(running, timeout=_CANCEL_SECONDS)
        for attempt, lease in self._running.values():
            self._abandoned.add(attempt)
            self._end(lease, Released("released by a shutdown"), time.monotonic())

    def _hear_of_lost(self, attempts: Mapping[str, int]) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._drop, attempts)

    def _drop(self, attempts: Mapping[str, int]) -> None:
        """Another worker has these jobs by now: stop what can be stopped; whatever else it says is refused."""
        for key in attempts.items():
            running = self._running.get(key)
            if running is not None:
                self._lost.add(key)
                asyncio.get_running_loop().call_soon(running[0].cancel)  # as above


def _pause(failures: int) -> float:
    return random.uniform(0.5, 1) * min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(failures, 20))  # noqa: S311


def _tell(lease: Lease, outcome: Outcome, accepted: bool, duration: float) -> None:
    level = logging.WARNING if isinstance(outcome, Failed | Retry) or not accepted else logging.INFO
    if is_enabled(level):
        emit(
            level,
            "job.finished" if accepted else "job.refused",
            job_id=lease.id,
            task=lease.task,
            attempt=lease.attempt,
            outcome=type(outcome).__name__.lower(),
            duration=duration,
            failure=outcome.failure.kind if isinstance(outcome, Failed | Retry) else None,
            retry_in=outcome.delay if isinstance(outcome, Retry) else None,
        )
