"""Tasks in child processes: `@tasks.task(executor="process", memory=…)`.

What a task says, is given and is asked there is as anywhere else: `test_progress.py`, `test_files.py`,
`test_dependencies.py` and `test_cancelling.py` have suspects, which run in the same children. What becomes of a child
whose worker is killed: `tests/faults/test_processes.py`.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from afterward import Afterward, Job, JobHandle, Ruling, Task
from afterward.engine import pool, voice
from afterward.engine.worker import WorkerOptions
from tests.support import heavy, speaking
from tests.support.alive import is_running
from tests.support.said import items
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio

Heavy = Callable[[Task[..., Any]], Task[..., Any]]

ONE_CHILD = WorkerOptions(children=1)


@pytest.fixture
def heavy_task(tasks: Afterward) -> Heavy:
    """A task of `tests.support.heavy`, which a child can import, as one of these tasks: with the same options."""

    def declare(task: Task[..., Any]) -> Task[..., Any]:
        options = task.task_options
        return tasks.task(
            name=task.name,
            executor=task.executor,
            memory=task.memory,
            timeout=options.timeout,
            max_attempts=options.retry.max_attempts,
            backoff=options.retry.backoff,
        )(task.function)

    return declare


async def ended(tasks: Afterward, handle: JobHandle[Any]) -> Job:
    [job] = await tasks.ended([handle.id], timeout=30)
    assert job is not None
    return job


async def pid_said(tasks: Afterward, handle: JobHandle[Any]) -> int:
    """The first that a task of these tests says is where it runs."""
    while not (said := await items(tasks, handle)):
        await tasks.store.watch([handle.id], 1)
    pid: int = said[0]
    return pid


# Where they run


async def test_a_task_runs_in_a_child_process_that_is_kept_for_the_next(tasks: Afterward, heavy_task: Heavy) -> None:
    """One with an event loop, too. What one leaves in its context, the next does not find."""
    where, where_async, leave = (heavy_task(task) for task in (heavy.where, heavy.where_async, heavy.leave))
    async with tasks.running(ONE_CHILD):
        first, second = [await (await task.enqueue()).result(timeout=30) for task in (where, where_async)]
        found = [await (await leave.enqueue(what)).result(timeout=30) for what in ("ashes", "dust")]
    assert first == second
    assert found == ["nothing", "nothing"]
    await soon(lambda: not is_running(first), "the child has ended with its worker")


async def test_what_it_says_is_heard_as_from_anywhere_else(tasks: Afterward, heavy_task: Heavy) -> None:
    speak = tasks.task(name=speaking.speak.name, executor="process")(speaking.speak.function)
    async with tasks.running(ONE_CHILD):
        handle = await speak.enqueue(3)
        assert await handle.result(timeout=30) == 3
        job = await handle.job()
        again = await (await heavy_task(heavy.read_input).enqueue()).result(timeout=30)
    assert job is not None
    assert json.loads(str(job.progress))["current"] == 3
    assert [set(item) for item in await items(tasks, handle)] == [{"pid"}]
    assert again == "", "standard input is empty there, and standard output is not the worker's"


async def test_a_lifespan_that_tasks_ask_for_begins_once_in_each_child(tasks: Afterward, heavy_task: Heavy) -> None:
    tasks.apps.add(heavy.app)
    in_lifespan = heavy_task(heavy.in_lifespan)
    async with tasks.running(ONE_CHILD):
        found = [await (await in_lifespan.enqueue()).result(timeout=30) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0][1] == 1


async def test_a_child_is_replaced_after_so_many_jobs_and_when_it_has_nothing_to_do(
    tasks: Afterward, heavy_task: Heavy, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = heavy_task(heavy.where)
    async with tasks.running(WorkerOptions(children=1, jobs_per_child=2)):
        pids = [await (await where.enqueue()).result(timeout=30) for _ in range(3)]
        assert pids[0] == pids[1] != pids[2]
        monkeypatch.setattr(pool, "IDLE_SECONDS", 0.01)
        assert await (await where.enqueue()).result(timeout=30) == pids[2]
        await soon(lambda: not any(map(is_running, pids)), "all have ended")


# How they are ended


@pytest.mark.parametrize(
    ("task", "status"),
    [(heavy.rest, "cancelled"), (heavy.rest_in_thread, "succeeded"), (heavy.hear_nothing, "cancelled")],
)
async def test_one_that_is_cancelled_is_asked_and_then_killed(
    tasks: Afterward, heavy_task: Heavy, task: Task[..., Any], status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may clean up, as in the loop; or ask, as in a thread. The next job gets another process."""
    if task is heavy.hear_nothing:
        monkeypatch.setattr(voice, "CLEAN_UP_SECONDS", 0.3)
    where = heavy_task(heavy.where)
    async with tasks.running(ONE_CHILD):
        handle = await heavy_task(task).enqueue()
        pid = await pid_said(tasks, handle)
        assert await tasks.cancel(handle.id) is Ruling.asked
        job = await ended(tasks, handle)
        assert (job.status, job.failures, job.deaths) == (status, 0, 0)
        assert await (await where.enqueue()).result(timeout=30) != pid
        await soon(lambda: not is_running(pid), "that process has ended")
    assert await items(tasks, handle) == ([pid, "cleaned up"] if task is heavy.rest else [pid])


