"""Whose a job is, and the request that made it: kept as long as the job is, whatever becomes of it."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from afterward.job import Failed, Lease, Placement, Retry, Ruling, Status, Stored, Succeeded
from afterward.stores.base import Store
from tests.support.stores import MORNING, OOPS, Living, Place, get, ids_of, new_file, new_job, put, put_file

pytestmark = pytest.mark.anyio

ORIGIN = '{"method":"POST","path":"/send/{email}"}'


async def queue_again(worker: Living, lease: Lease) -> Any:
    return await worker.store.finish([(lease, Retry(OOPS, 0))])


async def fail(worker: Living, lease: Lease) -> Any:
    return await worker.store.finish([(lease, Failed(OOPS))])


async def fail_and_retry(worker: Living, lease: Lease) -> Any:
    await fail(worker, lease)
    assert await worker.store.retry([lease.id]) == [Ruling.done]


async def give_back(worker: Living, lease: Lease) -> Any:
    return await worker.give_all_back()


async def give_back_and_cancel(worker: Living, lease: Lease) -> Any:
    await worker.give_all_back()
    assert await worker.store.cancel([lease.id]) == [Ruling.done]


async def run(worker: Living, lease: Lease) -> Any:
    """Nothing happens to it."""


MOVES: list[Callable[[Living, Lease], Awaitable[Any]]] = [
    run, queue_again, fail, fail_and_retry, give_back, give_back_and_cancel
]  # fmt: skip


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
async def test_a_job_has_its_owner_and_origin_wherever_it_goes(
    worker: Living, move: Callable[[Living, Lease], Awaitable[Any]]
) -> None:
    lease = await worker.leased(new_job(owner="ada", origin=ORIGIN))
    await move(worker, lease)
    job = await get(worker.store, lease.id)
    assert (job.owner, job.origin) == ("ada", ORIGIN)
    assert [(job.owner, job.origin) for job in await worker.store.list()] == [("ada", ORIGIN)]
    assert await ids_of(worker.store, owner="ada") == [lease.id]


async def test_a_job_that_nothing_is_said_of_is_nobodys(store: Store) -> None:
    [job] = await put(store, new_job())
    found = await get(store, job)
    assert (found.owner, found.origin) == (None, None)
    assert await store.list(owner="") == []


async def test_one_of_the_two_is_kept_without_the_other(store: Store) -> None:
    owned, made = await put(store, new_job(owner="ada"), new_job(origin=ORIGIN))
    found = {job.id: (job.owner, job.origin) for job in await store.list()}
    assert found == {owned: ("ada", None), made: (None, ORIGIN)}


async def test_jobs_are_kept_with_their_owners_however_they_are_stored(worker: Living) -> None:
    """By ones and by many; with a unique key, with a file, held, leased, and after another."""
    store = worker.store
    file = await put_file(worker, b"a")
    jobs = [
        new_job(owner="ada"),
        new_job(owner="grace", unique="daily"),
        new_job(owner="ada", files=(file,)),
        new_job(owner="grace"),
    ]
    await worker.enqueue(*jobs)
    lease = await worker.leased(new_job(owner="joan"))
    then = new_job(owner="ada", unique="after")
    assert await store.finish([(lease, Succeeded(then=then))]) == [True]
    owners = {job.id: job.owner for job in await store.list()}
    assert owners == {lease.id: "joan", then.id: "ada", **{job.id: job.owner for job in jobs}}


async def test_of_what_is_not_stored_nothing_is_kept(worker: Living) -> None:
    """Not of a call that led to a job that was there: that one stays whose it is."""
    store = worker.store
    [first] = await put(store, new_job(owner="ada", unique="daily"))
    again, stranger = new_job(owner="grace", unique="daily"), new_job(owner="grace")
    half = new_job(owner="grace", files=(new_file(),))
    assert await store.enqueue([(again, Placement.free)], None) == [Stored.exists]
    assert await store.enqueue([(stranger, Placement.held)], "nobody") == [Stored.stranger]
    assert await store.enqueue([(half, Placement.free)], None) == [Stored.incomplete]
    assert (await get(store, again.id)).owner == "ada"
    assert await ids_of(store, owner="ada") == [first]
    assert await store.list(owner="grace") == []


async def test_a_repeated_call_changes_nothing(worker: Living) -> None:
    job = new_job(owner="ada", origin=ORIGIN)
    for _ in range(2):
        assert await worker.enqueue(job) == [Stored.stored]
    assert await ids_of(worker.store, owner="ada") == [job.id]


async def test_an_owners_jobs_are_listed_by_what_else_is_asked_for(worker: Living) -> None:
    """By status, task, queue and unique key; with pages; those of the others in between are passed over."""
    store = worker.store
    jobs = [
        new_job(owner="ada", queue="slow"),
        new_job(owner="grace"),
        new_job(owner="ada", task="app:resize"),
        new_job(owner="ada", unique="daily"),
        new_job(),
    ]
    await put(store, *jobs)
    first, _, second, third, _ = (job.id for job in jobs)
    running = await worker.leased(new_job(owner="ada"))
    await store.finish([(running, Succeeded())])
    mine = [running.id, third, second, first]
    assert await ids_of(store, owner="ada") == mine
    assert await ids_of(store, owner="ada", limit=2) == mine[:2]
    assert await ids_of(store, owner="ada", before=third) == mine[2:]
    assert await ids_of(store, owner="ada", before=second[:-1]) in ([], mine[3:])
    assert await ids_of(store, owner="ada", status=Status.succeeded) == [running.id]
    assert await ids_of(store, owner="ada", status=[Status.queued]) == mine[1:]
    assert await ids_of(store, owner="ada", task="app:resize") == [second]
    assert await ids_of(store, owner="ada", queue="slow") == [first]
    assert await ids_of(store, owner="ada", unique="daily") == [third]
    assert await ids_of(store, owner="grace", queue="slow") == []
    assert await ids_of(store, owner="\0") == []


async def test_an_owners_jobs_end_with_the_first_that_is_older(place: Place, store: Store) -> None:
    await put(store, new_job(owner="ada"))
    place.clock.advance(60)
    [late] = await put(store, new_job(owner="ada"))
    since = datetime.fromtimestamp(MORNING + 30, UTC)
    assert await ids_of(store, owner="ada", since=since) == [late]


async def test_what_is_forgotten_is_no_owners_any_more(place: Place, worker: Living) -> None:
    """And when its id is given again, nothing of it is left."""
    job = new_job(owner="ada", origin=ORIGIN)
    lease = await worker.leased(job)
    await worker.store.finish([(lease, Succeeded())])
    place.clock.advance(60)
    assert (await worker.store.tidy({Status.succeeded: 60.0}, 10, 10)).pruned == 1
    assert await worker.store.list(owner="ada") == []
    await put(worker.store, new_job(id=job.id))
    assert (await get(worker.store, job.id)).owner is None


@pytest.mark.parametrize("own", [None, "cleo"])
@pytest.mark.parametrize("owner", ["ada", None])
async def test_what_follows_a_job_is_its_owners(
    store: Store, worker: Living, owner: str | None, own: str | None
) -> None:
    """Unless it names another: its result tells of that of the first."""
    lease, following, failing = await worker.leased(new_job(owner=owner)), new_job(owner=own), new_job(owner=own)
    other = await worker.leased(new_job(owner="bob"))
    await store.finish([(lease, Succeeded(then=following)), (other, Failed(OOPS, then=failing))])
    assert (await get(store, following.id)).owner == (own or owner)
    assert (await get(store, failing.id)).owner == (own or "bob")
