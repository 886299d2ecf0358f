"""`claim`: queued → running, for jobs that are due, held by nobody, wanted, and the most urgent."""

import pytest

from afterward.job import Placement, Released, Retry, Status, Succeeded
from afterward.stores.base import Claimed, Store, Wanted
from tests.support.stores import OOPS, Living, Place, get, ids, new_job, put, send

pytestmark = pytest.mark.anyio


async def test_a_claim_starts_an_attempt(store: Store, worker: Living) -> None:
    """The lease says all that is needed to run the job, and the store says who runs it."""
    [id_] = await put(store, new_job(context='{"tenant":"a"}', queue="mail", priority=3))

    lease = await worker.claim_one()

    assert (lease.id, lease.attempt, lease.process, lease.task) == (id_, 1, worker.id, "app:send")
    assert (lease.queue, lease.priority) == ("mail", 3)
    assert (lease.arguments, lease.context, lease.failures, lease.deaths) == ('{"n":1}', '{"tenant":"a"}', 0, 0)
    job = await get(store, id_)
    assert (job.status, job.attempt, job.process) == (Status.running, 1, worker.id)
    assert job.started_at is not None


async def test_a_job_is_given_once(store: Store, worker: Living, other: Living) -> None:
    await put(store, new_job())
    assert len((await worker.claim()).leases) == 1
    assert (await worker.claim()).leases == []
    assert (await other.claim()).leases == []


async def test_each_claim_is_one_attempt_more(store: Store, worker: Living) -> None:
    await put(store, new_job())
    attempts: list[int] = []
    for _ in range(4):
        lease = await worker.claim_one()
        attempts.append(lease.attempt)
        assert await store.finish([(lease, Released("a shutdown"))]) == [True]
    assert attempts == [1, 2, 3, 4]


# Due by the store's clock.


async def test_a_job_is_not_given_before_it_is_due(place: Place, store: Store, worker: Living) -> None:
    [id_] = await put(store, new_job(delay=60))
    assert (await worker.claim()).leases == []
    place.clock.advance(59.9)
    assert (await worker.claim()).leases == []
    place.clock.advance(0.1)
    assert ids((await worker.claim()).leases) == [id_]


async def test_next_due_tells_how_long_to_wait(place: Place, store: Store, worker: Living) -> None:
    assert (await worker.claim()).next_due is None
    await put(store, new_job(delay=60), new_job(delay=20))
    assert (await worker.claim()).next_due == pytest.approx(20)
    place.clock.advance(15)
    assert (await worker.claim()).next_due == pytest.approx(5)
    place.clock.advance(5)
    claimed = await worker.claim()
    assert len(claimed.leases) == 1
    assert claimed.next_due == pytest.approx(40)


async def test_all_that_comes_due_at_once_can_be_claimed(place: Place, store: Store, worker: Living) -> None:
    """However many: what one claim leaves behind, it says is due now."""
    wanted = set(await put(store, *(new_job(delay=60) for _ in range(1000))))
    place.clock.advance(60)
    got: set[str] = set()
    for _ in range(100):
        claimed = await worker.claim(send(100))
        got.update(ids(claimed.leases))
        if not claimed.more and claimed.next_due is None:
            break
        assert claimed.more or claimed.next_due == 0
    assert got == wanted


async def test_the_most_urgent_of_all_that_is_due_comes_first(place: Place, store: Store, worker: Living) -> None:
    """Also when hundreds of others came due just before it."""
    await put(store, *(new_job(delay=60) for _ in range(300)))
    [urgent] = await put(store, new_job(delay=61, priority=1))
    place.clock.advance(62)
    assert ids((await worker.claim(send(1))).leases) == [urgent]


# Of a wanted task and queue.


async def test_only_wanted_tasks_are_given(store: Store, worker: Living) -> None:
    _, resize, _ = await put(store, new_job(task="app:a"), new_job(task="app:resize"), new_job(task="app:z"))
    assert ids((await worker.claim([Wanted({"app:resize", "app:unheard"}, 10)])).leases) == [resize]


async def test_only_wanted_queues_are_given(store: Store, worker: Living) -> None:
    _, slow, _ = await put(store, new_job(queue="a"), new_job(queue="slow"), new_job(queue="z"))
    assert ids((await worker.claim([Wanted({"app:send"}, 10, {"slow", "unheard"})])).leases) == [slow]


async def test_without_queues_all_queues_are_given(store: Store, worker: Living) -> None:
    jobs = await put(store, *(new_job(queue=name) for name in ("a", "", "ö", "z", "default")))
    assert sorted(ids((await worker.claim()).leases)) == sorted(jobs)


