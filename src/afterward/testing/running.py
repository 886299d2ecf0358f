"""Where the jobs of a test run: one after the other, by the engine's own worker, when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any, TypeVar

from anyio import CancelScope

from afterward.app import Afterward
from afterward.context import VOICE
from afterward.engine.stepper import Stepper
from afterward.engine.worker import WorkerOptions
from afterward.faults import Crash
from afterward.job import Job, Lease
from afterward.life import Life
from afterward.liveness import SUSPECT_AFTER, SUSPECT_DELAY_SECONDS
from afterward.testing.failures import AttemptFailed, Failures
from afterward.testing.lives import Lives
from afterward.testing.turns import Turns

T = TypeVar("T")


class Runner:
    """Runs what is due, and notes what fails."""

    def __init__(self, tasks: Afterward, lives: Lives, failures: Failures) -> None:
        self._tasks = tasks
        self._lives = lives
        self._failures = failures
        self._turns = Turns()
        self._context = copy_context()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._losing: str | None = None

    def come_here(self) -> None:
        """Jobs see the context variables of the calling code from now on."""
        self._context = copy_context()

    @contextmanager
    def staying_here(self) -> Generator[None]:
        """`come_here`, while the block lasts."""
        before = self._context
        self.come_here()
        try:
            yield
        finally:
            self._context = before

    def remember_loop(self) -> None:
        """Code without an event loop has its jobs run on the one that runs here, while that does."""
        self._loop = asyncio.get_running_loop()

    def run_sync(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop that is remembered, or on a new one, and wait for it."""
        loop = self._loop
        if loop is not None and loop.is_running():
            return asyncio.run_coroutine_threadsafe(work, loop).result()
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            return runner.run(work)

    async def settle(self) -> None:
        """Run what is due, if anything can be; who is answered by now never hears of a crash."""
        if not self._lives.new or not self._lives.is_going_on:
            return
        with CancelScope(shield=True), suppress(Crash):  # a websocket that is closed by its client is cancelled
            await self.run_due()

    async def run_due(self) -> list[Job]:
        """Run one job after the other until none is due; each as its attempt left it."""
        async with self._turns.one():
            life = self._lives.living()
            worker = self._context.copy().run(self._tasks.make_worker, Stepper, WorkerOptions())
            ran: list[Job] = []
            async with worker.working(self._failures.hear):
                while (lease := await worker.claim()) is not None:
                    ran.append(await self._attempt(life, worker, lease))
            return ran

    @contextmanager
    def losing(self, what: str) -> Generator[None]:
        """Within the block, the next attempt of this job or task (its id, its name) loses its lease as it begins."""
        self._losing = what
        try:
            yield
            if self._losing == what:
                raise AssertionError(f"no lease was lost: nothing of {what} was run")
        finally:
            self._losing = None

    async def _attempt(self, life: Life, worker: Stepper, lease: Lease) -> Job:
        loses = self._losing in (lease.task, lease.id)
        if loses:
            self._losing = None
            await life.store.reap([(lease.process, None)], SUSPECT_AFTER, SUSPECT_DELAY_SECONDS)
        try:
            await worker.attempt(lease)
        finally:
            error = self._failures.take_heard(lease)
        if loses:
            await life.liveness.beat()  # which finds out, and takes a new identity
        job = (await life.store.get([lease.id]))[0]
        if job is None:
            raise AttemptFailed(f"job {lease.id} of task {lease.task} is gone from the store")
        self._failures.note(lease, job, error)
        return job


def is_in_a_job() -> bool:
    """Does the calling code run in a job?"""
    return VOICE.get(None) is not None


def has_loop() -> bool:
    """Does an event loop run here?"""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
