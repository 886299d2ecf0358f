"""`report` and `events`: what an attempt says while it runs, by the attempt that holds the job and by no other."""

import asyncio
from datetime import UTC, datetime

import pytest

from afterward.identity import new_id
from afterward.job import (
    TERMINAL,
    Cancelled,
    Died,
    Event,
    EventKind,
    Failed,
    Lease,
    NewEvent,
    Outcome,
    Released,
    Report,
    Retry,
    Status,
    Stored,
    Succeeded,
)
from afterward.stores.base import EVENTS_KEPT, Store, Tidied
from afterward.stores.seen import Stream
from tests.support.stores import MORNING, OOPS, OUTCOMES, Living, Place, altered, get, name_of, new_job, put
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio

every_outcome = pytest.mark.parametrize("outcome", OUTCOMES, ids=name_of)

HALF, WHOLE = '{"current":1,"total":2}', '{"current":2,"total":2}'


def items(*data: str, first: int = 1) -> Report:
    """A report of items."""
    return Report(first, tuple(NewEvent(EventKind.item, text) for text in data))


def progress(data: str, first: int = 1) -> Report:
    """A report of how far it is."""
    return Report(first, (NewEvent(EventKind.progress, data),))


async def stream(store: Store, job: str, after: int = 0, limit: int = 100) -> Stream:
    """What a job that is there has said."""
    [found] = await store.events([(job, after)], limit)
    assert found is not None
    return found


async def said(store: Store, job: str, after: int = 0, limit: int = 100) -> list[tuple[int, int, str]]:
    """Number, attempt and data of each event."""
    return [(event.number, event.attempt, event.data) for event in (await stream(store, job, after, limit)).events]


async def test_what_an_attempt_says_is_kept_in_order(store: Store, worker: Living) -> None:
    """Numbered from 1, with what kind of event it is and when it happened by the store's clock."""
    lease = await worker.leased(new_job())
    events = (
        NewEvent(EventKind.log, '{"message":"begun"}', 2.5),
        NewEvent(EventKind.progress, HALF, 1.0),
        NewEvent(EventKind.item, '"ü \\u0000 \\ud800"'),
    )
    assert await store.report([(lease, Report(1, events))]) == [True]
    found = await stream(store, lease.id)
    times = [datetime.fromtimestamp(MORNING - event.age, UTC) for event in events]
    assert list(found.events) == [
        Event(number, 1, event.kind, event.data, at)
        for number, (event, at) in enumerate(zip(events, times, strict=True), 1)
    ]
    assert (found.id, found.status, found.attempt, found.first, found.last) == (lease.id, Status.running, 1, 1, 3)


async def test_reports_go_on_where_the_last_one_ended(store: Store, worker: Living) -> None:
    lease = await worker.leased(new_job())
    assert await store.report([(lease, items("1", "2"))]) == [True]
    assert await store.report([(lease, items("3", first=3)), (lease, items("4", first=4))]) == [True, True]
    assert await said(store, lease.id) == [(1, 1, "1"), (2, 1, "2"), (3, 1, "3"), (4, 1, "4")]


async def test_only_what_comes_after_a_number_is_read_and_no_more_than_is_asked_for(
    store: Store, worker: Living
) -> None:
    """And at any number: before the first, at the last, beyond it."""
    lease = await worker.leased(new_job())
    await store.report([(lease, items("1", "2", "3"))])
    expected = [(1, 1, "1"), (2, 1, "2"), (3, 1, "3")]
    for after in range(5):
        for limit in range(1, 5):
            found = await stream(store, lease.id, after, limit)
            assert [(event.number, event.attempt, event.data) for event in found.events] == expected[after:][:limit]
            assert (found.first, found.last) == (1, 3)


async def test_jobs_that_say_nothing_and_jobs_that_are_unknown(store: Store, worker: Living) -> None:
    """One answer for each, in order; a job may be asked for twice, from different numbers."""
    lease = await worker.leased(new_job())
    [silent] = await put(store, new_job())
    await store.report([(lease, items("1", "2"))])
    asked = [(silent, 0), (new_id(), 0), (lease.id, 0), ("\0", 0), ("\udcff", 0), (lease.id, 1)]
    found = await store.events(asked, 10)
    assert [stream and [event.number for event in stream.events] for stream in found] == [
        [], None, [1, 2], None, None, [2],
    ]  # fmt: skip
    assert found[0] == Stream(silent, Status.queued, 0, [], 0, 0)
    assert await store.events([], 10) == []
    assert await store.report([]) == []


async def test_a_call_that_led_to_another_job_shows_what_that_one_says(store: Store, worker: Living) -> None:
    lease = await worker.leased(new_job(unique="daily"))
    again = new_job(unique="daily")
    assert await worker.enqueue(again) == [Stored.exists]
    await store.report([(lease, items("1"))])
    found = await stream(store, again.id)
    assert (found.id, [event.data for event in found.events]) == (lease.id, ["1"])


