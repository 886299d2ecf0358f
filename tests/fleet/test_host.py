"""What a process of a Celery worker makes of messages: without Celery, and without a broker."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from afterward import Afterward
from afterward.celery import host as hosting
from afterward.celery.host import Host
from afterward.engine import given
from afterward.identity import new_id
from afterward.job import Job, Status
from afterward.liveness import SUSPECT_AFTER, SUSPECT_DELAY_SECONDS
from afterward.stores.base import Wanted
from afterward.stores.handing import HandOver, Start
from afterward.task import Task
from tests.support.waiting import told

pytestmark = pytest.mark.anyio


@pytest.fixture
def host() -> Iterator[Host]:
    """One that is started."""
    host = Host(slots=2, is_alone=False)
    host.start()
    yield host
    host.stop()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.db"


@pytest.fixture
def here(url: str) -> Afterward:
    """As the Celery worker has it."""
    return Afterward(url)


@pytest.fixture
async def there(url: str) -> AsyncIterator[Afterward]:
    """As the application has it."""
    there = Afterward(url)
    async with there.running(None):
        yield there


async def handed(task: Task[[], Any]) -> Start:
    """What a message says of a new job of this task, which is handed over."""
    tasks: Any = task.owner
    job = await task.enqueue()
    process = await tasks.life.liveness.start()
    claimed = await tasks.store.claim(process, [Wanted({task.name}, 1)], new_id())
    [lease] = claimed.leases
    assert lease.id == job.id
    assert await tasks.store.hand_over([HandOver(lease)]) == [True]
    return Start(lease.id, lease.attempt, process)


async def of(tasks: Afterward, start: Start) -> Job:
    job = await tasks.get(start.id)
    assert job is not None
    return job


def twins(here: Afterward, there: Afterward, function: Any) -> Task[[], Any]:
    """The same task in both; as the application has it."""
    here.task(name="twin", executor="celery")(function)
    return there.task(name="twin", executor="celery")(function)


async def after(tasks: Afterward, start: Start) -> Job:
    """Its job, when it is stored how the attempt has ended."""

    async def has_ended() -> bool:
        return (await of(tasks, start)).status is not Status.running

    await told(has_ended, "its outcome is stored")
    return await of(tasks, start)


async def test_its_outcome_is_stored_soon_after_the_message_is_done_with(
    host: Host, here: Afterward, there: Afterward
) -> None:
    start = await handed(twins(here, there, lambda: None))
    assert await asyncio.to_thread(host.run, here, start)
    assert (await after(there, start)).status is Status.succeeded


async def test_where_one_follows_the_other_its_outcome_is_stored_with_the_next_or_when_the_process_ends(
    host: Host, here: Afterward, there: Afterward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that runs one after the other waits once for the disk, for both."""
    monkeypatch.setattr(given, "GATHERING_SECONDS", 3600)
    task = twins(here, there, lambda: None)
    first, second, third = [await handed(task) for _ in range(3)]
    assert await asyncio.to_thread(host.run, here, first)
    assert (await after(there, first)).status is Status.succeeded  # nobody knows yet that others follow
    assert await asyncio.to_thread(host.run, here, second)
    assert (await of(there, second)).status is Status.running
    assert await asyncio.to_thread(host.run, here, third)
    assert [(await of(there, start)).status for start in (second, third)] == [Status.succeeded, Status.running]
    await asyncio.to_thread(host.stop)
    assert (await of(there, third)).status is Status.succeeded


async def test_one_that_comes_twice_at_once_runs_once(host: Host, here: Afterward, there: Afterward) -> None:
    may_end, begun = threading.Event(), threading.Event()
    runs: list[int] = []

    def wait() -> None:
        runs.append(1)
        begun.set()
        may_end.wait(20)

    start = await handed(twins(here, there, wait))
    first = asyncio.create_task(asyncio.to_thread(host.run, here, start))
    await asyncio.to_thread(begun.wait, 5)
    try:
        async with asyncio.timeout(5):  # the second does not wait for the first
            assert await asyncio.to_thread(host.run, here, start)
    finally:
        may_end.set()
    assert await first
    assert runs == [1]


