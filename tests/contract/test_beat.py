"""`join`, `beat` and `leave`: a process shows that it lives, and learns what it holds."""

import pytest

from afterward.job import Placement, Process, Released, Status, Stored, Succeeded
from afterward.stores.base import Known, Reaped, Store
from tests.support.stores import NOTHING, Living, Place, altered, get, ids, new_job, put, send

pytestmark = pytest.mark.anyio


async def test_a_beat_advances_the_counter_that_others_see(worker: Living, other: Living) -> None:
    seen: list[int] = []
    for _ in range(3):
        assert await worker.beat() is not None
        beat = await other.beat()
        assert beat is not None
        seen.append(beat.others[worker.id])
    assert seen[0] < seen[1] < seen[2]


async def test_a_counter_stands_still_without_a_beat(place: Place, worker: Living, other: Living) -> None:
    """Whatever else the process does, and whatever the clock says: only a beat is a sign of life."""
    first = await other.beat()
    await worker.enqueue(new_job())
    await worker.claim()
    place.clock.advance(3600)
    second = await other.beat()
    assert first is not None
    assert second is not None
    assert first.others[worker.id] == second.others[worker.id]


async def test_a_beat_tells_of_every_other_process_and_not_of_its_own(place: Place, worker: Living) -> None:
    others = {(await place.process()).id for _ in range(5)}
    beat = await worker.beat()
    assert beat is not None
    assert set(beat.others) == others


async def test_a_process_that_left_is_not_told_of(worker: Living, other: Living) -> None:
    await other.store.leave(other.id)
    beat = await worker.beat()
    assert beat is not None
    assert beat.others == {}


async def test_a_beat_without_a_row_is_none(store: Store, worker: Living, other: Living) -> None:
    """It was taken for dead, or left, or never joined."""
    assert await store.beat("nobody", lambda: NOTHING) is None
    await other.store.reap([(worker.id, None)], 2, 1.0)
    assert await worker.beat() is None
    assert await worker.beat() is None
    await other.store.leave(other.id)
    assert await other.beat() is None


async def test_a_beat_without_a_row_takes_nothing_from_anybody(worker: Living, other: Living) -> None:
    """What is still in its name is the reapers' to give back, each job once."""
    jobs = [new_job() for _ in range(450)]
    await worker.enqueue(*jobs, placement=Placement.leased)
    reaped = await other.store.reap([(worker.id, None)], 2, 1.0)
    assert reaped.more
    assert await worker.beat(NOTHING) is None
    running = await other.store.list(status=Status.running, limit=1000)
    assert len(running) == len(jobs) - reaped.jobs


async def test_taken_for_dead_a_process_can_join_again_with_another_id(
    place: Place, worker: Living, other: Living
) -> None:
    await other.store.reap([(worker.id, None)], 2, 1.0)
    assert await worker.beat() is None
    await worker.store.join(Process("worker-again", 4711, "example"))
    again = Living(worker.store, "worker-again")
    assert await again.beat() is not None
    await put(worker.store, new_job())
    assert len((await again.claim()).leases) == 1
    await worker.store.leave(again.id)


# What the process believes, and what the store holds.


async def test_what_a_process_knows_stays_its_own(worker: Living, other: Living) -> None:
    """Certain, or possible; and its own beat loses nothing and gives nothing back."""
    certain, possible = await worker.leased(new_job()), await worker.leased(new_job())
    beat = await worker.beat(Known({certain.id: 1}, {possible.id: 1}, frozenset()))
    assert beat is not None
    assert (beat.lost, beat.unknown) == ({}, [])
    assert (await other.claim()).leases == []
    assert await worker.store.finish([(certain, Succeeded()), (possible, Succeeded())]) == [True, True]


async def test_a_leased_job_that_its_process_does_not_know_is_queued_again_at_no_cost(
    worker: Living, other: Living
) -> None:
    """An answer to a claim that got lost leaves no job leased to a process that does not know it."""
    lease = await worker.leased(new_job())

    beat = await worker.beat(NOTHING)

    assert beat is not None
    assert (beat.unknown, beat.lost) == ([lease.id], {})
    job = await get(worker.store, lease.id)
    assert (job.status, job.process, job.failures, job.deaths) == (Status.queued, None, 0, 0)
    assert await worker.store.finish([(lease, Succeeded())]) == [False]
    [again] = (await other.claim()).leases
    assert (again.id, again.attempt) == (lease.id, 2)