async def test_each_job_has_numbers_of_its_own(store: Store, worker: Living) -> None:
    leases = [await worker.leased(new_job()) for _ in range(3)]
    reports = [(lease, items(*(f"{number}" for number in range(count)))) for count, lease in enumerate(leases)]
    assert await store.report(reports) == [True] * 3
    assert [[number for number, _, _ in await said(store, lease.id)] for lease in leases] == [[], [1], [1, 2]]


async def test_an_empty_report_says_nothing_but_whether_the_attempt_still_holds_its_job(
    store: Store, worker: Living
) -> None:
    lease = await worker.leased(new_job())
    stale = altered(lease, attempt=2)
    assert await store.report([(lease, Report(1, ())), (stale, Report(1, ()))]) == [True, False]
    assert (await stream(store, lease.id)).last == 0


@pytest.mark.parametrize("many", [1, 63, 64, 65, 500])
async def test_any_number_of_events_is_one_report(store: Store, worker: Living, many: int) -> None:
    lease = await worker.leased(new_job())
    assert await store.report([(lease, items(*map(str, range(many))))]) == [True]
    assert await said(store, lease.id, limit=many) == [(number + 1, 1, str(number)) for number in range(many)]


async def test_an_event_may_be_large(store: Store, worker: Living) -> None:
    lease, large = await worker.leased(new_job()), f'"{"ü" * 100_000}"'
    await store.report([(lease, items(large, "2"))])
    assert await said(store, lease.id) == [(1, 1, large), (2, 1, "2")]


# The next attempt.


async def test_numbers_go_on_through_the_attempts(store: Store, worker: Living, other: Living) -> None:
    """Each attempt counts what it says from 1; the job's numbers know nothing of that."""
    first = await worker.leased(new_job())
    await store.report([(first, items("1", "2"))])
    await store.finish([(first, Retry(OOPS, 0))])
    second = await other.claim_one()
    assert await store.report([(second, items("3"))]) == [True]
    assert await said(store, first.id) == [(1, 1, "1"), (2, 1, "2"), (3, 2, "3")]
    assert (await stream(store, first.id)).attempt == 2


async def test_what_an_attempt_said_outlives_its_worker(store: Store, worker: Living, other: Living) -> None:
    lease = await worker.leased(new_job())
    await store.report([(lease, items("1"))])
    await other.store.reap([(worker.id, None)], 2, 1.0)
    assert await said(store, lease.id) == [(1, 1, "1")]
    assert (await stream(store, lease.id)).status is Status.queued


async def test_progress_shows_with_the_job(store: Store, worker: Living) -> None:
    """The last that was said of it, whatever was said since; until another attempt says some."""
    first = await worker.leased(new_job())
    assert (await get(store, first.id)).progress is None
    await store.report([(first, items("1"))])
    assert (await get(store, first.id)).progress is None
    await store.report([(first, progress(HALF, 2)), (first, items("2", first=3))])
    assert (await get(store, first.id)).progress == HALF
    await store.finish([(first, Retry(OOPS, 0, progress(WHOLE, 4)))])
    second = await worker.claim_one()
    await store.report([(second, items("1"))])
    assert (await get(store, first.id)).progress == WHOLE
    await store.report([(second, progress(HALF, 2))])
    [listed] = await store.list()
    assert listed.progress == HALF
    assert (await store.changed(listed.created_at, 10))[0].progress == HALF


async def test_a_job_that_is_retried_by_a_person_keeps_what_it_said(store: Store, worker: Living) -> None:
    first = await worker.leased(new_job())
    await store.finish([(first, Failed(OOPS, report=items("1")))])
    await store.retry([first.id])
    assert await said(store, first.id) == [(1, 1, "1")]
    second = await worker.claim_one()
    await store.report([(second, items("2"))])
    assert await said(store, first.id) == [(1, 1, "1"), (2, 2, "2")]


# The fence.


async def test_who_does_not_hold_the_job_says_nothing(store: Store, worker: Living, other: Living) -> None:
    """Another process, an attempt that was or is not yet, a job that waits, or is unknown."""
    first = await worker.leased(new_job())
    await store.finish([(first, Released("a shutdown"))])
    lease = await worker.claim_one()
    held, unknown = new_job(), new_job()
    await worker.enqueue(held)
    refused = [
        first,
        altered(lease, attempt=3),
        altered(lease, process=other.id),
        *(Lease(job.id, attempt, worker.id, job.task, "{}") for job in (held, unknown) for attempt in (0, 1)),
    ]
    assert await store.report([(one, items('"no"')) for one in refused]) == [False] * len(refused)
    assert await store.report([(first, items('"no"')), (lease, items('"yes"'))]) == [False, True]
    assert await said(store, lease.id) == [(1, 2, '"yes"')]
    assert await said(store, held.id) == []


