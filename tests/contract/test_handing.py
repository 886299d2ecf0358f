"""`hand_over`, `begin`, `take_back`, `followed`: jobs in the hands of another system, each begun there at most once."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from afterward.job import (
    Cancelled,
    Failed,
    Job,
    Lease,
    NewJob,
    OnDuplicate,
    Outcome,
    Placement,
    Retry,
    Ruling,
    Status,
    Stored,
    Succeeded,
)
from afterward.stores.base import QueueStats, Store, Wanted
from afterward.stores.handing import Followed, HandOver, Start, TakenBack
from tests.support.stores import (
    MORNING,
    OOPS,
    OUTCOMES,
    Living,
    Place,
    altered,
    get,
    ids,
    ids_of,
    name_of,
    new_job,
    put,
)
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio

NOW = datetime.fromtimestamp(MORNING, UTC)
TASKS = frozenset({"app:send"})
YEARS = 100 * 365 * 86_400
SUSPECT_AFTER, SUSPECT_DELAY = 1, 5.0


@pytest.fixture
async def relay(place: Place) -> Living:
    """A process that hands jobs over."""
    return await place.process("relay")


@pytest.fixture
async def host(place: Place) -> Living:
    """A process of the other system."""
    return await place.process("host")


async def handed(
    relay: Living, job: NewJob | None = None, *, again: float | None = 60.0, followed: bool = False
) -> Lease:
    """A job that is handed over, as its first attempt."""
    [id_] = await put(relay.store, job or new_job())
    lease = await relay.claim_one()
    assert lease.id == id_
    assert await relay.store.hand_over([HandOver(lease, again, followed)]) == [True]
    return lease


def message(lease: Lease, *, attempt: int | None = None) -> Start:
    """What its message says."""
    return Start(lease.id, attempt or lease.attempt, lease.process)


async def begin(host: Living, *starts: Start) -> list[Lease | None]:
    return await host.store.begin(host.id, starts)


async def begun(host: Living, lease: Lease) -> Lease:
    """The attempt that its message has begun."""
    [found] = await begin(host, message(lease))
    assert found is not None
    return found


async def test_whoever_begins_it_and_whoever_takes_it_back_have_the_whole_lease(
    place: Place, relay: Living, host: Living
) -> None:
    job = new_job(queue="mail", priority=3, context='{"tenant":"a"}', timeout=60.0, max_attempts=2)
    lease = await handed(relay, job, again=10)
    assert (lease.queue, lease.priority, lease.timeout, lease.max_attempts) == ("mail", 3, 60.0, 2)
    place.clock.advance(20)
    assert (await take_back(relay)).leases == [lease]
    found = [await begun(host, lease) for _ in range(2)]  # a message that comes twice, to the same process
    assert found == [lease._replace(process=host.id)] * 2


async def take_back(relay: Living, tasks: frozenset[str] = TASKS, limit: int = 10) -> TakenBack:
    return await relay.store.take_back(relay.id, tasks, limit)


async def taken_back(place: Place, relay: Living, lease: Lease) -> Lease:
    """A job that was handed over, and is due again by now."""
    place.clock.advance(60)
    [again] = (await take_back(relay)).leases
    assert (again.id, again.attempt, again.process) == (lease.id, lease.attempt, relay.id)
    return again


async def followed(store: Store, after: str = "", limit: int = 10) -> list[Followed]:
    return await store.followed(TASKS, after, limit)


async def counted(store: Store) -> list[QueueStats]:
    return list((await store.stats()).queues)


async def leave(_: Living, holder: Living, __: Lease) -> None:
    await holder.store.leave(holder.id)


async def give_back(_: Living, holder: Living, lease: Lease) -> None:
    assert await holder.store.give_back(holder.id, [(lease.id, lease.attempt)], []) == [True]


async def reap(other: Living, holder: Living, _: Lease) -> None:
    await other.store.reap([(holder.id, None)], SUSPECT_AFTER, SUSPECT_DELAY)


WAYS_BACK: dict[str, Callable[[Living, Living, Lease], Awaitable[None]]] = {
    "leave": leave,
    "give back": give_back,
    "reap": reap,
}
"""How a job comes back from a process: from another's view, and its own."""

every_way_back = pytest.mark.parametrize("way", WAYS_BACK)


# hand_over


async def test_what_is_handed_over_waits_and_is_given_to_nobody(place: Place, relay: Living, other: Living) -> None:
    """Not when its time has come, nor to who names it; nobody waits for it, and it is shown as it was."""
    lease = await handed(relay)
    job = await get(relay.store, lease.id)
    assert (job.status, job.process, job.attempt, job.deaths, job.attempts) == (Status.queued, None, 1, 0, ())
    assert (job.handed_at, job.run_at) == (NOW, NOW)
    assert await relay.store.list() == [job]
    place.clock.advance(YEARS)
    for wanted in ([Wanted({"app:send"}, 10)], other.named(lease.id)):
        claimed = await other.claim(wanted)
        assert (claimed.leases, claimed.more, claimed.next_due) == ([], False, None)
    assert await get(relay.store, lease.id) == job


