"""PostgreSQL: who waits for jobs in another process is called by the statement that stores them."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from afterward.job import Placement, Process, Stored, Succeeded
from afterward.stores.base import Wanted
from afterward.stores.postgres import PostgresStore, entry
from afterward.stores.postgres.address import address_of
from afterward.stores.postgres.connection import Connection, connect
from afterward.stores.postgres.desk import desk_for
from tests.support.stores import Clock, new_job
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio

NOTHING_IS_RUNG = "ALTER PROCEDURE afterward.enqueue_one RENAME TO enqueue_forgotten"
"""As where a role may not call it: any other trouble of it is met in the same way."""


class Pair:
    """Who stores jobs, and who waits for some in another process."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.storing, self.waiting = PostgresStore(url), PostgresStore(url)

    async def run(self, statement: str) -> list[tuple[str]]:
        async with await psycopg.AsyncConnection[tuple[str]].connect(self.url, autocommit=True) as connection:
            cursor = await connection.execute(statement.encode())
            return await cursor.fetchall() if cursor.description else []

    async def store_and_be_heard(self) -> None:
        wait = asyncio.create_task(self.waiting.wait(60))
        await asyncio.sleep(0)
        job = new_job()
        assert await self.storing.enqueue([(job, Placement.free)], None) == [Stored.stored]
        [stored] = await self.storing.get([job.id])
        assert stored is not None
        await soon(wait.done, "the wait ends")


@pytest.fixture
async def pair(postgres_url: str) -> AsyncIterator[Pair]:
    pair = Pair(postgres_url)
    for store in (pair.storing, pair.waiting):
        await store.open()
    await pair.waiting.wait(0)  # it listens by then
    yield pair
    for store in (pair.storing, pair.waiting):
        await store.close()


async def test_the_statement_that_stores_rings(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other statement does."""
    desk = desk_for("afterward", None)
    monkeypatch.setattr(pair.storing, "_desk", desk)
    desk.queries["notify"] = "SELECT $1::text"
    await pair.store_and_be_heard()


async def test_jobs_are_stored_where_that_statement_fails(pair: Pair) -> None:
    """And who waits is called all the same."""
    await pair.run(NOTHING_IS_RUNG)
    await pair.store_and_be_heard()


async def test_jobs_are_stored_where_that_statement_is_taken_away_meanwhile(pair: Pair) -> None:
    """As by the migration of a newer version, beside which this one goes on: it is prepared here by then."""
    await pair.store_and_be_heard()
    await pair.run(NOTHING_IS_RUNG)
    for _ in range(2):
        await asyncio.sleep(0.05)  # longer than one notification keeps the next waiting
        await pair.store_and_be_heard()


@pytest.fixture
async def connection(pair: Pair) -> AsyncIterator[Connection]:
    connection = await connect(address_of(pair.url), 5.0)
    yield connection
    await connection.close()


OPTIONS: list[dict[str, Any]] = [
    {},
    {"delay": 5.0},
    {"run_at": datetime(2040, 1, 1, tzinfo=UTC)},
    {"run_at": datetime(2020, 1, 1, tzinfo=UTC)},
    {"queue": "reports", "priority": -3, "arguments": '{"email":"o\'neil@example.org"}'},
    {"context": '{"tenant":"north"}', "max_attempts": 2, "timeout": 1.5},
    {"expires": 60.0},
    {"expires": datetime(2040, 1, 1, tzinfo=UTC)},
    {"owner": "anna"},
    {"origin": '{"method": "POST"}'},
]

ROWS = """
SELECT to_jsonb(j) - 'id' - 'seq' AS job, to_jsonb(o) - 'job' AS origin
FROM afterward.jobs j LEFT JOIN afterward.origins o ON o.job = j.id WHERE j.id = $1
"""


SCANS = """
SELECT relname, seq_scan, idx_scan FROM pg_stat_user_tables
WHERE schemaname = 'afterward' AND relname IN ('jobs', 'finished', 'origins')
"""


async def test_one_job_is_stored_as_many_are(connection: Connection) -> None:
    """By the statement that rings, and by the one for all others."""
    desk = desk_for("afterward", Clock())
    for options in OPTIONS:
        alone, beside = new_job(**options), new_job(**options)
        await entry.enqueue_one(desk, connection, alone, "nobody")
        assert await entry.enqueue_plain(desk, connection, [(beside, Placement.free, None)]) == [Stored.stored]
        rows = [await connection.fetchrow(ROWS, job.id) for job in (alone, beside)]
        assert rows[0] is not None
        assert rows[0] == rows[1], options


async def test_the_server_tells_the_time_of_one_job(connection: Connection) -> None:
    job = new_job(delay=5)
    await entry.enqueue_one(desk_for("afterward", None), connection, job, "nobody")
    said = "SELECT run_at - created_at, abs(created_at - extract(epoch FROM now())) FROM afterward.jobs WHERE id = $1"
    row = await connection.fetchrow(said, job.id)
    assert row is not None
    assert tuple(row) == (5, pytest.approx(0, abs=20))


async def test_one_job_that_is_there_is_not_stored_again(pair: Pair, connection: Connection) -> None:
    """As where the answer to the first statement was lost: also when it has ended since."""
    desk, store, job = desk_for("afterward", None), pair.storing, new_job(owner="anna")
    for _ in range(2):
        await entry.enqueue_one(desk, connection, job, "nobody")
    await store.join(Process("worker", 1, "example"))
    [lease] = (await store.claim("worker", [Wanted({job.task}, 9)], "token")).leases
    assert await store.finish([(lease, Succeeded("1"))]) == [True]
    await entry.enqueue_one(desk, connection, job, "nobody")
    assert not (await store.claim("worker", [Wanted({job.task}, 9)], "other")).leases
    assert [found.id for found in await store.list()] == [job.id]


async def test_no_table_is_read_from_end_to_end_for_one_job(connection: Connection) -> None:
    """As `test_postgres_plans` sees of each query: with statistics of tables that were empty."""
    await connection.execute("ANALYZE afterward.jobs, afterward.finished, afterward.origins")
    for _ in range(3):
        await entry.enqueue_one(desk_for("afterward", None), connection, new_job(owner="anna"), "nobody")
    await connection.fetchval("SELECT pg_stat_force_next_flush()")
    scans = await connection.fetch(SCANS)
    assert {row["relname"]: row["seq_scan"] for row in scans} == {"jobs": 0, "finished": 0, "origins": 0}
    assert {row["relname"] for row in scans if row["idx_scan"]} >= {"finished"}