@every_outcome
async def test_what_has_ended_says_nothing_more(store: Store, worker: Living, outcome: Outcome) -> None:
    lease = await worker.leased(new_job())
    await store.report([(lease, items("1"))])
    await store.finish([(lease, outcome)])
    assert await store.report([(lease, items("2", first=2))]) == [False]
    assert await said(store, lease.id) == [(1, 1, "1")]


async def test_a_process_taken_for_dead_says_nothing_more(store: Store, worker: Living, other: Living) -> None:
    lease = await worker.leased(new_job())
    await other.store.reap([(worker.id, None)], 2, 1.0)
    assert await store.report([(lease, items("1"))]) == [False]
    again = await other.claim_one()
    assert await store.report([(lease, items("1")), (again, items("2"))]) == [False, True]
    assert await said(store, lease.id) == [(1, 2, "2")]


# Said again, for the answer was lost.


async def test_a_report_that_is_repeated_is_not_stored_again(store: Store, worker: Living) -> None:
    lease = await worker.leased(new_job())
    for _ in range(3):
        assert await store.report([(lease, items("1", "2"))]) == [True]
    assert await said(store, lease.id) == [(1, 1, "1"), (2, 1, "2")]


async def test_of_a_report_that_is_repeated_with_more_only_that_is_stored(store: Store, worker: Living) -> None:
    """It gathered while nobody knew whether the first had been stored."""
    lease = await worker.leased(new_job())
    await store.report([(lease, items("1", "2"))])
    assert await store.report([(lease, items("2", "3", first=2)), (lease, items("1", "2", "3", "4"))]) == [True, True]
    assert await said(store, lease.id) == [(1, 1, "1"), (2, 1, "2"), (3, 1, "3"), (4, 1, "4")]
    assert await store.report([(lease, items("1"))]) == [True]
    assert (await stream(store, lease.id)).last == 4


async def test_a_repeated_report_does_not_set_progress_back(store: Store, worker: Living) -> None:
    lease = await worker.leased(new_job())
    await store.report([(lease, progress(HALF, 1)), (lease, progress(WHOLE, 2))])
    await store.report([(lease, progress(HALF, 1))])
    assert (await get(store, lease.id)).progress == WHOLE


async def test_the_next_attempt_may_say_the_same(store: Store, worker: Living) -> None:
    """That is not a repetition: it began anew."""
    first = await worker.leased(new_job())
    await store.report([(first, items("1", "2"))])
    await store.finish([(first, Released("a shutdown"))])
    second = await worker.claim_one()
    await store.report([(second, items("1", "2"))])
    assert await said(store, first.id) == [(1, 1, "1"), (2, 1, "2"), (3, 2, "1"), (4, 2, "2")]


async def test_reports_of_the_same_moment_leave_no_gaps(worker: Living, other: Living) -> None:
    """However many there are at once, of one job and of several, from several processes."""
    mine, theirs = await worker.leased(new_job()), await other.leased(new_job())
    answers = await asyncio.gather(
        *(worker.store.report([(mine, items(str(number), first=number))]) for number in range(1, 21)),
        *(other.store.report([(theirs, items(str(number), first=number))]) for number in range(1, 21)),
    )
    assert answers == [[True]] * 40
    for lease in (mine, theirs):
        expected = [(number, 1, str(number)) for number in range(1, 21)]
        assert await said(worker.store, lease.id) == expected


# The last that it says, with its end.


def with_report(outcome: Outcome, report: Report) -> Outcome:
    """The same end, with something said."""
    match outcome:
        case Succeeded():
            return Succeeded(outcome.result, report=report)
        case Failed():
            return Failed(outcome.failure, report=report)
        case Cancelled():
            return Cancelled(outcome.note, report=report)
        case Retry():
            return Retry(outcome.failure, outcome.delay, report=report)
        case Released():
            return Released(outcome.note, outcome.delay, outcome.unfit_for, report=report)
        case Died():
            return Died(outcome.failure, outcome.delay, outcome.final, report=report)


@every_outcome
async def test_the_last_that_an_attempt_says_is_stored_with_its_end(
    store: Store, worker: Living, outcome: Outcome
) -> None:
    """And only once, however often that is repeated."""
    lease = await worker.leased(new_job())
    await store.report([(lease, items("1"))])
    for _ in range(2):
        assert await store.finish([(lease, with_report(outcome, items("1", "2")))]) == [True]
    assert await said(store, lease.id) == [(1, 1, "1"), (2, 1, "2")]
    job = await get(store, lease.id)
    assert (await stream(store, lease.id)).status is job.status


