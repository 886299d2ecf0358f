"""`dead` and `reap`: what belongs to dead processes is queued again, each job exactly once."""

import asyncio

import pytest

from afterward.job import Died, NewJob, Placement, Retry, Status, Succeeded
from afterward.stores.base import Reaped, Store
from tests.support.stores import KINDS, OOPS, Living, Place, get, ids, new_job, send
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio

SUSPECT_AFTER = 2
SUSPECT_DELAY = 5.0


async def reap(store: Store, *buried: tuple[str, int | None]) -> Reaped:
    return await store.reap(buried, SUSPECT_AFTER, SUSPECT_DELAY)


# Death by lock: for certain, or as a sign, as each kind of store can tell it.


async def test_a_process_that_lives_is_never_dead(place: Place, worker: Living, other: Living) -> None:
    """However slow it is: no beat for a day, by any clock."""
    elsewhere = place.living_elsewhere("elsewhere")
    place.clock.advance(86_400)
    assert await place.seem_dead(worker) == set()
    assert await place.seem_dead(other) == set()
    assert elsewhere.call("dead") == []


async def test_a_killed_process_is_dead_at_once(place: Place, worker: Living) -> None:
    place.living_elsewhere("elsewhere").kill()
    await place.seems_dead(worker, "elsewhere")


async def test_a_killed_process_is_dead_to_each_until_it_is_reaped(place: Place, worker: Living, other: Living) -> None:
    place.living_elsewhere("elsewhere").kill()
    await place.seems_dead(other, "elsewhere")
    await place.seems_dead(worker, "elsewhere")
    await reap(worker.store, ("elsewhere", None))
    assert await place.seem_dead(worker) == set()
    assert await place.seem_dead(other) == set()


async def test_a_store_that_proves_deaths_says_so(place: Place) -> None:
    """Also before it is open."""
    assert place.make().proves_death is KINDS[place.kind].proves_death


async def test_what_a_killed_process_ran_is_run_again(place: Place, worker: Living) -> None:
    elsewhere = place.living_elsewhere("elsewhere")
    ran, held = new_job(), new_job()
    elsewhere.call("enqueue", [(ran, Placement.leased), (held, Placement.held)], "elsewhere")
    elsewhere.kill()

    await place.seems_dead(worker, "elsewhere")
    assert await reap(worker.store, ("elsewhere", None)) == Reaped(2, more=False)

    leases = (await worker.claim()).leases
    assert [(lease.id, lease.attempt, lease.deaths) for lease in leases] == [(ran.id, 2, 1), (held.id, 1, 0)]


async def test_a_process_that_left_is_not_dead(place: Place, worker: Living, other: Living) -> None:
    await worker.store.leave(worker.id)
    assert await place.seem_dead(other) == set()


async def test_a_closed_store_lets_go_of_its_lock(place: Place, worker: Living, other: Living) -> None:
    """A process that closed its store without leaving shows as dead, as if it had been killed."""
    lease = await worker.leased(new_job())
    await worker.store.close()
    await place.seems_dead(other, worker.id)
    await reap(other.store, (worker.id, None))
    assert ids((await other.claim()).leases) == [lease.id]


# Frozen: declared by counter.


async def test_a_frozen_process_is_buried_by_its_counter(worker: Living, other: Living) -> None:
    await worker.leased(new_job())
    await worker.beat()
    beat = await other.look()
    assert await reap(other.store, (worker.id, beat.others[worker.id])) == Reaped(1, more=False)
    assert await worker.beat() is None


async def test_a_process_that_has_beaten_since_is_not_buried(worker: Living, other: Living) -> None:
    """The counter is compared in the same transaction: who woke up in the last moment keeps everything."""
    lease = await worker.leased(new_job())
    beat = await other.look()
    assert await worker.beat() is not None

    assert await reap(other.store, (worker.id, beat.others[worker.id])) == Reaped(0, more=False)

    assert await worker.beat() is not None
    assert await worker.store.finish([(lease, Succeeded())]) == [True]


async def test_one_living_among_the_buried_stops_nothing(place: Place, worker: Living, other: Living) -> None:
    third = await place.process()
    mine, theirs = await worker.leased(new_job()), await third.leased(new_job())
    assert await reap(other.store, ("unheard", None), (worker.id, 4711), (third.id, None)) == Reaped(1, more=False)
    assert (await get(other.store, mine.id)).status is Status.running
    assert (await get(other.store, theirs.id)).status is Status.queued


# What becomes of the jobs.


