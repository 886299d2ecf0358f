"""`Bench`: where the durable tasks of an application are tested, in the process of the test."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import copy_context
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, ParamSpec, Self, TypeVar, overload

from anyio import CancelScope
from starlette.types import Message, Receive, Scope, Send

from afterward.app import Afterward
from afterward.context import RUNNING
from afterward.engine.stepper import Stepper
from afterward.engine.worker import WorkerOptions
from afterward.errors import AfterwardError, ConfigurationError, Retry
from afterward.faults import Crash, armed
from afterward.handle import JobHandle
from afterward.job import Job, Lease, NewJob, Status
from afterward.life import Life
from afterward.liveness import SUSPECT_AFTER, SUSPECT_DELAY_SECONDS
from afterward.request import is_in_a_request
from afterward.task import Task
from afterward.testing.clock import Clock
from afterward.testing.enqueued import Enqueued, Expected, listing
from afterward.testing.mortal import POINTS, MortalLife, MortalStore, Point
from afterward.testing.turns import Turns

P = ParamSpec("P")
T = TypeVar("T")

_ALL = 2**62


class AttemptFailed(AfterwardError):
    """A job did not succeed, and it was not an `Exception` that ended it; that is its cause, if there was one."""


class NoAnswer(AfterwardError, ConnectionError):
    """The process of the application crashed before the client had its answer."""


class Bench:
    """While the block lasts, `tasks` live in a fresh store of the test's own, and their jobs run when the test wants.

    - By default they run by themselves: when a request is over, every job that is due runs, one after the other, and so
      does what those enqueue; only then the client's call returns. `enqueue` outside of a request does the same.
    - `manual`: nothing runs until `drain`.
    - `raise_failures`: what a job raises, at its first attempt or at a later one, the call that had it run raises; but
      not a `Retry`, which a task raises on purpose.
    - `now`: what the clock of the store shows (see `clock`).

    The store is a real one, in a temporary folder, and jobs are stored, claimed, run and finished by the same code as
    in life. No worker runs beside it, also not while the lifespan of the application lasts. Benches may follow each
    other, and stand within each other: the innermost counts.
    """

    def __init__(
        self,
        tasks: Afterward,
        *,
        manual: bool = False,
        now: datetime | None = None,
        raise_failures: bool = True,
    ) -> None:
        self.clock = Clock(now)
        """The store's clock: it stands still until it is moved. Delays and retries wait for it."""
        self._tasks = tasks
        self._manual = manual
        self._raise_failures = raise_failures
        self._context = copy_context()
        self._turns = Turns()
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._new: dict[str, NewJob] = {}
        self._heard: dict[tuple[str, int], BaseException] = {}
        self._errors: list[Exception] = []
        self._losing: str | None = None
        self._stores = 0

    # its block

    def __enter__(self) -> Self:
        self._context = copy_context()
        self._folder = Path(tempfile.mkdtemp(prefix="afterward-", dir=_fast_folder()))
        self._before: Life = self._tasks.life
        self._begin(self._folder / "jobs.db")
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._tasks.life = self._before
        self._life.bury()
        shutil.rmtree(self._folder, ignore_errors=True)
        if error is None:
            self._raise_what_failed()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def _begin(self, path: Path) -> None:
        """Begin a life, without a past if there is nothing at `path`."""
        self._path = path
        self._life = MortalLife(MortalStore(path, clock=self.clock), self, self)
        self._tasks.life = self._life

    def _living(self) -> MortalLife:
        """The life that the tasks live now; a new one, if that has crashed."""
        if self._tasks.life is not self._life:
            raise ConfigurationError("this Bench is over, or another one for the same tasks has begun within it")
        self._start_again_if_dead()
        return self._life

    def _start_again_if_dead(self) -> None:
        with self._starting:
            if self._life.is_over and self._tasks.life is self._life:
                self.restart()

    # running

    async def drain(self) -> list[Job]:
        """Run what is due, one job after the other, until nothing is.

        Returns each job as its attempt left it; one that was tried twice is there twice. Raises what the jobs raised,
        if `raise_failures`: an `ExceptionGroup`, if there were several.
        """
        if _is_in_a_job():
            raise ConfigurationError("drain was called within a job; what a job enqueues runs after it")
        try:
            ran = await self._run_due()
        finally:
            self._start_again_if_dead()
        self._raise_what_failed()
        return ran

    def drain_sync(self) -> list[Job]:
        """`drain`, for code without an event loop: on that of the application's lifespan, if that lasts."""
        if _has_loop():
            raise ConfigurationError("drain_sync was called where an event loop runs; use `await bench.drain()` there")
        return self._run_sync(self.drain())

    def _run_sync(self, work: Coroutine[Any, Any, T]) -> T:
        loop = self._loop
        if loop is not None and loop.is_running():
            return asyncio.run_coroutine_threadsafe(work, loop).result()
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            return runner.run(work)

    async def _settle(self) -> None:
        """Run what is due by itself; what fails is told at the end of the call that had it run."""
        if not self._new or self._life.is_over or self._tasks.life is not self._life:
            return
        # Who is answered by now never hears of a crash. A websocket that is closed by its client is cancelled.
        with CancelScope(shield=True), suppress(Crash):
            await self._run_due()

    async def _run_due(self) -> list[Job]:
        async with self._turns.one():
            life = self._living()
            worker = self._context.copy().run(self._tasks.make_worker, Stepper, WorkerOptions())
            ran: list[Job] = []
            async with worker.working(self._hear):
                while (lease := await worker.claim()) is not None:
                    ran.append(await self._attempt(life, worker, lease))
            return ran

    async def _attempt(self, life: Life, worker: Stepper, lease: Lease) -> Job:
        loses = self._losing in (lease.task, lease.id)
        if loses:
            self._losing = None
            await life.store.reap([(lease.process, None)], SUSPECT_AFTER, SUSPECT_DELAY_SECONDS)
        try:
            await worker.attempt(lease)
        finally:
            error = self._heard.pop((lease.id, lease.attempt), None)
        if loses:
            await life.liveness.beat()  # which finds out, and takes a new identity
        job = (await life.store.get([lease.id]))[0]
        if job is None:
            raise AttemptFailed(f"job {lease.id} of task {lease.task} is gone from the store")
        self._note_failure(lease, job, error)
        return job

    # failures

    def _hear(self, lease: Lease, error: BaseException) -> None:
        self._heard[lease.id, lease.attempt] = error

    def _note_failure(self, lease: Lease, job: Job, error: BaseException | None) -> None:
        if not self._raise_failures or (isinstance(error, Retry) and job.status is Status.queued):
            return
        if isinstance(error, Exception):
            self._errors.append(error)
        elif error is not None:
            failed = AttemptFailed(f"a job of task {lease.task} ended by {type(error).__name__}: {error}")
            failed.__cause__ = error
            self._errors.append(failed)
        elif job.status is Status.queued and job.attempt == lease.attempt and job.note is not None:
            self._errors.append(AttemptFailed(f"a job of task {lease.task} could not be run: {job.note}"))

    def _raise_what_failed(self) -> None:
        errors, self._errors = self._errors, []
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise ExceptionGroup(f"{len(errors)} attempts failed", errors)

    # what was enqueued

    @property
    def jobs(self) -> list[Job]:
        """All jobs, as they are stored now, with their attempts; in the order they were enqueued."""
        return [enqueued.job for enqueued in self._enqueued()]

    @overload
    def enqueued(self, task: Task[..., Any], /) -> list[Job]: ...
    @overload
    def enqueued(self, task: Task[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> list[Job]: ...
    def enqueued(self, task: Any, /, *args: Any, **kwargs: Any) -> list[Job]:
        """The jobs of this call; without arguments: all jobs of the task, whatever theirs are.

        Compared are the arguments as the task gets them: what was stored, read back. Defaults count as given, and
        `unittest.mock.ANY` is equal to anything. Of `task.options(…)`, the options that it says must be those of the
        job, too.
        """
        return [enqueued.job for enqueued in self._matching(task, args, kwargs)[1]]

    @overload
    def assert_enqueued(self, task: Task[..., Any], /) -> Job: ...
    @overload
    def assert_enqueued(self, task: Task[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Job: ...
    def assert_enqueued(self, task: Any, /, *args: Any, **kwargs: Any) -> Job:
        """Fail unless this call was enqueued (as for `enqueued`); the last such job."""
        expected, found = self._matching(task, args, kwargs)
        if not found:
            raise AssertionError(
                f"not enqueued:\n    {expected.text}\nenqueued, in this order:{listing(self._enqueued())}"
            )
        return found[-1].job

    @overload
    def assert_not_enqueued(self, task: Task[..., Any], /) -> None: ...
    @overload
    def assert_not_enqueued(self, task: Task[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
    def assert_not_enqueued(self, task: Any, /, *args: Any, **kwargs: Any) -> None:
        """Fail if this call was enqueued (as for `enqueued`)."""
        expected, found = self._matching(task, args, kwargs)
        if found:
            raise AssertionError(f"enqueued, and should not be:\n    {expected.text}\nnamely:{listing(found)}")

    def clear(self) -> None:
        """Begin anew with an empty store, as if nothing had ever been enqueued. The clock stays."""
        self._living().bury()
        self._new.clear()
        self._stores += 1
        self._begin(self._folder / f"jobs-{self._stores}.db")

    def _matching(
        self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Expected, list[Enqueued]]:
        expected = Expected(self._tasks.tasks[task.name], task, args, kwargs)
        return expected, [enqueued for enqueued in self._enqueued() if expected.matches(enqueued)]

    def _enqueued(self) -> list[Enqueued]:
        if not self._new:
            return []
        jobs = self._living().liveness.run(self._read())
        return [Enqueued(job, self._new.get(job.id), self._tasks.tasks[job.task]) for job in jobs]

    async def _read(self) -> list[Job]:
        store = self._life.store
        ids = [job.id for job in await store.list(limit=_ALL)]
        return [job for job in await store.get(ids[::-1]) if job is not None]

    # faults

    def crash(self, *_: Any, **__: Any) -> NoReturn:
        """The process dies here and now, as by `kill -9`: nothing that it does from now on reaches the store.

        It takes any arguments, so that it can stand in for whatever is to be the last thing that a task or an endpoint
        calls. When all that it was about is unwound, the process starts again, as for `crash_after`.
        """
        self._life.crash()
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
        self._start_again_if_dead()

    @contextmanager
    def lose_lease(self, of: Task[..., Any] | JobHandle[Any] | Job | str) -> Generator[None]:
        """Within the block, the next attempt of this job, or of any job of this task, loses its lease as it begins.

        Other processes have taken this one for dead, as they do when it stands still for too long: the function runs to
        its end, and what it comes to is refused, for the job is queued again. Fails when nothing was run.
        """
        losing = of if isinstance(of, str) else of.name if isinstance(of, Task) else of.id
        self._losing = losing
        try:
            yield
            if self._losing == losing:
                raise AssertionError(f"no lease was lost: nothing of {losing} was run")
        finally:
            self._losing = None

    def restart(self) -> None:
        """The process is killed, if it still lives, and starts again: what it held is queued again."""
        self._life.bury()
        self._begin(self._path)
        if self._new:
            self._life.liveness.run(self._life.liveness.bury_the_dead())

    # what the application and the store tell (afterward.life.Conductor, afterward.testing.mortal.Listener)

    async def conduct(
        self, serve: Callable[[Scope, Receive, Send], Awaitable[None]], scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._loop = asyncio.get_running_loop()
        is_answered = False

        async def send_seen(message: Message) -> None:
            nonlocal is_answered
            await send(message)
            is_answered = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            try:
                await serve(scope, receive, send_seen)
            finally:
                if self._runs_by_itself():
                    await self._settle()
        except Crash:
            if not is_answered:
                raise NoAnswer("the process crashed before the client had its answer") from None
        finally:
            self._start_again_if_dead()
        self._raise_what_failed()

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        self._loop = asyncio.get_running_loop()
        before, self._context = self._context, copy_context()
        try:
            if self._runs_by_itself():
                await self._settle()
                self._raise_what_failed()
            yield
        finally:
            self._context = before

    def hear_of_jobs(self, jobs: Sequence[NewJob]) -> None:
        self._new |= {job.id: job for job in jobs}

    async def hear_of_start(self) -> None:
        if self._runs_by_itself():
            await self._settle()

    async def hear_of_put(self) -> None:
        if self._runs_by_itself() and not is_in_a_request(self._tasks):
            await self._settle()
            self._start_again_if_dead()
            self._raise_what_failed()

    def hear_of_put_sync(self) -> None:
        if not _has_loop():
            self._run_sync(self.hear_of_put())

    def _runs_by_itself(self) -> bool:
        return not self._manual and not _is_in_a_job()


def _is_in_a_job() -> bool:
    return RUNNING.get(None) is not None


def _has_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _fast_folder() -> Path | None:
    """A file system in memory, where there is one: nothing of a test need survive a power cut."""
    memory = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a folder there that is ours alone
    return memory if memory.is_dir() else None