async def test_it_is_counted_as_handed_over(place: Place, relay: Living, host: Living) -> None:
    """And in no other place, whether it is due again or not; once it is begun or taken back, it runs."""
    first = await handed(relay)
    second = await handed(relay)
    await put(relay.store, new_job(delay=30), new_job(run_at=datetime(9999, 12, 31, tzinfo=UTC)))
    assert await counted(relay.store) == [QueueStats("default", 0, 0.0, later=2, held=0, running=0, handed=2)]
    await begun(host, first)
    assert await counted(relay.store) == [QueueStats("default", 0, 0.0, later=2, held=0, running=1, handed=1)]
    await taken_back(place, relay, second)
    [queue] = await counted(relay.store)
    assert (queue.depth, queue.later, queue.running, queue.handed) == (1, 1, 2, 0)


async def test_nobody_stands_before_it_nor_it_before_anybody(relay: Living) -> None:
    lease = await handed(relay)
    [behind] = await put(relay.store, new_job())
    for job in (lease.id, behind):
        assert await relay.store.ahead(job, {"app:send"}, {"default"}, 10) == 0


@pytest.mark.parametrize("is_followed", [False, True])
async def test_an_attempt_is_handed_over_by_who_holds_it(relay: Living, other: Living, *, is_followed: bool) -> None:
    """Not by another, nor another attempt, nor one that has ended, or waits. Each is answered for, in order."""
    ended, held, waiting = new_job(), new_job(), new_job()
    gone = await relay.leased(ended)
    await relay.store.finish([(gone, Succeeded())])
    lease = await relay.leased(held)
    [waits] = await put(relay.store, waiting)
    strangers = [
        altered(lease, process=other.id),
        altered(lease, attempt=2),
        gone,
        altered(lease)._replace(id=waits, attempt=0),
        altered(lease)._replace(id="nothing"),
    ]
    asked = [HandOver(one, 60.0, is_followed) for one in [*strangers, lease]]
    assert await relay.store.hand_over(asked) == [False] * len(strangers) + [True]
    assert [(job.status, job.handed_at) for job in await relay.store.list()] == [
        (Status.queued, None),
        (Status.queued, NOW),
        (Status.succeeded, None),
    ]


async def test_to_hand_over_may_be_repeated(place: Place, relay: Living, host: Living) -> None:
    """It is handed over as it was: also when it comes much later, but not once it is begun, or has another attempt."""
    lease = await handed(relay)
    place.clock.advance(30)
    assert await relay.store.hand_over([HandOver(lease, 60.0)]) == [True]
    assert (await get(relay.store, lease.id)).handed_at == NOW
    running = await begun(host, lease)
    assert await relay.store.hand_over([HandOver(lease, 60.0)]) == [False]
    await host.store.finish([(running, Retry(OOPS, 0))])
    second = await relay.claim_one()
    assert await relay.store.hand_over([HandOver(second, 60.0)]) == [True]
    assert await relay.store.hand_over([HandOver(lease, 60.0)]) == [False]
    assert (await begun(host, second)).attempt == 2


@pytest.mark.parametrize("is_followed", [False, True])
async def test_what_was_asked_to_end_is_cancelled_unless_it_is_followed(relay: Living, *, is_followed: bool) -> None:
    """No attempt has ended: nothing of it ran."""
    lease = await relay.leased(new_job())
    assert await relay.store.cancel([lease.id]) == [Ruling.asked]
    assert await relay.store.hand_over([HandOver(lease, 60.0, is_followed)]) == [True]
    job = await get(relay.store, lease.id)
    assert job.attempts == ()
    if is_followed:
        assert (job.status, job.handed_at, job.cancel_asked_at) == (Status.queued, NOW, NOW)
    else:
        assert (job.status, job.note, job.finished_at) == (Status.cancelled, "cancelled", NOW)
        assert (job.handed_at, job.process) == (None, None)


async def test_who_watches_a_job_is_told_that_it_was_cancelled_so(relay: Living) -> None:
    lease = await relay.leased(new_job())
    watching = asyncio.create_task(relay.store.watch([lease.id], 60))
    await relay.store.cancel([lease.id])
    await soon(watching.done, "it is told that it was asked to end")
    watching = asyncio.create_task(relay.store.watch([lease.id], 60))
    await asyncio.sleep(0)
    await relay.store.hand_over([HandOver(lease)])
    await soon(watching.done, "it is told that it has ended")


# begin