@every_outcome
async def test_what_is_said_with_an_end_that_is_refused_is_not_stored(
    store: Store, worker: Living, outcome: Outcome
) -> None:
    lease = await worker.leased(new_job())
    stale = altered(lease, attempt=2)
    ends = [(stale, with_report(outcome, items('"no"'))), (lease, Succeeded(report=items('"yes"')))]
    assert await store.finish(ends) == [False, True]
    assert await said(store, lease.id) == [(1, 1, '"yes"')]


async def test_many_ends_with_and_without_something_to_say(worker: Living) -> None:
    leases = [await worker.leased(new_job()) for _ in range(20)]
    ends = [
        (lease, Succeeded(report=items(str(number)) if number % 2 else None)) for number, lease in enumerate(leases)
    ]
    assert await worker.store.finish(ends) == [True] * 20
    found = await worker.store.events([(lease.id, 0) for lease in leases], 10)
    assert [[event.data for event in one.events] for one in found if one] == [
        [str(number)] if number % 2 else [] for number in range(20)
    ]
    assert {one.status for one in found if one} == {Status.succeeded}


# No more than a store has room for.


async def test_only_the_newest_events_are_kept(store: Store, worker: Living) -> None:
    """Numbers go on; who asks for what is gone gets what is there, and can tell. What is gone is not stored again."""
    lease, much = await worker.leased(new_job()), EVENTS_KEPT - 10
    first, second = items(*["1"] * much), items(*["2"] * 20, first=much + 1)
    assert await store.report([(lease, first)]) == [True]
    assert (await stream(store, lease.id)).first == 1
    for _ in range(2):
        assert await store.report([(lease, first), (lease, second)]) == [True, True]
        found = await stream(store, lease.id, limit=2 * EVENTS_KEPT)
        assert [event.number for event in found.events] == list(range(11, EVENTS_KEPT + 11))
        assert (found.first, found.last) == (11, EVENTS_KEPT + 10)
    await store.report([(lease, items("3", first=much + 21))])
    found = await stream(store, lease.id, after=5, limit=1)
    assert (found.first, [event.number for event in found.events]) == (12, [12])


# Who watches is told.


async def test_who_watches_a_job_is_told_when_it_says_something(worker: Living) -> None:
    lease = await worker.leased(new_job())
    watching = asyncio.create_task(worker.store.watch([lease.id], 60))
    await asyncio.sleep(0)
    await worker.store.report([(lease, items("1"))])
    await soon(watching.done, "the watch ends")
    assert await said(worker.store, lease.id) == [(1, 1, "1")]


# With the job it is forgotten.


async def test_what_a_job_said_is_forgotten_with_it(place: Place, store: Store, worker: Living) -> None:
    leases = [await worker.leased(new_job()) for _ in range(2)]
    await store.report([(lease, items("1", "2")) for lease in leases])
    await store.finish([(leases[0], Succeeded())])
    place.clock.advance(60)
    assert (await store.tidy(dict.fromkeys(TERMINAL, 30), 10, 10)).pruned == 1
    assert await store.events([(lease.id, 0) for lease in leases], 10) == [None, await stream(store, leases[1].id)]


async def test_a_job_that_is_stored_again_once_it_is_forgotten_has_said_nothing(
    place: Place, store: Store, worker: Living
) -> None:
    """Also before all that it had said is freed."""
    job = new_job()
    for data in ('"old"', '"new"'):
        lease = await worker.leased(job)
        assert await store.report([(lease, items(data))]) == [True]
        assert await said(store, lease.id) == [(1, 1, data)]
        await store.finish([(lease, Succeeded())])
        place.clock.advance(60)
        assert (await store.tidy({Status.succeeded: 30}, 10, 0)).pruned == 1


async def test_however_much_was_said_all_of_it_is_forgotten_in_the_end(
    place: Place, store: Store, worker: Living
) -> None:
    """Each tidying does little; it says whether there is more to do."""
    leases = [await worker.leased(new_job()) for _ in range(4)]
    for first in range(1, 2001, 1000):
        await store.report([(lease, items(*["1"] * 1000, first=first)) for lease in leases])
    await store.finish([(lease, Succeeded()) for lease in leases])
    place.clock.advance(60)
    rounds, pruned, more = 0, 0, True
    while more:
        tidied = await store.tidy({Status.succeeded: 30}, 2, 1)
        pruned, more, rounds = pruned + tidied.pruned, tidied.more, rounds + 1
    assert pruned == 4
    assert rounds > 2
    assert await store.events([(lease.id, 0) for lease in leases], 1) == [None] * 4
    assert await store.tidy({Status.succeeded: 30}, 2, 1) == Tidied(0, 0, 0, more=False)
