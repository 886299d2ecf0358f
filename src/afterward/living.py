"""What runs jobs while an application lives, or a worker process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from afterward.declaring import Declaring
from afterward.engine.foreground import Foreground
from afterward.engine.given import GivenWorker
from afterward.engine.tidier import keep_tidy
from afterward.engine.worker import Worker, WorkerOptions
from afterward.errors import ConfigurationError, StoreError, StoreUnavailable
from afterward.executors import FOREIGN
from afterward.job import Status
from afterward.life import Life
from afterward.observe import emit
from afterward.options import CallOptions, Seconds, seconds
from afterward.shutdown import told_by_signals
from afterward.task import Task, TaskOptions
from afterward.web.tail import Tails

if TYPE_CHECKING:
    from celery import Celery

    from afterward.celery.follower import Follower
    from afterward.celery.foreign import CeleryTask, ForeignTasks
    from afterward.celery.messages import Published
    from afterward.celery.relay import Relay

W = TypeVar("W", bound=Worker)

_START_UP_SECONDS = 1.0
_AFTER_A_BREAK_SECONDS = 1.0


class Living(Declaring):
    """What an `Afterward` is while it runs jobs."""

    tails: Tails
    _ages: dict[Status, float]
    log_level: int | None
    version: str
    _celery_given: Celery | str | None

    @cached_property
    def celery(self) -> Celery:
        """The Celery app by which jobs are published: yours, or one that is made for the broker whose URL was given.

        Its workers run the tasks with `executor="celery"`: name it in a module, as in `celery = tasks.celery`, and
        start them there: `celery -A package.module:celery worker`.

        Raises `ConfigurationError` where Celery is not installed, or no broker was said.
        """
        from afterward.celery.app import celery_app

        app = celery_app(self._celery_given)
        for task in self.tasks.values():
            self._offer(task, app)
        return app

    def _register(
        self, function: Callable[..., Any], name: str, options: TaskOptions, call_options: CallOptions
    ) -> Task[..., Any]:
        task = super()._register(function, name, options, call_options)
        # A worker of your own app is started by its name, and asks for nothing here.
        if "celery" in vars(self) or not isinstance(self._celery_given, str | None):
            self._offer(task, self.celery)
        return task

    def _offer(self, task: Task[..., Any], app: Celery) -> None:
        """Let Celery's workers run it, if they are to."""
        if task.executor == "celery":
            from afterward.celery.registered import register

            register(app, task.name, self, is_ours=app is not self._celery_given)

    def published(self) -> Mapping[str, Published]:
        """The tasks whose jobs are published to Celery's broker, by the names under which they are stored."""
        from afterward.celery.published import Own

        own = {
            name: Own(task, smaller_first=self._begins_with_smallest)
            for name, task in list(self.tasks.items())
            if task.executor == "celery"
        }
        return {**own, **self.foreign.published(own)}

    @cached_property
    def foreign(self) -> ForeignTasks:
        """The tasks of the Celery app that are no functions of ours. Raises as `celery`."""
        from afterward.celery.foreign import ForeignTasks

        return ForeignTasks(self, self.celery, max_bytes=self._max_bytes)

    def celery_task(self, task: Any, /, *, republish_after: Seconds | None = None) -> CeleryTask:
        """An existing Celery task, which can be added and enqueued as any other: a task of your app, or its name.

        A name is for one that only the code of your fleet has. `republish_after`: seconds after which a message of
        which nothing was heard is published once more. Celery cannot tell a message that was lost from one that waits,
        and so the task may run twice; by default, the status says that nothing was heard, and nothing else is done.

        Raises `TaskError` for anything else, and `ConfigurationError` for a task of another app.
        """
        return self.foreign.declare(task, None if republish_after is None else seconds(republish_after))

    def foreign_task(self, thing: Any, /) -> CeleryTask | None:
        """A Celery task, or a signature, as a task to be added; None where no broker was given.

        Raises `ConfigurationError` for one of another app than `Afterward(celery=…)`.
        """
        return None if self._celery_given is None else self.foreign.task_for(thing)

    def task_named(self, name: str, /) -> Task[..., Any] | None:
        """The task whose jobs are stored under this name, of Celery too; None where none is known here."""
        own = super().task_named(name)
        if own is not None or self._celery_given is None or not name.startswith(FOREIGN):
            return own
        return self.foreign.named(name.removeprefix(FOREIGN))

    @cached_property
    def _begins_with_smallest(self) -> bool:
        from afterward.celery.app import begins_with_smallest

        return begins_with_smallest(self.celery)

    @asynccontextmanager
    async def running(self, options: WorkerOptions | None) -> AsyncGenerator[Worker | None]:
        """Live, and run jobs if `options` say so, while the block lasts. Never delays a start-up: jobs follow after."""
        self.check()
        life = self.life
        if not isinstance(self._celery_given, str | None):
            self.foreign.prepare()
        if options is not None and life.conductor is None:
            self._check_serving()
        life.apps += 1
        try:
            with self._streaming(life):
                await self._open_soon()
                if life.conductor is not None:
                    async with life.conductor.lifespan():
                        yield None
                else:
                    async with (
                        self.store.at_home(),
                        self._tidying(life, prunes=options is not None),
                        self._serving(options, life) as worker,
                    ):
                        yield worker
        finally:
            life.apps -= 1
            if not life.apps:  # the last of the apps that share these tasks
                await life.liveness.stop()

    @asynccontextmanager
    async def hosting(self) -> AsyncGenerator[GivenWorker]:
        """Live, while the block lasts, and run what the worker is given: in a process of a Celery worker."""
        self.check()
        self._check_store()
        life = self.life
        life.apps += 1
        try:
            await life.liveness.start()
            async with self.store.at_home(), self._tidying(life, prunes=False):
                worker = self.make_worker(GivenWorker, WorkerOptions(grace=0.0))
                serving = asyncio.create_task(_keep_running(worker), name="afterward-worker")
                try:
                    yield worker
                finally:
                    worker.stop()
                    await serving
        finally:
            life.apps -= 1
            if not life.apps:
                await life.liveness.stop()

    def _check_store(self) -> None:
        """Raise `ConfigurationError` for one of which nobody runs jobs."""
        if (reason := self.store.refuses_workers) is not None:
            raise ConfigurationError(reason)

    def _check_serving(self) -> None:
        """Raise `ConfigurationError` where no job could be run, or none be passed on that is to be."""
        self._check_store()
        for name, task in self.tasks.items():
            if task.executor == "celery":
                try:
                    self.celery  # noqa: B018 - it raises where there is none
                except ConfigurationError as error:
                    raise ConfigurationError(f"task {name} has executor='celery': {error}") from None
        if self._celery_given is not None:
            self._begins_with_smallest  # noqa: B018 - it raises where nothing can speak to the broker

    def foreground(self) -> Foreground:
        """What runs one job of these tasks here and now, to look for a mistake: `afterward run`."""
        return Foreground(self.store, self._liveness, self.tasks, self.restore_context, log_level=self.log_level)

    @contextmanager
    def _streaming(self, life: Life) -> Generator[None]:
        """What jobs say can be followed. On a signal that ends: a server waits for open streams before all else."""
        if life.apps == 1:
            self.tails.begin()
        try:
            with told_by_signals(self.tails.end):
                yield
        finally:
            if life.apps == 1:
                self.tails.end()

    @asynccontextmanager
    async def _serving(self, options: WorkerOptions | None, life: Life) -> AsyncGenerator[Worker | None]:
        if options is None:
            yield None
            return
        worker, intake = self.make_worker(Worker, options), life.intake
        before, intake.direct = intake.direct, worker
        async with self._relaying(worker, options):
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
    async def _relaying(self, worker: Worker, options: WorkerOptions) -> AsyncGenerator[None]:
        """What the worker claims for a Celery fleet is passed on, if there may be any."""
        if self._celery_given is None:
            yield
            return
        relay = self._relay(worker, options)
        worker.elsewhere = relay
        relaying = asyncio.create_task(relay.run(), name="afterward-relay")
        follower = self._follower(relay)
        relay.tell_followed = follower.hear
        following = asyncio.create_task(follower.run(), name="afterward-follower")
        try:
            yield
        finally:
            follower.stop()
            await following
            relay.stop()
            await relaying

    def _relay(self, worker: Worker, options: WorkerOptions) -> Relay:
        from afterward.celery.relay import Relay

        return Relay(
            self.store,
            self._liveness,
            self.celery,
            self.published,
            worker.look_again,
            queues=options.queues,
            version=self.version,
        )

    def _follower(self, relay: Relay) -> Follower:
        from afterward.celery.follower import Follower

        def followed() -> list[str]:
            return [name for name, one in self.published().items() if one.is_followed]

        revoke = relay.publisher.revoke
        return Follower(self.store, self._liveness, self.celery, followed, revoke, limit=self._max_bytes)

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
        return kind(
            self.store,
            self._liveness,
            self.tasks,
            options,
            self.restore_context,
            log_level=self.log_level,
            version=self.version,
        )

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


async def _keep_running(worker: Worker) -> None:
    """Run it to its end; a mistake of ours that breaks it must not leave the process up and deaf."""
    while True:
        try:
            return await worker.run()
        except Exception as error:  # noqa: BLE001 - told, and gone on from
            emit(logging.ERROR, "worker.broken", error)
            await asyncio.sleep(_AFTER_A_BREAK_SECONDS)