async def test_a_message_begins_its_attempt(place: Place, relay: Living, host: Living) -> None:
    """With the attempt it had, all that is known of the job, and from now on."""
    lease = await handed(relay, new_job(max_attempts=3, timeout=7.0, context='{"a":1}'))
    place.clock.advance(20)
    running = await begun(host, lease)
    assert running == lease._replace(process=host.id)
    job = await get(host.store, lease.id)
    assert (job.status, job.attempt, job.process, job.handed_at) == (Status.running, 1, host.id, None)
    assert (job.started_at, job.run_at) == (NOW + timedelta(seconds=20), NOW)
    assert (await host.look()).held[lease.id].attempt == 1
    assert await host.store.finish([(running, Succeeded('"sent"'))]) == [True]
    assert (await get(host.store, lease.id)).status is Status.succeeded


async def test_a_message_that_comes_twice_begins_once(relay: Living, host: Living, other: Living) -> None:
    """Who began it gets the same again, for its answer may be lost; all others are refused, also when it has ended."""
    lease = await handed(relay)
    running = await begun(host, lease)
    assert await begin(other, message(lease)) == [None]
    assert await begin(relay, message(lease)) == [None]
    assert await begin(host, message(lease)) == [running]
    assert await host.store.finish([(running, Succeeded())]) == [True]
    for living in (host, other):
        assert await begin(living, message(lease)) == [None]


async def test_of_many_who_begin_it_at_once_one_does(place: Place, relay: Living) -> None:
    lease = await handed(relay)
    hosts = [await place.process() for _ in range(5)]
    answers = await asyncio.gather(*(begin(one, message(lease)) for one in hosts))
    [running] = [found for [found] in answers if found is not None]
    assert (await get(relay.store, lease.id)).process == running.process


async def test_a_message_that_is_faster_than_its_sender_begins_it(relay: Living, host: Living) -> None:
    """Who sent it learns that it holds the job no more; what was begun goes on."""
    [job] = await put(relay.store, new_job())
    lease = await relay.claim_one()
    running = await begun(host, lease)
    assert await relay.store.hand_over([HandOver(lease, 60.0)]) == [False]
    assert await relay.store.finish([(lease, Succeeded())]) == [False]
    assert (await get(relay.store, job)).process == host.id
    assert await host.store.finish([(running, Succeeded())]) == [True]


@pytest.mark.parametrize("is_followed", [False, True])
async def test_what_its_sender_has_begun_itself_is_handed_over_no_more(
    relay: Living, host: Living, *, is_followed: bool
) -> None:
    """Where `hand_over` is repeated for its answer was lost, and it runs by then. Nor does another begin it."""
    lease = await handed(relay, followed=is_followed)
    await begun(relay, lease)
    assert await begin(host, message(lease)) == [None]
    assert await relay.store.hand_over([HandOver(lease, 60.0, is_followed)]) == [False]
    assert (await get(relay.store, lease.id)).status is Status.running


async def test_nothing_is_begun_but_what_its_message_may_begin(relay: Living, host: Living, other: Living) -> None:
    """Each is answered for, in order; and nothing for who does not live."""
    leased, waiting = await relay.leased(new_job()), new_job()
    lease = await handed(relay)
    await put(relay.store, waiting)
    await relay.enqueue(held := new_job())
    strangers = [
        Start(lease.id, 2, relay.id),
        Start(leased.id, 1, other.id),
        Start(leased.id, 2, relay.id),
        Start(waiting.id, 1, relay.id),
        Start(waiting.id, 0, relay.id),
        Start(held.id, 0, relay.id),
        Start("nothing", 1, relay.id),
        Start("\0", 1, relay.id),
        Start("\ud800", 1, "\ud800"),
    ]
    before = await relay.store.list()
    assert await host.store.begin("nobody", [message(lease), message(leased)]) == [None, None]
    assert await begin(host, *strangers) == [None] * len(strangers)
    assert await relay.store.list() == before
    answers = await begin(host, strangers[0], message(lease), strangers[-1], message(leased))
    assert answers == [None, lease._replace(process=host.id), None, leased._replace(process=host.id)]


async def test_what_is_begun_is_as_any_that_runs(place: Place, relay: Living, host: Living) -> None:
    """It is asked to end; when its process dies, that is counted, and it is due again."""
    first, second = await handed(relay), await handed(relay)
    await begun(host, first)
    await begun(host, second)
    assert await relay.store.cancel([second.id]) == [Ruling.asked]
    await host.beat()
    assert await host.store.asked_to_end(host.id) == {second.id: 1}
    place.clock.advance(10)
    reaped = await relay.store.reap([(host.id, None)], SUSPECT_AFTER + 1, SUSPECT_DELAY)
    assert reaped.jobs == 1
    job, asked = await get(relay.store, first.id), await get(relay.store, second.id)
    assert (job.status, job.deaths, job.run_at) == (Status.queued, 1, NOW)
    assert [(attempt.number, attempt.outcome) for attempt in job.attempts] == [(1, "died")]
    assert asked.status is Status.cancelled
    assert await begin(relay, message(first)) == [None]
    assert (await relay.claim_one()).attempt == 2


