"""What a process says that it runs jobs of, for those who look; and what it does not start."""

from pathlib import Path

import pytest

from afterward import Afterward
from afterward.engine.worker import Worker, WorkerOptions
from afterward.job import NewJob
from afterward.stores.seen import Served
from tests.support.insides import liveness_of
from tests.support.stores import new_job
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio


@pytest.fixture
def tasks(tmp_path: Path) -> Afterward:
    """Two tasks of different kinds, in a version of the application."""
    tasks = Afterward(f"sqlite:///{tmp_path}/jobs.db", version="2.1")

    @tasks.task(name="in_loop")
    async def in_loop() -> None: ...

    @tasks.task(name="in_thread")
    def in_thread(number: int) -> None: ...

    return tasks


async def served_by(tasks: Afterward, *, concurrency: int) -> Served:
    """What is shown of this process, once it has said so."""
    shown: list[Served] = []

    async def look() -> None:
        shown[:] = [one.served for one in await tasks.store.processes() if one.served is not None]

    while not shown or shown[0].concurrency != concurrency:
        await look()
    return shown[0]


async def test_a_process_says_what_it_runs_jobs_of(tasks: Afterward) -> None:
    async with tasks.running(WorkerOptions(concurrency=5, threads=2, queues={"mail", "default"})):
        served = await served_by(tasks, concurrency=5)
    fingerprints = {name: task.arguments.fingerprint for name, task in tasks.tasks.items()}
    assert served == Served(
        fingerprints, ["default", "mail"], 5, 2, "2.1", ["in_thread"], apart=[], relays=[], hosted=[]
    )


async def test_several_workers_of_one_process_are_shown_as_one(tasks: Afterward) -> None:
    """As where an app is included in another, and both are told to run jobs."""
    async with (
        tasks.running(WorkerOptions(concurrency=5, threads=2, queues={"mail"})),
        tasks.running(WorkerOptions(concurrency=3, threads=4, queues={"slow", "mail"})),
    ):
        served = await served_by(tasks, concurrency=8)
        assert (served.queues, served.threads) == (["mail", "slow"], 6)
        async with tasks.running(WorkerOptions(concurrency=1)):
            assert (await served_by(tasks, concurrency=9)).queues is None


async def test_a_process_that_was_taken_for_dead_says_it_again(tasks: Afterward) -> None:
    """Under its new identity."""
    async with tasks.running(WorkerOptions(concurrency=5)):
        await served_by(tasks, concurrency=5)
        [before] = await tasks.store.processes()
        await tasks.store.reap([(before.id, None)], 2, 1.0)
        await liveness_of(tasks).beat()
        await served_by(tasks, concurrency=5)
        [after] = await tasks.store.processes()
    assert before.id != after.id


async def test_one_that_only_stores_says_nothing(tasks: Afterward) -> None:
    async with tasks.running(None):
        [process] = await tasks.store.processes()
    assert process.served is None


async def test_nothing_is_started_at_once_from_a_paused_queue(tasks: Afterward) -> None:
    """A worker that needs no claim for a job of its own process learns of it by its next claim."""
    job: NewJob = new_job(task="in_loop", queue="mail")

    def would_start(worker: Worker) -> bool:
        started = worker.reserve(job)
        if started:
            worker.give_up(job.task)
        return started

    async with tasks.running(WorkerOptions()) as worker:
        assert worker is not None
        await soon(lambda: would_start(worker))
        await tasks.store.pause("mail", "somebody")
        await soon(lambda: not would_start(worker))
        assert worker.reserve(job._replace(queue="other"))
        worker.give_up(job.task)
        await tasks.store.resume("mail")
        await soon(lambda: would_start(worker))
