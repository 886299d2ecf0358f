"""PostgreSQL: who waits for jobs in another process is called by the statement that stores them."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from afterward.job import Placement, Stored
from afterward.stores.postgres import PostgresStore
from afterward.stores.postgres.desk import desk_for
from tests.support.stores import new_job
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio

SAID = "SELECT prosrc FROM pg_proc WHERE pronamespace = 'afterward'::regnamespace AND proname = 'enqueue_ringing'"

NOTHING_IS_RUNG = "ALTER PROCEDURE afterward.enqueue_ringing RENAME TO enqueue_forgotten"
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


async def test_the_procedure_says_what_the_query_says(pair: Pair) -> None:
    """Who changes the query writes a migration with the procedure, by another name where that takes other things."""
    query = desk_for("afterward", None)["enqueue"]
    lines = [line for line in query.splitlines() if not line.startswith("--")]
    [(said,)] = await pair.run(SAID)
    assert "\n".join(lines) in said
