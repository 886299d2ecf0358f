"""`cancel` of a job that runs: it is asked to end, and shows as cancelled once it has."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from afterward.job import (
    Cancelled,
    Died,
    Failed,
    OnDuplicate,
    Outcome,
    Released,
    Retry,
    Ruling,
    Status,
    Stored,
    Succeeded,
)
from afterward.stores.base import Store
from tests.support.stores import MORNING, OOPS, OUTCOMES, Living, Place, altered, get, ids, name_of, new_job, put
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio

NOW = datetime.fromtimestamp(MORNING, UTC)

QUEUED_AGAIN: list[Outcome] = [
    outcome
    for outcome in OUTCOMES
    if isinstance(outcome, Retry | Released) or (isinstance(outcome, Died) and not outcome.final)
]
every_next_attempt = pytest.mark.parametrize("outcome", QUEUED_AGAIN, ids=name_of)


async def test_what_runs_is_asked_to_end(place: Place, store: Store, worker: Living) -> None:
    """It runs on, and shows since when; asked again, the answer is the same, and so is the time."""
    lease = await worker.leased(new_job())
    for _ in range(2):
        assert await store.cancel([lease.id]) == [Ruling.asked]
        job = await get(store, lease.id)
        assert (job.status, job.attempt, job.process, job.cancel_asked_at) == (Status.running, 1, worker.id, NOW)
        place.clock.advance(10)


async def test_what_waits_is_not_asked(store: Store, worker: Living) -> None:
    """It is cancelled, and had nothing to hear."""
    [waiting] = await put(store, new_job())
    assert await store.cancel([waiting]) == [Ruling.done]
    assert (await get(store, waiting)).cancel_asked_at is None


async def test_by_the_id_of_a_call_that_led_to_it(store: Store, worker: Living) -> None:
    lease = await worker.leased(new_job(unique="daily"))
    again = new_job(unique="daily")
    assert await worker.enqueue(again) == [Stored.exists]
    assert await store.cancel([again.id]) == [Ruling.asked]
    await worker.beat()
    assert await worker.store.asked_to_end(worker.id) == {lease.id: 1}


async def test_its_process_learns_of_it(store: Store, worker: Living, other: Living) -> None:
    """Of what it runs itself, with the attempt; and of nothing that has ended since."""
    assert await store.asked_to_end(worker.id) == {}
    first, second = await worker.leased(new_job()), await worker.leased(new_job())
    theirs = await other.leased(new_job())
    await store.finish([(second, Retry(OOPS, 0))])
    second = await worker.claim_one()
    await worker.leased(new_job())
    await store.cancel([first.id, second.id, theirs.id])
    await worker.beat()
    assert await worker.store.asked_to_end(worker.id) == {first.id: 1, second.id: 2}
    await store.finish([(first, Cancelled("asked to end"))])
    await worker.beat()
    assert await worker.store.asked_to_end(worker.id) == {second.id: 2}
    assert await store.asked_to_end("nobody") == {}


async def test_it_is_cancelled_once_it_has_ended(store: Store, worker: Living) -> None:
    """The attempt is remembered as cancelled; nothing of it counts as a failure."""
    lease = await worker.leased(new_job())
    await store.cancel([lease.id])
    assert await store.finish([(lease, Cancelled("asked to end"))]) == [True]
    job = await get(store, lease.id)
    assert (job.status, job.note, job.finished_at, job.process) == (Status.cancelled, "asked to end", NOW, None)
    assert (job.failures, job.deaths, job.failure, job.cancel_asked_at) == (0, 0, None, NOW)
    assert [(attempt.outcome, attempt.note) for attempt in job.attempts] == [("cancelled", "asked to end")]
    assert await store.cancel([lease.id]) == [Ruling.forbidden]
    assert (await worker.claim()).leases == []


@pytest.mark.parametrize("outcome", [Succeeded("1"), Failed(OOPS), Died(OOPS, 0, final=True)], ids=name_of)
async def test_one_that_ends_by_itself_has_ended_so(store: Store, worker: Living, outcome: Outcome) -> None:
    """It was faster, or did not listen: what it came to is the truth."""
    lease = await worker.leased(new_job())
    await store.cancel([lease.id])
    assert await store.finish([(lease, outcome)]) == [True]
    expected = Status.succeeded if isinstance(outcome, Succeeded) else Status.failed
    assert (await get(store, lease.id)).status is expected


@every_next_attempt
async def test_no_next_attempt_begins(place: Place, store: Store, worker: Living, outcome: Outcome) -> None:
    """It is cancelled in its place; what ended the attempt is remembered all the same, and may be said again."""
    lease = await worker.leased(new_job())
    await store.cancel([lease.id])
    assert await store.finish([(lease, outcome)]) == [True]
    job = await get(store, lease.id)
    assert (job.status, job.note, job.finished_at, job.process) == (Status.cancelled, "cancelled", NOW, None)
    assert await store.finish([(lease, outcome)]) == [True]
    assert await get(store, lease.id) == job
    assert job.failures == isinstance(outcome, Retry)
    assert job.deaths == isinstance(outcome, Died)
    assert len(job.attempts) == (not (isinstance(outcome, Released) and outcome.unfit_for))
    place.clock.advance(60)
    assert (await worker.claim()).leases == []


async def _leave(worker: Living, _: Living) -> None:
    await worker.store.leave(worker.id)


async def _reap(worker: Living, other: Living) -> None:
    assert (await other.store.reap([(worker.id, None)], 2, 1.0)).jobs == 1  # that is queued again


async def _give_back(worker: Living, _: Living) -> None:
    assert await worker.give_all_back() == [True, True]


@pytest.mark.parametrize("lose", [_leave, _reap, _give_back], ids=["leave", "reap", "give back"])
async def test_nor_when_its_process_has_lost_it(
    worker: Living, other: Living, lose: Callable[[Living, Living], Awaitable[None]]
) -> None:
    """What nobody asked to end is queued again, as ever."""
    asked, unasked = await worker.leased(new_job()), await worker.leased(new_job())
    await other.store.cancel([asked.id])
    await lose(worker, other)
    job = await get(other.store, asked.id)
    assert (job.status, job.note, job.finished_at, job.process) == (Status.cancelled, "cancelled", NOW, None)
    assert (await get(other.store, unasked.id)).status is Status.queued
    assert ids((await other.claim()).leases) == [unasked.id]


async def test_the_death_of_its_worker_is_remembered(worker: Living, other: Living) -> None:
    lease = await worker.leased(new_job())
    await other.store.cancel([lease.id])
    await other.store.reap([(worker.id, None)], 2, 1.0)
    job = await get(other.store, lease.id)
    assert (job.deaths, [attempt.outcome for attempt in job.attempts]) == (1, ["died"])


async def test_who_no_longer_holds_it_cannot_say_that_it_is_cancelled(
    store: Store, worker: Living, other: Living
) -> None:
    lease = await worker.leased(new_job())
    await store.cancel([lease.id])
    for stale in (altered(lease, attempt=2), altered(lease, process=other.id)):
        assert await store.finish([(stale, Cancelled("asked to end"))]) == [False]
    assert (await get(store, lease.id)).status is Status.running


@pytest.mark.parametrize("outcome", [Cancelled("asked to end"), Retry(OOPS, 30)], ids=name_of)
async def test_retried_by_a_person_it_is_not_asked_any_more(store: Store, worker: Living, outcome: Outcome) -> None:
    """It runs as any other, with its attempts before it."""
    first = await worker.leased(new_job())
    await store.cancel([first.id])
    await store.finish([(first, outcome)])
    assert await store.retry([first.id]) == [Ruling.done]
    job = await get(store, first.id)
    assert (job.status, job.cancel_asked_at, job.finished_at, job.run_at) == (Status.queued, None, None, NOW)
    second = await worker.claim_one()
    assert (second.id, second.attempt) == (first.id, 2)
    assert await worker.store.asked_to_end(worker.id) == {}
    assert await store.finish([(second, Retry(OOPS, 0))]) == [True]
    assert (await get(store, first.id)).status is Status.queued


async def test_one_that_failed_though_it_was_asked_to_end_may_be_retried(store: Store, worker: Living) -> None:
    lease = await worker.leased(new_job())
    await store.cancel([lease.id])
    await store.finish([(lease, Failed(OOPS))])
    assert await store.retry([lease.id]) == [Ruling.done]
    assert (await get(store, lease.id)).cancel_asked_at is None


async def test_its_unique_key_is_its_own_until_it_has_ended(store: Store, worker: Living) -> None:
    """Asked is not cancelled: no other may take its place meanwhile."""
    lease = await worker.leased(new_job(unique="daily"))
    await store.cancel([lease.id])
    refused = new_job(unique="daily", on_duplicate=OnDuplicate.refuse)
    assert await worker.enqueue(refused) == [Stored.refused]
    await store.finish([(lease, Cancelled("asked to end"))])
    assert await worker.enqueue(refused) == [Stored.stored]


async def test_asked_at_the_moment_of_its_end(store: Store, worker: Living, other: Living) -> None:
    """Whichever comes first: it never waits for a next attempt with somebody's wish forgotten."""
    for _ in range(20):
        lease = await worker.leased(new_job())
        [ruling], [accepted] = await asyncio.gather(
            other.store.cancel([lease.id]), worker.store.finish([(lease, Retry(OOPS, 0))])
        )
        assert accepted
        assert ruling in {Ruling.asked, Ruling.done}
        assert (await get(store, lease.id)).status is Status.cancelled


async def test_who_watches_is_told_when_what_waits_is_cancelled(store: Store) -> None:
    [job] = await put(store, new_job())
    watching = asyncio.create_task(store.watch([job], 60))
    await asyncio.sleep(0)
    await store.cancel([job])
    await soon(watching.done, "the watch ends")