async def test_it_begins_also_where_its_process_was_taken_for_dead_meanwhile(
    host: Host, here: Afterward, there: Afterward
) -> None:
    """Which that finds out by its next heartbeat: until then, nothing is given to it."""
    task = twins(here, there, lambda: None)
    first, second = await handed(task), await handed(task)
    assert await asyncio.to_thread(host.run, here, first)
    lost = here.life.liveness.process
    assert lost is not None
    await there.store.reap([(lost, None)], SUSPECT_AFTER, SUSPECT_DELAY_SECONDS)
    assert await asyncio.to_thread(host.run, here, second)
    assert (await after(there, second)).status is Status.succeeded


async def test_one_whose_job_is_gone_or_further_on_begins_nothing(
    host: Host, here: Afterward, there: Afterward
) -> None:
    task = twins(here, there, lambda: None)
    start = await handed(task)
    assert await asyncio.to_thread(host.run, here, start._replace(id=new_id()))
    assert await asyncio.to_thread(host.run, here, start._replace(attempt=2))
    assert (await of(there, start)).handed_at is not None


async def test_a_function_that_is_not_known_here_is_left_to_others(
    host: Host, here: Afterward, there: Afterward
) -> None:
    start = await handed(there.task(name="stranger", executor="celery")(lambda: None))
    assert await asyncio.to_thread(host.run, here, start)
    job = await after(there, start)
    assert (job.status, job.failures, job.deaths) == (Status.queued, 0, 0)
    assert job.note == "function stranger is not known here"


async def test_arguments_that_do_not_fit_here_are_left_to_others(host: Host, here: Afterward, there: Afterward) -> None:
    def needy(number: int) -> None: ...

    here.task(name="twin", executor="celery")(needy)
    start = await handed(there.task(name="twin", executor="celery")(lambda: None))
    assert await asyncio.to_thread(host.run, here, start)
    job = await after(there, start)
    assert (job.status, job.failures) == (Status.queued, 0)
    assert job.unfit_for == here.tasks["twin"].arguments.fingerprint


async def test_a_store_that_cannot_be_asked_leaves_the_message_to_come_again(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hosting, "PATIENCE_SECONDS", 0.5)
    (tmp_path / "file").touch()
    nowhere = Afterward(f"sqlite:///{tmp_path}/file/jobs.db")
    assert not await asyncio.to_thread(host.run, nowhere, Start(new_id(), 1, new_id()))
    assert len([line for line in caplog.messages if line.startswith("job.not_begun")]) > 1


async def test_the_lifespan_of_an_app_begins_once_and_ends_after_all_else(
    host: Host, here: Afterward, there: Afterward, tmp_path: Path
) -> None:
    """Also where the tasks of two stores are installed on it."""
    said: list[str] = []
    other = Afterward(f"sqlite:///{tmp_path}/other.db")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        said.append("begins")
        yield
        said.append(f"ends, {here.life.liveness.process}, {other.life.liveness.process}")

    app = FastAPI(lifespan=lifespan)
    here.install(app)
    other.install(app)
    start = await handed(twins(here, there, lambda: said.append("runs")))
    assert await asyncio.to_thread(host.run, here, start)
    assert await asyncio.to_thread(host.run, other, start)  # whose job is not in that store
    await asyncio.to_thread(host.stop)
    assert said == ["begins", "runs", "ends, None, None"]


async def test_what_runs_when_its_process_ends_is_released_at_no_cost(
    host: Host, here: Afterward, there: Afterward
) -> None:
    begun = threading.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.sleep(60)

    start = await handed(twins(here, there, wait))
    running = asyncio.create_task(asyncio.to_thread(host.run, here, start))
    await asyncio.to_thread(begun.wait, 5)
    await asyncio.to_thread(host.stop)
    assert await running
    job = await of(there, start)
    assert (job.status, job.failures, job.deaths, job.note) == (Status.queued, 0, 0, "released by a shutdown")
