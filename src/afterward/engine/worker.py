"""wait → claim → run → finish: the loop of one worker, in the application's process or in its own."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from afterward.engine.elsewhere import Elsewhere
from afterward.engine.endings import Endings
from afterward.engine.executor import CANCELLED, Hear, failure_of
from afterward.engine.executor import Executor as AttemptRunner
from afterward.engine.files import chunks_of
from afterward.engine.finishing import Finisher
from afterward.engine.lines import captured
from afterward.engine.patience import pause_after
from afterward.engine.pool import JOBS_PER_CHILD, Pool, processors
from afterward.engine.reporter import Reporter
from afterward.engine.slots import Slots
from afterward.engine.suspects import Suspects, is_suspect
from afterward.engine.threads import Key, Threads
from afterward.engine.voice import AttemptVoice
from afterward.errors import StoreError
from afterward.executors import Executor
from afterward.faults import crash_point
from afterward.identity import new_id
from afterward.job import Lease, NewJob, Outcome, Released
from afterward.liveness import Liveness
from afterward.observe import emit, is_enabled
from afterward.stores.base import Store, Wanted
from afterward.stores.seen import Served
from afterward.task import Task

PASSED_ON = 500
"""How many jobs are on their way to another system at once."""

_CANCEL_SECONDS = 1.0
"""How long a cancelled job may take to heed it."""

_IDENTITY_SECONDS = 0.1
"""How long a process that was taken for dead waits before it asks for its new identity again."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """`concurrency`: jobs at once on the event loop; `threads`: `def` jobs at once; `queues`: None serves all.

    `grace`: seconds that running jobs get to end at a shutdown before they are released.
    `children`: jobs at once in child processes; None for one for each processor. `jobs_per_child`: so many are run by
    one child, before another takes its place. `passed_on`: jobs at once on their way to another system.
    """

    concurrency: int = 100
    threads: int = 16
    queues: Collection[str] | None = None
    grace: float = 10.0
    children: int | None = None
    jobs_per_child: int = JOBS_PER_CHILD
    passed_on: int = PASSED_ON

    @property
    def sizes(self) -> dict[Executor, int]:
        """How many jobs at once, of each executor."""
        children = processors() if self.children is None else self.children
        return {"loop": self.concurrency, "thread": self.threads, "process": children, "celery": self.passed_on}


class Worker:
    """Runs the jobs of the tasks that this process knows, as many at once as it has slots."""

    def __init__(
        self,
        store: Store,
        liveness: Liveness,
        tasks: Mapping[str, Task[..., Any]],
        options: WorkerOptions,
        restore: Callable[[str], None],
        *,
        log_level: int | None = logging.INFO,
        version: str = "",
    ) -> None:
        self.elsewhere: Elsewhere | None = None
        """What passes on the jobs that are not run here; set before it runs."""
        self._store = store
        self._liveness = liveness
        self._tasks = tasks
        self._options = options
        self._restore = restore
        self._log_level = log_level
        self._version = version
        self._slots = Slots(options.sizes, store.ring)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_working = False
        self._context = contextvars.copy_context()
        self._running: dict[Key, tuple[asyncio.Task[None], AttemptVoice]] = {}
        self._abandoned: set[asyncio.Task[None]] = set()
        self._lost: set[Key] = set()
        self._draining = False
        self._stopped = asyncio.Event()
        self._finisher = Finisher(store, liveness, tasks, self._stopped.is_set)
        self._backlog = True
        self._paused: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Serve until `stop`; returns when nothing runs any more. What could not end in its grace is released."""
        async with self._working(), asyncio.TaskGroup() as group:
            claiming = group.create_task(self._claim_until_draining())
            await self._stopped.wait()
            self._pool.close()
            await claiming
            await self._let_end()

    @asynccontextmanager
    async def _working(self, hear: Hear | None = None) -> AsyncGenerator[None]:
        """Ready to start attempts. In the end, what still runs is released, and each outcome written."""
        self._loop = asyncio.get_running_loop()
        self._threads = Threads()
        chunks, endings = chunks_of(self._store.get_chunk), Endings.of(self._store, self._liveness)
        self._executor = AttemptRunner(self._threads, self._restore, chunks, hear, endings)
        self._pool = Pool(chunks, self._let_end_itself, self._options.jobs_per_child)
        self._suspects = Suspects(self._pool)
        self._reporter = Reporter(self._store, self._log_level)
        self._is_working = True
        async with self._reporter.reporting():
            with (
                self._liveness.telling_lost(self._hear_of_lost),
                self._liveness.telling_asked(self._hear_of_asked),
                self._liveness.serving(self._served),
                captured(),
            ):
                try:
                    yield
                finally:
                    self._is_working = False
                    await self._cancel_running()
                    await self._finisher.written()  # also when this is cancelled: an outcome is never dropped
                    self._threads.stop()
                    await self._pool.closed()

    def _served(self) -> Served:
        """What it runs jobs of, for those who look. From any thread."""
        queues = self._options.queues
        tasks = [(name, task) for name, task in list(self._tasks.items()) if task.executor != "celery"]
        apart = [name for name, task in tasks if task.executor == "process"]
        return Served(
            tasks={name: task.arguments.fingerprint for name, task in tasks},
            queues=None if queues is None else sorted(queues),
            concurrency=self._options.concurrency,
            threads=self._options.threads,
            version=self._version,
            threaded=[name for name, task in tasks if task.executor == "thread"],
            children=self._options.sizes["process"] if apart else 0,
            apart=apart,
        )

    def drain(self) -> None:
        """Claim nothing more. May be called from a signal handler or another thread, any number of times."""
        self._draining = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)  # never directly: the interrupted code may hold the bell's lock

    def look_again(self) -> None:
        """What is wanted has changed: claim, if anything is free. On its loop."""
        if self._is_working:
            self._wake()

    def _wake(self) -> None:
        self._slots.wake()
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
            or task.executor == "celery"
            or (self._options.queues is not None and job.queue not in self._options.queues)
            or job.queue in self._paused
            or asyncio.get_running_loop() is not self._loop
        ):
            return False
        return self._slots.take_direct(task.executor)

    def give_up(self, task: str) -> None:
        self._slots.free(self._tasks[task].executor)

    def start(self, lease: Lease) -> None:
        if not self._is_working or self._loop is None or not self._liveness.is_recent:
            # Not to be begun: this process is ending, or has slept so long that the job may be another's by now. If it
            # is still this process's own, the next heartbeat or the end gives it back.
            self._liveness.holdings.forget([(lease.id, lease.attempt)])
            self.give_up(lease.task)
            return
        if self._draining:
            self.give_up(lease.task)
            self._finisher.end(lease, Released("released by a shutdown"), time.monotonic())
            return
        if (lease.id, lease.attempt) in self._running:
            self._have_again(lease)
            return
        task, voice = self._tasks[lease.task], self._reporter.voice(lease)
        # Not in the group: that would wait for a function that does not heed its cancellation.
        attempt = self._loop.create_task(self._run(task, lease, voice), context=self._context.copy())
        if not task.is_threaded or is_suspect(task, lease):  # else a thread, which is left to ask
            voice.stop = attempt.cancel
        self._running[lease.id, lease.attempt] = attempt, voice

    def _have_again(self, lease: Lease) -> None:
        """An attempt that runs here is given once more: its store has lost its last moments, and with them a claim.

        It goes on, and is counted. One that is being stopped, or is of an identity that is lost, does not: then the
        next heartbeat gives the job back.
        """
        key = lease.id, lease.attempt
        _, voice = self._running[key]
        if key in self._lost or voice.lease.process != lease.process:
            self._liveness.holdings.forget([key])
        self.give_up(lease.task)

    # claiming

    async def _claim_until_draining(self) -> None:
        failures = 0
        while not self._draining:
            limits = self._slots.share(self._kinds())
            if not any(limits.values()):
                self._backlog = True  # whoever waits in the store comes before new jobs of this process
                await self._slots.until_freed()
                continue
            try:
                pause = await self._claim(limits)
                failures = 0
            except StoreError as error:
                failures += 1
                pause = pause_after(failures)
                emit(logging.WARNING, "worker.store_unavailable", reason=str(error), retry_in=pause)
                await asyncio.sleep(pause)
                continue
            if pause > 0:
                await self._store.wait(pause)

    async def _claim(self, limits: dict[Executor, int]) -> float:
        """Claim into slots set apart for it, start what was got; seconds to wait before the next claim."""
        process = self._liveness.process
        if process is None:  # not yet started, or taken for dead and about to take a new identity
            await self._liveness.start()
            return _IDENTITY_SECONDS
        self._slots.set_apart(limits)
        token = new_id()
        holdings = self._liveness.holdings
        holdings.expect_claim(token)
        try:
            elsewhere = self._wanted_elsewhere(limits["celery"])
            claimed = await self._store.claim(process, [*self._wanted_here(limits), *elsewhere], token)
            crash_point("after_claim")
            for lease in claimed.leases:
                holdings.have(lease.id, lease.attempt)
                self._begin(lease, limits, is_elsewhere=any(lease.task in wanted.tasks for wanted in elsewhere))
        finally:
            holdings.forget_claim(token)
            self._slots.put_back(limits)
        self._backlog, self._paused = claimed.more, claimed.paused
        if claimed.more:
            self._store.ring()  # another process may have room for the rest
            return 0.0
        longest = self._store.reconcile_seconds
        return longest if claimed.next_due is None else min(longest, claimed.next_due + 0.001)

    def _kinds(self) -> set[Executor]:
        """Of which kinds there are jobs to be claimed."""
        kinds: set[Executor] = {task.executor for task in self._tasks.values()}
        kinds.discard("celery")
        if self.elsewhere is not None and self.elsewhere.wants():
            kinds.add("celery")
        return kinds

    def _wanted_here(self, limits: Mapping[Executor, int]) -> list[Wanted]:
        unfit = self._finisher.unfit()
        return [
            Wanted({n for n, t in self._tasks.items() if t.executor == kind}, limit, self._options.queues, unfit)
            for kind, limit in limits.items()
            if limit and kind != "celery"
        ]

    def _wanted_elsewhere(self, limit: int) -> list[Wanted]:
        if self.elsewhere is None or not limit or not (tasks := self.elsewhere.wants()):
            return []
        half = max(1, self._options.passed_on // 2)  # so that some are claimed while others are passed on
        return [Wanted(frozenset(tasks), min(limit, half), self._options.queues, self.elsewhere.unfit())]

    def _begin(self, lease: Lease, limits: dict[Executor, int], *, is_elsewhere: bool) -> None:
        """Start what was claimed, or have it passed on, in one of the slots that were set apart."""
        if is_elsewhere and self.elsewhere is not None:
            limits["celery"] -= 1
            self.elsewhere.take(lease, lambda: self._slots.free("celery"))
        else:
            limits[self._tasks[lease.task].executor] -= 1
            self.start(lease)

    # running

    async def _run(self, task: Task[..., Any], lease: Lease, voice: AttemptVoice) -> None:
        began = time.monotonic()
        if is_enabled(logging.INFO):
            emit(logging.INFO, "job.started", job_id=lease.id, task=lease.task, attempt=lease.attempt)
        crash_point("running")
        outcome: Outcome | None = None
        has_slot = not is_suspect(task, lease)
        if not has_slot:  # so that nobody waits behind those that wait for a process of their own
            self._slots.free(task.executor)
        try:
            outcome = await self._outcome(task, lease, voice)
        finally:
            key = lease.id, lease.attempt
            del self._running[key]
            self._lost.discard(key)
            if has_slot and not (task.is_threaded and self._threads.when_returned(key, self._freeing(task))):
                self._slots.free(task.executor)
        if self._abandoned and asyncio.current_task() in self._abandoned:
            return
        report = voice.close()
        if outcome is None:
            emit(logging.WARNING, "job.lost", job_id=lease.id, task=lease.task, attempt=lease.attempt)
        else:
            self._finisher.end(lease, outcome if report is None else replace(outcome, report=report), began)

    async def _outcome(self, task: Task[..., Any], lease: Lease, voice: AttemptVoice) -> Outcome | None:
        """How the attempt ended; None when it is lost."""
        try:
            if task.executor == "process" or is_suspect(task, lease):
                return await self._run_apart(task, lease, voice)
            return await self._executor.run(task, lease, voice)
        except asyncio.CancelledError:
            if (lease.id, lease.attempt) in self._lost:
                return None
            return CANCELLED if voice.is_asked else Released("released by a shutdown")
        except Exception as error:  # noqa: BLE001 - a mistake of ours, not of the job: it must end neither job nor worker
            emit(logging.ERROR, "worker.attempt_broken", error, job_id=lease.id, task=lease.task, attempt=lease.attempt)
            return Released(
                f"it could not be run here: {failure_of(error).message}", min(60.0, 2.0 ** min(lease.attempt, 6))
            )

    async def _run_apart(self, task: Task[..., Any], lease: Lease, voice: AttemptVoice) -> Outcome:
        """An attempt, in a child process."""
        return await (self._suspects if is_suspect(task, lease) else self._pool).run(task, lease, voice)

    def _let_end_itself(self, lease: Lease) -> None:
        """Its child process is about to end it: when it holds its job no more, it is not lost."""
        self._liveness.holdings.leave([(lease.id, lease.attempt)])

    def _freeing(self, task: Task[..., Any]) -> Callable[[], None]:
        return lambda: self._slots.free(task.executor)

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
        for attempt, voice in self._running.values():
            self._abandoned.add(attempt)
            self._finisher.end(voice.lease, Released("released by a shutdown", report=voice.close()), time.monotonic())

    def _hear_of_lost(self, attempts: Mapping[str, int]) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._drop, attempts)

    def _drop(self, attempts: Mapping[str, int]) -> None:
        """Another worker has these jobs by now: stop what can be stopped; whatever else it says is refused."""
        for key in attempts.items():
            if key in self._running:
                attempt, voice = self._running[key]
                self._lost.add(key)
                voice.silence()
                asyncio.get_running_loop().call_soon(attempt.cancel)  # as above

    def _hear_of_asked(self, attempts: Mapping[str, int]) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._ask, attempts)

    def _ask(self, attempts: Mapping[str, int]) -> None:
        """Somebody wants these to end: their functions are told, and how they end is their outcome."""
        for key in attempts.items():
            if key in self._running:
                self._running[key][1].ask()
