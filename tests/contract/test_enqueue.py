"""`enqueue`: jobs get in, all of them or none, free, held or leased."""

from datetime import UTC, datetime, timedelta

import pytest

from afterward.errors import StoreError
from afterward.job import Placement, Status, Stored, Succeeded
from afterward.stores.base import Store
from tests.support.stores import MORNING, Living, Place, get, ids, new_job, put, send

pytestmark = pytest.mark.anyio


async def test_a_stored_job_reads_back_as_it_was_given(store: Store) -> None:
    """Every field arrives; its times are the store's."""
    job = new_job(task="app:resize", queue="slow", priority=-3, arguments='{"ü":"\\u0000\\"😀"}', unique="thumb-7")

    assert await store.enqueue([(job, Placement.free)], None) == [Stored.stored]

    stored = await get(store, job.id)
    now = datetime.fromtimestamp(MORNING, UTC)
    assert (stored.id, stored.task, stored.queue, stored.priority) == (job.id, "app:resize", "slow", -3)
    assert (stored.arguments, stored.unique, stored.status) == (job.arguments, "thumb-7", Status.queued)
    assert (stored.attempt, stored.failures, stored.deaths, stored.attempts) == (0, 0, 0, ())
    assert (stored.result, stored.failure, stored.note, stored.process) == (None, None, None, None)
    assert (stored.created_at, stored.run_at, stored.started_at, stored.finished_at) == (now, now, None, None)


async def test_a_delay_counts_from_the_clock_of_the_store(place: Place, store: Store) -> None:
    place.clock.now = 2_000_000_000
    [later] = await put(store, new_job(delay=90.5))
    assert (await get(store, later)).run_at == datetime.fromtimestamp(2_000_000_090.5, UTC)


async def test_run_at_is_an_instant_whatever_its_zone(store: Store) -> None:
    instant = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    moved = instant.astimezone(datetime.now().astimezone().tzinfo).astimezone(
        datetime.strptime("+0530", "%z").tzinfo,
    )
    [job] = await put(store, new_job(run_at=moved))
    assert (await get(store, job)).run_at == instant


@pytest.mark.parametrize("run_at", [datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)])
async def test_a_run_at_at_the_end_of_time_can_be_looked_at(store: Store, run_at: datetime) -> None:
    """ "Never" and "long ago" are instants as others; they make no other job unreadable."""
    [job, plain] = await put(store, new_job(run_at=run_at), new_job())
    assert abs((await get(store, job)).run_at - run_at) < timedelta(seconds=1)
    assert {seen.id for seen in await store.list()} == {job, plain}


async def test_a_free_job_can_be_claimed_by_any_process(store: Store, worker: Living, other: Living) -> None:
    first, second = await put(store, new_job(), new_job())
    assert ids((await worker.claim(send(1))).leases) == [first]
    assert ids((await other.claim(send(1))).leases) == [second]


async def test_a_held_job_can_be_claimed_by_nobody(worker: Living, other: Living) -> None:
    """Not even by the process that holds it."""
    job = new_job()
    assert await worker.enqueue(job, placement=Placement.held) == [Stored.stored]

    assert (await worker.claim()).leases == []
    assert (await other.claim()).leases == []
    held = await get(worker.store, job.id)
    assert (held.status, held.process, held.attempt) == (Status.queued, worker.id, 0)


async def test_a_leased_job_starts_as_attempt_1_running(place: Place, worker: Living, other: Living) -> None:
    """It needs no claim, nobody else gets it, and it can be finished as any lease."""
    lease = await worker.leased(new_job())

    job = await get(worker.store, lease.id)
    assert (job.status, job.attempt, job.process) == (Status.running, 1, worker.id)
    assert job.started_at == datetime.fromtimestamp(place.clock.now, UTC)
    assert (await other.claim()).leases == []
    assert await worker.store.finish([(lease, Succeeded())]) == [True]


@pytest.mark.parametrize("placement", [Placement.held, Placement.leased])
async def test_a_process_without_a_row_is_a_stranger(store: Store, worker: Living, placement: Placement) -> None:
    """One that never joined, and one that was taken for dead: nothing is stored in their names."""
    job, again = new_job(), new_job()
    assert await store.enqueue([(job, placement)], "nobody") == [Stored.stranger]
    await worker.store.leave(worker.id)
    assert await store.enqueue([(again, placement)], worker.id) == [Stored.stranger]
    assert await store.get([job.id, again.id]) == [None, None]


