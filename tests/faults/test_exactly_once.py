"""A task that ends itself in the transaction of its effect, and is killed: the effect is there exactly once."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from afterward.identity import new_id
from afterward.job import Job, NewJob, Placement, Status
from afterward.job import Process as LivingProcess
from afterward.liveness import SUSPECT_AFTER
from afterward.stores.base import Wanted
from afterward.stores.postgres import PostgresStore
from servers.postgres import Server
from tests.support.processes import Process, Starter, environment_of_users
from tests.support.sessions import SORTS
from tests.support.waiting import soon

POINTS = {
    "running": 2,
    "before_own_end": 2,
    "before_commit": 2,
    "before_return": 1,
    "before_finish": 1,
    "after_finish": 1,
}
"""Where the worker is killed, and which attempt has the effect then: from the commit on, the first."""

Work = Callable[..., Process]


@pytest.fixture
def work(tmp_path: Path, starter: Starter) -> Iterator[Work]:
    """Start a worker, which ends with the test."""

    def start(url: str, sort: str, crash: str | None, **settings: str) -> Process:
        environment = {**environment_of_users(), "AFTERWARD_URL": url, "FINISHING_WITH": sort, **settings}
        if crash is not None:
            environment["AFTERWARD_CRASH"] = crash
        process = starter.start("tests.faults.finishing", environment=environment, output=tmp_path / "output.txt")
        ending.callback(process.kill)
        return process

    with ExitStack() as ending:
        yield start
    print((tmp_path / "output.txt").read_text(errors="replace"))


@pytest.mark.anyio
@pytest.mark.parametrize(
    "sort", ["AsyncSession on asyncpg", "Session", "connection of asyncpg", "connection of psycopg"]
)
async def test_a_worker_is_killed(postgres_server: Server, work: Work, sort: str) -> None:
    """By `kill -9`, at each step from before its effect to after its end; another goes on. Each in its own database."""

    async def at(point: str, expected: int) -> None:
        with postgres_server.database() as url:
            rows = await _rows_after_a_kill(url, work, sort, f"{point}:1")
        assert rows == [f"5 by attempt {expected}"], point

    async with asyncio.TaskGroup() as group:
        for point, expected in POINTS.items():
            group.create_task(at(point, expected))


@pytest.mark.anyio
async def test_a_suspect_ends_itself_in_a_process_of_its_own(postgres_server: Server, work: Work) -> None:
    """Its parent, which holds the job, is told before: what the store does not have any more is not lost."""
    with postgres_server.database() as url:
        async with _store_with_a_job(url, "deposit") as (store, job):
            for death in range(SUSPECT_AFTER):
                await store.join(LivingProcess(f"dies-{death}", 1, "example"))
                [_] = (await store.claim(f"dies-{death}", [Wanted({"deposit"}, 1)], f"token-{death}")).leases
                await store.reap([(f"dies-{death}", None)], SUSPECT_AFTER, 0.0)
            worker = work(url, "AsyncSession on asyncpg", None, FINISHING_LINGERS="2")
            assert (await _soon_ended(store, job.id)).attempt == SUSPECT_AFTER + 1
            await soon(lambda: worker.events("job.finished") or worker.events("job.lost"), seconds=20)
            assert not worker.events("job.lost")
            await asyncio.to_thread(worker.stop)
        assert _rows(url) == ["5 by attempt 3"]


@pytest.mark.anyio
@pytest.mark.parametrize(("point", "attempt"), [("before_commit", 2), ("before_return", 1)])
async def test_jobs_end_themselves_in_a_child_process_that_is_kept_and_killed(
    postgres_server: Server, work: Work, point: str, attempt: int
) -> None:
    """Two in one child, which dies in the second: before its commit, and it is done again; or after, and it is done."""
    with postgres_server.database() as url:
        async with _store_with_a_job(url, "deposit_apart") as (store, job):
            worker = work(url, "AsyncSession on asyncpg", f"{point}:2")
            assert (await _soon_ended(store, job.id)).attempt == 1
            second = NewJob(new_id(), "deposit_apart", "default", 0, '{"cents":7}')
            await store.enqueue([(second, Placement.free)], None)
            ended = await _soon_ended(store, second.id)
            await soon(lambda: len(worker.events("job.finished") + worker.events("job.refused")) == 2 + attempt - 1)
            await asyncio.to_thread(worker.stop)
        assert (ended.attempt, ended.deaths) == (attempt, attempt - 1)
        assert _rows(url) == ["5 by attempt 1", f"7 by attempt {attempt}"]


async def _rows_after_a_kill(url: str, work: Work, sort: str, crash: str) -> list[str]:
    name = "deposit" if SORTS[sort].is_async else "deposit_in_a_thread"
    async with _store_with_a_job(url, name) as (store, job):
        assert await asyncio.to_thread(work(url, sort, crash).wait) < 0, f"it was not killed at {crash}"
        second = work(url, sort, None)
        assert (await _soon_ended(store, job.id)).result == "5"
        await asyncio.to_thread(second.stop)
    return _rows(url)


@asynccontextmanager
async def _store_with_a_job(url: str, name: str) -> AsyncGenerator[tuple[PostgresStore, NewJob]]:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE orders (item text NOT NULL)")
    store = PostgresStore(url)
    await store.open()
    try:
        job = NewJob(new_id(), name, "default", 0, '{"cents":5}')
        await store.enqueue([(job, Placement.free)], None)
        yield store, job
    finally:
        await store.close()


def _rows(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT item FROM orders")]


async def _soon_ended(store: PostgresStore, id_: str) -> Job:
    """The job, once it has succeeded."""
    async with asyncio.timeout(40):
        while True:
            [job] = await store.get([id_])
            assert job is not None
            assert job.status is not Status.failed, job
            if job.status is Status.succeeded:
                return job
            await asyncio.sleep(0.02)
