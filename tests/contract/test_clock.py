"""Times are the store's, by its own clock; a clock that jumps loses no job, and kills nobody."""

import pytest

from afterward.job import Placement, Retry, Status, Succeeded
from afterward.stores.base import Held, Store
from tests.support.stores import OOPS, Living, Place, get, ids, new_job, put, send

pytestmark = pytest.mark.anyio

HOUR = 3600.0
either_way = pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])


@either_way
async def test_what_runs_goes_on_running(place: Place, worker: Living, other: Living, jump: float) -> None:
    """Leases have no time: nobody's job is taken, and it can be finished as before."""
    leased = await worker.leased(new_job())
    await put(worker.store, new_job())
    [claimed] = (await worker.claim(token="a-token")).leases
    held = new_job()
    await worker.enqueue(held)
    place.clock.advance(jump)

    assert (await other.store.reap([], 2, 1.0)).jobs == 0
    beat = await worker.look()
    assert beat.held == {leased.id: Held(1, None), claimed.id: Held(1, "a-token"), held.id: Held(0, None)}
    assert (await other.claim()).leases == []
    assert await worker.store.finish([(leased, Succeeded()), (claimed, Succeeded())]) == [True, True]
    assert await worker.store.release(worker.id, [held.id]) == [True]


@either_way
async def test_nobody_dies_of_it(place: Place, worker: Living, other: Living, jump: float) -> None:
    before = await other.look()
    place.clock.advance(jump)
    assert await worker.store.dead() == []
    assert await other.store.dead() == []
    assert await other.look() == before
    assert await worker.beat() is not None


@either_way
async def test_what_waits_to_be_claimed_can_be_claimed(place: Place, store: Store, worker: Living, jump: float) -> None:
    """Also what was stored, released or given back before the jump."""
    free, held, leased = new_job(), new_job(), new_job()
    await worker.enqueue(free, placement=Placement.free)
    await worker.enqueue(held)
    await worker.enqueue(leased, placement=Placement.leased)
    place.clock.advance(jump)
    await worker.store.release(worker.id, [held.id])
    await worker.give_all_back()
    assert sorted(ids((await worker.claim()).leases)) == sorted([free.id, held.id, leased.id])


@either_way
async def test_what_is_stored_after_it_can_be_claimed(place: Place, store: Store, worker: Living, jump: float) -> None:
    place.clock.advance(jump)
    [id_] = await put(store, new_job())
    assert ids((await worker.claim()).leases) == [id_]


@either_way
async def test_what_waits_for_its_time_is_given_when_the_clock_says_so(
    place: Place, store: Store, worker: Living, jump: float
) -> None:
    """Delayed or retrying: its time stands, and it is given once, however the clock went meanwhile."""
    delayed, lease = new_job(delay=60), await worker.leased(new_job())
    await put(store, delayed)
    await store.finish([(lease, Retry(OOPS, 60))])
    due = place.clock.now + 60
    place.clock.advance(jump)
    assert (len((await worker.claim()).leases) == 2) is (place.clock.now >= due)
    place.clock.now = due
    await worker.claim()
    place.clock.advance(jump)
    assert (await worker.claim()).leases == []
    jobs = [await get(store, delayed.id), await get(store, lease.id)]
    assert [(job.status, job.attempt) for job in jobs] == [(Status.running, 1), (Status.running, 2)]


async def test_a_clock_set_back_after_a_job_came_due_does_not_hide_it(
    place: Place, store: Store, worker: Living
) -> None:
    """A claim with no room for it saw that it was due: no later clock can take that back."""
    urgent, due = await put(store, new_job(delay=60, priority=1), new_job(delay=60))
    place.clock.advance(60)
    assert ids((await worker.claim(send(1))).leases) == [urgent]
    place.clock.advance(-HOUR)
    assert ids((await worker.claim(send(1))).leases) == [due]


@either_way
async def test_the_record_tells_the_times_of_the_clock(place: Place, store: Store, worker: Living, jump: float) -> None:
    """Even if something ended before it began: no time is made up."""
    lease = await worker.leased(new_job())
    place.clock.advance(jump)
    await store.finish([(lease, Succeeded())])
    job = await get(store, lease.id)
    assert job.started_at is not None
    assert job.finished_at is not None
    assert (job.finished_at - job.started_at).total_seconds() == jump


async def test_two_store_objects_with_clocks_apart_give_each_job_once(place: Place, worker: Living) -> None:
    """As processes of which some have seen the clock set: a job may be early for one, and is never given twice."""
    await put(worker.store, *(new_job(delay=delay) for delay in (0, 30, 60, 90)))
    given: list[str] = []
    for now in (30, 90, 0, 60, 90):
        place.clock.now = 1_700_000_000.0 + now
        given += ids((await worker.claim(send(1))).leases)
    assert len(given) == len(set(given)) == 4
