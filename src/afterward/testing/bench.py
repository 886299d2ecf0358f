"""`Bench`: where the durable tasks of an application are tested, in the process of the test."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, NoReturn, Self

from afterward.app import Afterward
from afterward.errors import ConfigurationError
from afterward.faults import Crash, armed
from afterward.handle import JobHandle
from afterward.job import Job
from afterward.task import Task
from afterward.testing.assertions import Assertions
from afterward.testing.clock import Clock
from afterward.testing.conducting import Conducting, NoAnswer
from afterward.testing.failures import Failures
from afterward.testing.lives import Lives
from afterward.testing.mortal import POINTS, Point
from afterward.testing.running import Runner, has_loop, is_in_a_job


class Bench(Assertions):
    """While the block lasts, `tasks` live in a fresh store of the test's own, and their jobs run when the test wants.

    - By default they run by themselves: when a request is over, every job that is due runs, one after the other, and so
      does what those enqueue; only then the client's call returns. `enqueue` outside of a request does the same.
    - `manual`: nothing runs until `drain`.
    - `raise_failures`: what a job raises, at its first attempt or at a later one, the call that had it run raises; but
      not a `Retry`, which a task raises on purpose. Where there are several exceptions, or the call itself ends in one,
      it is an `ExceptionGroup` of all. What no call can raise, for a crash ends it, is raised at the end of the block.
    - `now`: what the clock of the store shows (see `clock`).

    The store is a real one, in a temporary folder, and jobs are stored, claimed, run and finished by the same code as
    in production. No worker runs beside it, also not while the lifespan of the application lasts. Benches may follow
    each other, and stand within each other: the innermost counts.
    """

    def __init__(
        self,
        tasks: Afterward,
        *,
        manual: bool = False,
        now: datetime | None = None,
        raise_failures: bool = True,
    ) -> None:
        self._clock = Clock(now)
        super().__init__(tasks, Lives(tasks, self._clock))
        self._failures = Failures(are_raised=raise_failures)
        self._runner = Runner(tasks, self._lives, self._failures)
        self._conducting = Conducting(tasks, self._lives, self._runner, self._failures, manual=manual)

    @property
    def clock(self) -> Clock:
        """The store's clock: it stands still until it is moved. Delays and retries wait for it."""
        return self._clock

    # its block

    def __enter__(self) -> Self:
        self._runner.come_here()
        self._lives.begin(self._conducting)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._lives.end()
        if error is None:
            self._failures.raise_untold()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def clear(self) -> None:
        """Begin anew with an empty store, as if nothing had ever been enqueued or failed. The clock stays."""
        self._lives.clear()
        self._failures.clear()

    # running

    async def drain(self) -> list[Job]:
        """Run what is due, one job after the other, until nothing is.

        Returns each job as its attempt left it; one that was tried twice is there twice. Raises what the jobs raised,
        if `raise_failures`: an `ExceptionGroup`, if there were several.
        """
        if is_in_a_job():
            raise ConfigurationError("drain was called within a job; what a job enqueues runs after it")
        try:
            with self._failures.told():
                return await self._runner.run_due()
        finally:
            self._lives.start_again_if_dead()

    def drain_sync(self) -> list[Job]:
        """`drain`, for code without an event loop: on that of the application's lifespan, if that lasts."""
        if has_loop():
            raise ConfigurationError("drain_sync was called where an event loop runs; use `await bench.drain()` there")
        return self._runner.run_sync(self.drain())

    # faults

    def crash(self, *_: Any, **__: Any) -> NoReturn:
        """The process dies here and now, as by `kill -9`: nothing that it does from now on reaches the store.

        It takes any arguments, so that it can stand in for whatever is to be the last thing that a task or an endpoint
        calls. When all that it was about is unwound, the process starts again, as for `crash_after`.
        """
        self._lives.crash()
        raise Crash("this process is dead")

    @contextmanager
    def crash_after(self, point: Point, *, nth: int = 1) -> Generator[None]:
        """Within the block, the process dies when it comes to `point` for the `nth` time; after it, it starts again.

        Of a request: "added", "inserted", "stored" (the client gets no answer: its call raises `NoAnswer`, which ends
        the block), "answered". Of a job's attempt: "claimed", "started", "ended" (its function has returned, and nobody
        knows yet), "finished". Fails when the point was not come to.
        """
        passes = 0

        def count() -> None:
            nonlocal passes
            passes += 1
            if passes == nth:
                self.crash()

        with armed(POINTS[point], count):
            try:
                yield
            except (Crash, NoAnswer):
                if passes < nth:
                    raise
        if passes < nth:
            raise AssertionError(f"nothing crashed: {point!r} was come to {passes} times, and {nth} were asked for")
        self._lives.start_again_if_dead()

    @contextmanager
    def lose_lease(self, of: Task[..., Any] | JobHandle[Any] | Job | str) -> Generator[None]:
        """Within the block, the next attempt of this job, or of any job of this task, loses its lease as it begins.

        Other processes have taken this one for dead, as they do when it stands still for too long: the function runs to
        its end, and what it comes to is refused, for the job is queued again. Fails when nothing was run.
        """
        with self._runner.losing(of if isinstance(of, str) else of.name if isinstance(of, Task) else of.id):
            yield

    def restart(self) -> None:
        """The process is killed, if it still lives, and starts again: what it held is queued again."""
        self._lives.restart()
