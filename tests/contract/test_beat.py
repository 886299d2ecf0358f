"""`join`, `beat` and `leave`: a process shows that it lives, and learns what it holds."""

import pytest

from afterward.job import Placement, Process, Released, Status, Stored, Succeeded
from afterward.stores.base import Held, Reaped, Store
from tests.support.stores import Living, Place, altered, get, ids, new_job, put, put_file, send, sweep

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
    assert await store.beat("nobody") is None
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
    assert await worker.beat() is None
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


# What the store holds in a process's name.


async def test_a_beat_names_what_is_held_with_its_attempt_and_token(worker: Living, other: Living) -> None:
    """Leased, claimed or held; not what is free, has ended, or is another's."""
    leased, held, finished, free = await worker.leased(new_job()), new_job(), await worker.leased(new_job()), new_job()
    await worker.enqueue(held)
    await worker.store.finish([(finished, Succeeded())])
    await other.leased(new_job())
    await put(worker.store, new_job())
    [claimed] = (await worker.claim(send(1), token="a-token")).leases
    await put(worker.store, free)

    assert (await worker.look()).held == {
        leased.id: Held(1, None),
        held.id: Held(0, None),
        claimed.id: Held(1, "a-token"),
    }


async def test_a_beat_names_the_attempt_that_a_process_has_now(worker: Living) -> None:
    first = await worker.leased(new_job())
    await worker.store.finish([(first, Released("a shutdown"))])
    assert (await worker.look()).held == {}
    await worker.claim(token="a-token")
    assert (await worker.look()).held == {first.id: Held(2, "a-token")}


async def test_a_beat_changes_nothing_but_its_counter(worker: Living, other: Living) -> None:
    """What a process does not know of, it has to say itself."""
    lease, held = await worker.leased(new_job()), new_job()
    await worker.enqueue(held)
    before = await worker.store.list()
    assert (await worker.look()).held == (await worker.look()).held
    assert await worker.store.list() == before
    assert (await other.claim()).leases == []
    assert await worker.store.finish([(lease, Succeeded())]) == [True]


async def test_a_beat_names_the_files_that_are_no_job_s_yet(worker: Living, other: Living) -> None:
    mine, half, linked = await put_file(worker, b"a"), await put_file(worker, b"b"), await put_file(worker, b"c")
    theirs = await put_file(other, b"d")
    await worker.store.put_chunk(half.id, 0, b"B", worker.id, is_last=False)
    await worker.enqueue(new_job(files=(linked,)))
    assert (await worker.look()).files == {mine.id, half.id}
    assert (await other.look()).files == {theirs.id}


async def test_a_beat_of_who_is_well_sees_no_signs_of_death_and_no_orphans(worker: Living, other: Living) -> None:
    await worker.leased(new_job())
    await worker.enqueue(new_job())
    beat = await other.look()
    assert (beat.signs, beat.has_orphans) == (frozenset(), False)


async def test_a_beat_tells_when_there_is_work_for_a_reap(worker: Living, other: Living) -> None:
    """Though nobody names the process any more, and until the last of its jobs is queued again."""
    await worker.enqueue(*(new_job() for _ in range(450)))
    reaped = await other.store.reap([(worker.id, None)], 2, 1.0)
    while reaped.more:
        assert (await other.look()).has_orphans
        reaped = await other.store.reap([], 2, 1.0)
    assert not (await other.look()).has_orphans


# What a process does not know of is given back.


async def test_a_leased_job_that_is_given_back_is_queued_again_at_no_cost(worker: Living, other: Living) -> None:
    """An answer to a claim that got lost leaves no job leased to a process that does not know it."""
    lease = await worker.leased(new_job())
    assert await worker.store.give_back(worker.id, [(lease.id, 1)], []) == [True]
    job = await get(worker.store, lease.id)
    assert (job.status, job.process, job.failures, job.deaths, job.attempts) == (Status.queued, None, 0, 0, ())
    assert await worker.store.finish([(lease, Succeeded())]) == [False]
    [again] = (await other.claim()).leases
    assert (again.id, again.attempt) == (lease.id, 2)


async def test_a_held_job_that_is_given_back_can_be_claimed(worker: Living, other: Living) -> None:
    held = new_job()
    await worker.enqueue(held)
    assert await worker.store.give_back(worker.id, [(held.id, 0)], []) == [True]
    [lease] = (await other.claim()).leases
    assert (lease.id, lease.attempt, lease.deaths) == (held.id, 1, 0)


