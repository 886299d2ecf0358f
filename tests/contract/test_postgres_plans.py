"""PostgreSQL: a plan is made once and kept for long, whatever was in the tables when it was made."""

import psycopg
import pytest

from afterward.job import Placement
from afterward.stores.postgres import PostgresStore
from afterward.stores.sql import load_queries
from servers.postgres import Server
from tests.support.stores import new_job

pytestmark = pytest.mark.anyio

QUERIES = load_queries("afterward.stores.postgres")
MANY = 2000


@pytest.mark.parametrize("name", ["end_for_good", "end_for_now"])
async def test_ends_look_up_their_jobs_by_id(postgres_server: Server, name: str) -> None:
    """Statistics from when all jobs waited say that nothing runs: still no end walks over all that runs."""
    with postgres_server.database() as url:
        store = PostgresStore(url)
        await store.open()
        await store.enqueue([(new_job(), Placement.free) for _ in range(MANY)], None)
        await store.close()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ANALYZE")
            query = QUERIES[name].rstrip().removesuffix(";")
            rows = connection.execute(f"EXPLAIN (GENERIC_PLAN) {query}".encode()).fetchall()
    plan = "\n".join(str(row[0]) for row in rows)
    assert "jobs_pkey" in plan
    assert "jobs_taken" not in plan
