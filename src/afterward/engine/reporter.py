"""What the attempts of one worker say, on its way to the store: gathered, and written together.

One report is under way at a time; what is said meanwhile gathers, and goes with the next.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from afterward.engine.patience import pause_after
from afterward.engine.voice import AttemptVoice
from afterward.errors import StoreError
from afterward.faults import Crash
from afterward.job import Lease, Report
from afterward.observe import emit
from afterward.stores.seen import Answer

FLOOR_SECONDS = 0.05
"""From the start of one report to that of the next, at least."""

_ENOUGH, _ENOUGH_BYTES = 5_000, 4 * 1024 * 1024
"""So many events, or bytes of them, are enough for one report; what other attempts have said waits for the next."""

_AFTER_A_BREAK_SECONDS = 1.0


class Reports(Protocol):
    """What a reporter needs of a store."""

    def report(self, reports: Sequence[tuple[Lease, Report]]) -> Answer[list[bool]]:
        """As `Store.report`."""
        ...


class Reporter:
    """Reports what is said, as long as it is `reporting`. `log_level`: of the lines that are wanted; None: of none."""

    def __init__(self, store: Reports, log_level: int | None, floor: float = FLOOR_SECONDS) -> None:
        self._store = store
        self._floor = floor
        self.log_level = log_level
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.pid = os.getpid()
        self.room = threading.Condition()
        """Held by whoever changes what is gathered; those wait for it in threads whose voice has no room."""
        self._due: dict[AttemptVoice, None] = {}
        self._said = asyncio.Event()
        self._answered = asyncio.Event()

    def voice(self, lease: Lease) -> AttemptVoice:
        """A voice for one attempt."""
        return AttemptVoice(self, lease)

    @asynccontextmanager
    async def reporting(self) -> AsyncGenerator[None]:
        """Report while the block lasts. What is said by then and not reported is for the ends of the attempts."""
        running = asyncio.create_task(self._run(), name="afterward-reporter")
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait({running})

    def hear(self, voice: AttemptVoice) -> None:
        """It has said something. To be called with `room` held, from any thread."""
        if not self._due:
            self._wake()
        self._due[voice] = None

    def forget(self, voice: AttemptVoice) -> None:
        """Nothing more is to be reported of it. To be called with `room` held."""
        self._due.pop(voice, None)

    async def next_answer(self) -> None:
        """Return when the store has answered to a report, or failed to."""
        await self._answered.wait()

    def _wake(self) -> None:
        if threading.get_ident() == self.thread:
            self._said.set()
            return
        with suppress(RuntimeError):  # the loop is closed: the process is ending, and its leases with it
            self.loop.call_soon_threadsafe(self._said.set)

    async def _run(self) -> None:
        failures, began = 0, -math.inf
        while True:
            await self._said.wait()
            await asyncio.sleep(began + self._floor - time.monotonic())
            began = time.monotonic()
            try:
                await self._report()
                failures = 0
            except Crash:  # a store that a test has crashed answers nothing more
                return
            except StoreError as error:
                failures += 1
                pause = pause_after(failures)
                emit(logging.WARNING, "worker.store_unavailable", reason=str(error), retry_in=pause)
                await asyncio.sleep(pause)
            except Exception as error:  # noqa: BLE001 - a mistake of ours must not leave all attempts unheard
                emit(logging.ERROR, "worker.report_broken", error)
                await asyncio.sleep(_AFTER_A_BREAK_SECONDS)

    async def _report(self) -> None:
        reports = self._take()
        if not reports:
            return
        try:
            answers = await self._store.report([(voice.lease, report) for voice, report in reports])
        except BaseException:
            with self.room:
                for voice, _ in reports:
                    voice.speak_again()
            raise
        finally:
            self._answered.set()
            self._answered.clear()
        for (voice, report), is_accepted in zip(reports, answers, strict=True):
            if is_accepted:
                voice.hear_stored(report)
            else:
                voice.silence()

    def _take(self) -> list[tuple[AttemptVoice, Report]]:
        """What has waited longest, and enough of it."""
        reports: list[tuple[AttemptVoice, Report]] = []
        events = size = 0
        with self.room:
            while self._due and events < _ENOUGH and size < _ENOUGH_BYTES:
                voice = next(iter(self._due))
                del self._due[voice]
                report = voice.report()
                reports.append((voice, report))
                events += len(report.events)
                size += sum(len(event.data) for event in report.events)
            if not self._due:
                self._said.clear()
        return reports