async def test_only_the_attempt_that_is_named_is_given_back(worker: Living, other: Living) -> None:
    """By compare-and-swap: not one that another process has, nor the next attempt of the same job, nor what ended."""
    theirs, ended = await other.leased(new_job()), await worker.leased(new_job())
    await worker.store.finish([(ended, Succeeded())])
    held, first = new_job(), await worker.leased(new_job())
    await worker.enqueue(held)
    await worker.store.finish([(first, Released("a shutdown"))])
    second = await worker.claim_one()
    before = await worker.store.list()

    gone = [(theirs.id, 1), (ended.id, 1), (first.id, 1), (first.id, 3), (held.id, 1), ("unheard", 1)]
    assert await worker.store.give_back(worker.id, gone, []) == [False] * len(gone)
    assert await worker.store.give_back("nobody", [(second.id, 2), (held.id, 0)], []) == [False, False]

    assert await worker.store.list() == before
    assert await worker.store.finish([(second, Succeeded()), (theirs, Succeeded())]) == [True, True]
    assert await worker.store.release(worker.id, [held.id]) == [True]


async def test_what_was_let_go_since_is_not_given_back_again(worker: Living, other: Living) -> None:
    """Between the beat that saw it and this, its request has ended, and another process has begun it."""
    held = new_job()
    await worker.enqueue(held)
    beat = await worker.look()
    await worker.store.release(worker.id, [held.id])
    lease = await other.claim_one()
    assert await worker.store.give_back(worker.id, [(held.id, beat.held[held.id].attempt)], []) == [False]
    assert await other.store.finish([(lease, Succeeded())]) == [True]


async def test_to_give_back_again_changes_nothing(worker: Living, other: Living) -> None:
    lease, file = await worker.leased(new_job()), await put_file(worker, b"a")
    assert await worker.store.give_back(worker.id, [(lease.id, 1)], [file.id]) == [True]
    again = await other.claim_one()
    assert await worker.store.give_back(worker.id, [(lease.id, 1)], [file.id]) == [False]
    assert await other.store.finish([(again, Succeeded())]) == [True]


async def test_one_answer_is_given_for_each_attempt_in_order(worker: Living) -> None:
    first, second = await worker.leased(new_job()), await worker.leased(new_job())
    assert await worker.store.give_back(worker.id, [(second.id, 1), ("unheard", 0), (first.id, 1)], []) == [
        True,
        False,
        True,
    ]
    assert await worker.store.give_back(worker.id, [], []) == []


async def test_files_that_are_given_back_are_freed_and_no_others(worker: Living, other: Living) -> None:
    """Those in the name of the process that are no job's; the others may be named, and stay."""
    mine, kept, linked = await put_file(worker, b"a"), await put_file(worker, b"b"), await put_file(worker, b"c")
    theirs = await put_file(other, b"d")
    await worker.enqueue(new_job(files=(linked,)))
    await worker.store.give_back(worker.id, [], [mine.id, linked.id, theirs.id, "unheard"])
    assert await sweep(worker.store) == 1
    assert (await worker.look()).files == {kept.id}
    assert (await other.look()).files == {theirs.id}


async def test_a_job_that_was_given_back_waits_no_longer_than_before(place: Place, worker: Living) -> None:
    first, second = new_job(), new_job()
    lease = await worker.leased(first)
    place.clock.advance(10)
    await put(worker.store, second)
    await worker.give_all_back()
    assert ids((await worker.claim()).leases) == [lease.id, second.id]


async def test_a_process_that_joins_again_stays_as_it_is(worker: Living, other: Living) -> None:
    """Its counter goes on: a join whose answer was lost is asked for again."""
    lease = await worker.leased(new_job())
    await worker.beat()
    before = (await other.look()).others
    await other.store.join(Process(worker.id, 4711, "example"))
    assert (await other.look()).others == before
    assert await worker.store.finish([(lease, Succeeded())]) == [True]


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
    await worker.give_all_back()
    second = await worker.claim_one()
    assert (second.id, second.attempt) == (first.id, 2)
    assert await worker.store.finish([(first, Succeeded()), (altered(second, attempt=3), Succeeded())]) == [
        False,
        False,
    ]
    assert await worker.store.finish([(second, Succeeded())]) == [True]
