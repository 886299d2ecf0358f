"""`Afterward`: the object users hold. It knows the tasks and the store, and joins them to an application."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, cast, overload
from urllib.parse import unquote, urlsplit

from starlette.applications import Starlette

from afterward.apps import Apps, entered, is_inner, starts_workers
from afterward.carrier import Carrier
from afterward.endpoints import warn_of_stock_endpoints
from afterward.engine.foreground import Foreground
from afterward.engine.tidier import keep_tidy
from afterward.engine.worker import Worker, WorkerOptions
from afterward.errors import ConfigurationError, StoreError, StoreUnavailable, TaskError
from afterward.handle import JobHandle, ids_of
from afterward.hooks import Hook, check_hooks
from afterward.intake import Intake
from afterward.job import Job, NewJob, Ruling, Status
from afterward.life import Life
from afterward.liveness import Liveness
from afterward.middleware import DurableTasksMiddleware, with_failures_seen
from afterward.observe import emit
from afterward.payload import DEFAULT_MAX_BYTES
from afterward.request import is_answered
from afterward.retry import RetryPolicy, RetryRule
from afterward.signals import told_by_signals
from afterward.stores.base import Store
from afterward.stores.sqlite import SQLiteStore
from afterward.task import (
    AsyncTask,
    CallOptions,
    Seconds,
    Task,
    TaskOptions,
    checked,
    is_async,
    name_of,
    seconds,
)
from afterward.text import is_storable
from afterward.uploads import DEFAULT_MAX_FILE_BYTES
from afterward.waiting import until_ended

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
W = TypeVar("W", bound=Worker)

DEFAULT_URL = "sqlite:///afterward.db"

_START_UP_SECONDS = 1.0
_AFTER_A_BREAK_SECONDS = 1.0


class Afterward:
    """Durable background tasks, kept in one store.

    `url`: where jobs live, `sqlite:///relative.db` or `sqlite:////absolute.db`; by default the environment's
    `AFTERWARD_URL`, else `sqlite:///afterward.db`. `lease`: seconds after which a frozen process loses its jobs (one
    that dies loses them at once). `max_payload_bytes`: the limit of one job's arguments, and of its result, as JSON.
    `max_file_bytes`: the limit of one `UploadFile` among the arguments.
    `context_variables`: those whose values travel with a job. `keep`, `keep_failed`: how long a job can be looked at
    after it has ended, or failed for good, before it is pruned; None keeps it for ever.

    Nothing is opened before it is needed. Raises `ConfigurationError` for a URL that names no store.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        lease: Seconds = 10.0,
        max_payload_bytes: int = DEFAULT_MAX_BYTES,
        max_file_bytes: int = DEFAULT_MAX_FILE_BYTES,
        context_variables: Sequence[ContextVar[Any]] = (),
        keep: Seconds | None = timedelta(hours=24),
        keep_failed: Seconds | None = timedelta(days=7),
        store: Store | None = None,
    ) -> None:
        store = store or store_of(url or os.environ.get("AFTERWARD_URL") or DEFAULT_URL)
        self.life = Life.on(store, seconds(lease))
        self.tasks: dict[str, Task[..., Any]] = {}
        self.apps = Apps()
        self._max_bytes = max_payload_bytes
        self._max_file_bytes = max_file_bytes
        self._carrier = Carrier(context_variables)
        kept = {Status.succeeded: keep, Status.cancelled: keep, Status.failed: keep_failed}
        self._ages = {status: seconds(age) for status, age in kept.items() if age is not None}
        self._lifespan_seen = False

    @property
    def store(self) -> Store:
        """Where jobs live now."""
        return self.life.store

    @property
    def _liveness(self) -> Liveness:
        return self.life.liveness

    @property
    def _intake(self) -> Intake:
        return self.life.intake

    # declaring tasks

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        *,
        name: str | None = None,
        queue: str = "default",
        priority: int = 0,
        max_attempts: int = 5,
        timeout: Seconds | None = None,
        backoff: Seconds = 1.0,
        max_backoff: Seconds = 600.0,
        retry_on: type[BaseException] | Sequence[type[BaseException]] | RetryRule = (Exception,),
        give_up_on: type[BaseException] | Sequence[type[BaseException]] = (),
        on_success: Hook | None = None,
        on_failure: Hook | None = None,
        run_on_error: bool = False,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...
    def task(  # pyright: ignore[reportInconsistentOverload] - P and R are its result's own; a Hook is a Task
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        queue: str = "default",
        priority: int = 0,
        max_attempts: int = 5,
        timeout: Seconds | None = None,
        backoff: Seconds = 1.0,
        max_backoff: Seconds = 600.0,
        retry_on: type[BaseException] | Sequence[type[BaseException]] | RetryRule = (Exception,),
        give_up_on: type[BaseException] | Sequence[type[BaseException]] = (),
        on_success: Task[..., Any] | None = None,
        on_failure: Task[..., Any] | None = None,
        run_on_error: bool = False,
    ) -> Any:
        """Make a function durable: by saying so, its author allows it to run more than once.

        `name`: what it is stored under, by default `module:function`; give one before you rename or move a function
        that has jobs waiting. `max_attempts`: failures after which a job is failed for good. `timeout`: seconds for
        each attempt. `backoff`, `max_backoff`: the n-th failure waits a random part of
        `min(max_backoff, backoff * 2**(n-1))` seconds. `retry_on`, `give_up_on`: which exceptions are worth another
        attempt; or, as `retry_on`, a function of the number of failures so far and the exception, which answers False,
        True, or the seconds to wait. `on_success`, `on_failure`: tasks that take an `EndedJob`, stored together with
        the end of a job that has succeeded, or failed for good. `run_on_error`: keep it though the request ends in an
        exception before its response. Raises `TaskError`.
        """

        def declare(function: Callable[..., Any]) -> Task[..., Any]:
            label = name or name_of(function)
            if max_attempts < 1:
                raise TaskError(f"task {label}: max_attempts={max_attempts} must be 1 or more")
            policy = RetryPolicy(
                max_attempts, seconds(backoff), seconds(max_backoff), _rule(retry_on, label), _kinds(give_up_on, label)
            )
            self._check_hooks(label, on_success, on_failure)
            options = TaskOptions(policy, None if timeout is None else seconds(timeout), on_success, on_failure)
            calls = checked(CallOptions(queue=queue, priority=priority, run_on_error=run_on_error), label)
            return self._register(function, label, options, calls)

        return declare if function is None else declare(function)

    def _register(
        self, function: Callable[..., Any], name: str, options: TaskOptions, call_options: CallOptions
    ) -> Task[..., Any]:
        if isinstance(function, Task):
            raise TaskError(f"task {name} is declared twice; one @tasks.task is enough")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TaskError(f"task {name} is a generator function; a task is a `def` or `async def` that returns")
        there = self.tasks.get(name)
        if there is not None and _place(there.function) != _place(function):
            raise TaskError(f"two functions are declared as task {name!r}; give one of them another name=…")
        kind = AsyncTask[..., Any] if is_async(function) else Task[..., Any]
        task = kind(self, function, name, options, call_options, self._max_bytes, self._max_file_bytes)
        self.tasks[name] = task
        return task

    def _check_hooks(self, name: str, on_success: Task[..., Any] | None, on_failure: Task[..., Any] | None) -> None:
        for hook in cast("tuple[object, ...]", (on_success, on_failure)):
            if hook is not None and (not isinstance(hook, Task) or hook.owner is not self):
                raise TaskError(
                    f"task {name}: on_success= and on_failure= take tasks of the same Afterward, not {hook!r}"
                )
        check_hooks(name, on_success, on_failure)

    # making jobs without a request, and looking at them

    async def enqueue_many(self, jobs: Iterable[NewJob]) -> list[JobHandle[Any]]:
        """Store many calls as one: all of them, or none. Make each with `task.prepare(…)`.

        Raises `DuplicateJob` when one of them is refused, `StoreUnavailable` when they could not be stored.
        """
        jobs = list(jobs)
        handles = [self._handle_of(job) for job in jobs]
        if jobs:
            await self._intake.put(jobs)
        return handles

    def enqueue_many_sync(self, jobs: Iterable[NewJob]) -> list[JobHandle[Any]]:
        """`enqueue_many` for code without an event loop. It blocks until the jobs are stored."""
        jobs = list(jobs)
        handles = [self._handle_of(job) for job in jobs]
        if jobs:
            self._intake.put_sync(jobs)
        return handles

    def _handle_of(self, job: NewJob) -> JobHandle[Any]:
        task = self.tasks.get(job.task)
        if task is None:
            raise TaskError(f"task {job.task} is none of this Afterward's; enqueue it with the one that declares it")
        return task.handle(job.id)

    def run_sync(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on afterward's own event loop, from code that has none, and wait for it."""
        return self._liveness.run(work)

    async def get(self, job: str, /) -> Job | None:
        """The job of this id as the store holds it now; None when it is unknown."""
        await self._liveness.start()
        return (await self.store.get([job]))[0]

    async def ended(self, jobs: Sequence[str], /, timeout: Seconds | None = None) -> list[Job | None]:
        """The jobs of these ids, in order, once each has ended; None for an unknown one. Raises `ResultTimeout`."""
        await self._liveness.start()
        return await until_ended(self.store, jobs, None if timeout is None else seconds(timeout))

    async def results(self, handles: Iterable[JobHandle[R]], *, timeout: Seconds | None = None) -> list[R]:
        """What several jobs return, in order, once each has ended; raises for the first as its `result()` would."""
        handles = list(handles)
        jobs = await self.ended(ids_of(handles), timeout)
        return [handle.result_of(job) for handle, job in zip(handles, jobs, strict=True)]

    async def cancel(self, job: str, /) -> Ruling:
        """Cancel a job that waits: `done`, `unknown`, or `forbidden` when it runs or has ended."""
        await self._liveness.start()
        return (await self.store.cancel([job]))[0]

    async def retry(self, job: str, /) -> Ruling:
        """Queue a failed or cancelled job again, due at once: `done`, `unknown`, `forbidden`, or `taken`.

        Its failures are counted anew. `taken`: another unfinished job has its unique key by now.
        """
        await self._liveness.start()
        return (await self.store.retry([job]))[0]

    async def list(
        self, *, status: Status | None = None, task: str | None = None, queue: str | None = None,
        before: str | None = None, limit: int = 50
    ) -> list[Job]:  # fmt: skip
        """Jobs, newest first; `before`: only those older than the job of this id, though it be pruned by now."""
        await self._liveness.start()
        status = None if status is None else Status(status)  # its word will do, where nobody checks types
        return await self.store.list(status=status, task=task, queue=queue, before=before, limit=limit)

    # living

    def install(
        self,
        app: Starlette,
        *,
        worker: bool = True,
        concurrency: int = 100,
        threads: int = 16,
        queues: Collection[str] | None = None,
        grace: Seconds = 10.0,
    ) -> None:
        """Make the requests of `app` store their durable tasks, and run jobs while it lives.

        `worker=False`: only store; `afterward worker` runs the jobs elsewhere. `concurrency`: `async def` jobs at once;
        `threads`: `def` jobs at once; `queues`: which to serve, all by default. `grace`: seconds that running jobs get
        at a shutdown before they are released to run again elsewhere. Raises `ConfigurationError` when called twice.

        Dependencies of tasks heed `app.dependency_overrides`; `lifespan_state` is what the lifespan of `app` yields.
        Where tasks are installed on several apps, what the first one says of a thing is what counts.
        """
        installed: list[Afterward] = getattr(app.state, "afterward", [])
        if self in installed:
            raise ConfigurationError("tasks.install(app) was called twice for the same app; once is enough")
        app.state.afterward = [*installed, self]
        build = app.build_middleware_stack
        if app.middleware_stack is not None:
            raise ConfigurationError("tasks.install(app) must be called before the app has served anything")

        options = WorkerOptions(concurrency, threads, queues, seconds(grace)) if worker else None

        def build_around() -> DurableTasksMiddleware:
            # Once more, for routers included meanwhile have put their lifespans around or into what was there.
            self._live_with(app, options)
            others = app.user_middleware
            app.user_middleware = with_failures_seen(others)
            try:
                return DurableTasksMiddleware(build(), self, lambda: self.life, self._warn_without_lifespan)
            finally:
                app.user_middleware = others

        app.build_middleware_stack = build_around
        self.apps.add(app)
        self._live_with(app, options)

    def _live_with(self, app: Starlette, options: WorkerOptions | None) -> None:
        """Make the lifespan of `app` ours as well: begun before the first job runs, ended after the last."""
        inner = app.router.lifespan_context

        @asynccontextmanager
        async def lifespan(app: Any) -> AsyncGenerator[Any]:
            if is_inner(self, app):
                async with inner(app) as state:
                    yield state
                return
            self._lifespan_seen = True
            warn_of_stock_endpoints(app)
            async with entered(inner, app, owner=self) as state:
                with self.apps.living(app, state):
                    async with self.running(options) if starts_workers() else nullcontext():
                        yield state

        app.router.lifespan_context = lifespan

    def check(self) -> None:
        """Raise `TaskError` for a task that cannot work, though it could be declared."""
        for task in self.tasks.values():
            task.arguments.check()
            task.result.check()
            check_hooks(task.name, task.task_options.on_success, task.task_options.on_failure)

    @asynccontextmanager
    async def running(self, options: WorkerOptions | None) -> AsyncGenerator[Worker | None]:
        """Live, and run jobs if `options` say so, while the block lasts. Never delays a start-up: jobs follow after."""
        self.check()
        life = self.life
        life.apps += 1
        try:
            await self._open_soon()
            if life.conductor is not None:
                async with life.conductor.lifespan():
                    yield None
            else:
                async with self._tidying(life, prunes=options is not None), self._serving(options, life) as worker:
                    yield worker
        finally:
            life.apps -= 1
            if not life.apps:  # the last of the apps that share these tasks
                await life.liveness.stop()

    def foreground(self) -> Foreground:
        """What runs one job of these tasks here and now, to look for a mistake: `afterward run`."""
        return Foreground(self.store, self._liveness, self.tasks, self.restore_context)

    @asynccontextmanager
    async def _serving(self, options: WorkerOptions | None, life: Life) -> AsyncGenerator[Worker | None]:
        if options is None:
            yield None
            return
        worker, intake = self.make_worker(Worker, options), life.intake
        before, intake.direct = intake.direct, worker
        serving = asyncio.create_task(_keep_running(worker), name="afterward-worker")
        try:
            with told_by_signals(worker.drain):
                yield worker
        finally:
            if intake.direct is worker:
                intake.direct = before
            worker.stop()
            await serving  # itself: a cancellation here is passed on to it, and it releases what runs

    @asynccontextmanager
    async def _tidying(self, life: Life, *, prunes: bool) -> AsyncGenerator[None]:
        """Whether or not jobs run here: a process that only stores them has files to be rid of."""
        tidying = asyncio.create_task(self._keep_tidy(life, self._ages if prunes else {}), name="afterward-tidier")
        try:
            yield
        finally:
            tidying.cancel()
            await asyncio.wait({tidying})

    async def _keep_tidy(self, life: Life, ages: Mapping[Status, float]) -> None:
        while True:
            try:
                await life.liveness.beside(lambda: keep_tidy(life.store, ages))
            except StoreError:  # it does not open yet; whoever needs it tells of it
                await asyncio.sleep(_AFTER_A_BREAK_SECONDS)

    def make_worker(self, kind: type[W], options: WorkerOptions) -> W:
        """A worker for these tasks, where they live now."""
        return kind(self.store, self._liveness, self.tasks, options, self.restore_context)

    async def _open_soon(self) -> None:
        """Open the store, but do not wait long for one that is slow or locked: requests and the worker try again."""
        opening = asyncio.ensure_future(self._liveness.start())
        await asyncio.wait({opening}, timeout=_START_UP_SECONDS)
        try:
            if opening.done():
                opening.result()
                emit(logging.INFO, "store.opened", location=self.store.location)
                return
        except StoreUnavailable as error:
            emit(logging.WARNING, "store.unavailable", location=self.store.location, reason=str(error))
            return
        opening.add_done_callback(lambda late: late.cancelled() or late.exception())
        emit(logging.WARNING, "store.slow", location=self.store.location, reason="it does not open; trying on")

    def capture_context(self) -> str | None:
        """The declared context variables as they are now, as text to store with a job."""
        return self._carrier.capture()

    def restore_context(self, stored: str) -> None:
        """Set the context variables that were stored with a job."""
        self._carrier.restore(stored)

    def hear_of_direct_call(self, task: str) -> None:
        """A task was called like a function: right anywhere but where FastAPI's own BackgroundTasks did it."""
        if is_answered():
            emit(
                logging.WARNING,
                "task.run_by_stock",
                task=task,
                reason="it was called after the response, as fastapi.BackgroundTasks does: in memory only, not stored, "
                "not retried; import BackgroundTasks from afterward",
            )

    def _warn_without_lifespan(self) -> None:
        if not self._lifespan_seen and self.life.conductor is None:
            self._lifespan_seen = True
            emit(
                logging.WARNING,
                "lifespan.missing",
                reason="jobs are stored, but no worker runs in this process, for the app's lifespan has not run "
                "(a mounted app's does not, nor does TestClient's without `with`)",
            )


async def _keep_running(worker: Worker) -> None:
    """Run it to its end; a mistake of ours that breaks it must not leave the process up and deaf."""
    while True:
        try:
            return await worker.run()
        except Exception as error:  # noqa: BLE001 - told, and gone on from
            emit(logging.ERROR, "worker.broken", error)
            await asyncio.sleep(_AFTER_A_BREAK_SECONDS)


def store_of(url: str) -> Store:
    """The store that a URL names. Raises `ConfigurationError` for one that names none."""
    parts = urlsplit(url)
    path = unquote(parts.path[1:])
    if parts.scheme == "sqlite" and not parts.netloc and path and not parts.query:
        if not is_storable(path):
            raise ConfigurationError(f"{url!r} names no store: no file can have such a name; name another")
        return SQLiteStore(path)
    raise ConfigurationError(
        f"{parts.scheme or url!r} names no store of this version; use sqlite:///relative.db or sqlite:////absolute/path.db"
    )


def _rule(errors: Any, name: str) -> tuple[type[BaseException], ...] | RetryRule:
    if callable(errors) and not isinstance(errors, type):
        return cast("RetryRule", errors)
    return _kinds(errors, name)


def _kinds(errors: Any, name: str) -> tuple[type[BaseException], ...]:
    kinds: tuple[Any, ...] = (errors,) if isinstance(errors, type) else tuple(errors)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TaskError(f"task {name}: retry_on= and give_up_on= take exception classes, not {kind!r}")
    return kinds


def _place(function: Callable[..., Any]) -> object:
    code = getattr(function, "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code is not None else id(function)