async def test_no_tasks_or_no_queues_are_nothing(store: Store, worker: Living) -> None:
    await put(store, new_job())
    assert (await worker.claim([Wanted(set(), 10)])).leases == []
    assert (await worker.claim([Wanted({"app:send"}, 10, set())])).leases == []
    assert (await worker.claim([])).leases == []


async def test_jobs_that_do_not_fit_are_passed_over_by_those_they_do_not_fit(store: Store, worker: Living) -> None:
    """Whoever has another signature, or does not know yet, is given them; the mark goes with the claim."""
    unfit, fit = await put(store, new_job(), new_job())
    [lease] = (await worker.claim(send(1))).leases
    assert await store.finish([(lease, Released("it lacks a size", 0, "v1"))]) == [True]
    assert (await get(store, unfit)).unfit_for == "v1"

    assert ids((await worker.claim([Wanted({"app:send"}, 10, None, {"v1", "v0"})])).leases) == [fit]
    [lease] = (await worker.claim([Wanted({"app:send"}, 10, None, {"v2"})])).leases
    assert (lease.id, lease.attempt) == (unfit, 2)
    assert (await get(store, unfit)).unfit_for == ""

    assert await store.finish([(lease, Retry(OOPS, 0))]) == [True]
    assert ids((await worker.claim([Wanted({"app:send"}, 10, None, {"v1"})])).leases) == [unfit]


async def test_only_what_is_named_is_given(store: Store, worker: Living) -> None:
    """Due or not, however urgent the others are, for a person says so; but still of a wanted task and queue."""
    _, later, resize, slow = await put(
        store, new_job(priority=9), new_job(delay=60), new_job(task="app:resize"), new_job(queue="slow")
    )
    named = [later, resize, slow, "nothing"]
    claimed = await worker.claim([Wanted({"app:send"}, 10, {"default"}, only=named)])
    assert (ids(claimed.leases), claimed.more) == ([later], False)
    assert (await worker.claim([Wanted({"app:send"}, 10, only=[later])])).leases == []
    assert (await worker.claim([Wanted({"app:send"}, 10, only=[])])).leases == []


async def test_what_is_named_is_given_only_if_it_waits_for_whoever_claims(
    place: Place, store: Store, worker: Living, other: Living
) -> None:
    """Not what another process holds or runs, nor what has ended or expired."""
    running = await other.leased(new_job())
    await other.enqueue(held := new_job())
    done, expiring = await put(store, new_job(), new_job(expires=5))
    await store.cancel([done])
    place.clock.advance(6)
    assert (await worker.claim([Wanted({"app:send"}, 9, only=[running.id, held.id, done, expiring])])).leases == []


async def test_a_job_given_by_name_before_its_time_keeps_that_time_when_its_process_dies(
    place: Place, store: Store, worker: Living, other: Living
) -> None:
    [later] = await put(store, new_job(delay=60))
    assert ids((await worker.claim([Wanted({"app:send"}, 1, only=[later])])).leases) == [later]
    await store.reap([(worker.id, None)], 2, 1.0)
    assert (await other.claim()).leases == []
    place.clock.advance(60)
    assert ids((await other.claim()).leases) == [later]


async def test_each_kind_of_room_has_its_own_limit(store: Store, worker: Living) -> None:
    await put(store, *(new_job(task=task) for task in ("app:a", "app:b", "app:c") for _ in range(5)))
    claimed = await worker.claim([Wanted({"app:a", "app:b"}, 3), Wanted({"app:c"}, 2)])
    tasks = [lease.task for lease in claimed.leases]
    assert (len(tasks), tasks.count("app:c")) == (5, 2)


# The most urgent: by priority (largest first), then due time, then age.


async def test_the_largest_priority_comes_first(store: Store, worker: Living) -> None:
    low, high, middle = await put(store, *(new_job(priority=priority) for priority in (-5, 7, 0)))
    assert [ids((await worker.claim(send(1))).leases) for _ in range(3)] == [[high], [middle], [low]]


async def test_of_one_priority_the_earliest_due_comes_first(place: Place, store: Store, worker: Living) -> None:
    late, early = await put(store, new_job(delay=50), new_job(delay=20))
    place.clock.advance(60)
    assert [ids((await worker.claim(send(1))).leases) for _ in range(2)] == [[early], [late]]


async def test_of_one_due_time_the_oldest_comes_first(store: Store, worker: Living) -> None:
    jobs = [(await put(store, new_job()))[0] for _ in range(3)]
    assert [ids((await worker.claim(send(1))).leases) for _ in range(3)] == [[job] for job in jobs]


