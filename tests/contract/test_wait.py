"""`wait` and `ring`: a hint that there may be something to claim."""

import asyncio
import threading
import time

import pytest

from afterward.job import Process
from afterward.stores.base import Store
from tests.support.stores import Living, Place
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
    """Once the beats of both have told where the other is."""
    waiting = asyncio.create_task(other.store.wait(60))
    await asyncio.sleep(0)
    await other.beat()
    await worker.beat()
    worker.store.ring()
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
