"""`Afterward`: the object users hold. It knows the tasks and the store, and joins them to an application."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, nullcontext
from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter
from starlette.applications import Starlette

from afterward.apps import Apps, entered, is_inner, starts_workers
from afterward.carrier import Carrier
from afterward.codec import DEFAULT_MAX_BYTES
from afterward.endpoints import warn_of_stock_endpoints
from afterward.engine.pool import JOBS_PER_CHILD
from afterward.engine.worker import WorkerOptions
from afterward.errors import ConfigurationError
from afterward.job import Status
from afterward.joining import joining
from afterward.life import Life
from afterward.middleware import DurableTasksMiddleware, with_failures_seen
from afterward.observe import emit
from afterward.options import Seconds, seconds
from afterward.reserving import reserving
from afterward.showing import Showing
from afterward.stores.address import DEFAULT_URL, store_of
from afterward.stores.base import Store
from afterward.task import Task
from afterward.uploads import DEFAULT_MAX_FILE_BYTES
from afterward.web.tail import Tails

if TYPE_CHECKING:
    from celery import Celery


class Afterward(Showing):
    """Durable background tasks, kept in one store.

    `url`: where jobs live, `sqlite:///relative.db`, `sqlite:////absolute.db`, or
    `postgresql://user:password@host/database`; by default the environment's `AFTERWARD_URL`, else
    `sqlite:///afterward.db`. `lease`: seconds after which a frozen process loses its jobs (one that dies loses them
    within three, on SQLite at once). `max_payload_bytes`: the limit of one job's arguments, and of its result, as JSON.
    `max_file_bytes`: the limit of one `UploadFile` among the arguments.
    `context_variables`: those whose values travel with a job. `keep`, `keep_failed`: how long a job can be looked at
    after it has ended, or failed for good, before it is pruned; None keeps it for ever. `migrate=False`: the store is
    neither made nor brought up to date here; on an older one the app refuses to start, until `afterward migrate` was
    called. `log_level`: lines of the log that a job writes are stored with it from this level on; None: none are.
    `version`: of the application, by default the environment's `AFTERWARD_APP_VERSION`; shown with what runs jobs.
    `celery`: your Celery app, or the URL of a broker, by default the environment's `AFTERWARD_CELERY_URL`; see
    `Afterward.celery`.

    Nothing is opened before it is needed. Raises `ConfigurationError` for a URL that names no store, or a span of time
    that makes no sense.
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
        migrate: bool = True,
        log_level: int | None = logging.INFO,
        version: str | None = None,
        celery: Celery | str | None = None,
        store: Store | None = None,
    ) -> None:
        store = store or store_of(url or os.environ.get("AFTERWARD_URL") or DEFAULT_URL)
        self.life = Life.on(store, _lease(lease), migrate=migrate)
        self.tasks: dict[str, Task[..., Any]] = {}
        self.apps = Apps()
        self.tails = Tails()
        self.places = []
        self._max_bytes = max_payload_bytes
        self._max_file_bytes = max_file_bytes
        self._carrier = Carrier(context_variables)
        kept = {Status.succeeded: keep, Status.cancelled: keep, Status.failed: keep_failed}
        self._ages = {status: seconds(age) for status, age in kept.items() if age is not None}
        self.log_level = log_level
        self.version = os.environ.get("AFTERWARD_APP_VERSION", "") if version is None else version
        self._celery_given = celery or os.environ.get("AFTERWARD_CELERY_URL") or None
        self._lifespan_seen = False

    def install(
        self,
        app: Starlette,
        *,
        worker: bool = True,
        concurrency: int = 100,
        threads: int = 16,
        queues: Collection[str] | None = None,
        grace: Seconds = 10.0,
        children: int | None = None,
        jobs_per_child: int = JOBS_PER_CHILD,
    ) -> None:
        """Make the requests of `app` store their durable tasks, and run jobs while it lives.

        `worker=False`: only store; `afterward worker` runs the jobs elsewhere. `concurrency`: `async def` jobs at once;
        `threads`: `def` jobs at once; `queues`: which to serve, all by default. `grace`: seconds that running jobs get
        at a shutdown before they are released to run again elsewhere. `children`: jobs with `executor="process"` at
        once, each in a child process; by default one for each processor. `jobs_per_child`: how many one child runs
        before a new one takes its place. Raises `ConfigurationError` when called twice.

        Dependencies of tasks heed `app.dependency_overrides`; `lifespan_state` is what the lifespan of `app` yields.
        Of several apps that tasks are installed on, those whose lifespan lasts have a say; where they differ, the one
        that was installed on last counts.
        """
        installed: list[Afterward] = getattr(app.state, "afterward", [])
        if self in installed:
            raise ConfigurationError("tasks.install(app) was called twice for the same app; once is enough")
        if app.middleware_stack is not None:
            raise ConfigurationError("tasks.install(app) must be called before the app has served anything")
        options = WorkerOptions(concurrency, threads, queues, seconds(grace), children, jobs_per_child)
        app.state.afterward = [*installed, self]
        build = app.build_middleware_stack

        def build_around() -> DurableTasksMiddleware:
            # Once more, for routers included meanwhile have put their lifespans around or into what was there.
            self._live_with(app, options if worker else None)
            others = app.user_middleware
            app.user_middleware = with_failures_seen(others)
            try:
                return DurableTasksMiddleware(build(), self, partial(self._life_for_request, app))
            finally:
                app.user_middleware = others

        app.build_middleware_stack = build_around
        self.apps.add(app)
        self._live_with(app, options if worker else None)

    def joining(
        self, dependency: Callable[..., Any], *, scope: Literal["function", "request"] | None = None
    ) -> Callable[..., Any]:
        """A dependency for `Depends`: it gives what `dependency` gives, a session or a connection, and has the durable
        tasks of the request stored by its transaction: together with what else that commits, or not at all.

            SessionDep = Annotated[AsyncSession, Depends(tasks.joining(get_session))]

        `scope`: that of `dependency`. One that commits after its `yield` needs `scope="function"`, to do so before the
        response. Sessions of SQLAlchemy and SQLModel, and connections of asyncpg and psycopg, with an event loop or
        without. In a task, it gives just what `dependency` gives.

        Raises `ConfigurationError` where the store is not in a PostgreSQL database.
        """
        self.life.intake.host.joins  # noqa: B018 - it raises where there is none
        return joining(self, dependency, scope)

    def idempotent(self, *, owner: Callable[..., Any] | None = None, required: bool = False) -> Callable[..., Any]:
        """A dependency for an endpoint that adds durable tasks: it heeds the header `Idempotency-Key`.

            @app.post("/reports", status_code=202, dependencies=[Depends(tasks.idempotent(owner=user_id))])

        A request with a key that was used is not carried out again: it is answered as the first was, with the same
        job. `owner`: a dependency that gives, as text, whose the key is; nobody is shown what another was answered.
        Without it, the key is whose the request is, where a dependency before this one has said so (`owned_by`).
        `required`: a request without a key is refused.
        """
        return reserving(self, owner, required=required)

    def dashboard(
        self, *, admin: Callable[..., Any] | None = None, prefix: str = "/tasks", **options: Any
    ) -> APIRouter:
        """Pages to look after jobs by: what is stuck, what fails and why, what runs where; to retry, cancel, pause.

            app.include_router(tasks.dashboard(admin=administrator))

        `admin`: a dependency that answers who is asking, as text for the log, or raises. Without it and without
        `dependencies=[…]`, only a developer may come in: from the same machine, to an app with `debug=True` or under
        `AFTERWARD_ENV=development`, and by no proxy. `options`: any other of `APIRouter`.

        Raises `ConfigurationError` when `afterward[dashboard]` is not installed.
        """
        from afterward.web.dashboard import dashboard

        return dashboard(self, admin, prefix, options)

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

    def _life_for_request(self, app: Starlette) -> Life:
        if self.life.conductor is not None:
            self.apps.hear_of_request(app)
        elif not self._lifespan_seen:
            self._lifespan_seen = True
            emit(
                logging.WARNING,
                "lifespan.missing",
                reason="jobs are stored, but no worker runs in this process, for the app's lifespan has not run "
                "(a mounted app's does not, nor does TestClient's without `with`)",
            )
        return self.life


def _lease(span: Seconds) -> float:
    lease = seconds(span)
    if not lease:
        raise ConfigurationError("lease=0 leaves a process no time to live in; give seconds, as in lease=10")
    return lease