@every_way_back
async def test_what_comes_back_before_it_is_handed_over_is_claimed_again(
    relay: Living, host: Living, other: Living, way: str
) -> None:
    """Its message may have been sent, and is late: the next attempt is another, and it is refused."""
    lease = await relay.leased(new_job())
    await WAYS_BACK[way](other, relay, lease)
    assert await begin(host, message(lease)) == [None]
    [again] = (await other.claim(other.named(lease.id))).leases
    assert again.attempt == 2
    assert await begin(host, message(lease)) == [None]
    assert await other.store.hand_over([HandOver(again)]) == [True]
    assert await begin(host, message(lease), message(again)) == [None, again._replace(process=host.id)]


RETRIES = [outcome for outcome in OUTCOMES if isinstance(outcome, Retry)]


@pytest.mark.parametrize("outcome", RETRIES, ids=name_of)
async def test_a_message_of_an_attempt_before_is_refused(
    place: Place, relay: Living, host: Living, outcome: Outcome
) -> None:
    """While it waits for its next attempt, while that is handed over, and while it runs."""
    lease = await handed(relay)
    running = await begun(host, lease)
    assert await host.store.finish([(running, outcome)]) == [True]
    assert await begin(host, message(lease)) == [None]
    place.clock.advance(30)
    second = await relay.claim_one()
    assert await begin(host, message(lease)) == [None]
    assert await relay.store.hand_over([HandOver(second, 60.0)]) == [True]
    assert await begin(host, message(lease)) == [None]
    assert (await begun(host, second)).failures == 1
    assert await begin(host, message(lease)) == [None]


async def test_what_is_cancelled_while_it_is_handed_over_is_not_begun(
    place: Place, relay: Living, host: Living
) -> None:
    """Its message is refused, also when a person has it tried again; then its next attempt is another."""
    lease = await handed(relay)
    assert await relay.store.cancel([lease.id]) == [Ruling.done]
    assert await relay.store.cancel([lease.id]) == [Ruling.forbidden]
    job = await get(relay.store, lease.id)
    assert (job.status, job.note, job.finished_at, job.handed_at) == (Status.cancelled, "cancelled", NOW, None)
    assert (job.run_at, job.attempts) == (NOW, ())
    assert await begin(host, message(lease)) == [None]
    place.clock.advance(60)
    assert (await take_back(relay)).leases == []
    assert await get(relay.store, lease.id) == job
    assert await relay.store.retry([lease.id]) == [Ruling.done]
    assert await begin(host, message(lease)) == [None]
    assert (await relay.claim_one()).attempt == 2


async def test_what_is_hastened_is_claimed_again(place: Place, relay: Living, host: Living) -> None:
    """It is in other hands no more: its message of before is refused, and the next attempt has one of its own."""
    lease = await handed(relay)
    place.clock.advance(10)
    assert await relay.store.hasten([lease.id]) == [Ruling.done]
    assert await relay.store.hasten([lease.id]) == [Ruling.forbidden]
    job = await get(relay.store, lease.id)
    assert (job.status, job.handed_at, job.run_at) == (Status.queued, None, NOW + timedelta(seconds=10))
    assert await begin(host, message(lease)) == [None]
    assert await relay.store.hand_over([HandOver(lease, 60.0)]) == [False]
    place.clock.advance(60)
    assert (await take_back(relay)).leases == []
    again = await relay.claim_one()
    assert again.attempt == 2
    assert await relay.store.hand_over([HandOver(again, 60.0)]) == [True]
    assert (await get(relay.store, lease.id)).handed_at == NOW + timedelta(seconds=70)
    assert await begin(host, message(lease), message(again)) == [None, again._replace(process=host.id)]


async def test_what_has_expired_is_not_begun_nor_taken_back(place: Place, relay: Living, host: Living) -> None:
    """It is cancelled as any that waits; also one whose sender could not say yet that it is handed over."""
    lease = await handed(relay, new_job(expires=60.0))
    held = await relay.leased(new_job(expires=60.0))
    place.clock.advance(60)
    assert await begin(host, message(lease), message(held)) == [None, None]
    assert (await take_back(relay)).leases == []
    assert await relay.store.hand_over([HandOver(held, 60.0)]) == [True]
    await relay.claim()
    for job in await relay.store.get([lease.id, held.id]):
        assert job is not None
        assert (job.status, job.note, job.run_at, job.handed_at) == (Status.cancelled, "expired", NOW, None)


async def test_what_has_expired_and_is_handed_over_is_tidied(place: Place, relay: Living) -> None:
    await handed(relay, new_job(expires=60.0))
    place.clock.advance(60)
    assert (await relay.store.tidy({}, 10, 10)).expired == 1


# take_back


