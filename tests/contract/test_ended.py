"""What fails, and what has ended, in groups: `failures` by signature, `history` by queue and span of time."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from afterward.job import Cancelled, Died, Failed, Failure, Lease, Outcome, Released, Retry, Ruling, Status, Succeeded
from afterward.stores.base import Store, Wanted
from afterward.stores.seen import FailureGroup, Period
from tests.support.stores import MORNING, OOPS, Living, Place, ids_of, new_job, put

pytestmark = pytest.mark.anyio

BLUE, RED = (Failure("shop.OutOfStock", f"no {color} hats", "Traceback: ...", color) for color in ("blue", "red"))


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(MORNING + seconds, UTC)


async def end(worker: Living, outcome: Outcome, **changes: str) -> Lease:
    lease = await worker.leased(new_job(**changes))
    assert await worker.store.finish([(lease, outcome)]) == [True]
    return lease


async def test_nothing_has_failed_where_there_is_nothing(store: Store) -> None:
    assert await store.failures(10) == []
    assert await store.history(at(-3600), 60) == []


async def test_failures_are_grouped_by_signature_and_the_last_comes_first(place: Place, worker: Living) -> None:
    await end(worker, Failed(BLUE))
    place.clock.advance(10)
    red = await end(worker, Failed(RED))
    place.clock.advance(10)
    blue = await end(worker, Failed(replace(BLUE, message="no blue hats at all")), task="app:order")
    await end(worker, Succeeded())
    groups = await worker.store.failures(10)
    assert groups == [
        FailureGroup("blue", "app:order", replace(BLUE, message="no blue hats at all"), 2, 0, at(0), at(20), blue.id),
        FailureGroup("red", "app:send", RED, 1, 0, at(10), at(10), red.id),
    ]
    assert await worker.store.failures(1) == groups[:1]


async def test_failures_without_a_signature_are_one_group_for_each_task(place: Place, worker: Living) -> None:
    for task in ("app:send", "app:order", "app:send"):
        await end(worker, Failed(OOPS), task=task)
        place.clock.advance(10)
    groups = await worker.store.failures(10)
    assert [(group.signature, group.task, group.count) for group in groups] == [
        ("", "app:send", 2),
        ("", "app:order", 1),
    ]


async def test_what_is_retried_or_forgotten_has_failed_no_more(place: Place, worker: Living) -> None:
    store = worker.store
    old = await end(worker, Failed(BLUE))
    place.clock.advance(60)
    red, blue = await end(worker, Failed(RED)), await end(worker, Failed(BLUE))
    assert await store.retry([red.id]) == [Ruling.done]
    assert (await store.tidy({Status.failed: 60.0}, 10, 10)).pruned == 1
    assert await store.get([old.id]) == [None]
    assert [(group.newest, group.count, group.first_at) for group in await store.failures(10)] == [(blue.id, 1, at(60))]


async def test_what_is_tried_again_is_counted_apart(place: Place, worker: Living) -> None:
    """Whether it waits or runs; and there may be nothing else, for an error that has only begun."""
    store = worker.store
    await end(worker, Failed(BLUE))
    place.clock.advance(10)
    waiting, running = await end(worker, Retry(BLUE, 600)), await end(worker, Retry(BLUE, 0), task="app:order")
    place.clock.advance(10)
    red = await end(worker, Retry(RED, 600))
    assert [lease.id for lease in (await worker.claim([Wanted({"app:order"}, 1)])).leases] == [running.id]
    red_group = FailureGroup("red", "app:send", RED, 0, 1, at(20), at(20), red.id)
    [first, blue] = await store.failures(10)
    assert first == red_group
    assert await store.failures(1) == [red_group]
    assert (blue.count, blue.retrying, blue.first_at, blue.last_at) == (1, 2, at(0), at(10))
    assert blue.newest in {waiting.id, running.id}


async def test_what_is_tried_again_without_a_signature_is_grouped_by_task(place: Place, worker: Living) -> None:
    await end(worker, Failed(OOPS))
    place.clock.advance(10)
    await end(worker, Retry(OOPS, 600))
    place.clock.advance(10)
    other = await end(worker, Retry(OOPS, 600), task="app:order")
    groups = await worker.store.failures(10)
    assert [(group.task, group.count, group.retrying) for group in groups] == [("app:order", 0, 1), ("app:send", 1, 1)]
    assert groups[0].newest == other.id


async def test_each_job_is_counted_once_by_its_last_failure(place: Place, worker: Living) -> None:
    """At the time of that one. What a worker lets go of has not failed again."""
    lease = await end(worker, Retry(BLUE, 0))
    for outcome in (Retry(RED, 0), Released("the worker shuts down", 0)):
        place.clock.advance(10)
        [lease] = (await worker.claim()).leases
        assert await worker.store.finish([(lease, outcome)]) == [True]
    assert await worker.store.failures(10) == [FailureGroup("red", "app:send", RED, 0, 1, at(10), at(10), lease.id)]


async def test_what_succeeds_is_cancelled_or_is_retried_by_a_person_fails_no_more(worker: Living) -> None:
    """Also when its worker dies after that. When it fails again, it does."""
    store = worker.store
    await end(worker, Retry(BLUE, 0))
    [lease] = (await worker.claim()).leases
    await store.finish([(lease, Succeeded())])
    cancelled = await end(worker, Retry(BLUE, 600))
    assert await store.cancel([cancelled.id]) == [Ruling.done]
    assert await store.failures(10) == []
    assert await store.retry([cancelled.id]) == [Ruling.done]
    [again] = (await worker.claim()).leases
    assert again.id == cancelled.id
    assert await store.failures(10) == await ids_of(store, signature="blue") == []
    assert (await store.reap([(worker.id, None)], 2, 1.0)).jobs == 1
    assert await store.failures(10) == await ids_of(store, signature="blue") == []


async def test_a_death_in_a_process_of_its_own_is_a_failure_that_is_tried_again(worker: Living) -> None:
    died = await end(worker, Died(RED, 5, final=False))
    [group] = await worker.store.failures(10)
    assert (group.signature, group.count, group.retrying, group.newest) == ("red", 0, 1, died.id)


async def test_the_newest_of_a_group_is_the_one_that_failed_last(place: Place, worker: Living) -> None:
    """Though another was stored after it."""
    late, early = await worker.leased(new_job()), await worker.leased(new_job())
    await worker.store.finish([(early, Failed(BLUE))])
    place.clock.advance(10)
    await worker.store.finish([(late, Failed(BLUE))])
    [group] = await worker.store.failures(10)
    assert (group.newest, group.first_at, group.last_at) == (late.id, at(0), at(10))


async def test_history_counts_by_span_and_queue(place: Place, worker: Living) -> None:
    """Spans are counted from 1970; one in which nothing ended is left out."""
    assert MORNING % 60 == 20
    store = worker.store
    await end(worker, Succeeded(), queue="b")
    await end(worker, Failed(OOPS), queue="a")
    place.clock.advance(45)
    await end(worker, Succeeded(), queue="a")
    place.clock.advance(120)
    await end(worker, Succeeded(), queue="a")
    await end(worker, Cancelled("stopped"), queue="a")
    await store.cancel(await put(store, new_job(queue="a")))
    await put(store, new_job(queue="waiting"))
    counts = [
        (period.queue, period.began, period.succeeded, period.failed, period.cancelled)
        for period in await store.history(at(-3600), 60)
    ]
    assert counts == [
        ("a", at(-20), 0, 1, 0), ("b", at(-20), 1, 0, 0), ("a", at(40), 1, 0, 0), ("a", at(160), 1, 0, 2),
    ]  # fmt: skip
    assert [period.began for period in await store.history(at(45), 60)] == [at(40), at(160)]
    assert [(period.queue, period.succeeded) for period in await store.history(at(-3600), 86_400)] == [
        ("a", 2),
        ("b", 1),
    ]


async def test_history_tells_how_long_jobs_have_waited_and_run(place: Place, worker: Living) -> None:
    """From when they were due, and of the last attempt alone."""
    store = worker.store
    await put(store, *(new_job(delay=10 * number) for number in range(1, 12)))
    place.clock.advance(110)
    leases = (await worker.claim()).leases
    leases += (await worker.claim()).leases
    place.clock.advance(5)
    await store.finish([(lease, Succeeded()) for lease in leases[:-1]])
    place.clock.advance(5)
    await store.finish([(leases[-1], Failed(OOPS))])
    [period] = await store.history(at(0), 3600)
    assert period == Period("default", at(-3600 + 3600 - MORNING % 3600), 10, 1, 0, (50.0, 95.0), (5.0, 7.5))


async def test_what_was_cancelled_tells_nothing_of_times(place: Place, worker: Living) -> None:
    """It may have run long, or never."""
    lease = await worker.leased(new_job())
    place.clock.advance(50)
    await worker.store.finish([(lease, Cancelled("stopped"))])
    await worker.store.cancel(await put(worker.store, new_job()))
    [period] = await worker.store.history(at(0), 3600)
    assert (period.cancelled, period.waited, period.ran) == (2, None, None)


async def test_what_began_before_its_time_has_not_waited(place: Place, worker: Living) -> None:
    """Because a person named it."""
    [job] = await put(worker.store, new_job(delay=600))
    [wanted] = worker.named(job)
    [lease] = (await worker.claim([wanted])).leases
    place.clock.advance(2)
    await worker.store.finish([(lease, Succeeded())])
    [period] = await worker.store.history(at(0), 3600)
    assert (period.waited, period.ran) == ((0.0, 0.0), (2.0, 2.0))
