"""`pause` and `resume`: nothing is claimed from a queue that is paused. `hasten`: what waits is due now."""

import asyncio
from datetime import UTC, datetime

import pytest

from afterward.job import Placement, Retry, Ruling, Status, Succeeded
from afterward.stores.base import Store, Wanted
from afterward.stores.seen import Pause
from tests.support.stores import MORNING, OOPS, Living, Place, get, ids, new_job, put, send
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio


async def test_a_queue_is_paused_once_and_resumed_once(place: Place, store: Store) -> None:
    assert await store.paused() == []
    assert await store.pause("slow", "ada")
    place.clock.advance(5)
    assert not await store.pause("slow", "grace")
    assert await store.pause("default", "grace")
    assert await store.paused() == [
        Pause("default", datetime.fromtimestamp(MORNING + 5, UTC), "grace"),
        Pause("slow", datetime.fromtimestamp(MORNING, UTC), "ada"),
    ]
    assert await store.resume("slow")
    assert not await store.resume("slow")
    assert [pause.queue for pause in await store.paused()] == ["default"]


async def test_nothing_is_claimed_from_a_queue_that_is_paused(worker: Living) -> None:
    """From the others all is, as if it were not there; and all of it when it is resumed."""
    store = worker.store
    jobs = await put(store, *(new_job(queue=queue, priority=9 * (queue == "slow")) for queue in ("slow", "fast") * 2))
    await store.pause("slow", "ada")
    claimed = await worker.claim()
    assert (ids(claimed.leases), claimed.more, claimed.for_others) == (jobs[1::2], False, False)
    assert claimed.paused == {"slow"}
    assert (await worker.claim([Wanted({"app:send"}, 5, {"slow"})])).leases == []
    await store.resume("slow")
    claimed = await worker.claim()
    assert (ids(claimed.leases), claimed.paused) == (jobs[::2], frozenset())


async def test_a_process_that_is_given_nothing_for_it_has_no_row_is_told_what_is_paused(worker: Living) -> None:
    """It begins nothing of that without a claim, once it has a new identity."""
    await worker.store.pause("default", "ada")
    assert (await worker.store.claim("nobody", send(), "token")).paused == {"default"}


async def test_what_comes_to_a_paused_queue_or_comes_due_there_waits(place: Place, worker: Living) -> None:
    store = worker.store
    await store.pause("default", "ada")
    later, at_once = await put(store, new_job(delay=60), new_job())
    claimed = await worker.claim()
    assert (claimed.leases, claimed.next_due) == ([], 60)
    place.clock.advance(60)
    assert (await worker.claim()).leases == []
    assert (await worker.claim()).next_due is None
    await store.resume("default")
    assert ids((await worker.claim()).leases) == [at_once, later]


async def test_what_runs_goes_on_and_ends_as_ever(worker: Living) -> None:
    """And when it is to be tried again, it waits."""
    store = worker.store
    first, second = await worker.leased(new_job()), await worker.leased(new_job())
    await store.pause("default", "ada")
    assert await store.finish([(first, Succeeded()), (second, Retry(OOPS, 0))]) == [True, True]
    assert (await worker.claim()).leases == []
    assert (await get(store, second.id)).status is Status.queued


async def test_a_repeated_claim_gives_what_it_gave_though_its_queue_is_paused_now(worker: Living) -> None:
    [job] = await put(worker.store, new_job())
    before = await worker.claim(token="again")
    await worker.store.pause("default", "ada")
    after = await worker.claim(token="again")
    assert ids(before.leases) == ids(after.leases) == [job]


async def test_a_person_may_name_a_job_of_a_paused_queue(worker: Living) -> None:
    [job, _] = await put(worker.store, new_job(), new_job())
    await worker.store.pause("default", "ada")
    assert ids((await worker.claim(worker.named(job))).leases) == [job]