async def test_what_is_not_begun_is_taken_back_and_handed_over_again(place: Place, relay: Living, host: Living) -> None:
    """With the attempt it had, and so each of its messages begins it; then no other does."""
    lease = await handed(relay, again=60.0)
    place.clock.advance(20)
    assert await take_back(relay) == TakenBack([], [], more=False, next_due=40.0)
    place.clock.advance(40)
    assert await take_back(relay) == TakenBack([lease], [60.0], more=False, next_due=None)
    job = await get(relay.store, lease.id)
    assert (job.status, job.attempt, job.process, job.run_at) == (Status.running, 1, relay.id, NOW)
    assert await take_back(relay) == TakenBack([], [], more=False, next_due=None)
    assert await relay.store.hand_over([HandOver(lease, 30.0)]) == [True]
    assert (await take_back(relay)).next_due == 30.0
    job = await get(relay.store, lease.id)
    assert (job.status, job.handed_at, job.run_at) == (Status.queued, NOW + timedelta(seconds=60), NOW)
    await begun(host, lease)
    assert await begin(relay, message(lease)) == [None]
    assert (await get(relay.store, lease.id)).run_at == NOW
    place.clock.advance(60)
    assert await take_back(relay) == TakenBack([], [], more=False, next_due=None)


async def test_what_was_not_sent_again_was_confirmed_when_it_was_before(place: Place, relay: Living) -> None:
    lease = await taken_back(place, relay, await handed(relay))
    assert await relay.store.hand_over([HandOver(lease, 30.0, is_sent=False)]) == [True]
    assert (await get(relay.store, lease.id)).handed_at == NOW
    place.clock.advance(30)
    taken = await take_back(relay)
    assert (ids(list(taken.leases)), taken.waited) == ([lease.id], [90.0])


async def test_what_was_due_first_is_taken_back_first(place: Place, relay: Living) -> None:
    """So many; whatever queue or task it is of."""
    [last] = [await handed(relay, again=30.0)]
    first = await handed(relay, new_job(queue="other"), again=10.0)
    second = await handed(relay, again=20.0)
    place.clock.advance(60)
    taken = await take_back(relay, limit=2)
    assert (ids(list(taken.leases)), taken.more) == ([first.id, second.id], True)
    taken = await take_back(relay, limit=2)
    assert (ids(list(taken.leases)), taken.more) == ([last.id], False)


async def test_only_what_is_due_again_of_these_tasks_is_taken_back(place: Place, relay: Living, other: Living) -> None:
    """Not what is never to be, nor of a queue that is paused; and nothing by who does not live."""
    await handed(relay, again=None)
    lease = await handed(relay, again=60.0)
    place.clock.advance(60)
    assert await take_back(relay, frozenset({"app:other"})) == TakenBack([], [], more=False, next_due=None)
    assert await relay.store.take_back("nobody", TASKS, 10) == TakenBack([], [], more=False, next_due=None)
    await relay.store.pause("default", "ada")
    assert await take_back(relay) == TakenBack([], [], more=False, next_due=None)
    await relay.store.resume("default")
    assert ids(list((await take_back(other)).leases)) == [lease.id]


async def test_what_is_in_a_paused_queue_is_begun(relay: Living, host: Living) -> None:
    """Its message is on its way, and is not held up."""
    lease = await handed(relay)
    await relay.store.pause("default", "ada")
    await begun(host, lease)


async def test_two_who_take_back_at_once_never_have_the_same(place: Place, relay: Living, other: Living) -> None:
    """What is left by both is found by the one that is told of more."""

    async def take_back_all(relay: Living) -> list[str]:
        taken = await take_back(relay, limit=6)
        return [*(lease.id for lease in taken.leases), *(await take_back_all(relay) if taken.more else [])]

    leases = [await handed(relay) for _ in range(10)]
    place.clock.advance(60)
    both = await asyncio.gather(take_back_all(relay), take_back_all(other))
    assert sorted(each for taken in both for each in taken) == sorted(ids(leases))


async def test_a_message_begins_what_its_own_sender_has_taken_back(place: Place, relay: Living, host: Living) -> None:
    """One of before, or the new one; then it is handed over no more."""
    lease = await taken_back(place, relay, await handed(relay))
    await begun(host, lease)
    assert await relay.store.hand_over([HandOver(lease, 60.0)]) == [False]
    job = await get(relay.store, lease.id)
    assert (job.status, job.process, job.run_at, job.handed_at) == (Status.running, host.id, NOW, None)


async def test_a_message_of_one_sender_does_not_begin_what_another_has_taken_back(
    place: Place, relay: Living, other: Living, host: Living
) -> None:
    """The other is about to send a message of its own, which does."""
    first = await handed(relay)
    lease = await taken_back(place, other, first)
    assert await begin(host, message(first), message(lease)) == [None, first._replace(process=host.id)]


