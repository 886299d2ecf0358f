"""Several worker processes, kept alive by one that does nothing else.

Each worker is a fresh interpreter whose standard input is a pipe from here. When this process dies, however it dies,
the pipe ends, and the worker with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence

from afterward.cli import logs
from afterward.cli.control import HURRY, MARGIN_SECONDS, STOP
from afterward.cli.signals import Signals
from afterward.cli.wishes import Wishes
from afterward.observe import emit

HEALTHY_SECONDS = 10.0
"""A process that lived this long had no trouble starting: it is started again at once."""

_FIRST_BACKOFF = 0.25
_LONGEST_BACKOFF = 30.0
_KILL_AFTER_SECONDS = 5.0
_CANNOT_WORK = 2


def supervise(target: str, processes: int, options: Sequence[str], grace: float) -> int:
    """Keep so many workers of `target` running until this process is told to end; the exit code."""
    logs.configure()
    command = [sys.executable, "-m", "afterward", "worker", target, "--processes", "1", "--supervised", *options]
    return asyncio.run(Supervisor(command, grace).run(processes))


class Supervisor:
    """Starts workers, starts again what dies, and passes on the wish to end."""

    def __init__(self, command: Sequence[str], grace: float) -> None:
        self._command = command
        self._grace = grace
        self._stopping = asyncio.Event()
        self._wishes = Wishes()
        self._is_asked = False
        self._hurried = False
        self._children: set[Process] = set()
        self._code = 0

    async def run(self, processes: int) -> int:
        """Until all workers have ended, because they were told to or because none of them can work."""
        loop = asyncio.get_running_loop()
        signals = Signals((signal.SIGTERM, signal.SIGINT), lambda: loop.call_soon_threadsafe(self._heed_signal))
        signals.listen()
        with signals.within_loop():
            async with asyncio.TaskGroup() as group:
                for _ in range(processes):
                    group.create_task(self._keep_one())
        signals.ignore()  # all is done: nothing is left to be hurried
        return self._code

    async def _keep_one(self) -> None:
        clock = asyncio.get_running_loop().time
        quick_ends = 0
        first = True
        while not self._stopping.is_set():
            began = clock()
            pid, code = await self._run_one()
            if self._stopping.is_set():
                self._code = self._code or int(code != 0)
                return
            if first and code == _CANNOT_WORK:
                self._code = _CANNOT_WORK  # it has said why; another start would say it again
                self._stop()
                return
            first = False
            quick_ends = 0 if clock() - began >= HEALTHY_SECONDS else quick_ends + 1
            pause = _backoff(quick_ends)
            emit(logging.WARNING, "worker.process_ended", pid=pid, code=code, restart_in=pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _run_one(self) -> tuple[int | None, int]:
        try:
            child = await asyncio.create_subprocess_exec(*self._command, stdin=PIPE)
        except OSError as error:  # no memory, no process left: as a process that ended at once
            emit(logging.ERROR, "worker.process_not_started", reason=str(error))
            return None, 1
        self._children.add(child)
        emit(logging.INFO, "worker.process_started", pid=child.pid)
        if self._stopping.is_set():
            self._order(child)
        try:
            return child.pid, await child.wait()
        finally:
            self._children.discard(child)

    def _heed_signal(self) -> None:
        if not self._wishes.is_another():
            return
        if self._is_asked:
            self._hurried = True
            emit(logging.INFO, "supervisor.hurrying")
        else:
            self._is_asked = True
            emit(logging.INFO, "supervisor.stopping", grace=self._grace)
        self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        for child in self._children:
            self._order(child)

    def _order(self, child: Process) -> None:
        if child.stdin is not None:
            child.stdin.write(HURRY if self._hurried else STOP)
        patience = 0.0 if self._hurried else self._grace + MARGIN_SECONDS
        # A worker ends by itself; one that is frozen does not.
        asyncio.get_running_loop().call_later(patience + _KILL_AFTER_SECONDS, self._kill, child)

    def _kill(self, child: Process) -> None:
        if child in self._children:
            child.kill()


def _backoff(quick_ends: int) -> float:
    if quick_ends == 0:
        return 0.0
    return random.uniform(0.5, 1) * min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(quick_ends - 1, 30))  # noqa: S311
