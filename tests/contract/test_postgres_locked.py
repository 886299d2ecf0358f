"""Ends of attempts whose jobs a transaction of somebody else has locked: they wait, and nobody waits with them."""

import asyncio

import psycopg
import pytest

from afterward.identity import new_id
from afterward.job import Process, Status, Succeeded
from afterward.stores.postgres import PostgresStore
from tests.support.stores import Living, get, new_job


@pytest.mark.anyio
async def test_an_end_that_waits_holds_up_no_other(postgres_url: str) -> None:
    """Not one that was asked for together with it, nor one that comes after."""
    store = PostgresStore(postgres_url)
    await store.open()
    living = Living(store, new_id())
    await store.join(Process(living.id, 1, "example"))
    jobs = [new_job() for _ in range(3)]
    leases = [await living.leased(job) for job in jobs]
    try:
        async with await psycopg.AsyncConnection.connect(postgres_url) as other:
            await other.execute("SELECT 1 FROM afterward.jobs WHERE id = %s FOR UPDATE", [jobs[0].id])
            waiting = store.finish([(leases[0], Succeeded()), (leases[1], Succeeded())])
            together = store.finish([(leases[2], Succeeded())])
            assert await asyncio.wait_for(together, 3) == [True]
            assert not waiting.done()
            assert (await get(store, jobs[1].id)).status is Status.succeeded
        assert await waiting == [True, True]
    finally:
        await store.leave(living.id)
        await store.close()