@every_way_back
@pytest.mark.parametrize("is_followed", [False, True])
async def test_what_was_taken_back_and_comes_back_is_handed_over(
    place: Place, relay: Living, other: Living, host: Living, way: str, *, is_followed: bool
) -> None:
    """Due again at once, with its attempt; no death is counted, and nothing of it ran."""
    lease = await taken_back(place, relay, await handed(relay, followed=is_followed))
    await WAYS_BACK[way](other, relay, lease)
    job = await get(other.store, lease.id)
    assert (job.status, job.process, job.attempt, job.deaths) == (Status.queued, None, 1, 0)
    assert (job.attempts, job.handed_at, job.run_at) == ((), NOW, NOW)
    assert (await other.claim()).leases == []
    [again] = (await take_back(other)).leases
    assert (again.id, again.attempt, again.process, again.deaths) == (lease.id, 1, other.id, 0)
    assert await other.store.hand_over([HandOver(again, 60.0, is_followed)]) == [True]
    await begun(host, again)


@every_way_back
@pytest.mark.parametrize("is_followed", [False, True])
async def test_what_was_taken_back_and_asked_to_end_is_cancelled_unless_it_is_followed(
    place: Place, relay: Living, other: Living, way: str, *, is_followed: bool
) -> None:
    lease = await taken_back(place, relay, await handed(relay, followed=is_followed))
    assert await other.store.cancel([lease.id]) == [Ruling.asked]
    await WAYS_BACK[way](other, relay, lease)
    job = await get(other.store, lease.id)
    assert (job.status, job.deaths, job.attempts) == (Status.queued if is_followed else Status.cancelled, 0, ())
    assert (job.run_at, job.handed_at) == (NOW, NOW if is_followed else None)


async def test_what_was_given_back_is_not_given_back_again(place: Place, relay: Living) -> None:
    lease = await taken_back(place, relay, await handed(relay))
    for attempt, is_given in ((2, False), (1, True), (1, False)):
        assert await relay.store.give_back(relay.id, [(lease.id, attempt)], []) == [is_given]


async def test_reaping_tells_how_many_wait_again(place: Place, relay: Living, other: Living) -> None:
    lease = await taken_back(place, relay, await handed(relay))
    assert (await relay.look()).held[lease.id].attempt == 1
    assert (await other.store.reap([(relay.id, None)], SUSPECT_AFTER, SUSPECT_DELAY)).jobs == 1


# followed


async def test_who_follows_sees_what_is_followed(place: Place, relay: Living, host: Living) -> None:
    """By their ids, so many at a time; since when, who has begun it, and whether it was asked to end."""
    await handed(relay)
    leases = [await handed(relay, again=None, followed=True) for _ in range(3)]
    await handed(relay, new_job(task="app:send", queue="other"))
    leases.sort(key=lambda lease: lease.id)
    first, second, third = [Followed(lease.id, 1, "app:send", NOW, None, is_asked=False) for lease in leases]
    assert await followed(relay.store) == [first, second, third]
    assert await followed(relay.store, limit=2) == [first, second]
    assert await followed(relay.store, after=second.id) == [third]
    assert await relay.store.followed({"app:other"}, "", 10) == []
    await begun(host, leases[1])
    assert await relay.store.cancel([third.id]) == [Ruling.asked]
    place.clock.advance(10)
    seen = await followed(relay.store)
    assert [(one.process, one.is_asked) for one in seen] == [(None, False), (host.id, False), (None, True)]
    assert {one.handed_at for one in seen} == {NOW}


async def test_those_of_several_tasks_are_in_one_order(relay: Living) -> None:
    tasks = ["app:a", "app:b", "app:a", "app:b"]
    await put(relay.store, *(new_job(task=task) for task in tasks))
    leases = (await relay.claim([Wanted({"app:a", "app:b"}, 10)])).leases
    assert await relay.store.hand_over([HandOver(lease, None, is_followed=True) for lease in leases]) == [True] * 4
    found = await relay.store.followed({"app:a", "app:b", "app:c"}, "", 3)
    assert [one.id for one in found] == sorted(ids(leases))[:3]


async def test_what_is_followed_and_begun_stays_followed(place: Place, relay: Living, host: Living) -> None:
    """It is not taken back: its message has come. When it has ended, nobody follows it; it shows when it was due."""
    lease = await handed(relay, again=60.0, followed=True)
    running = await begun(host, lease)
    job = await get(relay.store, lease.id)
    assert (job.status, job.process, job.handed_at, job.run_at) == (Status.running, host.id, NOW, NOW)
    place.clock.advance(60)
    assert await take_back(relay) == TakenBack([], [], more=False, next_due=None)
    assert await host.store.finish([(running, Succeeded("1"))]) == [True]
    assert await followed(relay.store) == []
    job = await get(relay.store, lease.id)
    assert (job.status, job.handed_at, job.run_at) == (Status.succeeded, None, NOW)
    await take_back(relay)
    assert await get(relay.store, lease.id) == job


