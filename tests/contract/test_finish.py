"""`finish`: the one way out of `running`, for the attempt that holds the job and for no other."""

import asyncio
from datetime import UTC, datetime

import pytest

from afterward.job import Died, Failed, Lease, Outcome, Placement, Released, Retry, Status, Succeeded
from afterward.stores.base import Store
from tests.support.stores import MORNING, OOPS, OUTCOMES, Living, Place, altered, get, ids, name_of, new_job, put

pytestmark = pytest.mark.anyio

every_outcome = pytest.mark.parametrize("outcome", OUTCOMES, ids=name_of)

NOW = datetime.fromtimestamp(MORNING, UTC)


async def test_succeeded(store: Store, worker: Living) -> None:
    lease = await worker.leased(new_job())
    assert await store.finish([(lease, Succeeded('{"sent":true}'))]) == [True]
    job = await get(store, lease.id)
    assert (job.status, job.result, job.finished_at, job.process) == (Status.succeeded, '{"sent":true}', NOW, None)
    assert (job.failure, job.failures, job.deaths, job.attempt, job.attempts) == (None, 0, 0, 1, ())


async def test_succeeded_without_a_result(store: Store, worker: Living) -> None:
    lease = await worker.leased(new_job())
    assert await store.finish([(lease, Succeeded())]) == [True]
    assert (await get(store, lease.id)).result is None


async def test_failed_for_good(store: Store, worker: Living) -> None:
    lease = await worker.leased(new_job())
    assert await store.finish([(lease, Failed(OOPS))]) == [True]
    job = await get(store, lease.id)
    assert (job.status, job.failure, job.finished_at, job.process) == (Status.failed, OOPS, NOW, None)
    assert (job.failures, job.deaths) == (1, 0)
    assert (await worker.claim()).leases == []


async def test_retry_waits_for_its_delay(place: Place, store: Store, worker: Living, other: Living) -> None:
    """One failure more; anybody may have the next attempt, once it is due by the store's clock."""
    lease = await worker.leased(new_job())
    assert await store.finish([(lease, Retry(OOPS, 30))]) == [True]
    job = await get(store, lease.id)
    assert (job.status, job.failure, job.failures, job.process, job.finished_at) == (Status.queued, OOPS, 1, None, None)
    assert (job.run_at - NOW).total_seconds() == 30
    assert (await other.claim()).leases == []
    place.clock.advance(30)
    [again] = (await other.claim()).leases
    assert (again.id, again.attempt, again.failures, again.deaths) == (lease.id, 2, 1, 0)


async def test_retry_without_delay_is_due_at_once(store: Store, worker: Living) -> None:
    lease = await worker.leased(new_job())
    assert await store.finish([(lease, Retry(OOPS, 0))]) == [True]
    assert ids((await worker.claim()).leases) == [lease.id]


async def test_released_costs_nothing(store: Store, worker: Living, other: Living) -> None:
    """No failure, no death: only the number of the attempt goes on. The note says why, to who looks."""
    lease = await worker.leased(new_job())
    assert await store.finish([(lease, Released("a shutdown"))]) == [True]
    job = await get(store, lease.id)
    assert (job.status, job.note, job.failures, job.deaths, job.failure) == (Status.queued, "a shutdown", 0, 0, None)
    [again] = (await other.claim()).leases
    assert (again.id, again.attempt, again.failures, again.deaths) == (lease.id, 2, 0, 0)
    assert (await get(store, lease.id)).note is None


async def test_released_may_wait(place: Place, store: Store, worker: Living) -> None:
    lease = await worker.leased(new_job())
    assert await store.finish([(lease, Released("unknown here", 30))]) == [True]
    assert (await worker.claim()).leases == []
    place.clock.advance(30)
    assert ids((await worker.claim()).leases) == [lease.id]


async def test_released_because_its_arguments_do_not_fit_is_no_attempt_to_remember(
    store: Store, worker: Living
) -> None:
    """Its function never began. The job says why it waits, and for whom it is not."""
    lease = await worker.leased(new_job())
    assert await store.finish([(lease, Released("it lacks a size", 0, "v1"))]) == [True]
    job = await get(store, lease.id)
    assert (job.status, job.note, job.unfit_for, job.attempts) == (Status.queued, "it lacks a size", "v1", ())
    assert (job.failures, job.deaths, job.attempt) == (0, 0, 1)