async def test_another_attempt_of_a_known_job_is_unknown(worker: Living) -> None:
    """The process thinks of attempt 1, the store of attempt 2: it lost the one, and does not know the other."""
    first = await worker.leased(new_job())
    await worker.store.finish([(first, Released("a shutdown"))])
    second = await worker.claim_one()
    beat = await worker.beat(Known({first.id: 1}, {}, frozenset()))
    assert beat is not None
    assert (beat.lost, beat.unknown) == ({first.id: 1}, [first.id])
    assert await worker.store.finish([(second, Succeeded())]) == [False]


async def test_a_claim_whose_answer_has_not_arrived_is_spared(worker: Living) -> None:
    """By its token; without it, the jobs are given back."""
    await put(worker.store, new_job(), new_job())
    [lease] = (await worker.claim(send(1), token="on-its-way")).leases
    [forgotten] = (await worker.claim(send(1), token="forgotten")).leases
    beat = await worker.beat(Known({}, {}, frozenset({"on-its-way", "unheard"})))
    assert beat is not None
    assert beat.unknown == [forgotten.id]
    assert await worker.store.finish([(lease, Succeeded()), (forgotten, Succeeded())]) == [True, False]


async def test_lost_names_what_was_believed_for_certain_and_is_not_held(worker: Living, other: Living) -> None:
    """Finished, taken over, unknown to the store; what is only possible is not missed."""
    finished, taken, kept = [await worker.leased(new_job()) for _ in range(3)]
    await worker.store.finish([(finished, Succeeded())])
    await worker.store.finish([(taken, Released("a shutdown"))])
    assert ids((await other.claim()).leases) == [taken.id]

    certain = {finished.id: 1, taken.id: 1, kept.id: 1, "unheard": 1}
    beat = await worker.beat(Known(certain, {"going": 1, finished.id: 1}, frozenset()))

    assert beat is not None
    assert sorted(beat.lost) == sorted([finished.id, taken.id, "unheard"])
    assert beat.unknown == []


async def test_a_job_that_was_given_back_waits_no_longer_than_before(place: Place, worker: Living) -> None:
    first, second = new_job(), new_job()
    lease = await worker.leased(first)
    place.clock.advance(10)
    await put(worker.store, second)
    await worker.beat(NOTHING)
    assert ids((await worker.claim()).leases) == [lease.id, second.id]


async def test_leaving_removes_the_row(worker: Living, other: Living) -> None:
    """Twice is lawful; and nothing can be claimed or held in its name any more."""
    await worker.store.leave(worker.id)
    await worker.store.leave(worker.id)
    assert await worker.beat() is None
    assert await worker.enqueue(new_job()) == [Stored.stranger]


async def test_what_a_process_ran_or_held_that_leaves_is_queued_again_at_no_cost(worker: Living, other: Living) -> None:
    """It ends in good order: nobody has died of its jobs, and nobody need look for them."""
    run, held, theirs = await worker.leased(new_job()), new_job(), await other.leased(new_job())
    await worker.enqueue(held)
    await worker.store.leave(worker.id)
    again = (await other.claim()).leases
    assert [(lease.id, lease.attempt, lease.deaths) for lease in again] == [(run.id, 2, 0), (held.id, 1, 0)]
    assert (await get(other.store, run.id)).attempts == ()
    assert await other.store.reap([], 2, 1.0) == Reaped(0, more=False)
    assert await worker.store.finish([(run, Succeeded())]) == [False]
    assert await other.store.finish([(theirs, Succeeded())]) == [True]


async def test_an_old_lease_of_a_job_that_came_back_is_refused(worker: Living) -> None:
    """The same process has the same job again: its first attempt is not its second."""
    first = await worker.leased(new_job())
    await worker.beat(NOTHING)
    second = await worker.claim_one()
    assert (second.id, second.attempt) == (first.id, 2)
    assert await worker.store.finish([(first, Succeeded()), (altered(second, attempt=3), Succeeded())]) == [
        False,
        False,
    ]
    assert await worker.store.finish([(second, Succeeded())]) == [True]
