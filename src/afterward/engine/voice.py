"""The voice of one attempt: what its function says, in whatever thread, and what it is told."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from afterward.context import RunningJob
from afterward.engine.gathering import Gathered, Said
from afterward.errors import ConfigurationError, NoCurrentJob, StoreUnavailable
from afterward.job import EventKind, Lease, Report
from afterward.observe import emit

if TYPE_CHECKING:
    from afterward.engine.reporter import Reporter

MAX_LINES = 1_000
"""So many lines of its log are kept of one attempt."""

CLEAN_UP_SECONDS = 10.0
"""What an attempt that is asked to end gets for its clean-up, before it is asked again."""

_SETTLE_SECONDS = 5.0
"""How long an attempt that ends itself waits until what it has said is stored."""


class AttemptVoice:
    """Gathers what its attempt says until the store has it. `is_asked`: a person has asked the job to end.

    `stop`: called in the loop when it is asked, and again each time that it has not ended `CLEAN_UP_SECONDS` later.
    """

    # Of the class until something is said: most attempts say nothing, and cost nothing for that.
    is_asked = False
    stop: Callable[[], object] | None = None
    _asked_at = 0.0
    _gathered: Gathered | None = None
    _is_over = False
    _is_settled = False
    _lines = 0
    _dropped = 0

    def __init__(self, reporter: Reporter, lease: Lease) -> None:
        self.lease = lease
        self._reporter = reporter

    # what its function calls

    @property
    def job(self) -> RunningJob:
        lease = self.lease
        return RunningJob(lease.id, lease.task, lease.attempt)

    @property
    def log_level(self) -> int | None:
        return self._reporter.log_level

    @property
    def is_to_end(self) -> bool:
        return self.is_asked or self._is_over

    def takes_line(self, level: int) -> bool:
        wanted = self.log_level
        return wanted is not None and level >= wanted and not self._is_over and self._lines <= MAX_LINES

    def say(self, kind: EventKind, data: str) -> None:
        reporter = self._reporter
        if os.getpid() != reporter.pid:
            refuse_forked(kind)
            return
        said = Said(kind, data, time.monotonic())
        with reporter.room:
            if kind is EventKind.item and threading.get_ident() != reporter.thread:
                reporter.room.wait_for(lambda: not self._is_to_wait or self.is_asked)
            self._take(said, is_kept=False)

    async def give(self, kind: EventKind, data: str) -> None:
        with self._reporter.room:
            self._take(Said(kind, data, time.monotonic()), is_kept=True)
        while self._is_to_wait:
            await self._reporter.next_answer()

    async def settle(self) -> None:
        try:
            async with asyncio.timeout(_SETTLE_SECONDS):
                await self._until_stored()
                if self._gathered:  # what it has said meanwhile, or how much of it was dropped
                    await self._until_stored()
        except TimeoutError:
            raise StoreUnavailable(
                f"finish(): what this job has said before could not be stored within {_SETTLE_SECONDS:g} s, and would "
                f"be lost with the end of the attempt; roll back, and let it be tried again"
            ) from None
        with self._reporter.room:
            self._is_settled = True
            self._reporter.forget(self)

    async def _until_stored(self) -> None:
        """Until the store has what was said up to now, and no more: another thread may go on without end."""
        with self._reporter.room:
            if self._gathered is None or not self._gathered:
                return
            last = self._gathered.number()
            self._is_settled = False  # of a transaction before, which has been rolled back
            self._reporter.hear(self)
        while self._waits_for(last):
            await self._reporter.next_answer()

    def _waits_for(self, number: int) -> bool:
        return self._gathered is not None and not self._gathered.has_stored(number)

    def settle_sync(self) -> None:
        if threading.get_ident() == self._reporter.thread:
            raise ConfigurationError(
                "finish_sync() blocks, and was called in the event loop, which has to store what the job said before; "
                "call `await finish(session)` there, or make the task a `def`"
            )
        with self._reporter.room:
            self._is_settled = not self._gathered
        if not self._is_settled:
            self._settle_in_loop()

    def _settle_in_loop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.settle(), self._reporter.loop).result()

    # what its worker calls, in the loop

    def ask(self) -> None:
        """A person has asked it to end: said again and again, as long as it runs."""
        now = time.monotonic()
        if self.is_asked and now - self._asked_at < CLEAN_UP_SECONDS:
            return
        if self.is_asked:
            emit(logging.WARNING, "job.heeds_no_cancel", job_id=self.lease.id, task=self.lease.task)
        with self._reporter.room:
            self.is_asked, self._asked_at = True, now
            self._reporter.room.notify_all()
        if self.stop is not None:
            self._reporter.loop.call_soon(self.stop)  # not before the first step of what it stops: it would never know

    def stop_by(self, stop: Callable[[], object]) -> None:
        """From here on, it is stopped like this; at once, if it was asked before."""
        self.stop = stop
        if self.is_asked:
            stop()

    def close(self) -> Report | None:
        """Its attempt has ended: what is to be stored with that. Whatever it says from here on is not heard."""
        if self._gathered is None:
            self._is_over, self.stop = True, None
            return None
        with self._reporter.room:
            dropped, gathered = self._note_dropped(), self._gathered
            self._end()
        self._tell_of_dropped(dropped)
        return gathered.report(time.monotonic()) if gathered else None

    def silence(self) -> None:
        """Its attempt is lost: nobody hears it any more."""
        with self._reporter.room:
            self._end()

    # what the reporter calls, in the loop

    def report(self) -> Report:
        """What it has said and the store may not have. `room` is held."""
        assert self._gathered is not None  # noqa: S101 - else it would not have been heard
        return self._gathered.report(time.monotonic())

    def hear_stored(self, report: Report) -> None:
        """The store has what that report said."""
        with self._reporter.room:
            if self._gathered is None:
                return
            self._gathered.have_stored(report)
            dropped = 0 if self._is_full else self._note_dropped()
            self._reporter.room.notify_all()
        self._tell_of_dropped(dropped)

    def speak_again(self) -> None:
        """What it has said may not have been stored. `room` is held."""
        if not self._is_over:
            self._reporter.hear(self)

    @property
    def _is_to_wait(self) -> bool:
        """Is there no room for what it says, and will there be?"""
        return self._is_full and not self._is_over and not self._is_settled

    @property
    def _is_full(self) -> bool:
        return self._gathered is not None and self._gathered.is_full

    def _take(self, said: Said, *, is_kept: bool) -> None:
        """With `room` held."""
        if self._is_over or (said.kind is EventKind.log and not self._counts_line()):
            return
        is_kept = is_kept and not self._is_settled  # nothing makes room then, until the attempt has ended
        if self._is_full and not is_kept and said.kind is not EventKind.progress:
            self._dropped += 1
            return
        self._add(said)

    def _add(self, said: Said) -> None:
        if self._gathered is None:
            self._gathered = Gathered()
        self._gathered.add(said)
        if not self._is_settled:
            self._reporter.hear(self)

    def _counts_line(self) -> bool:
        """Is it one of those that are kept? After the last of them, one says that there were more."""
        self._lines += 1
        if self._lines == MAX_LINES + 1:
            self._add(_notice(f"no more lines are stored of this attempt: {MAX_LINES:,} are kept"))
        return self._lines <= MAX_LINES

    def _note_dropped(self) -> int:
        """Say among the other events how many are missing here."""
        dropped, self._dropped = self._dropped, 0
        if dropped:
            self._add(_notice(f"{dropped:,} events were dropped here: the store did not keep up"))
        return dropped

    def _tell_of_dropped(self, count: int) -> None:
        if count:
            emit(
                logging.WARNING,
                "job.events_dropped",
                job_id=self.lease.id,
                task=self.lease.task,
                attempt=self.lease.attempt,
                count=count,
                reason="it said more than the store could keep up with",
            )

    def _end(self) -> None:
        self._is_over = True
        self._gathered = self.stop = None
        self._reporter.forget(self)
        self._reporter.room.notify_all()


def refuse_forked(kind: EventKind) -> None:
    """Something is said in a process that was forked from the one that runs the attempt."""
    if kind is not EventKind.log:
        raise NoCurrentJob("this process was forked from the job's, and cannot speak for it; speak in the job's own")


def _notice(message: str) -> Said:
    data = json.dumps({"level": "WARNING", "logger": "afterward", "message": message})
    return Said(EventKind.log, data, time.monotonic())