async def test_died_is_counted_apart(place: Place, store: Store, worker: Living) -> None:
    """One death more, and no failure."""
    lease = await worker.leased(new_job())
    assert await store.finish([(lease, Died(OOPS, 30, final=False))]) == [True]
    job = await get(store, lease.id)
    assert (job.status, job.deaths, job.failures, job.failure) == (Status.queued, 1, 0, OOPS)
    assert (await worker.claim()).leases == []
    place.clock.advance(30)
    [again] = (await worker.claim()).leases
    assert (again.attempt, again.deaths, again.failures) == (2, 1, 0)


async def test_died_once_too_often(store: Store, worker: Living) -> None:
    lease = await worker.leased(new_job())
    assert await store.finish([(lease, Died(OOPS, 0, final=True))]) == [True]
    job = await get(store, lease.id)
    assert (job.status, job.deaths, job.failures, job.failure, job.finished_at) == (Status.failed, 1, 0, OOPS, NOW)


async def test_attempts_that_did_not_succeed_are_remembered(place: Place, store: Store, worker: Living) -> None:
    """In order, with when they began and ended and why; the one that succeeded is the job itself."""
    [id_] = await put(store, new_job())
    ends: list[Outcome] = [Retry(OOPS, 0), Released("a shutdown"), Died(OOPS, 0, final=False), Succeeded()]
    for outcome in ends:
        lease = await worker.claim_one()
        place.clock.advance(1)
        assert await store.finish([(lease, outcome)]) == [True]
        place.clock.advance(1)

    job = await get(store, id_)

    assert [(a.number, a.outcome, a.failure, a.note) for a in job.attempts] == [
        (1, "retry", OOPS, None),
        (2, "released", None, "a shutdown"),
        (3, "died", OOPS, None),
    ]
    for attempt in job.attempts:
        assert attempt.started_at is not None
        assert (attempt.started_at - NOW).total_seconds() == 2 * (attempt.number - 1)
        assert (attempt.ended_at - attempt.started_at).total_seconds() == 1
    assert (job.attempt, job.failures, job.deaths, job.status) == (4, 1, 1, Status.succeeded)


# The fence: an attempt that no longer holds its job.


@every_outcome
async def test_another_process_is_refused(store: Store, worker: Living, other: Living, outcome: Outcome) -> None:
    lease = await worker.leased(new_job())
    before = await get(store, lease.id)
    assert await store.finish([(altered(lease, process=other.id), outcome)]) == [False]
    assert await get(store, lease.id) == before


@every_outcome
async def test_another_attempt_is_refused(store: Store, worker: Living, outcome: Outcome) -> None:
    """One that was, and one that is not yet."""
    first = await worker.leased(new_job())
    await store.finish([(first, Released("a shutdown"))])
    lease = await worker.claim_one()
    before = await get(store, lease.id)
    assert lease.attempt == 2
    for attempt in (0, 1, 3):
        is_repeated = (attempt, outcome) == (1, Released("a shutdown"))
        assert await store.finish([(altered(lease, attempt=attempt), outcome)]) == [is_repeated]
    assert await get(store, lease.id) == before


@every_outcome
async def test_an_attempt_ends_once(store: Store, worker: Living, outcome: Outcome) -> None:
    """However it is said to have ended the second time: only the same end holds, and it changes nothing either."""
    lease = await worker.leased(new_job())
    assert await store.finish([(lease, outcome)]) == [True]
    before = await get(store, lease.id)
    for second in OUTCOMES:
        answers = await store.finish([(lease, second)])
        if type(second) is not type(outcome) or second == outcome:  # one attempt has no two ends of one kind
            assert answers == [second == outcome]
    assert await get(store, lease.id) == before


@every_outcome
async def test_a_process_taken_for_dead_is_refused(
    store: Store, worker: Living, other: Living, outcome: Outcome
) -> None:
    """Whether the job waits again, or another already runs it: who slept too long cannot say how it ended."""
    lease = await worker.leased(new_job())
    await store.reap([(worker.id, None)], 2, 1.0)
    queued = await get(store, lease.id)
    assert await store.finish([(lease, outcome)]) == [False]
    assert await get(store, lease.id) == queued

    again = await other.claim_one()
    running = await get(store, lease.id)
    assert await store.finish([(lease, outcome)]) == [False]
    assert await get(store, lease.id) == running
    assert await store.finish([(again, Succeeded())]) == [True]


