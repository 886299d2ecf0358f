"""`get` and `list`: what the store holds, as it is."""

from datetime import UTC, datetime, timedelta

import pytest

from afterward.identity import new_id
from afterward.job import Failed, Job, Placement, Retry, Status, Succeeded
from afterward.stores.base import Store
from tests.support.stores import OOPS, Living, Place, new_job, put

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


async def test_a_page_before_a_job_that_was_pruned_since(place: Place, store: Store, worker: Living) -> None:
    """It goes on below the place where that was, and does not begin again with the newest."""
    leases = [await worker.leased(new_job()) for _ in range(5)]
    await store.finish([(leases[2], Succeeded()), (leases[0], Succeeded())])
    place.clock.advance(60)
    await put(store, new_job())
    assert (await store.tidy({Status.succeeded: 30}, 10, 1)).pruned == 2
    assert [job.id for job in await store.list(before=leases[2].id)] == [leases[1].id]
    assert await store.list(before=leases[0].id) == []


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


async def test_list_by_several_statuses(store: Store, worker: Living) -> None:
    """Newest first, whichever they are; none of them is nothing."""
    [queued] = await put(store, new_job())
    done = await worker.leased(new_job())
    running = await worker.leased(new_job())
    await store.finish([(done, Succeeded())])
    found = await store.list(status=[Status.queued, Status.running])
    assert [job.id for job in found] == [running.id, queued]
    assert await store.list(status=[]) == []


async def test_list_by_unique_key(store: Store, worker: Living) -> None:
    """Of whatever task and status."""
    done = await worker.leased(new_job(unique="daily"))
    await store.finish([(done, Succeeded())])
    [waiting, _, other] = await put(store, new_job(unique="daily"), new_job(), new_job(task="app:b", unique="daily"))
    assert of(await store.list(unique="daily")) == [other, waiting, done.id]
    assert of(await store.list(unique="daily", task="app:send", status=[Status.queued, Status.running])) == [waiting]


def at(place: Place) -> datetime:
    """What the store's clock says."""
    return datetime.fromtimestamp(place.clock.now, UTC)


async def test_list_since_a_time(place: Place, store: Store) -> None:
    """What was stored then is there, what was stored before is not; with filters, and in pages."""
    await put(store, new_job(), new_job(queue="slow"))
    place.clock.advance(60)
    since = at(place)
    first, slow = await put(store, new_job(), new_job(queue="slow"))
    place.clock.advance(60)
    [last] = await put(store, new_job())
    assert [job.id for job in await store.list(since=since)] == [last, slow, first]
    assert [job.id for job in await store.list(since=since, queue="slow")] == [slow]
    assert [job.id for job in await store.list(since=since, before=slow)] == [first]
    assert await store.list(since=since, before=first) == []
    assert await store.list(since=since + timedelta(seconds=61)) == []


def of(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


async def test_changed_tells_what_was_stored_or_has_ended_and_what_is_in_hand(
    place: Place, store: Store, worker: Living
) -> None:
    """However long ago it began; what waits for a worker since before is no news, nor is what ended before."""
    await put(store, new_job(task="app:unknown"))
    old, ending, retried = [await worker.leased(new_job()) for _ in range(3)]
    running = await worker.leased(new_job())
    await worker.enqueue(held := new_job())
    await store.finish([(old, Succeeded())])
    place.clock.advance(60)
    since = at(place)
    assert of(await store.changed(since, 10)) == [held.id, running.id, retried.id, ending.id]

    await store.finish([(ending, Failed(OOPS)), (retried, Retry(OOPS, 30))])
    [new] = await put(store, new_job())
    assert of(await store.changed(since, 10)) == [new, held.id, running.id, ending.id]
    assert of(await store.changed(since, 2)) == [new, held.id]
    await worker.claim()
    await store.cancel([held.id])
    assert of(await store.changed(since + timedelta(seconds=1), 10)) == [new, running.id]


async def test_ids_are_found_by_how_they_begin(store: Store) -> None:
    """In order, no more than asked for; also those of calls whose unique key was taken."""
    jobs = [new_job(id=f"0190{letter}-{n}", unique=letter) for letter in "ab" for n in (1, 2)]
    await put(store, jobs[0], jobs[2])
    await store.enqueue([(jobs[1], Placement.free), (jobs[3], Placement.free)], None)
    assert list(await store.find("0190", 10)) == ["0190a-1", "0190a-2", "0190b-1", "0190b-2"]
    assert list(await store.find("0190", 3)) == ["0190a-1", "0190a-2", "0190b-1"]
    assert list(await store.find("0190b-2", 10)) == ["0190b-2"]
    assert [list(await store.find(prefix, 10)) for prefix in ("0190c", "0190b-22", "\0", "\udcff", "%")] == [[]] * 5


async def test_a_text_that_no_store_can_keep_is_that_of_no_job(store: Store) -> None:
    """It is looked for in vain, and nothing breaks."""
    jobs = await put(store, new_job(), new_job())
    for text in ("\udc80", "a\0b"):
        assert await store.list(task=text) == await store.list(queue=text) == await store.list(unique=text) == []
        assert await store.list(before=text) == []
        assert await store.get([text]) == [None]
    assert len(jobs) == 2
