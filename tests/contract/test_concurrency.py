"""Operations from several tasks, event loops, threads, store objects and processes at once."""

import asyncio
import gc
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from afterward.errors import StoreError, StoreUnavailable
from afterward.holdings import Holdings
from afterward.job import Lease, NewJob, Placement, Process, Status, Stored, Succeeded
from afterward.reconciliation import differences
from afterward.stores.base import Store
from tests.support.loops import OtherLoop, answered
from tests.support.stores import KINDS, MORNING, Living, Place, get, ids, new_job, put, send
from tests.support.waiting import soon, wait_until

pytestmark = pytest.mark.anyio


async def enqueue(
    store: Store, job: NewJob, process: str | None = None, placement: Placement = Placement.free
) -> Stored:
    [stored] = await store.enqueue([(job, placement)], process)
    return stored


async def test_hundreds_of_operations_at_once_are_answered_each(worker: Living) -> None:
    """Each gets the answer to what it asked, and all of it is stored."""
    jobs = [new_job() for _ in range(300)]
    stored, released, seen = await asyncio.gather(
        asyncio.gather(*(enqueue(worker.store, job, worker.id, Placement.held) for job in jobs)),
        asyncio.gather(*(worker.store.release(worker.id, [job.id]) for job in jobs[:100])),
        asyncio.gather(*(worker.store.get([job.id]) for job in jobs[:100])),
    )
    assert stored == [Stored.stored] * 300
    assert len(released) == 100
    assert [found and found.id in (job.id, None) for [found], job in zip(seen, jobs[:100], strict=True)].count(
        False
    ) == 0
    assert len(await worker.store.list(limit=1000)) == 300


async def test_claims_at_once_give_each_job_once(place: Place, worker: Living, other: Living) -> None:
    """In one store object and in several."""
    third = await place.process()
    jobs = await put(worker.store, *(new_job() for _ in range(200)))
    claims = await asyncio.gather(*(living.claim(send(5)) for living in (worker, other, third) for _ in range(20)))
    leases = [lease for claimed in claims for lease in claimed.leases]
    assert sorted(ids(leases)) == sorted(jobs)
    assert len({(lease.id, lease.attempt) for lease in leases}) == 200


async def test_two_store_objects_see_what_the_other_has_stored(worker: Living, other: Living) -> None:
    """At once: what has been answered can be read and claimed everywhere."""
    for _ in range(20):
        [id_] = await put(worker.store, new_job())
        lease = await other.claim_one()
        assert lease.id == id_
        assert (await get(worker.store, id_)).status is Status.running


async def test_one_store_object_serves_two_loops(worker: Living) -> None:
    with OtherLoop() as elsewhere:
        there = [elsewhere.do(enqueue(worker.store, new_job())) for _ in range(100)]
        here = await asyncio.gather(*(enqueue(worker.store, new_job()) for _ in range(100)))
        assert here == await asyncio.gather(*map(asyncio.wrap_future, there)) == [Stored.stored] * 100
    assert len(await worker.store.list(limit=1000)) == 200


async def test_a_blocked_loop_holds_up_no_other(worker: Living) -> None:
    """A function that blocks its loop for long, right after something was asked of the store there.

    The heart of the same process beats on another loop: it must not wait for the blocked one.
    """
    blocked, free = threading.Event(), threading.Event()

    def ask_and_block() -> None:
        asking.append(asyncio.ensure_future(enqueue(worker.store, new_job())))
        asyncio.get_running_loop().call_soon(block)

    def block() -> None:
        blocked.set()
        free.wait(30)

    asking: list[asyncio.Task[Stored]] = []
    with OtherLoop() as elsewhere:
        try:
            for _ in range(5):
                blocked.clear()
                free.clear()
                elsewhere.loop.call_soon_threadsafe(ask_and_block)
                await soon(blocked.is_set, "the loop is blocked")
                assert await answered(worker.beat()) is not None
                free.set()
        finally:
            free.set()
        await soon(lambda: len(asking) == 5 and all(task.done() for task in asking), "what was asked there is answered")
    assert len(await worker.store.list()) == 5


