"""`wait` and `ring`: a hint that there may be something to claim."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from afterward.job import Failed, Outcome, Process, Released, Retry, Succeeded
from afterward.stores.base import Store
from tests.support.stores import OOPS, Living, Place, new_job, put
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio


async def test_wait_ends_by_itself(worker: Living) -> None:
    began = time.monotonic()
    await worker.store.wait(0.05)
    assert time.monotonic() - began >= 0.04


async def test_a_ring_wakes_one_who_waits_here(worker: Living) -> None:
    waiting = asyncio.create_task(worker.store.wait(60))
    await asyncio.sleep(0)
    worker.store.ring()
    await soon(waiting.done, "the wait ends")


async def test_a_ring_just_before_the_wait_counts(worker: Living) -> None:
    """What came between the last look and the wait is not slept through."""
    worker.store.ring()
    await asyncio.wait_for(worker.store.wait(60), 10)


async def test_a_ring_may_come_from_any_thread(worker: Living) -> None:
    waiting = asyncio.create_task(worker.store.wait(60))
    await asyncio.sleep(0)
    thread = threading.Thread(target=worker.store.ring)
    thread.start()
    await soon(waiting.done, "the wait ends")
    thread.join()


async def test_a_ring_wakes_one_who_waits_in_another_process(worker: Living, other: Living) -> None:
    """Once the beats of both have told where the other is, and the connection is there on which it hears."""
    waiting = asyncio.create_task(other.store.wait(60))
    await asyncio.sleep(0)
    await other.claim()
    await other.beat()
    await worker.beat()
    worker.store.ring()
    await soon(waiting.done, "the wait ends")


async def test_who_leaves_work_behind_wakes_all_who_wait(place: Place, worker: Living) -> None:
    """Also such as have just begun to, and have never beaten: one of them alone may be about to leave as well."""
    others = [await place.process() for _ in range(3)]
    waiting = [asyncio.create_task(other.store.wait(60)) for other in others]
    await asyncio.sleep(0)
    for other in others:
        await other.claim()  # what it said when it began to wait is stored by then
    await worker.enqueue(new_job())
    await worker.store.leave(worker.id)
    await soon(lambda: all(wait.done() for wait in waiting), "all waits end")


async def test_what_was_left_before_the_first_wait_is_not_slept_through(worker: Living, other: Living) -> None:
    """Who left it could not know whom to wake."""
    assert (await other.claim()).leases == []
    await worker.enqueue(new_job())
    await worker.store.leave(worker.id)
    await asyncio.wait_for(other.store.wait(60), 10)
    await other.claim_one()


async def test_who_retries_wakes_a_worker_though_it_never_joined(store: Store, worker: Living) -> None:
    """As the command line does."""
    lease = await worker.leased(new_job())
    await worker.store.finish([(lease, Failed(OOPS))])
    waiting = asyncio.create_task(worker.store.wait(60))
    await asyncio.sleep(0)
    await worker.claim()  # it hears others by then
    await worker.beat()
    await store.retry([lease.id])
    await soon(waiting.done, "the wait ends")


async def test_a_process_that_joined_again_hears_the_rings_of_others(
    place: Place, worker: Living, other: Living
) -> None:
    """It was taken for dead while it waited; its new self is rung as its old one was."""
    waiting = asyncio.create_task(worker.store.wait(0.5))
    await asyncio.sleep(0)
    await other.store.reap([(worker.id, None)], 2, 1.0)
    assert await worker.beat() is None
    await worker.store.join(Process("worker-again", 4711, "example"))
    await waiting

    waiting = asyncio.create_task(worker.store.wait(60))
    await asyncio.sleep(0)
    await Living(worker.store, "worker-again").beat()
    await other.beat()
    other.store.ring()
    await soon(waiting.done, "the wait ends")
    await worker.store.leave("worker-again")


async def test_joining_again_while_somebody_waits_harms_no_other_reader_of_the_loop(
    place: Place, other: Living
) -> None:
    """The loop of an application reads the connections of its clients beside the store."""
    worker = await place.process()
    waiting = asyncio.create_task(worker.store.wait(60))
    await asyncio.sleep(0)
    await other.store.reap([(worker.id, None)], 2, 1.0)
    assert await worker.beat() is None

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        for _ in range(3):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"ping")
            assert await asyncio.wait_for(reader.readexactly(4), 10) == b"ping"
            writer.close()
            await writer.wait_closed()
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_a_cancelled_wait_leaves_nothing_behind(worker: Living) -> None:
    for _ in range(5):
        waiting = asyncio.create_task(worker.store.wait(60))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
    await test_a_ring_wakes_one_who_waits_here(worker)


async def test_a_ring_never_raises(place: Place, store: Store, worker: Living) -> None:
    """Not on a store that is not open, or closed; not while nobody listens; not after a waiter's loop is gone."""
    place.make().ring()
    store.ring()
    worker.store.ring()
    await store.close()
    store.ring()
    await asyncio.to_thread(asyncio.run, worker.store.wait(0.001))
    worker.store.ring()


async def _enqueue(worker: Living) -> None:
    await put(worker.store, new_job())


async def _release(worker: Living) -> None:
    job = new_job()
    await worker.enqueue(job)
    await worker.store.release(worker.id, [job.id])


async def _retry(worker: Living) -> None:
    lease = await worker.leased(new_job())
    await worker.store.finish([(lease, Failed(OOPS))])
    await worker.store.retry([lease.id])


def _finish(outcome: Outcome) -> Callable[[Living], Awaitable[None]]:
    async def finish(worker: Living) -> None:
        await worker.store.finish([(await worker.leased(new_job()), outcome)])

    return finish


LEAVES_WORK = {
    "enqueue": _enqueue,
    "release": _release,
    "retry": _retry,
    "finish that is tried again": _finish(Retry(OOPS, 0.1)),
    "finish that is released": _finish(Released("a shutdown")),
    "finish that another follows": _finish(Succeeded(then=new_job())),
}


@pytest.mark.parametrize("operation", LEAVES_WORK.values(), ids=LEAVES_WORK)
async def test_what_leaves_a_job_to_claim_rings(operation: Callable[[Living], Awaitable[None]], worker: Living) -> None:
    waiting = asyncio.create_task(worker.store.wait(60))
    await asyncio.sleep(0)
    await operation(worker)
    await soon(waiting.done, "the wait ends")


async def test_a_job_that_ends_wakes_nobody(worker: Living) -> None:
    """A ring for each would have every process look at the store all the time."""
    lease = await worker.leased(new_job())
    waiting = asyncio.create_task(worker.store.wait(60))
    await asyncio.sleep(0)
    await worker.store.finish([(lease, Succeeded())])
    await worker.store.get([lease.id])
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


async def test_a_job_that_is_watched_twice_at_once_is_watched(worker: Living) -> None:
    """By one who names it twice."""
    lease = await worker.leased(new_job())
    watching = asyncio.create_task(worker.store.watch([lease.id, lease.id], 60))
    await asyncio.sleep(0)
    await worker.store.finish([(lease, Succeeded())])
    await asyncio.wait_for(watching, 10)


async def test_who_watches_while_the_end_is_on_its_way_is_told(worker: Living) -> None:
    """It may have looked before that was stored."""
    lease = await worker.leased(new_job())
    finishing = worker.store.finish([(lease, Succeeded())])
    watching = asyncio.create_task(worker.store.watch([lease.id], 60))
    await finishing
    await asyncio.wait_for(watching, 10)
