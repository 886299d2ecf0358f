"""`enqueue`: jobs get in, all of them or none, free, held or leased."""

from datetime import UTC, datetime, timedelta

import pytest

from afterward.errors import StoreError
from afterward.job import Failed, OnDuplicate, Placement, Retry, Status, Stored, Succeeded
from afterward.stores.base import Store
from tests.support.stores import (
    MORNING,
    OOPS,
    Living,
    Place,
    get,
    ids,
    new_file,
    new_job,
    put,
    put_file,
    send,
    sweep,
)

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
    """All of them, or none when it raises: here one has a priority that is no whole number."""
    before, bad, after = new_job(), new_job(priority=1.5), new_job()
    with pytest.raises(StoreError):
        await store.enqueue([(job, Placement.free) for job in (before, bad, after)], None)
    assert await store.list() == []


async def test_an_empty_batch_is_lawful(store: Store) -> None:
    assert await store.enqueue([], None) == []


# Asked for again, for the answer was lost.


@pytest.mark.parametrize("placement", list(Placement))
async def test_an_enqueue_that_is_repeated_stores_nothing_twice(worker: Living, placement: Placement) -> None:
    """Plain jobs, one with a unique key, one whose key was taken, one with a file: each gets the same answer."""
    taken, plain, unique, alias = new_job(unique="taken"), new_job(), new_job(unique="k"), new_job(unique="taken")
    with_file = new_job(files=(await put_file(worker, b"a"),))
    await put(worker.store, taken)
    jobs = (plain, unique, alias, with_file, new_job())
    first = await worker.enqueue(*jobs, placement=placement)
    before = await worker.store.list()

    assert await worker.enqueue(*jobs, placement=placement) == first
    assert first == [Stored.stored, Stored.stored, Stored.exists, Stored.stored, Stored.stored]
    assert await worker.store.list() == before
    assert (await get(worker.store, alias.id)).id == taken.id


@pytest.mark.parametrize("many", [1, 2, 65, 300])
async def test_a_job_that_is_named_twice_in_one_enqueue_is_stored_once(store: Store, many: int) -> None:
    plain, unique = [new_job() for _ in range(many)], new_job(unique="k", on_duplicate=OnDuplicate.refuse)
    jobs = [(job, Placement.free) for job in (*plain, unique, *plain, unique)]
    assert await store.enqueue(jobs, None) == [Stored.stored] * len(jobs)
    assert {job.id for job in await store.list(limit=1000)} == {unique.id, *(job.id for job in plain)}


async def test_a_job_that_is_known_takes_nothing_from_those_stored_with_it(store: Store) -> None:
    """A batch that was stored, and one more that comes with its repetition."""
    [known] = await put(store, new_job())
    before, after = new_job(), new_job()
    jobs = [(job, Placement.free) for job in (before, new_job(id=known, arguments="{}"), after)]
    assert await store.enqueue(jobs, None) == [Stored.stored] * 3
    assert {job.id for job in await store.list()} == {before.id, known, after.id}
    assert (await get(store, known)).arguments == '{"n":1}'


@pytest.mark.parametrize("unique", [None, "k"])
@pytest.mark.parametrize("end", [Succeeded(), Failed(OOPS), Retry(OOPS, 60), "cancelled", "released", "runs"])
async def test_whatever_became_of_a_job_it_is_not_stored_again(
    worker: Living, end: Succeeded | Failed | Retry | str, unique: str | None
) -> None:
    """Its key may be free again by then, which brings nothing back."""
    job = new_job(unique=unique)
    await worker.enqueue(job)
    if end == "cancelled":
        await worker.store.cancel([job.id])
    else:
        await worker.store.release(worker.id, [job.id])
    if end not in {"cancelled", "released"}:
        lease = await worker.claim_one()
        if not isinstance(end, str):
            await worker.store.finish([(lease, end)])
    before = await get(worker.store, job.id)

    assert await worker.enqueue(job) == [Stored.stored]

    assert await get(worker.store, job.id) == before
    assert len(await worker.store.list()) == 1


async def test_an_alias_leads_to_its_job_though_the_key_is_free_by_now(worker: Living) -> None:
    """A job that was never to be stored is not, when the one it led to has ended before the repetition."""
    first, second = new_job(unique="daily"), new_job(unique="daily")
    lease = await worker.leased(first)
    assert await worker.enqueue(second) == [Stored.exists]
    await worker.store.finish([(lease, Succeeded())])
    assert await worker.enqueue(second) == [Stored.exists]
    assert (await get(worker.store, second.id)).id == first.id
    assert len(await worker.store.list()) == 1