async def test_what_is_free_is_stored_beside_what_a_stranger_wanted_to_hold(store: Store) -> None:
    """One answer for each, in order."""
    held, free, leased = new_job(), new_job(), new_job()
    jobs = [(held, Placement.held), (free, Placement.free), (leased, Placement.leased)]
    assert await store.enqueue(jobs, "nobody") == [Stored.stranger, Stored.stored, Stored.stranger]
    assert [seen.id for seen in await store.list()] == [free.id]


async def test_one_batch_may_hold_every_placement(worker: Living) -> None:
    free, held, leased = new_job(), new_job(), new_job()
    jobs = [(free, Placement.free), (held, Placement.held), (leased, Placement.leased)]
    assert await worker.store.enqueue(jobs, worker.id) == [Stored.stored] * 3
    assert [seen.status for seen in await worker.store.list()] == [Status.running, Status.queued, Status.queued]
    assert ids((await worker.claim()).leases) == [free.id]


async def test_of_a_batch_that_cannot_be_stored_nothing_is_stored(store: Store) -> None:
    """All of them, or none when it raises: here one id is taken."""
    [taken] = await put(store, new_job())
    before, after = new_job(), new_job()
    with pytest.raises(StoreError):
        await store.enqueue(
            [(before, Placement.free), (new_job(id=taken), Placement.free), (after, Placement.free)], None
        )
    assert await store.get([before.id, after.id]) == [None, None]
    assert [job.id for job in await store.list()] == [taken]


async def test_an_empty_batch_is_lawful(store: Store) -> None:
    assert await store.enqueue([], None) == []


# Unique keys.


async def test_a_unique_key_is_stored_once_and_both_ids_lead_to_the_job(store: Store) -> None:
    first, second = new_job(unique="daily", arguments='{"n":1}'), new_job(unique="daily", arguments='{"n":2}')
    assert await store.enqueue([(first, Placement.free)], None) == [Stored.stored]
    assert await store.enqueue([(second, Placement.free)], None) == [Stored.exists]

    by_first, by_second = await store.get([first.id, second.id])
    assert by_first == by_second
    assert by_first is not None
    assert (by_first.id, by_first.arguments) == (first.id, '{"n":1}')
    assert len(await store.list()) == 1


async def test_a_unique_key_is_stored_once_within_one_batch(store: Store) -> None:
    first, plain, second = new_job(unique="daily"), new_job(), new_job(unique="daily")
    jobs = [(job, Placement.free) for job in (first, plain, second)]
    assert await store.enqueue(jobs, None) == [Stored.stored, Stored.stored, Stored.exists]
    assert len(await store.list()) == 2


async def test_a_unique_key_holds_for_its_task_alone(store: Store) -> None:
    await put(store, new_job(unique="daily", task="app:send"), new_job(unique="daily", task="app:resize"))
    assert len(await store.list()) == 2


@pytest.mark.parametrize("placement", list(Placement))
async def test_a_unique_key_is_taken_as_long_as_its_job_is_unfinished(worker: Living, placement: Placement) -> None:
    """Queued, held or running: an unfinished job has the key, and another placement does not get around it."""
    first = new_job(unique="daily")
    assert await worker.enqueue(first, placement=placement) == [Stored.stored]
    for wanted in Placement:
        second = new_job(unique="daily")
        assert await worker.enqueue(second, placement=wanted) == [Stored.exists]
        assert (await get(worker.store, second.id)).id == first.id


async def test_a_unique_key_is_free_again_when_its_job_is_finished(worker: Living) -> None:
    """The old alias goes on leading to the old job."""
    first, alias, second = (new_job(unique="daily") for _ in range(3))
    lease = await worker.leased(first)
    assert await worker.enqueue(alias) == [Stored.exists]
    assert await worker.store.finish([(lease, Succeeded('"done"'))]) == [True]

    assert await worker.enqueue(second) == [Stored.stored]
    assert (await get(worker.store, second.id)).status is Status.queued
    assert (await get(worker.store, alias.id)).id == first.id


async def test_a_stranger_takes_no_unique_key(store: Store) -> None:
    assert await store.enqueue([(new_job(unique="daily"), Placement.held)], "nobody") == [Stored.stranger]
    await put(store, new_job(unique="daily"))
