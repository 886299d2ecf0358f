"""What a person does: cancel what waits, try again what has ended, forget what is old."""

import asyncio
from datetime import UTC, datetime

import pytest

from afterward.job import TERMINAL, Died, Failed, OnDuplicate, Ruling, Status, Succeeded
from afterward.stores.base import Store, Tidied
from tests.support.stores import OOPS, Living, Place, get, new_job, put

pytestmark = pytest.mark.anyio


async def failed(worker: Living, outcome: Failed | Died, **said: str) -> str:
    lease = await worker.leased(new_job(**said))
    assert await worker.store.finish([(lease, outcome)]) == [True]
    return lease.id


async def test_cancelling_answers_for_each_job(store: Store, worker: Living) -> None:
    [waiting, later] = await put(store, new_job(), new_job(delay=60))
    running = await worker.leased(new_job())
    answers = await store.cancel([waiting, later, running.id, "nothing", "\0", waiting])
    assert answers == [Ruling.done, Ruling.done, Ruling.asked, Ruling.unknown, Ruling.unknown, Ruling.forbidden]
    assert (await worker.claim()).leases == []


async def test_what_is_retried_has_all_its_attempts_before_it(place: Place, store: Store, worker: Living) -> None:
    """Attempts go on counting, for they are the fence; failures and deaths begin anew."""
    job = await failed(worker, Died(OOPS, 0, final=True))
    place.clock.advance(100)
    assert await store.retry([job]) == [Ruling.done]
    again = await get(store, job)
    assert (again.status, again.failures, again.deaths, again.finished_at) == (Status.queued, 0, 0, None)
    assert again.run_at == datetime.fromtimestamp(place.clock.now, UTC)
    lease = await worker.claim_one()
    assert (lease.id, lease.attempt, lease.failures, lease.deaths) == (job, 2, 0, 0)
    assert [attempt.number for attempt in (await get(store, job)).attempts] == [1]


async def test_only_what_has_ended_without_success_is_retried(store: Store, worker: Living) -> None:
    [waiting] = await put(store, new_job())
    succeeded = await worker.leased(new_job())
    await store.finish([(succeeded, Succeeded())])
    assert await store.retry([waiting, succeeded.id, "nothing"]) == [Ruling.forbidden, Ruling.forbidden, Ruling.unknown]


async def test_a_unique_key_that_another_has_by_now_is_not_taken_back(store: Store, worker: Living) -> None:
    job = await failed(worker, Failed(OOPS), unique="report")
    await put(store, new_job(unique="report", on_duplicate=OnDuplicate.refuse))
    assert await store.retry([job]) == [Ruling.taken]
    assert (await get(store, job)).status is Status.failed


async def test_what_expired_may_be_retried(place: Place, store: Store, worker: Living) -> None:
    [job] = await put(store, new_job(expires=1))
    place.clock.advance(2)
    await worker.claim()
    assert await store.retry([job]) == [Ruling.done]
    assert (await worker.claim_one()).id == job


async def test_a_retry_at_the_moment_of_the_expiry_runs_the_job_or_says_that_it_waits(
    place: Place, worker: Living, other: Living
) -> None:
    """A claim finds it expired before a person retries it, or after: then there is something to retry."""
    third = await place.process()
    for _ in range(20):
        [job] = await put(worker.store, new_job(expires=1))
        place.clock.advance(1)
        [ruling], *claims = await asyncio.gather(third.store.retry([job]), worker.claim(), other.claim())
        leases = [lease for claimed in claims for lease in claimed.leases]
        if ruling is Ruling.forbidden:
            assert (leases, (await get(worker.store, job)).status) == ([], Status.cancelled)
            assert await third.store.retry([job]) == [Ruling.done]
        leases += (await worker.claim()).leases
        assert [(lease.id, lease.attempt) for lease in leases] == [(job, 1)]


async def test_what_has_failed_and_is_retried_at_the_moment_of_its_expiry_runs(
    place: Place, worker: Living, other: Living
) -> None:
    """Said to be done, it is not cancelled at once by a claim that comes at the same time."""
    third = await place.process()
    for _ in range(20):
        failed = await worker.leased(new_job(expires=1))
        assert await worker.store.finish([(failed, Failed(OOPS))]) == [True]
        place.clock.advance(1)
        ruling, *claims = await asyncio.gather(third.store.retry([failed.id]), worker.claim(), other.claim())
        assert ruling == [Ruling.done]
        leases = [lease for claimed in [*claims, await worker.claim()] for lease in claimed.leases]
        assert [(lease.id, lease.attempt) for lease in leases] == [(failed.id, 2)]


async def test_pruning_forgets_the_oldest_first_and_no_more_than_it_is_told(
    place: Place, store: Store, worker: Living
) -> None:
    """With its attempts, and the ids that led to it. What has not ended stays, however old it is."""
    ended: list[str] = []
    for _ in range(3):
        lease = await worker.leased(new_job(unique="report"))
        await worker.enqueue(alias := new_job(unique="report"))
        await store.finish([(lease, Failed(OOPS))])
        ended += [lease.id, alias.id]
        place.clock.advance(10)
    [waiting] = await put(store, new_job())
    running = await worker.leased(new_job())
    place.clock.advance(100)

    assert await store.prunable({Status.succeeded: 0, Status.failed: 1000}) == 0
    assert await store.tidy({Status.succeeded: 0, Status.failed: 1000}, 100, 1) == Tidied(0, 0, 0, more=False)
    assert await store.prunable(dict.fromkeys(TERMINAL, 100)) == 3
    assert await store.tidy(dict.fromkeys(TERMINAL, 100), 2, 1) == Tidied(0, 2, 0, more=True)
    assert await store.prunable(dict.fromkeys(TERMINAL, 100)) == 1
    assert await store.get(ended[:4]) == [None] * 4
    assert (await get(store, ended[5])).id == ended[4]
    assert await store.tidy(dict.fromkeys(TERMINAL, 100), 2, 1) == Tidied(0, 1, 0, more=False)
    assert {job.id for job in await store.list()} == {waiting, running.id}
    assert await store.tidy(dict.fromkeys(TERMINAL, 100), 2, 1) == Tidied(0, 0, 0, more=False)
