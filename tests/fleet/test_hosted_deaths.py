"""What dies with a Celery worker's process, and what is begun by a message: once, and as often as it has to be."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from afterward import JobCancelled, JobFailed
from afterward.celery.messages import arguments_of
from afterward.engine.worker import WorkerOptions
from afterward.job import Ruling, Status
from afterward.stores.handing import Start
from afterward.task import Task
from tests.support import hosted
from tests.support.celery_workers import Fleet, Place, worker
from tests.support.processes import Process, Starter
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio

SECONDS = 20.0


@pytest.fixture
async def preforked(prefork: tuple[Place, Process]) -> AsyncIterator[Fleet]:
    """A worker whose functions run in child processes."""
    place, process = prefork
    tasks = hosted.front(place.store, place.broker)
    async with tasks.running(WorkerOptions()):
        yield Fleet(place, process, tasks)


def lives(process: int) -> bool:
    """Does it, and is it more than what is left of one that has ended?"""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


@pytest.mark.parametrize("task", [hosted.work_while, hosted.work_while_acked_early], ids=["late", "early"])
async def test_a_job_whose_process_was_killed_runs_again(
    preforked: Fleet, task: Task[[str], Any], tmp_path: Path
) -> None:
    """Whether its message was acknowledged before it ran, or is to be after: then it comes once more, in vain."""
    job = await preforked.add(task, str(tmp_path / "done"))
    [killed] = await preforked.until_said(job)
    os.kill(killed, signal.SIGKILL)
    [_, other] = await preforked.until_said(job, 2)
    (tmp_path / "done").touch()
    await job.result(timeout=SECONDS)
    ended = await job.job()
    assert ended is not None
    assert (ended.attempt, ended.deaths) == (2, 1)
    assert other != killed
    assert len(await preforked.said(job)) == 2


@pytest.mark.parametrize("task", [hosted.heed_nothing, hosted.heed_nothing_in_loop], ids=["def", "async def"])
async def test_a_function_that_heeds_no_cancellation_ends_with_its_process(
    preforked: Fleet, task: Task[[], Any]
) -> None:
    """Its job is said to be cancelled once it is dead, and not before."""
    job = await preforked.add(task)
    [process] = await preforked.until_said(job)
    assert await preforked.tasks.cancel(job.id) is Ruling.asked
    with pytest.raises(JobCancelled):
        await job.result(timeout=SECONDS)
    assert not lives(process)


async def test_a_function_that_kills_its_process_is_set_aside(preforked: Fleet) -> None:
    """After two deaths it runs in a child process of its own, and no process of the pool dies of it any more."""
    job = await preforked.add(hosted.kill_its_process)
    with pytest.raises(JobFailed, match="deaths so far: 3"):
        await job.result(timeout=SECONDS)


async def test_a_message_begins_an_attempt_once(fleet: Fleet, tmp_path: Path) -> None:
    """It may come again while that runs, in the same process or another; and when that has ended."""
    job = await fleet.add(hosted.work_while, str(tmp_path / "done"))
    [process] = await fleet.until_said(job)
    running = await job.job()
    assert running is not None
    assert running.status is Status.running
    message = arguments_of(Start(job.id, 1, "somebody"))

    def refused() -> int:
        return fleet.worker.output().count(f"job.message_dropped job_id={job.id}")

    for count in (1, 2, 3):
        if count == 3:
            (tmp_path / "done").touch()
            await job.result(timeout=SECONDS)
        fleet.tasks.celery.send_task(running.task, message, task_id=f"{job.id}-again-{count}")
        await soon(lambda count=count: refused() == count, "the message is dropped", SECONDS)
    assert await fleet.said(job) == [process]


async def test_a_warm_shutdown_waits_for_what_runs_and_leaves(
    valkey_url: str, starter: Starter, tmp_path: Path
) -> None:
    """With the worker, its processes are gone from the store: nobody has to find them dead."""
    place = Place(f"sqlite:///{tmp_path}/jobs.db", valkey_url)
    tasks = hosted.front(place.store, place.broker)
    with worker(starter, place, "prefork", tmp_path / "log") as process:
        async with tasks.running(WorkerOptions()):
            fleet = Fleet(place, process, tasks)
            while len(await tasks.store.processes()) < 3:  # which are seen before there is anything to do
                pass
            seen = {one.pid for one in await tasks.store.processes()}
            assert seen == {os.getpid(), *process.children()}
            job = await fleet.add(hosted.work_while, str(tmp_path / "done"))
            await fleet.until_said(job)
            process.terminate()
            await soon(lambda: "Warm shutdown" in process.output(), "the worker is about to end", SECONDS)
            (tmp_path / "done").touch()
            await job.result(timeout=SECONDS)
            await soon(lambda: not process.is_alive(), "the worker has ended", SECONDS)
            ended = await job.job()
            assert ended is not None
            assert ended.attempt == 1
            assert len(await tasks.store.processes()) == 1


async def test_a_process_that_is_replaced_has_stored_how_its_jobs_have_ended(
    valkey_url: str, starter: Starter, tmp_path: Path
) -> None:
    """Though the last of them are yet to be stored when Celery ends it: none is taken for one that died."""
    place = Place(f"sqlite:///{tmp_path}/jobs.db", valkey_url)
    tasks = hosted.front(place.store, place.broker)
    replaced = ("--max-tasks-per-child", "3")
    with worker(starter, place, "prefork", tmp_path / "log", options=replaced) as process:
        async with tasks.running(WorkerOptions()):
            fleet = Fleet(place, process, tasks)
            first = set(process.children())
            jobs = [await fleet.add(hosted.tell_all) for _ in range(20)]
            for job in jobs:
                await job.result(timeout=SECONDS)
            found = await tasks.store.get([job.id for job in jobs])
            assert [(job.attempt, job.deaths) for job in found if job is not None] == [(1, 0)] * 20
            assert first - set(process.children()), "at least one has been replaced"


async def test_a_message_that_is_revoked_before_it_began_cancels_its_job(fleet: Fleet, tmp_path: Path) -> None:
    """As `celery control revoke` does it: a person has said that it is not to run."""
    done = str(tmp_path / "done")
    running = [await fleet.add(hosted.work_while, done) for _ in range(2)]
    for job in running:
        await fleet.until_said(job)
    waiting = await fleet.add(hosted.work_while, done)
    fleet.tasks.celery.control.revoke(waiting.id, reply=True, timeout=SECONDS, destination=None, limit=1)
    (tmp_path / "done").touch()
    with pytest.raises(JobCancelled):
        await waiting.result(timeout=SECONDS)
    assert await fleet.said(waiting) == []
    for job in running:
        await job.result(timeout=SECONDS)


async def test_a_message_that_is_revoked_and_terminated_cancels_its_job(preforked: Fleet) -> None:
    job = await preforked.add(hosted.heed_nothing)
    await preforked.until_said(job)
    preforked.tasks.celery.control.revoke(job.id, terminate=True, reply=True, timeout=SECONDS, limit=1)
    with pytest.raises(JobCancelled):
        await job.result(timeout=SECONDS)
