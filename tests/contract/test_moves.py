"""The moves a job may make, from `job.ALLOWED`: each is made by an operation, and no operation makes another."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from afterward.job import (
    ALLOWED,
    TERMINAL,
    Cancelled,
    Died,
    EventKind,
    Failed,
    Job,
    Lease,
    NewEvent,
    OnDuplicate,
    Placement,
    Released,
    Report,
    Retry,
    Ruling,
    Status,
    Succeeded,
)
from afterward.stores.base import Store
from afterward.stores.handing import HandOver, Start
from tests.support.stores import OOPS, OUTCOMES, Living, Place, get, name_of, new_job, put

pytestmark = pytest.mark.anyio

DONE_HALF = NewEvent(EventKind.progress, '{"current":1,"total":2}')

Move = tuple[Status, Status]
Operation = Callable[[Living, Living, Job], Awaitable[Any]]
"""Does one thing to a job, as its process or as another one."""


def lease_of(job: Job) -> Lease:
    return Lease(job.id, job.attempt, job.process or "worker", job.task, job.arguments)


def finish(outcome: Any) -> Operation:
    return lambda worker, _, job: worker.store.finish([(lease_of(job), outcome)])


def asked_to_end(operation: Operation) -> Operation:
    """The same, to a job that somebody has asked to end."""

    async def ask_and_do(worker: Living, other: Living, job: Job) -> None:
        assert await other.store.cancel([job.id]) == [Ruling.asked]
        await operation(worker, other, job)

    return ask_and_do


QUEUE_AGAIN: list[Operation] = [
    finish(Retry(OOPS, 0)),
    finish(Retry(OOPS, 30)),
    finish(Released("a shutdown")),
    finish(Released("its arguments do not fit", 0, "v1")),
    finish(Died(OOPS, 0, final=False)),
    lambda worker, other, job: worker.give_all_back(),
    lambda worker, other, job: other.store.reap([(worker.id, None)], 2, 1.0),
    lambda worker, other, job: worker.store.leave(worker.id),
]

# What makes each move.
MADE_BY: dict[Move, list[Operation]] = {
    (Status.queued, Status.running): [lambda worker, _, job: worker.claim()],
    (Status.queued, Status.cancelled): [lambda worker, _, job: worker.store.cancel([job.id])],
    (Status.running, Status.queued): QUEUE_AGAIN,
    (Status.running, Status.succeeded): [finish(Succeeded()), asked_to_end(finish(Succeeded()))],
    (Status.running, Status.failed): [
        finish(Failed(OOPS)),
        finish(Died(OOPS, 0, final=True)),
        asked_to_end(finish(Failed(OOPS))),
    ],
    (Status.running, Status.cancelled): [
        finish(Cancelled("asked to end")),
        *(asked_to_end(operation) for operation in QUEUE_AGAIN),
    ],
    (Status.failed, Status.queued): [lambda worker, _, job: worker.store.retry([job.id])],
    (Status.cancelled, Status.queued): [lambda worker, _, job: worker.store.retry([job.id])],
}


def test_the_table_below_speaks_of_every_move_that_is_allowed() -> None:
    """And of no other; something makes each of them."""
    assert set(MADE_BY) == {(before, after) for before, afters in ALLOWED.items() for after in afters}
    assert set(ALLOWED) == set(Status)
    assert all(MADE_BY.values())


def test_what_is_succeeded_stays_so() -> None:
    """And what has ended is queued again by a person alone."""
    assert ALLOWED[Status.succeeded] == frozenset()
    assert all(ALLOWED[status] <= {Status.queued} for status in TERMINAL)


@pytest.mark.parametrize(
    ("move", "number"), [(move, number) for move, operations in MADE_BY.items() for number in range(len(operations))]
)
async def test_each_move_allowed_is_made_by_an_operation(
    worker: Living, other: Living, move: Move, number: int
) -> None:
    before, after = move
    job = await MAKERS[before](worker)
    assert job.status is before
    await MADE_BY[move][number](worker, other, job)
    assert (await get(other.store, job.id)).status is after


async def free(worker: Living) -> Job:
    return await get(worker.store, (await put(worker.store, new_job(unique=worker.id)))[0])


async def held(worker: Living) -> Job:
    job = new_job(unique=worker.id)
    await worker.enqueue(job)
    return await get(worker.store, job.id)


async def later(worker: Living) -> Job:
    return await get(worker.store, (await put(worker.store, new_job(delay=60, unique=worker.id)))[0])


async def retrying(worker: Living) -> Job:
    lease = await worker.leased(new_job(unique=worker.id))
    await worker.store.finish([(lease, Retry(OOPS, 60))])
    return await get(worker.store, lease.id)


async def running(worker: Living) -> Job:
    lease = await worker.leased(new_job(unique=worker.id))
    return await get(worker.store, lease.id)


async def asked(worker: Living) -> Job:
    job = await running(worker)
    assert await worker.store.cancel([job.id]) == [Ruling.asked]
    return await get(worker.store, job.id)


async def ended(worker: Living, outcome: Any) -> Job:
    lease = await worker.leased(new_job(unique=worker.id))
    assert await worker.store.finish([(lease, outcome)]) == [True]
    return await get(worker.store, lease.id)


async def cancelled(worker: Living) -> Job:
    job = await later(worker)
    assert await worker.store.cancel([job.id]) == [Ruling.done]
    return await get(worker.store, job.id)


async def handed(worker: Living, *, is_followed: bool = False) -> Job:
    lease = await worker.leased(new_job(unique=worker.id))
    assert await worker.store.hand_over([HandOver(lease, 0.0, is_followed)]) == [True]
    return await get(worker.store, lease.id)


async def begun(worker: Living, *, is_followed: bool = False) -> Job:
    job = await handed(worker, is_followed=is_followed)
    assert None not in await worker.store.begin(worker.id, [Start(job.id, job.attempt, worker.id)])
    return await get(worker.store, job.id)


async def followed_and_asked(worker: Living) -> Job:
    job = await handed(worker, is_followed=True)
    assert await worker.store.cancel([job.id]) == [Ruling.asked]
    return await get(worker.store, job.id)


async def taken_back(worker: Living) -> Job:
    job = await handed(worker)
    assert (await worker.store.take_back(worker.id, {job.task}, 10)).leases
    return await get(worker.store, job.id)


STATES: dict[str, Callable[[Living], Awaitable[Job]]] = {
    "free": free,
    "held": held,
    "later": later,
    "retrying": retrying,
    "running": running,
    "asked to end": asked,
    "succeeded": lambda worker: ended(worker, Succeeded("1")),
    "failed": lambda worker: ended(worker, Failed(OOPS)),
    "died": lambda worker: ended(worker, Died(OOPS, 0, final=True)),
    "cancelled": cancelled,
    "cancelled while it ran": lambda worker: ended(worker, Cancelled("asked to end")),
    "handed over": handed,
    "handed over to follow": lambda worker: handed(worker, is_followed=True),
    "handed over and asked to end": followed_and_asked,
    "begun": begun,
    "begun and followed": lambda worker: begun(worker, is_followed=True),
    "taken back": taken_back,
}
MAKERS = {Status.queued: free, Status.running: running, Status.failed: STATES["failed"], Status.cancelled: cancelled}

EVERYTHING: dict[str, Operation] = {
    **{f"finish: {name_of(outcome)}": finish(outcome) for outcome in OUTCOMES},
    "enqueue the same id": lambda worker, _, job: worker.enqueue(new_job(id=job.id)),
    "enqueue the same key": lambda worker, _, job: worker.enqueue(
        new_job(unique=worker.id), placement=Placement.leased
    ),
    "release": lambda worker, _, job: worker.store.release(worker.id, [job.id]),
    "release by another": lambda _, other, job: other.store.release(other.id, [job.id]),
    "claim": lambda worker, _, job: worker.claim(),
    "claim by another": lambda _, other, job: other.claim(),
    "beat": lambda worker, _, job: worker.beat(),
    "beat of another": lambda _, other, job: other.beat(),
    "give back": lambda worker, _, job: worker.store.give_back(worker.id, [(job.id, job.attempt)], []),
    "give back by another": lambda _, other, job: other.store.give_back(other.id, [(job.id, job.attempt)], []),
    "reap": lambda worker, other, job: other.store.reap([(worker.id, None)], 2, 1.0),
    "reap of another": lambda worker, other, job: worker.store.reap([(other.id, None)], 2, 1.0),
    "leave": lambda worker, _, job: worker.store.leave(worker.id),
    "get": lambda worker, _, job: worker.store.get([job.id]),
    "list": lambda worker, _, job: worker.store.list(),
    "tidy": lambda worker, _, job: worker.store.tidy(dict.fromkeys(TERMINAL, 60), 100, 100),
    "replace": lambda worker, _, job: worker.enqueue(new_job(unique=worker.id, on_duplicate=OnDuplicate.replace)),
    "refuse": lambda worker, _, job: worker.enqueue(new_job(unique=worker.id, on_duplicate=OnDuplicate.refuse)),
    "cancel": lambda worker, _, job: worker.store.cancel([job.id]),
    "hasten": lambda worker, _, job: worker.store.hasten([job.id]),
    "report": lambda worker, _, job: worker.store.report([(lease_of(job), Report(1, (DONE_HALF,)))]),
    "hand over": lambda worker, _, job: worker.store.hand_over([HandOver(lease_of(job), 0.0)]),
    "hand over to follow": lambda worker, _, job: worker.store.hand_over([HandOver(lease_of(job), 0.0, True)]),
    "begin": lambda worker, other, job: other.store.begin(other.id, [Start(job.id, job.attempt, worker.id)]),
    "begin by its sender": lambda worker, _, job: worker.store.begin(
        worker.id, [Start(job.id, job.attempt, worker.id)]
    ),
    "take back": lambda _, other, job: other.store.take_back(other.id, {job.task}, 10),
}
BY_A_PERSON: dict[str, Operation] = {"retry": lambda worker, _, job: worker.store.retry([job.id])}


@pytest.mark.parametrize("state", STATES)
async def test_no_operation_makes_a_move_that_is_not_allowed(place: Place, state: str) -> None:
    """Every operation, on a job in every state: each job stays where it is, or makes a move that is allowed.

    What has ended does not change at all, unless a person says so; an attempt's number never goes back.
    """
    stores = await place.open(), await place.open()
    for name, operation in (EVERYTHING | BY_A_PERSON).items():
        worker, other = [await place.process(on=store) for store in stores]
        job = await STATES[state](worker)
        before = await everything(other.store)
        await operation(worker, other, job)
        after = await everything(other.store)
        assert after.keys() >= before.keys()
        for id_, was in before.items():
            now = after[id_]
            assert now.status is was.status or now.status in ALLOWED[was.status], name
            assert now.attempt >= was.attempt, name
            assert (now.status is Status.running) <= (now.process is not None), name
            assert (now.finished_at is not None) == (now.status in TERMINAL), name
            is_waiting = now.status is Status.queued and now.handed_at is None
            assert is_waiting <= (now.cancel_asked_at is None), name
            if was.status in TERMINAL and name not in BY_A_PERSON:
                assert now == was, name


async def everything(store: Store) -> dict[str, Job]:
    """All jobs, with their attempts."""
    jobs = await store.get([job.id for job in await store.list(limit=1000)])
    return {job.id: job for job in jobs if job is not None}