@every_outcome
async def test_what_does_not_run_cannot_end(store: Store, worker: Living, outcome: Outcome) -> None:
    """A held job, a free job, a job that was never stored."""
    held, free, unknown = new_job(), new_job(), new_job()
    await worker.enqueue(held)
    await worker.enqueue(free, placement=Placement.free)
    for job in (held, free, unknown):
        for attempt in (0, 1):
            lease = Lease(job.id, attempt, worker.id, job.task, job.arguments)
            assert await store.finish([(lease, outcome)]) == [False]
    assert {job.status for job in await store.list()} == {Status.queued}


async def test_a_batch_is_answered_one_by_one(store: Store, worker: Living) -> None:
    """An end that is refused takes nothing from the others."""
    leases = [await worker.leased(new_job()) for _ in range(len(OUTCOMES))]
    ends = list(zip(leases, OUTCOMES, strict=True))
    stale = [(altered(lease, attempt=7), outcome) for lease, outcome in ends]
    mixed = [end for pair in zip(ends, stale, strict=True) for end in pair]
    assert await store.finish(mixed) == [True, False] * len(OUTCOMES)


@every_outcome
@pytest.mark.parametrize("right_first", [True, False])
async def test_the_fence_holds_within_a_batch(
    store: Store, worker: Living, outcome: Outcome, right_first: bool
) -> None:
    """An old attempt that ends in the same moment as the one that holds the job is refused, and told so."""
    lease = await worker.leased(new_job())
    await store.finish([(lease, Released("a shutdown"))])
    again = await worker.claim_one()
    ends = [(again, Succeeded('"right"')), (lease, outcome)]
    answers = await store.finish(ends if right_first else ends[::-1])
    is_repeated = outcome == Released("a shutdown")
    assert answers == ([True, is_repeated] if right_first else [is_repeated, True])
    job = await get(store, lease.id)
    assert (job.status, job.result) == (Status.succeeded, '"right"')


@every_outcome
async def test_an_attempt_ends_once_within_a_batch(store: Store, worker: Living, outcome: Outcome) -> None:
    """Said twice, it is repeated in the same moment; said in two ways, one of them holds."""
    lease = await worker.leased(new_job())
    assert await store.finish([(lease, outcome), (lease, outcome)]) == [True, True]
    job = await get(store, lease.id)
    assert (job.attempt, job.failures + job.deaths) == (1, isinstance(outcome, Failed | Retry | Died))

    lease = await worker.leased(new_job())
    second = Succeeded() if isinstance(outcome, Failed) else Failed(OOPS)
    assert sorted(await store.finish([(lease, outcome), (lease, second)])) == [False, True]


@every_outcome
async def test_the_fence_holds_between_ends_of_the_same_moment(store: Store, worker: Living, outcome: Outcome) -> None:
    """As within a batch: a store may carry out at once what several tasks ask of it."""
    lease = await worker.leased(new_job())
    await store.finish([(lease, Released("a shutdown"))])
    again = await worker.claim_one()
    answers = await asyncio.gather(
        store.finish([(lease, outcome)]), store.finish([(again, Succeeded())]), store.finish([(lease, outcome)])
    )
    is_repeated = outcome == Released("a shutdown")
    assert answers == [[is_repeated], [True], [is_repeated]]


async def test_an_empty_batch_of_ends_is_lawful(store: Store) -> None:
    assert await store.finish([]) == []


# Said again, for the answer was lost.


@every_outcome
async def test_an_end_that_is_repeated_is_accepted_again(store: Store, worker: Living, outcome: Outcome) -> None:
    lease = await worker.leased(new_job())
    assert await store.finish([(lease, outcome)]) == [True]
    before = await get(store, lease.id)
    for _ in range(2):
        assert await store.finish([(lease, outcome)]) == [True]
    assert await get(store, lease.id) == before


