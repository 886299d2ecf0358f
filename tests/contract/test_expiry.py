"""`expires`: a time after which no attempt of a job begins."""

from datetime import UTC, datetime, timedelta

import pytest

from afterward.job import Retry, Ruling, Status, Succeeded
from afterward.stores.base import Store, Tidied
from tests.support.stores import MORNING, OOPS, Living, Place, get, ids, new_job, put

pytestmark = pytest.mark.anyio


async def test_a_job_that_nobody_took_in_time_is_cancelled(place: Place, store: Store, worker: Living) -> None:
    [job] = await put(store, new_job(expires=30))
    assert (await get(store, job)).expires_at == datetime.fromtimestamp(MORNING + 30, UTC)
    place.clock.advance(30)
    assert (await worker.claim()).leases == []
    expired = await get(store, job)
    assert (expired.status, expired.note) == (Status.cancelled, "expired")
    assert expired.finished_at == datetime.fromtimestamp(place.clock.now, UTC)


async def test_a_job_taken_in_time_may_end_later(place: Place, store: Store, worker: Living) -> None:
    [job] = await put(store, new_job(expires=datetime.fromtimestamp(MORNING, UTC) + timedelta(seconds=30)))
    place.clock.advance(29)
    lease = await worker.claim_one()
    place.clock.advance(60)
    assert await store.finish([(lease, Succeeded())]) == [True]
    assert (await get(store, job)).status is Status.succeeded


async def test_a_job_that_failed_before_is_not_tried_again_after_it(place: Place, store: Store, worker: Living) -> None:
    [job] = await put(store, new_job(expires=30))
    assert await store.finish([(await worker.claim_one(), Retry(OOPS, 40))]) == [True]
    place.clock.advance(50)
    assert (await worker.claim()).leases == []
    assert (await get(store, job)).status is Status.cancelled
    assert (await get(store, job)).failure == OOPS


async def test_many_that_expire_at_once_do_not_keep_others_waiting(place: Place, store: Store, worker: Living) -> None:
    """They are set aside page by page, and none of them is given out."""
    await put(store, *(new_job(expires=1) for _ in range(2500)))
    [live] = await put(store, new_job())
    place.clock.advance(2)
    found: list[str] = []
    for _ in range(3):
        found += ids((await worker.claim()).leases)
    assert found == [live]
    assert all(job.status is Status.cancelled for job in await store.list(limit=3000) if job.id != live)


async def test_an_expiry_still_to_come_outlives_a_retry_by_hand(place: Place, store: Store) -> None:
    [job] = await put(store, new_job(expires=60))
    await store.cancel([job])
    assert await store.retry([job]) == [Ruling.done]
    place.clock.advance(61)
    assert (await get(store, job)).expires_at is not None
    living = await place.process("worker")
    assert (await living.claim()).leases == []
    assert (await get(store, job)).note == "expired"


async def test_a_job_that_nobody_even_asks_for_is_cancelled_too(place: Place, store: Store, worker: Living) -> None:
    """By a tidying, no more than it may; what is held, or runs, is not touched."""
    await put(store, *(new_job(expires=30) for _ in range(3)))
    await worker.leased(new_job(expires=30))
    await worker.enqueue(new_job(expires=30))
    await put(store, new_job(expires=31))
    assert await store.tidy({}, 2, 1) == Tidied(0, 0, 0, more=False)
    place.clock.advance(30)
    assert await store.tidy({}, 2, 1) == Tidied(2, 0, 0, more=True)
    assert await store.tidy({}, 2, 1) == Tidied(1, 0, 0, more=False)
    found = await store.list()
    assert [job.note for job in found] == [None, None, None, "expired", "expired", "expired"]
    assert [job.status for job in found[3:]] == [Status.cancelled] * 3
