"""`stats`: what there is to do, by queue."""

import pytest

from afterward.job import Placement, Released, Retry, Succeeded
from afterward.stores.base import COUNTED, QueueStats, Stats, Store
from tests.support.stores import KINDS, OOPS, Living, Place, new_job, put

pytestmark = pytest.mark.anyio


async def of(store: Store, queue: str = "default") -> QueueStats:
    """What is counted of one queue."""
    found = {counted.queue: counted for counted in (await store.stats()).queues}
    return found.get(queue, QueueStats(queue, 0, 0.0, 0, 0, 0))


async def test_an_empty_store_has_nothing_to_do(store: Store) -> None:
    assert await store.stats() == Stats([], 0)


async def test_each_unfinished_job_is_counted_in_one_place(place: Place, store: Store, worker: Living) -> None:
    """Ready, later, held or running; what has ended, nowhere."""
    await put(store, *(new_job() for _ in range(2)), *(new_job(delay=60) for _ in range(3)))
    await worker.enqueue(*(new_job() for _ in range(4)))
    for _ in range(5):
        await worker.leased(new_job())
    ended = await worker.leased(new_job())
    await store.finish([(ended, Succeeded())])
    place.clock.advance(7)
    assert await of(store) == QueueStats("default", depth=2, oldest_age=7.0, later=3, held=4, running=5)


async def test_queues_are_told_apart_and_come_in_order(store: Store, worker: Living) -> None:
    """One that has only jobs that wait, are held or run is there as well; one whose jobs have all ended is not."""
    await put(store, new_job(queue="b"), new_job(queue="d", delay=60), new_job(queue="a"), new_job(queue="a"))
    await worker.enqueue(new_job(queue="c"))
    await worker.leased(new_job(queue="e"))
    ended = await worker.leased(new_job(queue="f"))
    await store.finish([(ended, Succeeded())])
    found = [(one.queue, one.depth, one.later, one.held, one.running) for one in (await store.stats()).queues]
    assert found == [("a", 2, 0, 0, 0), ("b", 1, 0, 0, 0), ("c", 0, 0, 1, 0), ("d", 0, 1, 0, 0), ("e", 0, 0, 0, 1)]


async def test_the_oldest_is_found_whatever_its_task_and_priority(place: Place, store: Store) -> None:
    """Behind any number of jobs that are more urgent, and of other tasks; its age is measured on the store's clock."""
    await put(store, new_job(task="app:resize", priority=-7))
    for age in range(1, 10):
        place.clock.advance(1)
        await put(store, *(new_job(priority=priority) for priority in (age, 0, -age)))
        await put(store, new_job(task="app:aaa", priority=age), new_job(task="app:zzz"))
    assert ((await of(store)).depth, (await of(store)).oldest_age) == (46, 9.0)


async def test_what_comes_due_is_ready_though_nobody_has_looked(place: Place, store: Store, worker: Living) -> None:
    """It is as old as it has been due, and not as it has been stored; a claim that looks changes nothing in that."""
    await put(store, new_job(delay=60), new_job(delay=61), new_job(delay=90))
    assert ((await of(store)).depth, (await of(store)).later) == (0, 3)
    place.clock.advance(65)
    expected = QueueStats("default", depth=2, oldest_age=5.0, later=1, held=0, running=0)
    assert await of(store) == expected
    await worker.claim([])
    assert await of(store) == expected


async def test_an_age_is_never_below_nothing(place: Place, store: Store) -> None:
    """A clock that was set back does not make a job come from the future."""
    await put(store, new_job())
    place.clock.advance(-60)
    assert ((await of(store)).depth, (await of(store)).oldest_age) == (1, 0.0)


async def test_a_job_is_counted_where_its_moves_lead_it(place: Place, store: Store, worker: Living) -> None:
    """Held, ready, running, later, ready again, and gone."""

    async def stands() -> tuple[int, int, int, int]:
        counted = await of(store)
        return counted.depth, counted.later, counted.held, counted.running

    job = new_job(delay=10)
    await worker.enqueue(job)
    assert await stands() == (0, 0, 1, 0)
    await store.release(worker.id, [job.id])
    assert await stands() == (0, 1, 0, 0)
    place.clock.advance(10)
    assert await stands() == (1, 0, 0, 0)
    first = await worker.claim_one()
    assert await stands() == (0, 0, 0, 1)
    await store.finish([(first, Retry(OOPS, 30))])
    assert await stands() == (0, 1, 0, 0)
    place.clock.advance(30)
    await store.finish([(await worker.claim_one(), Released("a shutdown"))])
    assert await stands() == (1, 0, 0, 0)
    await store.cancel([job.id])
    assert await stands() == (0, 0, 0, 0)


async def test_jobs_that_do_not_fit_somebody_are_ready_for_others(store: Store, worker: Living) -> None:
    lease = await worker.leased(new_job())
    await store.finish([(lease, Released("it lacks a size", 0, "v1"))])
    await put(store, new_job())
    assert (await of(store)).depth == 2


async def test_one_that_has_expired_waits_until_it_is_cancelled(place: Place, store: Store, worker: Living) -> None:
    await put(store, new_job(expires=1))
    place.clock.advance(2)
    assert (await of(store)).depth == 1
    await worker.claim()
    assert (await store.stats()).queues == []


async def test_a_queue_is_counted_so_far_and_no_further(store: Store) -> None:
    """Exactly up to the limit; with the age of the oldest all the same, and other queues as they are."""
    for queue, many in (("few", COUNTED - 1), ("many", COUNTED + 5)):
        await put(store, *(new_job(queue=queue, task=f"app:{number % 2}") for number in range(many)))
        await put(store, *(new_job(queue=queue, delay=60) for _ in range(many)))
    few, many_ = (await store.stats()).queues
    assert (few.depth, few.later) == (COUNTED - 1, COUNTED - 1)
    assert (many_.depth, many_.later) == (COUNTED, COUNTED)


async def test_processes_are_counted_while_they_live(place: Place, store: Store, worker: Living) -> None:
    """Also such as run no jobs; not one that has left, or was taken for dead."""
    other, third = await place.process(), await place.process()
    assert (await store.stats()).processes == 3
    await other.store.leave(other.id)
    assert (await store.stats()).processes == 2
    await store.reap([(third.id, None)], 2, 1.0)
    assert (await store.stats()).processes == 1


async def test_a_process_that_was_killed_does_not_count_where_its_death_is_certain(place: Place, store: Store) -> None:
    """Though nobody is left to bury it."""
    elsewhere = place.living_elsewhere("elsewhere")
    assert (await store.stats()).processes == 1
    elsewhere.kill()
    assert (await store.stats()).processes == (0 if KINDS[place.kind].proves_death else 1)


async def test_what_a_dead_process_held_is_counted_as_the_dead_left_it_until_it_is_reaped(
    place: Place, store: Store, worker: Living
) -> None:
    """What is counted is what the store holds, never a guess."""
    other = await place.process()
    await other.enqueue(new_job())
    await other.enqueue(new_job(), placement=Placement.leased)
    assert ((await of(store)).held, (await of(store)).running) == (1, 1)
    await worker.store.reap([(other.id, None)], 2, 1.0)
    assert (await of(store)) == QueueStats("default", depth=2, oldest_age=0.0, later=0, held=0, running=0)
