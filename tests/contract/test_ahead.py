"""`ahead`: how many jobs stand before one."""

from collections.abc import Awaitable, Callable

import pytest

from afterward.job import NewJob, Released
from afterward.stores.base import Store, Wanted
from tests.support.stores import Living, Place, new_job, put

pytestmark = pytest.mark.anyio

TASKS, QUEUES = ["app:send", "app:ship"], ["default", "mail"]


async def before(store: Store, job: str, limit: int = 100) -> int:
    return await store.ahead(job, TASKS, QUEUES, limit)


async def test_those_stand_before_a_job_that_a_claim_gives_first(place: Place, store: Store, worker: Living) -> None:
    """More urgent, due before, or added before; whatever their task and queue, if they are wanted."""
    jobs: list[NewJob] = []
    for priority in (0, 5, 0):
        added = [
            new_job(task=task, queue=queue, priority=priority, delay=delay)
            for task in TASKS
            for queue in QUEUES
            for delay in (None, 7)
        ]
        await put(store, *added)
        place.clock.advance(1)
        jobs += added
    place.clock.advance(60)
    counted = {job.id: await before(store, job.id) for job in jobs}
    for number in range(len(jobs)):
        [lease] = (await worker.claim([Wanted(TASKS, 1, QUEUES)])).leases
        assert counted[lease.id] == number


NOT_BEFORE: dict[str, Callable[[Store, Living], Awaitable[object]]] = {
    "another task": lambda store, _: put(store, new_job(task="app:resize")),
    "another queue": lambda store, _: put(store, new_job(queue="slow")),
    "later": lambda store, _: put(store, new_job(delay=60, priority=9)),
    "held": lambda _, worker: worker.enqueue(new_job(priority=9)),
    "running": lambda _, worker: worker.leased(new_job(priority=9)),
    "less urgent": lambda store, _: put(store, new_job(priority=-1)),
}


@pytest.mark.parametrize("what", NOT_BEFORE)
async def test_nothing_else_stands_before_it(store: Store, worker: Living, what: str) -> None:
    await NOT_BEFORE[what](store, worker)
    job = new_job()
    await put(store, job)
    await put(store, new_job())
    assert await before(store, job.id) == 0


async def test_one_that_does_not_fit_somebody_is_not_counted(store: Store, worker: Living) -> None:
    lease = await worker.leased(new_job(priority=9))
    await store.finish([(lease, Released("it lacks a size", 0, "v1"))])
    job = new_job()
    await put(store, job)
    assert await before(store, job.id) == 0


async def test_it_is_counted_so_far_and_no_further(place: Place, store: Store) -> None:
    """Ready or just due, in one lane or in several."""
    await put(store, *(new_job(task=task, delay=delay) for task in TASKS for delay in (None, 1) for _ in range(4)))
    place.clock.advance(5)
    job = new_job()
    await put(store, job)
    assert [await before(store, job.id, limit) for limit in (1, 3, 16, 17)] == [1, 3, 16, 16]


async def test_nothing_stands_before_what_does_not_wait(store: Store, worker: Living) -> None:
    await put(store, new_job(priority=9))
    lease = await worker.leased(new_job())
    assert [await before(store, job) for job in (lease.id, "unknown", "\udcff", "\0")] == [0, 0, 0, 0]
