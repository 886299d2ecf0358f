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


@pytest.mark.anyio
async def test_an_end_whose_follow_up_waits_for_a_unique_key_holds_up_no_other(postgres_url: str) -> None:
    """A transaction of somebody else's is about to store a job with that key, or not."""
    store = PostgresStore(postgres_url)
    await store.open()
    living = Living(store, new_id())
    await store.join(Process(living.id, 1, "example"))
    first, second = [await living.leased(new_job()) for _ in range(2)]
    then = new_job(task="app:next", unique="daily")
    try:
        async with await psycopg.AsyncConnection.connect(postgres_url) as other:
            await other.execute(
                "INSERT INTO afterward.jobs"
                " (run_at, created_at, priority, due, status, id, task, queue, unique_key, arguments)"
                " VALUES (0, 0, 0, true, 'queued', 'theirs', 'app:next', 'default', 'daily', '{}')"
            )
            waiting = store.finish([(first, Succeeded(then=then))])
            assert await asyncio.wait_for(store.finish([(second, Succeeded())]), 3) == [True]
            assert not waiting.done()
            await other.rollback()
        assert await waiting == [True]
        assert (await get(store, then.id)).id == then.id
    finally:
        await store.leave(living.id)
        await store.close()
