"""The voice of an attempt in a child process: it tells the parent, which has one of the attempt's own."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable
from typing import BinaryIO

from afterward.context import RunningJob
from afterward.engine.orders import ASKED, SETTLED, SETTLES, UNSETTLED
from afterward.engine.voice import refuse_forked
from afterward.errors import StoreUnavailable
from afterward.job import EventKind


class ChildVoice:
    """Tells the parent what the attempt says; held back while that has no room for more."""

    def __init__(self, answers: BinaryIO, job: RunningJob, log_level: int | None) -> None:
        self.job = job
        self._answers = answers
        self._log_level = log_level
        self._mutex = threading.RLock()
        self._settled = threading.Event()
        self._unsettled = ""
        self._stop: Callable[[], object] | None = None
        self._is_over = False
        self._pid = os.getpid()
        self.is_asked = False

    @property
    def is_to_end(self) -> bool:
        return self.is_asked or self._is_over

    def takes_line(self, level: int) -> bool:
        return self._log_level is not None and level >= self._log_level

    def say(self, kind: EventKind, data: str) -> None:
        if os.getpid() != self._pid:
            refuse_forked(kind)
            return
        self.tell(json.dumps([kind, data]).encode())

    async def give(self, kind: EventKind, data: str) -> None:
        self.say(kind, data)
        await asyncio.sleep(0)

    async def settle(self) -> None:
        await asyncio.to_thread(self.settle_sync)

    def settle_sync(self) -> None:
        self.tell(SETTLES)
        self._settled.wait()
        if not self._is_over:
            self._settled.clear()
        if self._unsettled:
            raise StoreUnavailable(self._unsettled)

    def tell(self, line: bytes) -> None:
        """One line, for the parent; nothing when the attempt is over, for the parent may hear another by then."""
        with self._mutex:
            if not self._is_over:
                self._answers.write(line + b"\n")
                self._answers.flush()

    def close(self, line: bytes) -> None:
        """The last line. A thread that was left behind is not heard any more, and waits for nothing."""
        with self._mutex:
            self.tell(line)
            self._is_over = True
            self._stop = None
        self._settled.set()

    def hear(self, line: bytes) -> None:
        """One line of the parent's; not in the loop."""
        if line == SETTLED or line.startswith(UNSETTLED):
            self._unsettled = line.removeprefix(SETTLED).removeprefix(UNSETTLED).decode()
            self._settled.set()
        elif line == ASKED:
            with self._mutex:
                self.is_asked = True
                stop = self._stop
            if stop is not None:
                stop()

    def stop_by(self, stop: Callable[[], object]) -> None:
        """When it is asked to end, this is called; from any thread."""
        with self._mutex:
            self._stop = stop
        if self.is_asked:
            stop()