async def test_a_loop_that_blocks_while_its_batch_is_written_holds_up_no_other(worker: Living) -> None:
    """What gathered meanwhile on both loops goes on without the blocked one."""
    blocked, free = threading.Event(), threading.Event()
    asking: list[asyncio.Task[Stored]] = []

    def ask(times: int) -> None:
        asking.append(asyncio.ensure_future(enqueue(worker.store, new_job())))
        if times:
            elsewhere.loop.call_soon(ask, times - 1)
        else:
            blocked.set()
            free.wait(30)

    with OtherLoop() as elsewhere:
        try:
            for passes in range(8):
                blocked.clear()
                free.clear()
                elsewhere.loop.call_soon_threadsafe(ask, passes)
                await soon(blocked.is_set, "the loop is blocked")
                assert await answered(worker.beat()) is not None
                free.set()
        finally:
            free.set()
        await soon(lambda: len(asking) == 36 and all(task.done() for task in asking), "what was asked is answered")
    assert len(await worker.store.list()) == 36


@pytest.mark.parametrize("turns", range(4))
async def test_a_loop_that_ends_in_the_middle_stops_no_other(store: Store, turns: int) -> None:
    """It asked, and is gone before anything was done or answered: the store goes on for everybody else."""

    def ask_and_go() -> None:
        loop = asyncio.new_event_loop()
        asked: list[asyncio.Future[Any]] = []

        def ask() -> None:
            asked.append(asyncio.ensure_future(store.enqueue([(new_job(), Placement.free)], None), loop=loop))
            go(turns)

        def go(turns: int) -> None:
            if turns:
                loop.call_soon(go, turns - 1)
            else:
                loop.stop()

        loop.call_soon(ask)
        loop.run_forever()
        loop.close()

    await asyncio.to_thread(ask_and_go)
    assert await answered(enqueue(store, new_job())) is Stored.stored


async def test_a_loop_that_stands_still_between_calls_stops_no_other(worker: Living) -> None:
    """As code without a loop of its own does: run one thing to its end, stop, and run the next much later."""
    with OtherLoop() as elsewhere:
        there = [elsewhere.do(enqueue(worker.store, new_job())) for _ in range(10)]

        def now_and_then() -> None:
            loop = asyncio.new_event_loop()
            for _ in range(20):
                loop.run_until_complete(enqueue(worker.store, new_job()))
            loop.close()

        await asyncio.gather(asyncio.to_thread(now_and_then), *(enqueue(worker.store, new_job()) for _ in range(10)))
        await asyncio.gather(*map(asyncio.wrap_future, there))
    assert len(await worker.store.list(limit=1000)) == 40


# Cancelled in the middle.


@pytest.mark.parametrize("turns", range(5))
async def test_a_cancelled_operation_is_carried_out_to_its_end(worker: Living, turns: int) -> None:
    """Whenever the cancellation comes; and who asked is cancelled all the same."""
    jobs = [new_job() for _ in range(20)]
    asking = [asyncio.create_task(enqueue(worker.store, job, worker.id, Placement.leased)) for job in jobs]
    await asyncio.sleep(0)
    for _ in range(turns):
        await asyncio.sleep(0)
    was_done = [task.done() for task in asking]
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)
    assert [task.cancelled() for task in asking] == [not done for done in was_done]
    assert [seen.status for seen in await worker.store.list(limit=100)] == [Status.running] * 20


async def test_who_is_cancelled_learns_of_it_when_the_answer_is_known(worker: Living) -> None:
    """Not before: when the task has ended, the job is stored, and can be read."""
    for _ in range(30):
        job = new_job()
        task = asyncio.create_task(enqueue(worker.store, job))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await get(worker.store, job.id)).status is Status.queued


async def test_a_timeout_around_an_operation_undoes_nothing(worker: Living) -> None:
    job = new_job()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await enqueue(worker.store, job)
    stored = await worker.store.get([job.id])
    assert [seen and seen.id for seen in stored] in ([job.id], [None])
    again = await enqueue(worker.store, new_job())
    assert again is Stored.stored


# One that cannot be carried out.


async def test_one_bad_operation_in_a_batch_stops_no_other(worker: Living) -> None:
    """It is refused, with a `StoreError`; those asked for at the same moment, before and after it, are carried out."""
    lease = await worker.leased(new_job())
    bad = [
        new_job(arguments="\ud800"),
        new_job(queue="\udcff"),
        new_job(task="\ud800"),
        new_job(priority=2**70),
        new_job(priority=1.5),
        new_job(unique="\ud800"),
    ]
    good = [new_job() for _ in range(20)]
    answers = await asyncio.gather(
        *(enqueue(worker.store, job) for job in good[:10]),
        *(enqueue(worker.store, job) for job in bad),
        worker.beat(),
        worker.store.finish([(lease, Succeeded())]),
        *(enqueue(worker.store, job) for job in good[10:]),
        return_exceptions=True,
    )
    assert answers[:10] == answers[18:] == [Stored.stored] * 10
    assert [type(answer).__mro__[1] for answer in answers[10:16]] == [StoreError] * 6
    assert not isinstance(answers[16], Exception | None)
    assert answers[17] == [True]
    assert {job.id for job in await worker.store.list(limit=100)} == {lease.id, *(job.id for job in good)}


