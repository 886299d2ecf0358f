"""How attempts have ended, on its way to the store: those that end in the same turn of the loop, together."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from afterward.engine.gathering import later
from afterward.engine.patience import pause_after
from afterward.errors import StoreError
from afterward.faults import crash_point
from afterward.hooks import with_follow_up
from afterward.job import Failed, Lease, Outcome, Released, Retry, Succeeded
from afterward.liveness import Liveness
from afterward.observe import emit, is_enabled
from afterward.stores.base import Store
from afterward.task import Task

UNFIT_SECONDS = 60.0
"""How long a worker passes over jobs whose arguments do not fit a function here, before it looks at them again."""


class Finisher:
    """Writes outcomes until the store has taken them; `is_stopped`: or until the process is about to end."""

    def __init__(
        self,
        store: Store,
        liveness: Liveness,
        tasks: Mapping[str, Task[..., Any]],
        is_stopped: Callable[[], bool],
    ) -> None:
        self._store = store
        self._liveness = liveness
        self._tasks = tasks
        self._is_stopped = is_stopped
        self._ended: list[tuple[Lease, Outcome]] = []
        self._durations: list[float] = []
        self._writing: set[asyncio.Task[None]] = set()
        self._unfit: dict[str, float] = {}
        self._due: asyncio.Handle | None = None

    def end(self, lease: Lease, outcome: Outcome, began: float) -> None:
        """An attempt has ended that began then."""
        if isinstance(outcome, Released) and outcome.unfit_for:
            self._pass_over(outcome.unfit_for)
        elif (task := self._tasks.get(lease.task)) is not None and task.has_hooks:
            outcome = with_follow_up(task, lease, outcome)
        self._ended.append((lease, outcome))
        self._durations.append(time.monotonic() - began)
        if self._due is None:
            self._due = self._schedule(self._write_ended)

    def write(self) -> None:
        """Begin to write what has ended."""
        if self._due is not None:
            self._due.cancel()
            self._write_ended()

    def _schedule(self, write: Callable[[], None]) -> asyncio.Handle:
        return asyncio.get_running_loop().call_soon(write)

    def unfit(self) -> set[str]:
        """The marks of jobs that are to be left to others for now."""
        return {mark for mark, since in self._unfit.items() if time.monotonic() - since < UNFIT_SECONDS}

    async def written(self, *, raises: bool = False) -> None:
        """Return when nothing is on its way any more. `raises`: what a test has had raised as one was written."""
        while self._ended or self._writing:
            self.write()
            for writing in [*self._writing]:
                await asyncio.wait({writing})
                if raises:
                    writing.result()
            await asyncio.sleep(0)

    def drop(self) -> None:
        """As the dead do."""
        self._ended.clear()
        self._durations.clear()
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _pass_over(self, unfit_for: str) -> None:
        """Leave jobs with this mark to others, for a while: a process started later may have other code."""
        since = self._unfit.get(unfit_for, -math.inf)
        if time.monotonic() - since >= UNFIT_SECONDS:
            self._unfit[unfit_for] = time.monotonic()

    def _write_ended(self) -> None:
        self._due = None
        ended, self._ended = self._ended, []
        durations, self._durations = self._durations, []
        self._liveness.holdings.leave([(lease.id, lease.attempt) for lease, _ in ended])
        self._spawn(ended, durations)

    def _spawn(self, ended: Sequence[tuple[Lease, Outcome]], durations: Sequence[float]) -> None:
        """Not in a group: one that is cancelled starts nothing more."""
        writing = asyncio.get_running_loop().create_task(self._write(ended, durations))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)

    async def _write(self, ended: Sequence[tuple[Lease, Outcome]], durations: Sequence[float]) -> None:
        crash_point("before_finish")
        answers: list[bool] | None = None
        failures = 0
        while answers is None:
            asked = time.monotonic()
            try:
                answers = await self._store.finish(ended)
            except StoreError as error:
                if self._is_stopped():  # the next heartbeat gives the jobs back, or the end of this process does
                    self._forget(ended)
                    return
                failures += 1
                pause = pause_after(failures)
                emit(logging.WARNING, "worker.store_unavailable", reason=str(error), retry_in=pause)
                await asyncio.sleep(pause)
                ended = [(lease, later(outcome, time.monotonic() - asked)) for lease, outcome in ended]
                if len(ended) > 1:  # one that cannot be written must not hold up the others
                    for one, duration in zip(ended, durations, strict=True):
                        self._spawn([one], [duration])
                    return
        crash_point("after_finish")
        self._forget(ended)
        _tell_all(ended, durations, answers)

    def _forget(self, ended: Sequence[tuple[Lease, Outcome]]) -> None:
        self._liveness.holdings.forget([(lease.id, lease.attempt) for lease, _ in ended])


def _tell_all(ended: Sequence[tuple[Lease, Outcome]], durations: Sequence[float], answers: Sequence[bool]) -> None:
    is_told = is_enabled(logging.INFO)
    for (lease, outcome), duration, accepted in zip(ended, durations, answers, strict=True):
        if is_told or not accepted or not isinstance(outcome, Succeeded):
            _tell(lease, outcome, accepted, duration)


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
