"""Jobs without a request: stored, looked at, waited for, cancelled, tried again."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from afterward.calls import signed_in_request, taken_in_request, watch_in_request
from afterward.errors import TaskError
from afterward.explaining import explain
from afterward.handle import JobHandle, ids_of
from afterward.intake import Intake
from afterward.job import Job, NewJob, Ruling, Status
from afterward.life import Life
from afterward.liveness import Liveness
from afterward.options import Joinable, Seconds, seconds
from afterward.reasons import Reason
from afterward.stores.base import Store
from afterward.task import Task
from afterward.waiting import until_ended

R = TypeVar("R")
T = TypeVar("T")


class Looking:
    """What an `Afterward` does with jobs, outside of any request."""

    life: Life
    tasks: dict[str, Task[..., Any]]

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

    async def enqueue_many(
        self, jobs: Iterable[NewJob], *, transaction: Joinable | None = None
    ) -> list[JobHandle[Any]]:
        """Store many calls as one: all of them, or none. Make each with `task.prepare(…)`.

        `transaction`: a session of SQLAlchemy or SQLModel, or a connection of asyncpg or psycopg; they are stored
        together with what it commits, or not at all. Raises `DuplicateJob` when one of them is refused,
        `StoreUnavailable` when they could not be stored, `ConfigurationError` when they cannot join the transaction.
        """
        jobs = signed_in_request(self, list(jobs))
        handles = [self._handle_of(job) for job in jobs]
        jobs = taken_in_request(self, jobs, transaction)
        if jobs and transaction is not None:
            watch_in_request(self, await self._intake.join(jobs, transaction))
        elif jobs:
            await self._intake.put(jobs)
        return handles

    def enqueue_many_sync(self, jobs: Iterable[NewJob], *, transaction: Joinable | None = None) -> list[JobHandle[Any]]:
        """`enqueue_many` for code without an event loop. It blocks until the jobs are stored."""
        jobs = signed_in_request(self, list(jobs))
        handles = [self._handle_of(job) for job in jobs]
        jobs = taken_in_request(self, jobs, transaction)
        if jobs and transaction is not None:
            watch_in_request(self, self._intake.join_sync(jobs, transaction))
        elif jobs:
            self._intake.put_sync(jobs)
        return handles

    def task_named(self, name: str, /) -> Task[..., Any] | None:
        """The task whose jobs are stored under this name; None where none is known here."""
        return self.tasks.get(name)

    def _handle_of(self, job: NewJob) -> JobHandle[Any]:
        task = self.task_named(job.task)
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
        """Cancel a job that waits: `done`. One that runs is asked to end: `asked`; it is cancelled once it has.

        Else `unknown`, or `forbidden` when it has ended already.
        """
        await self._liveness.start()
        [ruling] = await self.store.cancel([job])
        if ruling is Ruling.asked:
            self._liveness.spawn(self._liveness.hear_of_asked)  # it may run in this very process
        return ruling

    async def why(self, job: str, /) -> list[Reason]:
        """Why a job is not running, or not done, and what can be done about it: what matters most comes first.

        Of one that is unknown, or has ended, that is told.
        """
        await self._liveness.start()
        return await explain(self.store, job)

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