async def test_urgency_goes_across_tasks_and_queues(store: Store, worker: Living) -> None:
    lanes = [("a", "app:a", 1), ("b", "app:a", 3), ("a", "app:b", 2), ("c", "app:b", 4)]
    jobs = await put(store, *(new_job(queue=queue, task=task, priority=priority) for queue, task, priority in lanes))
    claimed = await worker.claim([Wanted({"app:a", "app:b"}, 3)])
    assert ids(claimed.leases) == [jobs[3], jobs[1], jobs[2]]


async def test_a_released_job_keeps_its_place(store: Store, worker: Living) -> None:
    """It waited already: what came after it does not overtake it."""
    first, second = await put(store, new_job(), new_job())
    [lease] = (await worker.claim(send(1))).leases
    assert lease.id == first
    await store.finish([(lease, Released("a shutdown"))])
    assert ids((await worker.claim(send(2))).leases) == [first, second]


# The answer.


async def test_no_more_than_the_limit_is_given_and_more_says_so(store: Store, worker: Living) -> None:
    await put(store, *(new_job() for _ in range(5)))
    claimed = await worker.claim(send(3))
    assert (len(claimed.leases), claimed.more) == (3, True)
    claimed = await worker.claim(send(2))
    assert (len(claimed.leases), claimed.more) == (2, False)
    assert await worker.claim(send(2)) == Claimed([], more=False, next_due=None)


async def test_jobs_of_unwanted_tasks_are_not_more(store: Store, worker: Living) -> None:
    await put(store, new_job(), *(new_job(task="app:unknown") for _ in range(5)))
    claimed = await worker.claim(send(1))
    assert (len(claimed.leases), claimed.more) == (1, False)


# Who may claim, and again.


async def test_nothing_is_given_to_a_process_without_a_row(store: Store, worker: Living) -> None:
    [id_] = await put(store, new_job())
    assert await store.claim("nobody", send(), "token") == Claimed([], more=False, next_due=None)
    await store.leave(worker.id)
    assert (await worker.claim()).leases == []
    assert (await get(store, id_)).status is Status.queued


async def test_the_same_token_gives_the_same_leases_again(store: Store, worker: Living) -> None:
    """An answer that got lost is asked for again; nothing more is taken by that."""
    await put(store, *(new_job() for _ in range(5)))
    first = await worker.claim(send(3), token="token-1")
    again = await worker.claim(send(3), token="token-1")
    assert sorted(again.leases, key=lambda lease: lease.id) == sorted(first.leases, key=lambda lease: lease.id)
    assert len((await worker.claim(send(10), token="token-2")).leases) == 2


async def test_a_token_gives_again_only_what_still_runs(store: Store, worker: Living) -> None:
    await put(store, *(new_job() for _ in range(3)))
    done, released, running = (await worker.claim(send(3), token="token-1")).leases
    assert await store.finish([(done, Succeeded()), (released, Released("a shutdown"))]) == [True, True]
    assert (await worker.claim(send(3), token="token-1")).leases == [running]


async def test_a_token_gives_again_only_to_the_process_that_claimed(
    store: Store, worker: Living, other: Living
) -> None:
    await put(store, new_job())
    assert len((await worker.claim(token="token-1")).leases) == 1
    assert (await other.claim(token="token-1")).leases == []


async def test_a_job_taken_over_is_not_given_again_by_an_old_token(store: Store, worker: Living, other: Living) -> None:
    [id_] = await put(store, new_job())
    assert len((await worker.claim(token="token-1")).leases) == 1
    await store.reap([(worker.id, None)], 2, 1.0)
    [lease] = (await other.claim(token="token-2")).leases
    assert (lease.id, lease.attempt) == (id_, 2)
    assert (await worker.claim(token="token-1")).leases == []


async def test_a_token_gives_nothing_again_to_a_process_that_was_taken_for_dead(store: Store, worker: Living) -> None:
    """Its jobs are about to be given to others, whether or not they have been queued again already."""
    await put(store, *(new_job() for _ in range(2)))
    assert len((await worker.claim(token="token-1")).leases) == 2
    await store.leave(worker.id)
    assert (await worker.claim(token="token-1")).leases == []


@pytest.mark.parametrize("placement", [Placement.held, Placement.leased])
async def test_what_others_hold_is_not_waited_for(worker: Living, other: Living, placement: Placement) -> None:
    await other.enqueue(new_job(), placement=placement)
    assert await worker.claim() == Claimed([], more=False, next_due=None)