@pytest.mark.parametrize(
    "bad",
    [{"arguments": "\ud800"}, {"task": "\udcff"}, {"priority": 2**70}, {"priority": 1.5}, {"arguments": object()}],
)
async def test_what_cannot_be_written_is_refused_and_said_so(store: Store, bad: dict[str, Any]) -> None:
    """Alone too; the message speaks of what is wrong, not of what it led to; and the loop hears of no error."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    with pytest.raises(StoreError) as refusal:
        await enqueue(store, new_job(**bad))
    assert "within a transaction" not in str(refusal.value)
    assert await enqueue(store, new_job()) is Stored.stored
    asyncio.get_running_loop().set_exception_handler(None)
    assert heard == []


# A process's own view, while its operations are on their way.


async def test_a_beat_never_mistakes_what_is_on_its_way(worker: Living, other: Living) -> None:
    """Jobs come and go on one loop, while the heart beats on another: nothing is given back, and nothing is missed."""
    holdings = Holdings()

    async def come_and_go(placement: Placement) -> None:
        for _ in range(30):
            job = new_job()
            attempt = int(placement is Placement.leased)
            holdings.expect(job.id, attempt)
            assert await worker.enqueue(job, placement=placement) == [Stored.stored]
            holdings.have(job.id, attempt)
            await asyncio.sleep(0)
            holdings.leave([(job.id, attempt)])
            if placement is Placement.leased:
                lease = Lease(job.id, 1, worker.id, job.task, job.arguments)
                assert await worker.store.finish([(lease, Succeeded())]) == [True]
            else:
                assert await worker.store.release(worker.id, [job.id]) == [True]
            holdings.forget([(job.id, attempt)])

    async def claim() -> None:
        while len(await worker.store.list(status=Status.succeeded, limit=1000)) < 240:
            token = str(len(tokens))
            tokens.add(token)
            holdings.expect_claim(token)
            claimed = await worker.claim(token=token)
            for lease in claimed.leases:
                holdings.have(lease.id, lease.attempt)
            holdings.forget_claim(token)
            holdings.leave((lease.id, lease.attempt) for lease in claimed.leases)
            ends = [(lease, Succeeded()) for lease in claimed.leases]
            assert await worker.store.finish(ends) == [True] * len(ends)
            holdings.forget((lease.id, lease.attempt) for lease in claimed.leases)

    async def beat() -> list[bool]:
        mistaken: list[bool] = []
        while not gone.is_set():
            before = holdings.known()
            seen = await worker.look()
            differ = differences(before, seen, holdings.known())
            assert differ.lost == {}
            mistaken += await worker.store.give_back(worker.id, differ.unknown, differ.unknown_files)
        return mistaken

    tokens: set[str] = set()
    gone = threading.Event()
    with OtherLoop() as elsewhere:
        beating = elsewhere.do(beat())
        try:
            places = [Placement.leased, Placement.held] * 4
            await asyncio.gather(claim(), *(come_and_go(placement) for placement in places))
        finally:
            gone.set()
        assert not any(await asyncio.wrap_future(beating))
    jobs = await worker.store.list(limit=1000)
    assert {(job.status, job.attempt) for job in jobs} == {(Status.succeeded, 1)}
    assert len(jobs) == 240


# Opening and closing.


async def test_open_and_close_are_idempotent(place: Place) -> None:
    store = place.make()
    await store.close()
    for _ in range(2):
        await asyncio.gather(store.open(), store.open(), store.open())
        await store.open()
        await put(store, new_job())
        await asyncio.gather(store.close(), store.close())
        await store.close()
    await store.open()
    assert len(await store.list()) == 2


async def test_a_store_that_is_not_open_is_unavailable(place: Place) -> None:
    store = place.make()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await store.enqueue([(new_job(), Placement.free)], None)
        with pytest.raises(StoreUnavailable):
            await store.get(["x"])
        await store.open()
        await store.close()


async def test_a_process_can_join_again_after_its_store_was_closed(place: Place, other: Living) -> None:
    store = await place.open()
    for number in range(3):
        await store.open()
        await store.join(Process(f"life-{number}", 4711, "example"))
        assert await place.seem_dead(other) == set()
        await store.leave(f"life-{number}")
        await store.close()
    assert await place.seem_dead(other) == set()


async def test_what_is_under_way_when_a_store_is_closed_is_answered(place: Place) -> None:
    """By its outcome, or by `StoreUnavailable`; what was said to be stored is there."""

    async def ask_and_close(store: Store, jobs: list[NewJob], turns: int) -> list[Stored | BaseException]:
        asking = [asyncio.ensure_future(enqueue(store, job)) for job in jobs]
        for _ in range(turns):
            await asyncio.sleep(0)
        await store.close()
        return await asyncio.gather(*asking, return_exceptions=True)

    reader = await place.open()
    for turns in range(12):
        jobs = [new_job(task=f"app:{turns}") for _ in range(10)]
        said = await answered(ask_and_close(await place.open(), jobs, turns))
        assert {type(answer) for answer in said} <= {Stored, StoreUnavailable}
        stored = {job.id for job in await reader.list(task=f"app:{turns}", limit=100)}
        assert stored >= {job.id for job, answer in zip(jobs, said, strict=True) if answer is Stored.stored}


async def test_closing_while_another_thread_begins_to_write_answers_both(place: Place) -> None:
    """Where the clock is read as a batch begins, the store is closed by another thread at that very moment."""
    closing: list[threading.Thread] = []

    def clock() -> float:
        if not closing:
            closing.append(threading.Thread(target=asyncio.run, args=(store.close(),), daemon=True))
            closing[0].start()
            closing[0].join(0.5)  # closing may wait for what is being written, or go on without it
        return MORNING

    reader = await place.open()
    store = KINDS[place.kind].make(place.where, clock)
    await store.open()
    job = new_job()

    try:
        said = await answered(enqueue(store, job))
    except StoreUnavailable as refusal:
        said = refusal
    wait_until(lambda: not any(thread.is_alive() for thread in closing), "the store is closed")
    await store.close()

    [stored] = await reader.get([job.id])
    assert stored is not None or said is not Stored.stored


async def test_who_asks_while_others_close_and_open_is_answered(store: Store) -> None:
    """In two threads, at every moment of a closing: by an answer, or by `StoreUnavailable`, and soon."""
    over = threading.Event()

    async def ask(operation: Callable[[], Awaitable[Any]]) -> set[str]:
        answers: set[str] = set()
        while not over.is_set():
            try:
                asked = asyncio.ensure_future(operation())
            except Exception as error:
                answers.add(type(error).__name__)
                continue
            done, _ = await asyncio.wait([asked], timeout=5)
            error = asked.exception() if done else None
            answers.add(type(error).__name__ if error else "answered" if done else "never answered")
        return answers

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    with OtherLoop() as one, OtherLoop() as another:
        asking = [one.do(ask(lambda: store.get(["x"]))), another.do(ask(lambda: enqueue(store, new_job())))]
        try:
            for _ in range(60):
                await store.close()
                await store.open()
                await asyncio.sleep(0.002)
        finally:
            over.set()
            sys.setswitchinterval(interval)
        for answers in await asyncio.gather(*map(asyncio.wrap_future, asking)):
            assert answers <= {"answered", "StoreUnavailable"}
    assert await enqueue(store, new_job()) is Stored.stored


@pytest.mark.parametrize("turns", [1, 2, 3, 5])
async def test_who_waits_is_answered_though_somebody_cancels_all_tasks(place: Place, turns: int) -> None:
    """Those of the store, too; and it goes on."""
    before, loop = asyncio.all_tasks(), asyncio.get_running_loop()
    store = await place.open()
    async with store.at_home():

        async def ask() -> Stored:
            return await enqueue(store, new_job())

        asking = [asyncio.create_task(ask()) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        complaints: list[str] = []
        handler = loop.get_exception_handler()
        loop.set_exception_handler(lambda _, context: complaints.append(str(context.get("exception"))))
        assert all(task.cancel() for task in asyncio.all_tasks() - before)
        _, waiting = await asyncio.wait(asking, timeout=20)
        assert not waiting
        assert await enqueue(store, new_job()) is Stored.stored
    await store.close()
    # asyncpg was cancelled while it connected: it complains when nothing leads any more to what it waited for.
    await soon(lambda: asyncio.all_tasks() == before, "nothing of the store goes on")
    gc.collect()
    loop.set_exception_handler(handler)
    assert set(complaints) <= {"unexpected connection_lost() call"}