async def test_one_that_replaced_another_replaces_nobody_when_it_is_repeated(worker: Living) -> None:
    """A third has taken its place since: what was asked for last is what stays."""
    second, third = (new_job(unique="report", on_duplicate=OnDuplicate.replace) for _ in range(2))
    await put(worker.store, new_job(unique="report"), second, third)
    assert await worker.enqueue(second, placement=Placement.free) == [Stored.stored]
    assert ids((await worker.claim()).leases) == [third.id]
    assert (await get(worker.store, second.id)).note == f"replaced by {third.id}"


async def test_one_that_refuses_duplicates_does_not_refuse_itself(worker: Living) -> None:
    """Nor what is stored with it; and it expires nothing."""
    plain, refusing = new_job(), new_job(unique="report", on_duplicate=OnDuplicate.refuse)
    for _ in range(2):
        assert await worker.enqueue(plain, refusing) == [Stored.stored, Stored.stored]
    other = new_job(unique="report", on_duplicate=OnDuplicate.refuse)
    assert await worker.enqueue(plain, other) == [Stored.dropped, Stored.refused]
    assert await worker.enqueue(plain, other) == [Stored.dropped, Stored.refused]
    assert len(await worker.store.list()) == 2


async def test_one_that_was_refused_may_be_stored_when_it_is_repeated(worker: Living) -> None:
    """Nothing of it was stored; by then its key is free."""
    first, second = new_job(unique="report"), new_job(unique="report", on_duplicate=OnDuplicate.refuse)
    lease = await worker.leased(first)
    assert await worker.enqueue(second) == [Stored.refused]
    await worker.store.finish([(lease, Succeeded())])
    assert await worker.enqueue(second) == [Stored.stored]


async def test_a_repetition_expires_nobody_who_has_its_key_by_now(place: Place, worker: Living) -> None:
    first, second = new_job(unique="report"), new_job(unique="report", expires=60)
    lease = await worker.leased(first)
    await worker.store.finish([(lease, Succeeded())])
    await put(worker.store, second)
    place.clock.advance(61)
    assert await worker.enqueue(first) == [Stored.stored]
    assert (await get(worker.store, second.id)).status is Status.queued


async def test_what_was_stored_for_one_who_was_taken_for_dead_is_a_stranger_s(worker: Living, other: Living) -> None:
    """Whoever asks again under its new identity learns that it is stored; it is not in that name."""
    held, leased = new_job(), new_job()
    jobs = [(held, Placement.held), (leased, Placement.leased)]
    await worker.store.enqueue(jobs, worker.id)
    await other.store.reap([(worker.id, None)], 2, 1.0)
    assert await worker.store.enqueue(jobs, worker.id) == [Stored.stranger] * 2
    assert await other.store.enqueue(jobs, other.id) == [Stored.stored] * 2
    assert (await other.look()).held == {}
    assert len((await other.claim()).leases) == 2


async def test_a_job_that_has_its_files_is_not_incomplete(worker: Living) -> None:
    """They are its own by then; or it has succeeded, and they are gone."""
    job = new_job(files=(await put_file(worker, b"a"),))
    lacking = new_job(files=(new_file(),))
    assert await worker.enqueue(job, job, placement=Placement.free) == [Stored.stored] * 2
    assert await worker.enqueue(job, lacking) == [Stored.dropped, Stored.incomplete]
    lease = await worker.claim_one()
    assert await worker.store.finish([(lease, Succeeded(files=(job.files[0].id,)))]) == [True]
    assert await worker.enqueue(job) == [Stored.stored]
    assert await sweep(worker.store) == 1
    assert await worker.enqueue(job) == [Stored.stored]
    assert (await get(worker.store, job.id)).status is Status.succeeded


async def test_a_repetition_with_files_takes_none_that_are_another_job_s(worker: Living) -> None:
    """Its call led to another job, whose files are not these: they are nobody's, and freed."""
    first = new_job(unique="k", files=(await put_file(worker, b"a"),))
    second = new_job(unique="k", files=(await put_file(worker, b"b"),))
    await put(worker.store, first)
    for _ in range(2):
        assert await worker.enqueue(second) == [Stored.exists]
    await worker.give_all_back()
    assert await sweep(worker.store) == 1
    assert await worker.enqueue(second) == [Stored.exists]


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