@every_way_back
@pytest.mark.parametrize("is_asked", [False, True])
async def test_what_is_followed_and_comes_back_is_handed_over_again(
    place: Place, relay: Living, other: Living, host: Living, way: str, *, is_asked: bool
) -> None:
    """Whoever follows it next begins it; what runs in other hands has not died, and is not sent once more."""
    lease = await handed(relay, again=60.0, followed=True)
    await begun(host, lease)
    if is_asked:
        assert await relay.store.cancel([lease.id]) == [Ruling.asked]
    await WAYS_BACK[way](other, host, lease)
    job = await get(relay.store, lease.id)
    assert (job.status, job.process, job.attempt, job.deaths) == (Status.queued, None, 1, 0)
    assert (job.attempts, job.handed_at, job.run_at) == ((), NOW, NOW)
    place.clock.advance(60)
    assert (await take_back(relay)).leases == []
    assert (await relay.claim()).leases == []
    assert await followed(relay.store) == [Followed(lease.id, 1, "app:send", NOW, None, is_asked)]
    running = await begun(other, lease)
    assert await other.store.finish([(running, Succeeded())]) == [True]


async def test_what_is_followed_is_asked_to_end(relay: Living, host: Living) -> None:
    """It is cancelled when who follows it says so; asked again, the answer is the same."""
    lease = await handed(relay, again=None, followed=True)
    for _ in range(2):
        assert await relay.store.cancel([lease.id]) == [Ruling.asked]
    job = await get(relay.store, lease.id)
    assert (job.status, job.cancel_asked_at, job.handed_at) == (Status.queued, NOW, NOW)
    assert await relay.store.hasten([lease.id]) == [Ruling.forbidden]
    running = await begun(host, lease)
    await host.beat()
    assert await host.store.asked_to_end(host.id) == {lease.id: 1}
    assert await host.store.finish([(running, Cancelled("revoked"))]) == [True]
    job = await get(relay.store, lease.id)
    assert (job.status, job.note, job.run_at, job.handed_at) == (Status.cancelled, "revoked", NOW, None)
    assert [(attempt.number, attempt.outcome) for attempt in job.attempts] == [(1, "cancelled")]


async def test_what_is_followed_does_not_expire(place: Place, relay: Living, host: Living) -> None:
    lease = await handed(relay, new_job(expires=60.0), again=60.0, followed=True)
    place.clock.advance(60)
    await relay.claim()
    assert (await relay.store.tidy({}, 10, 10)).expired == 0
    assert ids(list((await take_back(relay)).leases)) == [lease.id]
    assert await relay.store.hand_over([HandOver(lease, None, is_followed=True)]) == [True]
    await begun(host, lease)


@pytest.mark.parametrize("outcome", RETRIES, ids=name_of)
async def test_what_is_followed_and_to_be_tried_again_is_claimed_as_any_other(
    place: Place, relay: Living, host: Living, outcome: Retry
) -> None:
    """With another attempt, and in nobody's hands."""
    running = await begun(host, await handed(relay, again=None, followed=True))
    place.clock.advance(5)
    assert await host.store.finish([(running, outcome)]) == [True]
    job = await get(relay.store, running.id)
    due = NOW + timedelta(seconds=5 + outcome.delay) if outcome.delay else NOW
    assert (job.status, job.failures, job.handed_at, job.run_at) == (Status.queued, 1, None, due)
    assert await followed(relay.store) == []
    assert await begin(host, message(running)) == [None]
    place.clock.advance(outcome.delay)
    again = await relay.claim_one()
    assert again.attempt == 2
    assert await relay.store.hand_over([HandOver(again, None, is_followed=True)]) == [True]
    assert [(one.id, one.attempt) for one in await followed(relay.store)] == [(running.id, 2)]


async def test_what_is_followed_fails_for_good(relay: Living, host: Living) -> None:
    running = await begun(host, await handed(relay, again=None, followed=True))
    assert await host.store.finish([(running, Failed(OOPS))]) == [True]
    job = await get(relay.store, running.id)
    assert (job.status, job.failures, job.run_at, job.handed_at) == (Status.failed, 1, NOW, None)
    assert await relay.store.retry([running.id]) == [Ruling.done]
    assert (await relay.claim_one()).attempt == 2


# Unique keys.


@pytest.mark.parametrize("is_followed", [False, True])
async def test_what_is_handed_over_keeps_its_key(relay: Living, *, is_followed: bool) -> None:
    lease = await handed(relay, new_job(unique="daily"), followed=is_followed)
    same = new_job(unique="daily")
    refused = new_job(unique="daily", on_duplicate=OnDuplicate.refuse)
    assert await relay.store.enqueue([(same, Placement.free)], None) == [Stored.exists]
    assert await relay.store.enqueue([(refused, Placement.free)], None) == [Stored.refused]
    assert (await get(relay.store, same.id)).handed_at == NOW
    assert await ids_of(relay.store, unique="daily") == [lease.id]


