"""A unique key that is taken: the call is kept back, takes the place of the other, or is refused."""

import pytest

from afterward.job import Failed, OnDuplicate, Placement, Retry, Ruling, Status, Stored, Succeeded
from afterward.stores.base import Store
from tests.support.stores import OOPS, Living, Place, get, ids, new_job, put, send

pytestmark = pytest.mark.anyio


async def test_one_that_replaces_cancels_the_one_that_waits(store: Store, worker: Living) -> None:
    """It runs once, with the arguments of the last call; the first id goes on telling what became of the first."""
    [first] = await put(store, new_job(unique="report", arguments='{"n":1}'))
    second = new_job(unique="report", arguments='{"n":2}', on_duplicate=OnDuplicate.replace)
    await put(store, second)

    replaced = await get(store, first)
    assert (replaced.status, replaced.note) == (Status.cancelled, f"replaced by {second.id}")
    [lease] = (await worker.claim()).leases
    assert (lease.id, lease.arguments) == (second.id, '{"n":2}')


async def test_one_that_is_held_can_be_replaced_too(worker: Living) -> None:
    """Its own request, when it is over, has nothing to let go of."""
    first = new_job(unique="report")
    await worker.enqueue(first)
    await put(worker.store, new_job(unique="report", on_duplicate=OnDuplicate.replace))
    assert (await get(worker.store, first.id)).status is Status.cancelled
    assert await worker.store.release(worker.id, [first.id]) == [False]


async def test_one_that_runs_is_left_to_end_but_not_tried_again(place: Place, worker: Living) -> None:
    """So that what was asked for earlier never comes after what was asked for later."""
    first = await worker.leased(new_job(unique="report"))
    second = new_job(unique="report", on_duplicate=OnDuplicate.replace)
    await put(worker.store, second)
    assert (await get(worker.store, first.id)).status is Status.running

    assert await worker.store.finish([(first, Retry(OOPS, 5))]) == [True]
    place.clock.advance(10)
    assert ids((await worker.claim()).leases) == [second.id]
    assert (await get(worker.store, first.id)).status is Status.cancelled


@pytest.mark.parametrize("killed", ["before, and found", "before", "after"])
async def test_one_that_is_replaced_is_not_run_again_when_its_worker_is_killed(
    place: Place, worker: Living, killed: str
) -> None:
    """Before another process replaces it, be that known by then or not, or after. The new one runs as it was queued."""
    dying = place.living_elsewhere("dying")
    first = new_job(unique="report", arguments='{"n":1}')
    dying.call("enqueue", [(first, Placement.leased)], "dying")
    second = new_job(unique="report", arguments='{"n":2}', on_duplicate=OnDuplicate.replace)

    if killed != "after":
        dying.kill()
    if killed == "before, and found":
        assert (await worker.store.reap([("dying", None)], 2, 1.0)).jobs == 1
    await put(worker.store, second)
    dying.kill()
    await worker.store.reap([("dying", None)], 2, 1.0)

    [lease] = (await worker.claim()).leases
    assert (lease.id, lease.attempt, lease.deaths, lease.arguments) == (second.id, 1, 0, '{"n":2}')
    assert await worker.store.finish([(lease, Succeeded())]) == [True]
    place.clock.advance(60)
    assert (await worker.claim()).leases == []
    assert (await get(worker.store, first.id)).status is Status.cancelled


async def test_one_that_runs_and_was_replaced_may_succeed(worker: Living) -> None:
    first = await worker.leased(new_job(unique="report"))
    await put(worker.store, new_job(unique="report", on_duplicate=OnDuplicate.replace))
    assert await worker.store.finish([(first, Succeeded())]) == [True]
    assert (await get(worker.store, first.id)).status is Status.succeeded


async def test_one_that_refuses_is_not_stored_nor_is_what_came_with_it(store: Store) -> None:
    """All of an `enqueue`, or none of it. What others enqueue at the same time is none of its affair."""
    [first] = await put(store, new_job(unique="report"))
    before, refused, after = new_job(), new_job(unique="report", on_duplicate=OnDuplicate.refuse), new_job()
    beside = store.enqueue([(new_job(), Placement.free)], None)
    together = [(job, Placement.free) for job in (before, refused, after)]
    assert await store.enqueue(together, None) == [Stored.dropped, Stored.refused, Stored.dropped]
    assert await beside == [Stored.stored]
    assert await store.get([before.id, refused.id, after.id]) == [None, None, None]
    assert len(await store.list()) == 2
    assert (await get(store, first)).status is Status.queued