async def test_what_has_expired_in_a_paused_queue_is_cancelled(place: Place, worker: Living) -> None:
    [job] = await put(worker.store, new_job(expires=10.0))
    await worker.store.pause("default", "ada")
    place.clock.advance(10)
    await worker.claim()
    assert (await get(worker.store, job)).status is Status.cancelled


async def test_jobs_are_stored_and_leased_in_a_paused_queue(worker: Living) -> None:
    """The store holds no policy: who starts jobs at once asks whether it is paused."""
    await worker.store.pause("default", "ada")
    lease = await worker.leased(new_job())
    await worker.enqueue(new_job(), placement=Placement.held)
    assert await worker.store.finish([(lease, Succeeded())]) == [True]


@pytest.mark.parametrize("operation", ["pause", "resume"])
async def test_all_who_wait_are_woken(place: Place, worker: Living, operation: str) -> None:
    """Here and in other processes."""
    if operation == "resume":
        await worker.store.pause("default", "ada")
    others = [await place.process() for _ in range(2)]
    for living in (worker, *others):
        await living.beat()
    stores = [worker.store, worker.store, *(living.store for living in others)]
    for store in stores:
        await store.wait(0.01)
    waiting = [asyncio.create_task(store.wait(60)) for store in stores]
    await asyncio.sleep(0.05)
    assert not any(wait.done() for wait in waiting)
    await (worker.store.pause("default", "ada") if operation == "pause" else worker.store.resume("default"))
    await soon(lambda: all(wait.done() for wait in waiting), "all are woken")


async def test_hastening_answers_for_each_job(place: Place, worker: Living) -> None:
    """What waits for its time, first or again; nothing that is due, runs or has ended."""
    store = worker.store
    later, due, ended = await put(store, new_job(delay=60), new_job(delay=10), new_job())
    await store.cancel([ended])
    again, running = await worker.leased(new_job()), await worker.leased(new_job())
    await store.finish([(again, Retry(OOPS, 60))])
    place.clock.advance(10)
    answers = await store.hasten([later, due, ended, again.id, running.id, "nothing", "\0", later])
    assert answers == [
        Ruling.done, Ruling.forbidden, Ruling.forbidden, Ruling.done, Ruling.forbidden, Ruling.unknown, Ruling.unknown,
        Ruling.forbidden,
    ]  # fmt: skip
    assert sorted(ids((await worker.claim()).leases)) == sorted([later, due, again.id])


async def test_what_is_hastened_is_due_from_now(place: Place, worker: Living) -> None:
    """After what has waited longer."""
    [waits, hastened] = await put(worker.store, new_job(delay=30), new_job(delay=60))
    place.clock.advance(40)
    assert await worker.store.hasten([hastened]) == [Ruling.done]
    assert (await get(worker.store, hastened)).run_at == datetime.fromtimestamp(MORNING + 40, UTC)
    assert ids((await worker.claim()).leases) == [waits, hastened]


async def test_what_is_held_and_hastened_stays_held(worker: Living) -> None:
    job = new_job(delay=60)
    await worker.enqueue(job, placement=Placement.held)
    assert await worker.store.hasten([job.id]) == [Ruling.done]
    assert (await worker.claim()).leases == []
    await worker.store.release(worker.id, [job.id])
    assert ids((await worker.claim()).leases) == [job.id]


async def test_a_job_is_hastened_by_any_of_its_ids(worker: Living) -> None:
    first, again = new_job(delay=60, unique="daily"), new_job(unique="daily")
    await put(worker.store, first)
    await worker.store.enqueue([(again, Placement.free)], None)
    assert await worker.store.hasten([again.id]) == [Ruling.done]
    assert ids((await worker.claim()).leases) == [first.id]


async def test_hastening_wakes_who_waits(worker: Living) -> None:
    [job] = await put(worker.store, new_job(delay=60))
    await worker.store.wait(0.05)
    waiting = asyncio.create_task(worker.store.wait(60))
    await asyncio.sleep(0)
    await worker.store.hasten([job])
    await soon(waiting.done, "the wait ends")
