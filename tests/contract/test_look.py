"""`get` and `list`: what the store holds, as it is."""

import pytest

from afterward.identity import new_id
from afterward.job import Failed, Placement, Status, Succeeded
from afterward.stores.base import Store
from tests.support.stores import OOPS, Living, new_job, put

pytestmark = pytest.mark.anyio


async def test_get_answers_in_order_and_none_for_the_unknown(store: Store) -> None:
    first, second = await put(store, new_job(), new_job())
    found = await store.get([second, new_id(), first, "", second, "x" * 10_000, "\0", "'; DROP TABLE jobs; --"])
    assert [job and job.id for job in found] == [second, None, first, None, second, None, None, None]
    assert await store.get([]) == []


async def test_an_id_that_is_no_text_is_unknown(store: Store) -> None:
    """As a command line hands over bytes that are not UTF-8: no job has it, and the store goes on."""
    [job] = await put(store, new_job())
    found = await store.get(["\udcff", job])
    assert [job and job.id for job in found] == [None, job]


async def test_list_is_newest_first(store: Store) -> None:
    jobs = await put(store, *(new_job() for _ in range(3)))
    jobs += await put(store, new_job(priority=9), new_job(delay=60))
    assert [job.id for job in await store.list()] == jobs[::-1]


async def test_list_tells_what_get_tells_but_for_the_attempts(store: Store, worker: Living) -> None:
    lease = await worker.leased(new_job(unique="daily"))
    await store.finish([(lease, Failed(OOPS))])
    [listed] = await store.list()
    [got] = await store.get([lease.id])
    assert got is not None
    assert len(got.attempts) == 1
    assert listed.attempts == ()
    assert (listed.id, listed.failure, listed.status, listed.unique) == (got.id, got.failure, got.status, got.unique)


async def test_list_by_status_task_and_queue(store: Store, worker: Living) -> None:
    """Each alone, and together."""
    await put(store, new_job(queue="slow"), new_job(task="app:resize"))
    done = await worker.leased(new_job(queue="slow"))
    await store.finish([(done, Succeeded())])
    await worker.enqueue(new_job(), placement=Placement.leased)

    assert [len(await store.list(status=status)) for status in Status] == [2, 1, 1, 0, 0]
    assert [len(await store.list(task=task)) for task in ("app:send", "app:resize", "app:unheard")] == [3, 1, 0]
    assert [len(await store.list(queue=queue)) for queue in ("slow", "default", "unheard")] == [2, 2, 0]
    [job] = await store.list(status=Status.succeeded, task="app:send", queue="slow")
    assert job.id == done.id
    assert await store.list(status=Status.succeeded, task="app:resize") == []


async def test_pages_meet_without_gap_or_overlap(store: Store) -> None:
    """Also while new jobs come in: a page is what is older than the last job of the page before."""
    jobs = await put(store, *(new_job(queue="ab"[number % 2]) for number in range(25)))
    wanted = [job for job in jobs[::-1] if job in jobs[::2]]
    seen: list[str] = []
    before: str | None = None
    while page := await store.list(queue="a", before=before, limit=4):
        seen += [job.id for job in page]
        before = page[-1].id
        await put(store, new_job(queue="a"))
    assert seen == wanted


async def test_list_gives_no_more_than_the_limit(store: Store) -> None:
    jobs = await put(store, *(new_job() for _ in range(60)))
    assert [job.id for job in await store.list(limit=3)] == jobs[:-4:-1]
    assert len(await store.list()) == 50
    assert len(await store.list(limit=1000)) == 60


async def test_a_page_before_a_job_found_by_its_other_id(store: Store) -> None:
    """An id that leads to a job leads to its place in the list as well."""
    [old] = await put(store, new_job())
    alias = new_job(unique="daily")
    await put(store, new_job(unique="daily"), new_job())
    await store.enqueue([(alias, Placement.free)], None)
    assert [job.id for job in await store.list(before=alias.id)] == [old]


async def test_the_counts_of_all_statuses_are_what_was_stored(store: Store, worker: Living) -> None:
    """Stored = queued + running + succeeded + failed + cancelled, whatever happened."""
    await put(store, *(new_job() for _ in range(40)))
    leases = (await worker.claim()).leases
    await store.finish(
        [(lease, Succeeded()) for lease in leases[:5]] + [(lease, Failed(OOPS)) for lease in leases[5:8]]
    )
    await worker.enqueue(new_job(), new_job())
    await worker.enqueue(*(new_job(unique="daily") for _ in range(3)))
    counts = {status: len(await store.list(status=status, limit=1000)) for status in Status}
    assert counts == {
        Status.queued: 33,
        Status.running: 2,
        Status.succeeded: 5,
        Status.failed: 3,
        Status.cancelled: 0,
    }
    assert sum(counts.values()) == len(await store.list(limit=1000)) == 43
