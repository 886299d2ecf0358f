"""One job, here and now, before the eyes of a person who looks for a mistake."""

from __future__ import annotations

import asyncio
import bdb
import contextlib
import contextvars
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from afterward.engine.endings import Endings
from afterward.engine.executor import Executor
from afterward.engine.files import chunks_of
from afterward.engine.lines import captured
from afterward.engine.reporter import Reporter
from afterward.engine.threads import Threads
from afterward.errors import StoreUnavailable
from afterward.hooks import with_follow_up
from afterward.identity import new_id
from afterward.job import Job, Lease, Outcome, Released
from afterward.liveness import Liveness
from afterward.stores.base import Store, Wanted
from afterward.task import Task

_CANCEL_SECONDS = 1.0
"""How long a cancelled attempt may take to heed it."""

_PAUSE_SECONDS = 1.0
"""How long a store that could not take the outcome is left alone."""


class Foreground:
    """Claims one job by its name, runs one attempt of it as a worker does, and writes how it ended.

    The process lives in the store meanwhile: if it dies, its job is found as any other.
    """

    def __init__(
        self,
        store: Store,
        liveness: Liveness,
        tasks: Mapping[str, Task[..., Any]],
        restore: Callable[[str], None],
        *,
        log_level: int | None = logging.INFO,
    ) -> None:
        self._store = store
        self._liveness = liveness
        self._tasks = tasks
        self._restore = restore
        self._log_level = log_level
        self._interrupted = asyncio.Event()
        self._lost = asyncio.Event()
        self._given_up = asyncio.Event()
        self._has_ended = False
        self.error: BaseException | None = None
        """What the attempt has raised, if anything."""
        self.is_left_behind = False
        """Is something of the attempt still running, that did not heed its cancellation?"""
        self.is_running = False
        """Has the attempt begun, and has nothing ended it yet?"""

    async def claim(self, job: Job) -> Lease | None:
        """queued → running, due or not; None when it is not to be had (any more)."""
        process = await self._liveness.start()
        token, holdings = new_id(), self._liveness.holdings
        holdings.expect_claim(token)
        try:
            claimed = await self._store.claim(process, [Wanted({job.task}, 1, only=[job.id])], token)
            for lease in claimed.leases:
                holdings.have(lease.id, lease.attempt)
                return lease
        finally:
            holdings.forget_claim(token)
        return None

    async def run(self, lease: Lease) -> Outcome | None:
        """How the attempt ended; None when its job was lost meanwhile. One that is interrupted is released."""
        loop = asyncio.get_running_loop()

        def hear_of_lost(lost: dict[str, int]) -> None:
            if lost.get(lease.id) == lease.attempt:
                loop.call_soon_threadsafe(self._lost.set)

        def hear_of_asked(asked: Mapping[str, int]) -> None:
            if asked.get(lease.id) == lease.attempt:
                loop.call_soon_threadsafe(voice.ask)

        threads = Threads()
        endings = Endings.of(self._store, self._liveness)
        executor = Executor(threads, self._restore, chunks_of(self._store.get_chunk), self._hear, endings)
        reporter, task = Reporter(self._store, self._log_level), self._tasks[lease.task]
        voice = reporter.voice(lease)
        async with reporter.reporting():
            with self._liveness.telling_lost(hear_of_lost), self._liveness.telling_asked(hear_of_asked), captured():
                running = executor.run(task, lease, voice)
                attempt = loop.create_task(running, context=contextvars.copy_context())
                voice.stop = attempt.cancel if task.is_async else None
                await self._until_ended(attempt)
        threads.stop()
        report = voice.close()
        if self._lost.is_set():
            return None
        if not attempt.done() or attempt.cancelled() or isinstance(self.error, KeyboardInterrupt | bdb.BdbQuit):
            return Released("interrupted in the foreground", report=report)
        return replace(attempt.result(), report=report)

    async def _until_ended(self, attempt: asyncio.Task[Outcome]) -> None:
        """Or until somebody wants it to end, who does not wait long for it."""
        ends = [asyncio.ensure_future(event.wait()) for event in (self._interrupted, self._lost)]
        self.is_running = True
        try:
            await asyncio.wait({attempt, *ends}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.is_running, self._has_ended = False, True
        self.is_left_behind = any(end.done() for end in ends)
        for end in ends:
            end.cancel()
        if not attempt.done():
            attempt.cancel()
            await asyncio.wait({attempt}, timeout=_CANCEL_SECONDS)

    def interrupt(self) -> None:
        """Release the job instead of running it to its end; once it has ended, wait no longer for the store."""
        (self._given_up if self._has_ended else self._interrupted).set()

    async def finish(self, lease: Lease, outcome: Outcome, unavailable: Callable[[StoreUnavailable], None]) -> bool:
        """Write how the attempt ended; False when another has the job by now.

        As long as the store does not take it, `unavailable` is told, and it is tried again: an outcome is not dropped.
        Raises `StoreUnavailable` when it is interrupted meanwhile.
        """
        task = self._tasks[lease.task]
        if task.has_hooks and not isinstance(outcome, Released):
            outcome = with_follow_up(task, lease, outcome)
        self._liveness.holdings.leave([(lease.id, lease.attempt)])
        try:
            return await self._written(lease, outcome, unavailable)
        finally:
            self._liveness.holdings.forget([(lease.id, lease.attempt)])

    async def _written(self, lease: Lease, outcome: Outcome, unavailable: Callable[[StoreUnavailable], None]) -> bool:
        while True:
            try:
                [accepted] = await self._store.finish([(lease, outcome)])
            except StoreUnavailable as error:
                unavailable(error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._given_up.wait(), _PAUSE_SECONDS)
                if self._given_up.is_set():
                    raise
            else:
                return accepted

    def _hear(self, _lease: Lease, error: BaseException) -> None:
        self.error = error