@every_outcome
async def test_an_end_can_be_repeated_when_the_next_attempt_runs_or_has_ended(
    place: Place, store: Store, worker: Living, other: Living, outcome: Outcome
) -> None:
    """The job remembers it; but not one that was released as unfit, for its function never began."""
    lease = await worker.leased(new_job())
    await store.finish([(lease, outcome)])
    place.clock.advance(60)
    is_remembered = not (isinstance(outcome, Released) and outcome.unfit_for)
    for again in (await other.claim()).leases:
        assert again.id == lease.id
        assert await store.finish([(lease, outcome)]) == [is_remembered]
        assert await store.finish([(again, Succeeded())]) == [True]
        assert await store.finish([(lease, outcome), (again, Succeeded())]) == [is_remembered, True]
    assert await store.finish([(lease, outcome)]) == [is_remembered or lease.attempt == 2]


async def test_a_failure_can_be_repeated_though_a_person_has_it_tried_again(store: Store, worker: Living) -> None:
    lease = await worker.leased(new_job())
    await store.finish([(lease, Failed(OOPS))])
    await store.retry([lease.id])
    assert await store.finish([(lease, Failed(OOPS))]) == [True]
    assert (await get(store, lease.id)).status is Status.queued


async def test_what_follows_is_stored_once_though_the_end_is_repeated(store: Store, worker: Living) -> None:
    """Also when it has run by then."""
    lease, following = await worker.leased(new_job()), new_job()
    end = (lease, Succeeded(then=following))
    assert await store.finish([end, end]) == [True, True]
    assert await store.finish([end]) == [True]
    [then] = (await worker.claim()).leases
    assert then.id == following.id
    assert await store.finish([(then, Succeeded()), end]) == [True, True]
    assert len(await store.list()) == 2
    assert (await worker.claim()).leases == []


async def test_what_an_end_that_is_refused_is_followed_by_is_not_stored(
    store: Store, worker: Living, other: Living
) -> None:
    lease = await worker.leased(new_job())
    await store.finish([(lease, Released("a shutdown"))])
    again = await other.claim_one()
    assert await store.finish([(lease, Succeeded(then=new_job()))]) == [False]
    assert [job.id for job in await store.list()] == [again.id]


async def test_an_end_is_not_repeated_once_its_job_is_forgotten(place: Place, store: Store, worker: Living) -> None:
    lease = await worker.leased(new_job())
    await store.finish([(lease, Succeeded())])
    place.clock.advance(60)
    assert (await store.tidy({Status.succeeded: 30}, 10, 10)).pruned == 1
    assert await store.finish([(lease, Succeeded())]) == [False]


@every_outcome
async def test_an_attempt_that_was_given_back_has_not_ended(store: Store, worker: Living, outcome: Outcome) -> None:
    lease = await worker.leased(new_job())
    await worker.give_all_back()
    before = await get(store, lease.id)
    assert await store.finish([(lease, outcome)]) == [False]
    assert await get(store, lease.id) == before


@pytest.mark.parametrize("many", [1, 2, 63, 64, 65, 200])
async def test_any_number_of_ends_can_be_repeated_beside_new_ones(worker: Living, many: int) -> None:
    """Half of a batch was carried out before: the batch is asked for again, and more has come to it."""
    jobs = [new_job() for _ in range(many)]
    await worker.enqueue(*jobs, placement=Placement.leased)
    ends = [(Lease(job.id, 1, worker.id, job.task, job.arguments), Succeeded('"done"')) for job in jobs]
    assert await worker.store.finish(ends[::2]) == [True] * len(ends[::2])
    assert await worker.store.finish(ends) == [True] * many
    found = await worker.store.get([job.id for job in jobs])
    assert [job and job.result for job in found] == ['"done"'] * many


@pytest.mark.parametrize("many", [1, 2, 63, 64, 65, 200])
async def test_any_number_of_attempts_can_end_together(worker: Living, many: int) -> None:
    """Each with its own result; one that does not hold its job any more takes nothing from the others."""
    jobs = [new_job() for _ in range(many)]
    await worker.enqueue(*jobs, placement=Placement.leased)
    leases = [Lease(job.id, 1, worker.id, job.task, job.arguments) for job in jobs]
    ends = [(lease, Succeeded(f'"{number}"')) for number, lease in enumerate(leases)]
    lost = leases[many // 2]
    assert await worker.store.finish([(lost, Failed(OOPS))]) == [True]
    assert await worker.store.finish(ends) == [lease is not lost for lease in leases]
    found = await worker.store.get([job.id for job in jobs])
    results = [job and job.result for job in found]
    assert results == [None if lease is lost else f'"{number}"' for number, lease in enumerate(leases)]