async def test_a_timeout_ends_whatever_it_does(tasks: Afterward, heavy_task: Heavy) -> None:
    """Nothing goes on: not even C code that lets nobody else run in its process."""
    async with tasks.running(ONE_CHILD):
        handle = await heavy_task(heavy.compute_for_ever).enqueue()
        pid = await pid_said(tasks, handle)
        job = await ended(tasks, handle)
        assert not is_running(pid)
    assert job.failure is not None
    assert (job.status, job.failures, job.deaths) == ("failed", 1, 0)
    assert job.failure.kind == "afterward.errors.AttemptTimedOut"


async def test_one_that_takes_more_memory_than_it_may_has_failed(tasks: Afterward, heavy_task: Heavy) -> None:
    """That is a failure, as any other. What programs take that it starts counts as well."""
    async with tasks.running(WorkerOptions(children=2)):
        handles = [await heavy_task(heavy.collect).enqueue(300), await heavy_task(heavy.have_collected).enqueue()]
        jobs = [await ended(tasks, handle) for handle in handles]
        pids = [pid for handle in handles for pid in await items(tasks, handle)]
        await soon(lambda: not any(map(is_running, pids)), "nothing of it goes on")
    assert [(job.status, job.failures, job.deaths) for job in jobs] == [("failed", 1, 0)] * 2
    for job in jobs:
        assert job.failure is not None
        assert job.failure.kind == "afterward.errors.MemoryExceeded"
        assert "its task may take 200.0MB" in job.failure.message
        assert "memory=" in job.failure.message


async def test_what_an_earlier_job_has_left_in_memory_is_not_held_against_the_next(
    tasks: Afterward, heavy_task: Heavy
) -> None:
    keep = heavy_task(heavy.keep)
    async with tasks.running(ONE_CHILD):
        pids = [await (await keep.enqueue(size)).result(timeout=30) for size in (60, 0, 0)]
    assert pids[0] != pids[1] == pids[2]


async def test_one_that_kills_its_process_harms_nobody_else(tasks: Afterward, heavy_task: Heavy) -> None:
    """Its death is its own: three of them, and it is set aside. A job in another child goes on."""
    die = heavy_task(heavy.die)
    async with tasks.running(WorkerOptions(children=3)):
        neighbour = await heavy_task(heavy.rest_in_thread).enqueue()
        pid = await pid_said(tasks, neighbour)
        poisons = [await die.enqueue("exits"), await die.enqueue("segfaults")]
        jobs = [await ended(tasks, poison) for poison in poisons]
        assert is_running(pid)
        await tasks.cancel(neighbour.id)
        neighbour_job = await ended(tasks, neighbour)
    for job, poison in zip(jobs, poisons, strict=True):
        assert job.failure is not None
        assert (job.status, job.attempt, job.failures, job.deaths) == ("failed", 3, 0, 3)
        assert job.failure.kind == "afterward.errors.WorkerDied"
        assert len({*await items(tasks, poison)}) == 3
    assert (neighbour_job.status, neighbour_job.attempt, neighbour_job.deaths) == ("succeeded", 1, 0)


async def test_a_shutdown_waits_for_its_grace_and_releases(tasks: Afterward, heavy_task: Heavy) -> None:
    """At no cost; and no child lives on."""
    async with tasks.running(WorkerOptions(children=2, grace=0.1)):
        handle = await heavy_task(heavy.hear_nothing).enqueue()
        idle = await (await heavy_task(heavy.where).enqueue()).result(timeout=30)
        pid = await pid_said(tasks, handle)
    job = await handle.job()
    assert job is not None
    assert (job.status, job.failures, job.deaths, job.attempts[0].outcome) == ("queued", 0, 0, "released")
    assert not is_running(pid)
    assert not is_running(idle)