async def replaced(relay: Living) -> NewJob:
    """A job that has taken the key of another."""
    new = new_job(unique="daily", on_duplicate=OnDuplicate.replace)
    assert await relay.store.enqueue([(new, Placement.free)], None) == [Stored.stored]
    return new


async def test_what_is_replaced_while_it_is_handed_over_is_cancelled(relay: Living, host: Living) -> None:
    lease = await handed(relay, new_job(unique="daily"))
    new = await replaced(relay)
    job = await get(relay.store, lease.id)
    assert (job.status, job.note, job.handed_at) == (Status.cancelled, f"replaced by {new.id}", None)
    assert await begin(host, message(lease)) == [None]


async def test_what_is_replaced_before_it_is_handed_over_is_not_begun(relay: Living, host: Living) -> None:
    """It keeps its attempt as long as that has begun; here it has not."""
    lease = await relay.leased(new_job(unique="daily"))
    new = await replaced(relay)
    assert await begin(host, message(lease)) == [None]
    assert await relay.store.hand_over([HandOver(lease, 60.0)]) == [True]
    assert await begin(host, message(lease)) == [None]
    await relay.claim()
    assert (await get(relay.store, lease.id)).note == f"replaced by {new.id}"


@pytest.mark.parametrize("when", ["before", "handed over", "begun"])
async def test_what_is_followed_and_replaced_keeps_its_attempt_and_gets_no_other(
    place: Place, relay: Living, host: Living, when: str
) -> None:
    """It runs there anyway: its message cannot be called back."""
    lease = await relay.leased(new_job(unique="daily"))
    new = await replaced(relay) if when == "before" else None
    assert await relay.store.hand_over([HandOver(lease, None, is_followed=True)]) == [True]
    if when == "begun":
        await begun(host, lease)
    new = new or await replaced(relay)
    place.clock.advance(60)
    assert ids((await relay.claim()).leases) == [new.id]
    assert await host.store.give_back(host.id, [(lease.id, 1)], []) == [when == "begun"]
    await relay.claim()
    running = await begun(host, lease)
    assert await host.store.finish([(running, Retry(OOPS, 0))]) == [True]
    await relay.claim()
    job = await get(relay.store, lease.id)
    assert (job.status, job.note) == (Status.cancelled, f"replaced by {new.id}")


async def test_what_is_followed_and_replaced_and_then_hastened_is_cancelled(relay: Living, host: Living) -> None:
    """What was asked for first never comes after what was asked for last."""
    lease = await handed(relay, new_job(unique="daily"), again=None, followed=True)
    new = await replaced(relay)
    assert await relay.store.hasten([lease.id]) == [Ruling.done]
    assert ids((await relay.claim()).leases) == [new.id]
    job = await get(relay.store, lease.id)
    assert (job.status, job.note) == (Status.cancelled, f"replaced by {new.id}")
    assert await begin(host, message(lease)) == [None]


# All else that is done with jobs.


async def test_what_is_handed_over_is_not_forgotten(place: Place, relay: Living, host: Living) -> None:
    """What has ended in other hands is, as all that has ended."""
    lease, other_lease = await handed(relay), await handed(relay, again=None, followed=True)
    for one in (lease, other_lease):
        running = await begun(host, one)
        await host.store.finish([(running, Succeeded())])
    waits = await handed(relay)
    place.clock.advance(YEARS)
    assert (await relay.store.tidy({Status.succeeded: 1.0}, 10, 10)).pruned == 2
    assert await ids_of(relay.store) == [waits.id]
    assert await begin(host, message(lease), message(other_lease)) == [None, None]
    assert await followed(relay.store) == []


async def test_what_is_handed_over_is_listed_with_what_waits(relay: Living) -> None:
    first, second = await handed(relay), await handed(relay, followed=True)
    assert await ids_of(relay.store, status=Status.queued) == [second.id, first.id]
    seen: list[Job] = await relay.store.list(status=[Status.queued])
    assert [(job.handed_at, job.run_at) for job in seen] == [(NOW, NOW)] * 2


async def test_a_job_whose_time_is_the_end_of_time_is_in_nobodys_hands(relay: Living, host: Living) -> None:
    """Whatever time that is: it waits, and is claimed by who names it."""
    times = [datetime(9999, 12, 31, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
    jobs = await put(relay.store, *(new_job(run_at=time) for time in times))
    assert await begin(host, *(Start(job, 0, "relay") for job in jobs)) == [None, None]
    [queue] = await counted(relay.store)
    assert (queue.later, queue.handed) == (2, 0)
    leases = (await relay.claim(relay.named(*jobs))).leases
    assert sorted(ids(leases)) == sorted(jobs)
    assert await relay.store.give_back(relay.id, [(lease.id, 1) for lease in leases], []) == [True, True]
    assert [job.handed_at for job in await relay.store.list()] == [None, None]
    assert await relay.store.cancel(jobs) == [Ruling.done] * 2
