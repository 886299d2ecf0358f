"""PostgreSQL: an enqueue whose answer is lost is done again, while the job that it has stored comes to its end."""

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from afterward.faults import armed
from afterward.job import Job, Placement, Process, Status, Stored
from afterward.stores.base import Wanted
from afterward.stores.postgres import PostgresStore
from afterward.stores.postgres.desk import desk_for
from tests.support.stores import new_job

pytestmark = pytest.mark.anyio


class Ending:
    """Ends the jobs that wait, in a transaction that is committed a little later; and loses the answer about them."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.Connection[tuple[str]].connect(url, cursor_factory=psycopg.RawCursor)
        self.has_begun = False

    def __call__(self) -> None:
        if not self.has_begun:
            self.has_begun = True
            for (job,) in self.connection.execute("SELECT id FROM afterward.jobs").fetchall():
                self.connection.execute(desk_for("afterward", None)["cancel"].encode(), [None, job, "cancelled"])
            asyncio.get_running_loop().call_later(0.3, self.connection.commit)
            raise ConnectionResetError


@pytest.fixture
def ending(postgres_url: str) -> Iterator[Ending]:
    ending = Ending(postgres_url)
    yield ending
    ending.connection.close()


@pytest.mark.parametrize("jobs", [1, 2])
async def test_jobs_that_end_while_they_are_stored_again_are_not_stored_twice(
    postgres_url: str, ending: Ending, jobs: int
) -> None:
    """Neither here nor there is the moment at which they are in both places, or in none."""
    new = [new_job() for _ in range(jobs)]
    store = PostgresStore(postgres_url)
    await store.open()
    try:
        with armed("after_insert", ending):
            assert await store.enqueue([(job, Placement.free) for job in new], None) == [Stored.stored] * jobs
        ending.connection.commit()
        await store.join(Process("worker", 1, "example"))
        assert not (await store.claim("worker", [Wanted({"app:send"}, 9)], "token")).leases
        found: list[Job] = await store.list()
        assert {job.id: job.status for job in found} == {job.id: Status.cancelled for job in new}
        assert (len(found), ending.has_begun) == (jobs, True)
    finally:
        await store.close()
