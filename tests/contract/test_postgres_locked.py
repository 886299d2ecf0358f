"""What a transaction of somebody else has locked: who needs it waits, and nobody waits with them."""

import asyncio

import psycopg
import pytest

from afterward.identity import new_id
from afterward.job import Completion, EventKind, NewEvent, Process, Report, Ruling, Status, Succeeded
from afterward.stores.handing import HandOver, Start
from afterward.stores.postgres import PostgresStore, handing
from afterward.stores.postgres.address import address_of
from afterward.stores.postgres.connection import connect
from afterward.stores.postgres.desk import desk_for
from afterward.stores.seen import Reserved
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
            assert await asyncio.wait_for(together, 20) == [True]
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
            assert await asyncio.wait_for(store.finish([(second, Succeeded())]), 20) == [True]
            assert not waiting.done()
            await other.rollback()
        assert await waiting == [True]
        assert (await get(store, then.id)).id == then.id
    finally:
        await store.leave(living.id)
        await store.close()


@pytest.mark.anyio
async def test_a_report_that_waits_holds_up_no_other(postgres_url: str) -> None:
    """Not one that was asked for together with it; and it says all of it once."""
    store = PostgresStore(postgres_url)
    await store.open()
    living = Living(store, new_id())
    await store.join(Process(living.id, 1, "example"))
    first, second, third = [await living.leased(new_job()) for _ in range(3)]
    said = Report(1, (NewEvent(EventKind.item, "1"),))
    try:
        async with await psycopg.AsyncConnection.connect(postgres_url) as other:
            await other.execute("SELECT 1 FROM afterward.jobs WHERE id = %s FOR UPDATE", [first.id])
            waiting = store.report([(first, said), (second, said)])
            assert await asyncio.wait_for(store.report([(third, said)]), 20) == [True]
            end = store.finish([(third, Succeeded(report=Report(2, (NewEvent(EventKind.item, "2"),))))])
            assert await asyncio.wait_for(end, 20) == [True]
            assert not waiting.done()
        assert await waiting == [True, True]
        streams = await store.events([(lease.id, 0) for lease in (first, second, third)], 10)
        assert [[event.data for event in stream.events] for stream in streams if stream] == [["1"], ["1"], ["1", "2"]]
    finally:
        await store.leave(living.id)
        await store.close()


@pytest.mark.anyio
async def test_an_end_with_something_to_say_waits_with_what_it_says(postgres_url: str) -> None:
    """It is not stored without that, nor that without it."""
    store = PostgresStore(postgres_url)
    await store.open()
    living = Living(store, new_id())
    await store.join(Process(living.id, 1, "example"))
    lease = await living.leased(new_job())
    try:
        async with await psycopg.AsyncConnection.connect(postgres_url) as other:
            await other.execute("SELECT 1 FROM afterward.jobs WHERE id = %s FOR UPDATE", [lease.id])
            waiting = store.finish([(lease, Succeeded(report=Report(1, (NewEvent(EventKind.item, "1"),))))])
            [stream] = await store.events([(lease.id, 0)], 10)
            assert stream is not None
            assert (stream.status, stream.last) == (Status.running, 0)
            assert not waiting.done()
        assert await waiting == [True]
        [stream] = await store.events([(lease.id, 0)], 10)
        assert stream is not None
        assert (stream.status, stream.last) == (Status.succeeded, 1)
    finally:
        await store.leave(living.id)
        await store.close()