async def test_one_that_refuses_is_stored_where_the_key_is_free(store: Store, worker: Living) -> None:
    job = new_job(unique="report", on_duplicate=OnDuplicate.refuse)
    lease = await worker.leased(job)
    assert await worker.store.finish([(lease, Succeeded())]) == [True]
    await put(store, new_job(unique="report", on_duplicate=OnDuplicate.refuse))


async def test_two_of_one_enqueue_that_refuse_each_other_are_both_not_stored(store: Store) -> None:
    jobs = [(new_job(unique="report", on_duplicate=OnDuplicate.refuse), Placement.free) for _ in range(2)]
    assert await store.enqueue(jobs, None) == [Stored.dropped, Stored.refused]
    assert await store.list() == []


async def test_a_key_belongs_to_its_task(store: Store, worker: Living) -> None:
    [first] = await put(store, new_job(unique="report"))
    await put(store, new_job(task="app:other", unique="report", on_duplicate=OnDuplicate.refuse))
    await put(store, new_job(task="app:third", unique="report", on_duplicate=OnDuplicate.replace))
    assert ids((await worker.claim(send())).leases) == [first]


async def test_what_has_expired_keeps_its_key_from_nobody(place: Place, worker: Living) -> None:
    """Though no claim has come by to cancel it: else the new call would lead to a job that never runs."""
    [first] = await put(worker.store, new_job(unique="report", expires=60))
    place.clock.advance(61)
    second = new_job(unique="report", on_duplicate=OnDuplicate.refuse)
    await put(worker.store, second)
    assert (await get(worker.store, first)).note == "expired"
    assert ids((await worker.claim()).leases) == [second.id]


async def test_what_has_expired_keeps_its_key_from_nobody_who_is_retried(place: Place, worker: Living) -> None:
    failed = await worker.leased(new_job(unique="report"))
    await worker.store.finish([(failed, Failed(OOPS))])
    await put(worker.store, new_job(unique="report", expires=60))
    place.clock.advance(61)
    assert await worker.store.retry([failed.id]) == [Ruling.done]


async def test_one_that_was_replaced_is_not_retried_beside_the_other(worker: Living) -> None:
    """It has kept its key, and says so to whoever looks."""
    first = await worker.leased(new_job(unique="report"))
    second = new_job(unique="report", on_duplicate=OnDuplicate.replace)
    await put(worker.store, second)
    await worker.store.finish([(first, Failed(OOPS))])
    assert (await get(worker.store, first.id)).unique == "report"
    assert await worker.store.retry([first.id]) == [Ruling.taken]

    [lease] = (await worker.claim()).leases
    await worker.store.finish([(lease, Succeeded())])
    assert await worker.store.retry([first.id]) == [Ruling.done]


async def test_one_that_was_replaced_is_not_tried_again_though_the_clock_is_set_back(
    place: Place, worker: Living
) -> None:
    first = await worker.leased(new_job(unique="report"))
    second = new_job(unique="report", on_duplicate=OnDuplicate.replace)
    await put(worker.store, second)
    place.clock.advance(-5)
    await worker.store.finish([(first, Retry(OOPS, 0))])
    place.clock.advance(10)
    assert ids((await worker.claim()).leases) == [second.id]
    replaced = await get(worker.store, first.id)
    assert (replaced.status, replaced.note) == (Status.cancelled, f"replaced by {second.id}")


async def test_the_last_of_three_that_replace_each_other_is_the_one_that_runs(worker: Living) -> None:
    first = await worker.leased(new_job(unique="report"))
    second, third = (new_job(unique="report", on_duplicate=OnDuplicate.replace) for _ in range(2))
    await put(worker.store, second)
    await put(worker.store, third)
    await worker.store.finish([(first, Retry(OOPS, 0))])
    assert ids((await worker.claim()).leases) == [third.id]


async def test_one_that_follows_another_may_replace_too(worker: Living) -> None:
    """What is to follow an attempt goes the way of all that is enqueued."""
    [waiting] = await put(worker.store, new_job(task="app:refresh", unique="report", delay=60))
    lease = await worker.leased(new_job())
    following = new_job(task="app:refresh", unique="report", on_duplicate=OnDuplicate.replace)
    await worker.store.finish([(lease, Succeeded(then=following))])
    assert (await get(worker.store, waiting)).status is Status.cancelled
    assert (await get(worker.store, following.id)).status is Status.queued


async def test_jobs_keep_the_order_in_which_they_were_asked_for(worker: Living) -> None:
    """Those with a key among those without one, too."""
    jobs = [new_job(), new_job(unique="report"), new_job(), new_job(unique="other", on_duplicate=OnDuplicate.refuse)]
    await put(worker.store, *jobs)
    assert ids((await worker.claim(send(limit=10))).leases) == [job.id for job in jobs]