async def test_nothing_is_taken_from_the_living(worker: Living, other: Living) -> None:
    lease, held = await worker.leased(new_job()), new_job()
    await worker.enqueue(held)
    assert await reap(other.store) == Reaped(0, more=False)
    assert await worker.store.finish([(lease, Succeeded())]) == [True]
    assert await worker.store.release(worker.id, [held.id]) == [True]


async def test_an_orphan_whose_row_is_long_gone_is_found(place: Place, worker: Living, other: Living) -> None:
    """Also on an idle queue, by another reaper, and though nobody names its process any more."""
    jobs = [new_job() for _ in range(450)]
    await worker.enqueue(*jobs, placement=Placement.leased)
    found = (await reap(other.store, (worker.id, None))).jobs
    store = await place.open()
    while (reaped := await reap(store)).jobs:
        found += reaped.jobs
    assert found == len(jobs)


async def test_a_death_is_remembered_as_an_attempt(worker: Living, other: Living) -> None:
    lease = await worker.leased(new_job())
    await reap(other.store, (worker.id, None))
    job = await get(other.store, lease.id)
    assert (job.status, job.deaths, job.failures, job.process) == (Status.queued, 1, 0, None)
    [attempt] = job.attempts
    assert (attempt.number, attempt.outcome) == (1, "died")
    assert attempt.failure is not None
    assert attempt.failure.kind == "afterward.errors.WorkerDied"
    assert attempt.started_at == job.started_at


async def test_after_its_first_death_a_job_is_due_at_once(worker: Living, other: Living) -> None:
    lease = await worker.leased(new_job())
    await reap(other.store, (worker.id, None))
    [again] = (await other.claim()).leases
    assert (again.id, again.attempt, again.deaths) == (lease.id, 2, 1)


async def test_from_suspect_after_on_it_waits(place: Place, other: Living) -> None:
    """By the store's clock."""
    job = new_job()
    await die_with(place, other, job, leased=True)
    await die_with(place, other, job)

    assert (await get(other.store, job.id)).deaths == SUSPECT_AFTER
    claimed = await other.claim()
    assert claimed.leases == []
    assert claimed.next_due == pytest.approx(SUSPECT_DELAY)
    place.clock.advance(SUSPECT_DELAY)
    [again] = (await other.claim()).leases
    assert (again.attempt, again.deaths) == (3, SUSPECT_AFTER)


async def test_deaths_are_counted_up_to_suspect_after(place: Place, other: Living) -> None:
    """A suspect runs in a child of its own: that its worker dies is not its doing any more."""
    job = new_job()
    await die_with(place, other, job, leased=True)
    seen = await get(other.store, job.id)
    for attempt in range(2, 6):
        await die_with(place, other, job)
        seen = await get(other.store, job.id)
        assert (seen.deaths, seen.attempt, seen.failures) == (SUSPECT_AFTER, attempt, 0)
        place.clock.advance(SUSPECT_DELAY)
    assert [attempt.outcome for attempt in seen.attempts] == ["died"] * 5


async def test_beyond_suspect_after_a_reap_takes_no_death_back(place: Place, worker: Living, other: Living) -> None:
    """What `Died` counted stays counted."""
    job = new_job()
    await die_with(place, other, job, leased=True)
    await die_with(place, other, job)
    place.clock.advance(SUSPECT_DELAY)
    lease = await worker.claim_one()
    await worker.store.finish([(lease, Died(OOPS, 0, final=False))])
    assert (await get(other.store, job.id)).deaths == SUSPECT_AFTER + 1
    await die_with(place, other, job)
    assert (await get(other.store, job.id)).deaths == SUSPECT_AFTER + 1


async def test_failures_survive_a_death(worker: Living, other: Living) -> None:
    lease = await worker.leased(new_job())
    await worker.store.finish([(lease, Retry(OOPS, 0))])
    await worker.claim_one()
    await reap(other.store, (worker.id, None))
    [again] = (await other.claim()).leases
    assert (again.attempt, again.failures, again.deaths) == (3, 1, 1)


async def test_neighbours_of_a_death_are_treated_alike(worker: Living, other: Living) -> None:
    """Each job that the process ran is charged one death, each that it held none."""
    leases = [await worker.leased(new_job()) for _ in range(5)]
    held = [new_job() for _ in range(5)]
    await worker.enqueue(*held)
    assert (await reap(other.store, (worker.id, None))).jobs == 10
    again = (await other.claim(send(20))).leases
    assert sorted((lease.id, lease.deaths) for lease in again) == sorted(
        [(lease.id, 1) for lease in leases] + [(job.id, 0) for job in held]
    )


# Many of them, and many reapers.


