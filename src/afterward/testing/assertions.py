"""What a test asks and asserts of the jobs that were enqueued."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, ParamSpec, cast, overload

from afterward.app import Afterward
from afterward.engine.files import chunks_of
from afterward.errors import FileLost, TaskError
from afterward.foreign import CeleryTaskLike, is_celery_task
from afterward.job import Job
from afterward.stores.base import Store
from afterward.task import Task
from afterward.testing.enqueued import Enqueued, Expected, listing
from afterward.testing.files import measure
from afterward.testing.lives import Lives
from afterward.uploads import stored_in

P = ParamSpec("P")

_ALL = 2**62


class Assertions:
    """Questions about what is in the store of now."""

    def __init__(self, tasks: Afterward, lives: Lives) -> None:
        self._tasks = tasks
        self._lives = lives

    @property
    def jobs(self) -> list[Job]:
        """All jobs, as they are stored now, with their attempts; in the order they were enqueued."""
        return [enqueued.job for enqueued in self._enqueued()]

    @overload
    def enqueued(self, task: Task[..., Any], /) -> list[Job]: ...
    @overload
    def enqueued(self, task: Task[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> list[Job]: ...
    @overload
    def enqueued(self, task: CeleryTaskLike, /, *args: Any, **kwargs: Any) -> list[Job]: ...
    def enqueued(self, task: Any, /, *args: Any, **kwargs: Any) -> list[Job]:
        """The jobs of this call; without arguments: all jobs of the task, whatever theirs are.

        Compared are the arguments as the task gets them: what was stored, read back. Defaults count as given, and
        `unittest.mock.ANY` is equal to anything. An `UploadFile` is equal to one of the same content and, as far as it
        says them, name and content type. A Celery task may be asked for by itself. Of `task.options(…)`, the options
        that it says must be those of the job, too.
        """
        return [enqueued.job for enqueued in self._matching(task, args, kwargs)[1]]

    @overload
    def assert_enqueued(self, task: Task[..., Any], /) -> Job: ...
    @overload
    def assert_enqueued(self, task: Task[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Job: ...
    @overload
    def assert_enqueued(self, task: CeleryTaskLike, /, *args: Any, **kwargs: Any) -> Job: ...
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
    @overload
    def assert_not_enqueued(self, task: CeleryTaskLike, /, *args: Any, **kwargs: Any) -> None: ...
    def assert_not_enqueued(self, task: Any, /, *args: Any, **kwargs: Any) -> None:
        """Fail if this call was enqueued (as for `enqueued`)."""
        expected, found = self._matching(task, args, kwargs)
        if found:
            raise AssertionError(f"enqueued, and should not be:\n    {expected.text}\nnamely:{listing(found)}")

    def _matching(self, thing: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Expected, list[Enqueued]]:
        task = self._added(thing)
        expected = Expected(self._task(task.name), task, args, kwargs)
        return expected, [enqueued for enqueued in self._enqueued() if expected.matches(enqueued)]

    def _enqueued(self) -> list[Enqueued]:
        if not self._lives.new:
            return []
        life = self._lives.living()
        return life.liveness.run(self._read(life.store))

    async def _read(self, store: Store) -> list[Enqueued]:
        ids = [job.id for job in await store.list(limit=_ALL)]
        jobs = [job for job in await store.get(ids[::-1]) if job is not None]
        return [
            Enqueued(job, self._lives.new.get(job.id), self._task(job.task), await _contents(store, job))
            for job in jobs
        ]

    def _added(self, thing: Any) -> Task[..., Any]:
        if isinstance(thing, Task):
            return cast("Task[..., Any]", thing)
        task = self._tasks.foreign_task(thing) if is_celery_task(thing) else None
        if task is None:
            raise TaskError(
                f"enqueued are tasks, and Celery tasks of the app of Afterward(celery=…), not {thing!r:.100}"
            )
        return task

    def _task(self, name: str) -> Task[..., Any]:
        task = self._tasks.task_named(name)
        if task is None:
            raise TaskError(f"task {name} is none of those that are tested here")
        return task


async def _contents(store: Store, job: Job) -> dict[str, tuple[int, str]]:
    chunks = chunks_of(store.get_chunk)
    found: dict[str, tuple[int, str]] = {}
    for file in stored_in(job.arguments):
        with suppress(FileLost):  # its job has succeeded, and it was freed since
            found[file] = measure([data async for data in chunks(file)])
    return found
