"""Held jobs: stored before a response, released when its request is over, and never stuck."""

import pytest

from afterward.job import Placement, Status, Stored
from afterward.stores.base import Store
from tests.support.stores import Living, Place, get, ids, new_job

pytestmark = pytest.mark.anyio


async def test_released_by_its_holder_whoever_claims_may_have_it(worker: Living, other: Living) -> None:
    job = new_job()
    await worker.enqueue(job)
    assert await worker.store.release(worker.id, [job.id]) == [True]
    assert (await get(worker.store, job.id)).process is None
    assert ids((await other.claim()).leases) == [job.id]


async def test_released_by_another_it_stays_held(worker: Living, other: Living) -> None:
    job = new_job()
    await worker.enqueue(job)
    assert await other.store.release(other.id, [job.id]) == [False]
    assert (await get(worker.store, job.id)).process == worker.id
    assert (await other.claim()).leases == []


async def test_only_what_is_held_can_be_released(worker: Living) -> None:
    """Not a free job, a running one, one that is unknown; and a held one only once."""
    free, leased, unknown, held = (new_job() for _ in range(4))
    await worker.enqueue(free, placement=Placement.free)
    await worker.enqueue(leased, placement=Placement.leased)
    await worker.enqueue(held)
    jobs = [free.id, leased.id, unknown.id, held.id]
    assert await worker.store.release(worker.id, jobs) == [False, False, False, True]
    assert await worker.store.release(worker.id, jobs) == [False] * 4
    assert (await get(worker.store, leased.id)).status is Status.running
    assert await worker.store.release(worker.id, []) == []


async def test_a_held_job_that_waits_for_its_time_goes_on_waiting(place: Place, worker: Living) -> None:
    job = new_job(delay=60)
    await worker.enqueue(job)
    await worker.store.release(worker.id, [job.id])
    assert (await worker.claim()).leases == []
    place.clock.advance(60)
    assert ids((await worker.claim()).leases) == [job.id]


async def test_time_does_not_release_what_is_held(place: Place, worker: Living, other: Living) -> None:
    """A request may take long; a day later the job still waits for its end."""
    job, later = new_job(), new_job(delay=60)
    await worker.enqueue(job, later)
    place.clock.advance(86_400)
    assert (await other.claim()).leases == []
    assert await worker.store.release(worker.id, [job.id, later.id]) == [True, True]
    assert ids((await other.claim()).leases) == [job.id, later.id]


async def test_what_a_dead_process_held_becomes_claimable(worker: Living, other: Living) -> None:
    """It never ran: no attempt, no death."""
    job = new_job()
    await worker.enqueue(job)
    reaped = await other.store.reap([(worker.id, None)], 2, 1.0)
    assert reaped.jobs == 1
    [lease] = (await other.claim()).leases
    assert (lease.id, lease.attempt, lease.deaths) == (job.id, 1, 0)
    assert (await get(worker.store, job.id)).attempts == ()


async def test_what_a_process_held_that_left_becomes_claimable(worker: Living, other: Living) -> None:
    job = new_job()
    await worker.enqueue(job)
    await worker.store.leave(worker.id)
    assert ids((await other.claim()).leases) == [job.id]


async def test_a_held_job_has_its_unique_key(store: Store, worker: Living) -> None:
    held, second = new_job(unique="daily"), new_job(unique="daily")
    await worker.enqueue(held)
    assert await store.enqueue([(second, Placement.free)], None) == [Stored.exists]