async def test_all_pages_are_done_in_the_end(worker: Living, other: Living) -> None:
    """One page a call, and each job once."""
    jobs = [new_job() for _ in range(450)]
    assert set(await worker.enqueue(*jobs, placement=Placement.leased)) == {"stored"}

    total, calls, buried = 0, 0, [(worker.id, None)]
    while True:
        reaped = await reap(other.store, *buried)
        total, calls, buried = total + reaped.jobs, calls + 1, []
        if not reaped.more:
            break
        assert 0 < reaped.jobs < len(jobs)
    assert total == len(jobs)
    assert calls > 1
    claimed = await other.claim(send(1000))
    assert sorted(ids(claimed.leases)) == sorted(job.id for job in jobs)
    assert {(lease.attempt, lease.deaths) for lease in claimed.leases} == {(2, 1)}


async def test_a_dead_process_stays_dead_until_its_last_page(place: Place, worker: Living) -> None:
    """A reaper that dies after the first page leaves the rest to be found."""
    elsewhere = place.living_elsewhere("elsewhere")
    elsewhere.call("enqueue", [(new_job(), Placement.leased) for _ in range(300)], "elsewhere")
    elsewhere.kill()
    await place.seems_dead(worker, "elsewhere")
    reaped = await reap(worker.store, ("elsewhere", None))
    total = reaped.jobs
    while reaped.more:
        assert (await worker.look()).has_orphans
        assert await worker.store.dead() == (["elsewhere"] if KINDS[place.kind].proves_death else [])
        reaped = await reap(worker.store, ("elsewhere", None))
        total += reaped.jobs
    assert total == 300
    assert await place.seem_dead(worker) == set()


async def test_two_reapers_at_once_queue_each_job_once(place: Place, worker: Living, other: Living) -> None:
    """In two store objects at the same moment, again and again until nothing is left."""
    third = await place.process()
    jobs = [new_job() for _ in range(500)]
    await worker.enqueue(*jobs, placement=Placement.leased)

    async def reap_all(store: Store) -> int:
        total, buried = 0, [(worker.id, None)]
        while True:
            reaped = await reap(store, *buried)
            total, buried = total + reaped.jobs, []
            if not reaped.more:
                return total

    counts = await asyncio.gather(reap_all(other.store), reap_all(third.store))

    assert sum(counts) == len(jobs)
    leases = (await other.claim(send(1000))).leases
    assert sorted(ids(leases)) == sorted(job.id for job in jobs)
    assert {(lease.attempt, lease.deaths) for lease in leases} == {(2, 1)}


async def test_reapers_in_two_processes_queue_each_job_once(place: Place, worker: Living, other: Living) -> None:
    reapers = [place.other_process(), place.other_process()]
    for reaper in reapers:
        reaper.call("open")
    jobs = [new_job() for _ in range(150)]
    for round_ in range(10):
        process = await place.process()
        placement = Placement.leased if round_ % 2 else Placement.held
        await process.enqueue(*(new_job(task=f"app:{round_}") for _ in jobs), placement=placement)
        for reaper in reapers:
            reaper.begin("reap", [(process.id, None)], SUSPECT_AFTER, SUSPECT_DELAY)
        assert sum(reaper.answer().jobs for reaper in reapers) == len(jobs)
    seen = await worker.store.list(limit=10_000)
    assert len(seen) == 10 * len(jobs)
    assert {(job.status, job.process) for job in seen} == {(Status.queued, None)}
    assert {(job.attempt, job.deaths) for job in seen} == {(0, 0), (1, 1)}


async def test_a_finish_and_a_reap_at_once_leave_one_truth(place: Place, worker: Living, other: Living) -> None:
    """Either the process finished its job in time, or the job is queued again and the process is told so."""
    for _ in range(20):
        process = await place.process()
        lease = await process.leased(new_job())
        [finished], reaped = await asyncio.gather(
            process.store.finish([(lease, Succeeded())]), reap(other.store, (process.id, None))
        )
        job = await get(worker.store, lease.id)
        assert (job.status, reaped.jobs) == ((Status.succeeded, 0) if finished else (Status.queued, 1))


async def test_a_reap_wakes_one_who_waits_for_jobs(worker: Living, other: Living) -> None:
    await worker.leased(new_job())
    waiting = asyncio.create_task(other.store.wait(60))
    await reap(other.store, (worker.id, None))
    await soon(waiting.done, "the worker is woken")
    await waiting


async def die_with(place: Place, reaper: Living, job: NewJob, *, leased: bool = False) -> None:
    """A process takes the job and dies with it."""
    process = await place.process()
    if leased:
        await process.leased(job)
    else:
        await process.claim_one()
    assert (await reap(reaper.store, (process.id, None))).jobs == 1