@pytest.mark.anyio
async def test_what_is_handed_over_while_it_is_locked_holds_up_no_other(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    await store.open()
    living = Living(store, new_id())
    await store.join(Process(living.id, 1, "example"))
    first, second, third = [HandOver(await living.leased(new_job()), 60.0) for _ in range(3)]
    try:
        async with await psycopg.AsyncConnection.connect(postgres_url) as other:
            await other.execute("SELECT 1 FROM afterward.jobs WHERE id = %s FOR UPDATE", [first.lease.id])
            waiting = store.hand_over([first, second])
            assert await asyncio.wait_for(store.hand_over([third]), 20) == [True]
            assert not waiting.done()
            assert (await get(store, first.lease.id)).status is Status.running
        assert await waiting == [True, True]
    finally:
        await store.leave(living.id)
        await store.close()


@pytest.mark.anyio
async def test_what_is_due_again_and_locked_is_passed_over(postgres_url: str) -> None:
    """It is given out the next time."""
    store = PostgresStore(postgres_url)
    await store.open()
    living = Living(store, new_id())
    await store.join(Process(living.id, 1, "example"))
    first, second = [HandOver(await living.leased(new_job()), 0.0) for _ in range(2)]
    await store.hand_over([first, second])
    try:
        async with await psycopg.AsyncConnection.connect(postgres_url) as other:
            await other.execute("SELECT 1 FROM afterward.jobs WHERE id = %s FOR UPDATE", [first.lease.id])
            taken = await asyncio.wait_for(store.take_back(living.id, ["app:send"], 2), 20)
            assert [lease.id for lease in taken.leases] == [second.lease.id]
        taken = await store.take_back(living.id, ["app:send"], 2)
        assert [lease.id for lease in taken.leases] == [first.lease.id]
    finally:
        await store.leave(living.id)
        await store.close()


@pytest.mark.anyio
async def test_a_message_that_comes_while_its_job_is_about_to_be_handed_over_begins_it(postgres_url: str) -> None:
    """It is neither dropped, nor does it hold up another."""
    store = PostgresStore(postgres_url)
    await store.open()
    living = Living(store, new_id())
    await store.join(Process(living.id, 1, "example"))
    leases = [await living.leased(new_job()) for _ in range(3)]
    starts = [Start(lease.id, 1, living.id) for lease in leases]
    connection = await connect(address_of(postgres_url), 5.0)
    try:
        async with connection.transaction():
            handed = [HandOver(leases[0], None)]
            assert await handing.hand_over(desk_for("afterward", None), connection, handed) == [True]
            waiting = store.begin(living.id, starts[:2])
            assert await asyncio.wait_for(store.begin(living.id, starts[2:]), 20) == leases[2:]
            assert not waiting.done()
        assert await waiting == leases[:2]
        assert (await get(store, leases[0].id)).handed_at is None
    finally:
        await connection.close()
        await store.leave(living.id)
        await store.close()


@pytest.mark.anyio
@pytest.mark.parametrize("is_followed", [False, True])
async def test_what_is_about_to_be_handed_over_is_cancelled_as_it_is_then(
    postgres_url: str, *, is_followed: bool
) -> None:
    store = PostgresStore(postgres_url)
    await store.open()
    living = Living(store, new_id())
    await store.join(Process(living.id, 1, "example"))
    lease = await living.leased(new_job())
    connection = await connect(address_of(postgres_url), 5.0)
    try:
        async with connection.transaction():
            handed = [HandOver(lease, None, is_followed)]
            assert await handing.hand_over(desk_for("afterward", None), connection, handed) == [True]
            waiting = store.cancel([lease.id])
            assert [job.status for job in await store.list()] == [Status.running]
            assert not waiting.done()
        assert await waiting == [Ruling.asked if is_followed else Ruling.done]
        assert (await get(store, lease.id)).status is (Status.queued if is_followed else Status.cancelled)
    finally:
        await connection.close()
        await store.leave(living.id)
        await store.close()


@pytest.mark.anyio
async def test_a_key_that_a_transaction_is_about_to_complete_is_in_flight(postgres_url: str) -> None:
    """Nobody waits for its end to be told so, and nobody else is held up by what it has locked."""
    store = PostgresStore(postgres_url)
    await store.open()
    living = Living(store, new_id())
    await store.join(Process(living.id, 1, "example"))
    first, second = new_id(), new_id()
    try:
        assert (await store.reserve(first, "s", "k", "f", living.id)).state is Reserved.reserved
        async with await psycopg.AsyncConnection.connect(postgres_url) as other:
            await other.execute("UPDATE afterward.reservations SET answer = '202' WHERE id = %s", [first])
            asked = store.reserve(second, "s", "k", "f", living.id)
            assert (await asyncio.wait_for(asked, 20)).state is Reserved.in_flight
            dropped = store.drop([first])
            completing = new_job(completes=Completion(first, "203"))
            late = asyncio.ensure_future(living.enqueue(completing))
            assert await asyncio.wait_for(store.reserve(second, "s", "another", "f", living.id), 20)
            assert not dropped.done()
            await other.commit()
        await dropped
        await late
        assert (await store.reserve(second, "s", "k", "f", living.id)).state is Reserved.completed
    finally:
        await store.leave(living.id)
        await store.close()


@pytest.mark.anyio
async def test_a_reservation_that_is_about_to_be_completed_is_not_given_back_and_not_waited_for(
    postgres_url: str,
) -> None:
    """A transaction of the application's, which lasts longer than its request; no heart waits for it."""
    store = PostgresStore(postgres_url)
    await store.open()
    living = Living(store, new_id())
    await store.join(Process(living.id, 1, "example"))
    asked = "scope", "key", "fingerprint", living.id
    try:
        await store.reserve("first", *asked)
        async with await psycopg.AsyncConnection.connect(postgres_url) as other:
            await other.execute("SELECT 1 FROM afterward.reservations WHERE id = 'first' FOR UPDATE")
            await asyncio.wait_for(store.give_back(living.id, [], [], ["first"]), 20)
        assert (await living.look()).reservations == {"first"}
    finally:
        await store.leave(living.id)
        await store.close()


@pytest.mark.anyio
async def test_who_counts_all_jobs_holds_up_nobody_who_looks_at_one(postgres_url: str) -> None:
    """A dashboard over many jobs, beside clients that ask for their own."""
    store = PostgresStore(postgres_url)
    await store.open()
    try:
        async with await psycopg.AsyncConnection.connect(postgres_url) as other:
            await other.execute("LOCK TABLE afterward.processes IN ACCESS EXCLUSIVE MODE")
            counting = store.stats()
            assert await asyncio.wait_for(store.get(["unheard of"]), 20) == [None]
            assert not counting.done()
        await counting
    finally:
        await store.close()


LOCKS = """
FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE l.locktype = 'advisory' AND d.datname = current_database()
"""


@pytest.mark.anyio
async def test_an_identity_that_is_lost_shows_no_life_on_the_next_connection(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    await store.open()
    await store.join(Process("old", 1, "example"))
    try:
        await store.reap([("old", None)], 2, 1.0)
        assert await store.beat("old") is None
        await store.join(Process("new", 1, "example"))
        async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as other:
            await other.execute(f"SELECT pg_terminate_backend(pid, 5000) {LOCKS}")
            assert await store.beat("new") is not None
            [shown] = await (await other.execute(f"SELECT count(*) {LOCKS}")).fetchall()
        assert shown == (1,)
    finally:
        await store.leave("new")
        await store.close()
