"""SQLite: what the version before does, beside this one, to jobs in the hands of another system.

It knows nothing of them: to it, they wait for a time that never comes.
"""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import apsw
import pytest

from afterward.job import Lease, Process, Status
from afterward.stores.base import Store
from afterward.stores.handing import HandOver, Start
from afterward.stores.sqlite import SQLiteStore
from tests.support.stores import MORNING, Clock, get, new_job, put, send

pytestmark = pytest.mark.anyio

NOW = datetime.fromtimestamp(MORNING, UTC)
TASKS = {"app:send"}

PROMOTE = """
UPDATE jobs SET due = 1
WHERE seq IN (SELECT seq FROM jobs WHERE status = 'queued' AND due = 0 AND run_at <= ?1 ORDER BY run_at LIMIT ?2)
"""
READY = "SELECT id FROM jobs WHERE status = 'queued' AND due = 1 AND process IS NULL"
GIVE_BACK = """
UPDATE jobs SET process = NULL, token = NULL,
    status = iif(cancel_asked_at IS NULL, 'queued', 'cancelled'),
    note = iif(cancel_asked_at IS NULL, note, 'cancelled'),
    finished_at = iif(cancel_asked_at IS NULL, NULL, ?4)
WHERE id = ?1 AND attempt = ?2 AND process = ?3
"""
ORPHAN = """
UPDATE jobs SET deaths = min(deaths + 1, max(deaths, ?5)),
    due = CASE WHEN deaths + 1 >= ?5 THEN 0 ELSE due END,
    run_at = CASE WHEN deaths + 1 >= ?5 THEN ?4 + ?6 ELSE run_at END,
    status = iif(cancel_asked_at IS NULL, 'queued', 'cancelled'),
    note = iif(cancel_asked_at IS NULL, note, 'cancelled'),
    finished_at = iif(cancel_asked_at IS NULL, NULL, ?4), process = NULL, token = NULL
WHERE id = ?1 AND process = ?2 AND attempt = ?3
"""
CANCEL = """
UPDATE jobs SET status = 'cancelled', process = NULL, note = 'cancelled', finished_at = ?2
WHERE id = ?1 AND status = 'queued'
"""
RETRY = """
UPDATE jobs SET status = 'queued', due = 1, run_at = ?2, failures = 0, deaths = 0, token = NULL, note = 'retried',
    unfit_for = '', finished_at = NULL, replaced_by = NULL, cancel_asked_at = NULL,
    expires_at = CASE WHEN expires_at > ?2 THEN expires_at END
WHERE id = ?1 AND status IN ('failed', 'cancelled')
"""


class Before:
    """The version before, on the same file."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.connection = apsw.Connection(str(path))
        self.connection.set_busy_timeout(5000)
        self._clock = clock

    def ready(self) -> list[str]:
        """What it would claim."""
        self.connection.execute(PROMOTE, (self._clock.now, 1000))
        return [str(id_) for (id_,) in self.connection.execute(READY)]

    def give_back(self, lease: Lease) -> None:
        self.connection.execute(GIVE_BACK, (lease.id, lease.attempt, lease.process, self._clock.now))

    def reap(self, lease: Lease) -> None:
        fence = lease.id, lease.process, lease.attempt
        self.connection.execute(ORPHAN, (*fence, self._clock.now, 2, 5.0))

    def cancel(self, job: str) -> None:
        self.connection.execute(CANCEL, (job, self._clock.now))

    def retry(self, job: str) -> None:
        self.connection.execute(RETRY, (job, self._clock.now))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    store = SQLiteStore(tmp_path / "jobs.db", clock=clock)
    await store.open()
    await store.join(Process("relay", 1, "example"))
    yield store
    await store.leave("relay")
    await store.close()


@pytest.fixture
def before(tmp_path: Path, clock: Clock, store: Store) -> Iterator[Before]:
    before = Before(tmp_path / "jobs.db", clock)
    yield before
    before.connection.close()


async def handed(store: Store, *, is_followed: bool = False) -> Lease:
    [job] = await put(store, new_job())
    [lease] = (await store.claim("relay", send(), job)).leases
    assert await store.hand_over([HandOver(lease, 60.0, is_followed)]) == [True]
    return lease


async def test_it_claims_none_of_them(store: Store, before: Before, clock: Clock) -> None:
    await handed(store)
    clock.advance(1000 * 365 * 86_400)
    assert before.ready() == []


@pytest.mark.parametrize("way", ["give back", "reap"])
@pytest.mark.parametrize("is_followed", [False, True])
async def test_what_it_queues_again_is_handed_over_again(
    store: Store, before: Before, clock: Clock, way: str, *, is_followed: bool
) -> None:
    """What was taken back, and what is followed and runs."""
    lease = await handed(store, is_followed=is_followed)
    if is_followed:
        assert await store.begin("relay", [Start(lease.id, 1, "relay")]) == [lease]
    else:
        clock.advance(60)
        assert (await store.take_back("relay", TASKS, 10)).leases == [lease]
    (before.give_back if way == "give back" else before.reap)(lease)
    assert before.ready() == []
    job = await get(store, lease.id)
    assert (job.status, job.attempt, job.handed_at, job.run_at) == (Status.queued, 1, NOW, NOW)
    assert [one.id for one in await store.followed(TASKS, "", 10)] == [lease.id] * is_followed
    assert await store.begin("relay", [Start(lease.id, 1, "relay")]) == [lease._replace(deaths=job.deaths)]


async def test_what_it_cancels_is_in_nobodys_hands(store: Store, before: Before, clock: Clock) -> None:
    """Nor is what a person has it try again; that is due."""
    lease, again = await handed(store, is_followed=True), await handed(store)
    for job in (lease.id, again.id):
        before.cancel(job)
    before.retry(again.id)
    assert await store.followed(TASKS, "", 10) == []
    assert await store.begin("relay", [Start(lease.id, 1, "relay"), Start(again.id, 1, "relay")]) == [None, None]
    clock.advance(60)
    assert (await store.take_back("relay", TASKS, 10)).leases == []
    job = await get(store, lease.id)
    assert (job.status, job.handed_at, job.run_at) == (Status.cancelled, None, NOW)
    assert before.ready() == [again.id]
    [found] = (await store.claim("relay", send(), "again")).leases
    assert (found.id, found.attempt) == (again.id, 2)
