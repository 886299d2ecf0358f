"""Starts and stops of a process's life in a store: in any order, from anywhere, and at the same time."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from afterward import Afterward
from afterward.errors import StoreUnavailable
from afterward.identity import new_id
from afterward.job import NewJob, Placement, Process
from afterward.liveness import Liveness
from afterward.stores.base import Beat
from afterward.stores.seen import Answer, Served
from afterward.stores.sqlite import SQLiteStore
from tests.support.insides import liveness_of
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio


class SlowToClose(SQLiteStore):
    """A store whose first closing takes until somebody has joined it again, or long enough for that."""

    def __init__(self, path: Path, *, refused: int = 0) -> None:
        super().__init__(path)
        self.closing = threading.Event()
        self._joined_again = threading.Event()
        self._refused = refused

    async def join(self, process: Process) -> None:
        if self._refused:
            self._refused -= 1
            raise StoreUnavailable("its disk is full")
        await super().join(process)
        if self.closing.is_set():
            self._joined_again.set()

    async def close(self) -> None:
        if not self.closing.is_set():
            self.closing.set()
            await asyncio.to_thread(self._joined_again.wait, 0.5)
        await super().close()


class SlowToOpen(SQLiteStore):
    """A store that does not open before it may."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.opening = threading.Event()
        self.may_open = threading.Event()

    async def open(self, *, migrate: bool = True) -> None:
        self.opening.set()
        await asyncio.to_thread(self.may_open.wait, 10)
        await super().open(migrate=migrate)


class SlowToDescribe(SQLiteStore):
    """A store that takes no description before it may, and counts beats."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.beats = 0
        self.describing = threading.Event()
        self.may_describe = threading.Event()

    async def beat(self, process: str) -> Beat | None:
        self.beats += 1
        return await super().beat(process)

    def describe(self, process: str, served: Served) -> Answer[bool]:
        self.describing.set()
        return asyncio.ensure_future(self._describe(process, served))

    async def _describe(self, process: str, served: Served) -> bool:
        await asyncio.to_thread(self.may_describe.wait, 10)
        return await super().describe(process, served)


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    """The same store, as another process sees it."""
    store = SQLiteStore(tmp_path / "jobs.db")
    await store.open()
    yield store
    await store.close()


async def is_well(liveness: Liveness, store: SQLiteStore, other: SQLiteStore) -> None:
    """It is open, and its process is seen to live."""
    assert await store.get(["nothing"]) == [None]
    assert liveness.is_recent
    assert await other.dead() == []
    await liveness.beat()
    assert await other.dead() == []


async def test_a_start_while_a_failed_one_closes_the_store_begins_after_it(tmp_path: Path, other: SQLiteStore) -> None:
    """The one that failed would close the store under the other, and let go of its lock."""
    store = SlowToClose(tmp_path / "jobs.db", refused=1)
    liveness = Liveness(store, 10.0)
    first = asyncio.ensure_future(liveness.start())
    await soon(store.closing.is_set)
    process = await liveness.start()
    with pytest.raises(StoreUnavailable, match="its disk is full"):
        await first
    assert liveness.process == process
    await is_well(liveness, store, other)
    await liveness.stop()


async def test_a_start_while_a_stop_closes_the_store_begins_after_it(tmp_path: Path, other: SQLiteStore) -> None:
    store = SlowToClose(tmp_path / "jobs.db")
    liveness = Liveness(store, 10.0)
    before = await liveness.start()
    stopping = asyncio.ensure_future(liveness.stop())
    await soon(store.closing.is_set)
    process = await liveness.start()
    await stopping
    assert liveness.process == process != before
    await is_well(liveness, store, other)
    await liveness.stop()


async def test_a_second_stop_waits_for_the_first(tmp_path: Path) -> None:
    """Who has stopped it may remove the file."""
    store = SlowToClose(tmp_path / "jobs.db")
    liveness = Liveness(store, 10.0)
    await liveness.start()
    stopping = asyncio.ensure_future(liveness.stop())
    await soon(store.closing.is_set)
    await liveness.stop()
    with pytest.raises(StoreUnavailable, match="is not open"):
        await store.get(["nothing"])
    await stopping


async def test_a_stop_that_follows_a_start_at_once_stops_it(tmp_path: Path, other: SQLiteStore) -> None:
    """Nothing lives on that nobody knows of."""
    store = SlowToOpen(tmp_path / "jobs.db")
    store.may_open.set()
    for _ in range(10):
        liveness = Liveness(store, 10.0)
        starting = asyncio.ensure_future(liveness.start())
        await asyncio.sleep(0)
        await liveness.stop()
        await starting
        assert liveness.process is None
    assert not [thread for thread in threading.enumerate() if thread.name == "afterward-liveness"]
    assert await other.dead() == []


async def test_who_is_cancelled_while_it_starts_cancels_it_for_nobody_else(tmp_path: Path, other: SQLiteStore) -> None:
    """A client that goes away while the store opens, say."""
    store = SlowToOpen(tmp_path / "jobs.db")
    liveness = Liveness(store, 10.0)
    cancelled, patient = (asyncio.ensure_future(liveness.start()) for _ in range(2))
    await soon(store.opening.is_set)
    cancelled.cancel()
    await asyncio.wait({cancelled})
    store.may_open.set()
    assert await patient == await liveness.start() == liveness.process
    await is_well(liveness, store, other)
    await liveness.stop()


async def test_a_start_answers_the_identity_that_the_process_has_now(tmp_path: Path, other: SQLiteStore) -> None:
    """Not the one it had before it was taken for dead."""
    liveness = Liveness(SQLiteStore(tmp_path / "jobs.db"), 10.0)
    first = await liveness.start()
    await other.reap([(first, None)], 2, 1.0)
    await liveness.beat()
    assert await liveness.start() == liveness.process != first
    await liveness.stop()


async def test_who_was_taken_for_dead_has_another_identity_soon_however_long_its_lease(
    tmp_path: Path, other: SQLiteStore
) -> None:
    """A heart that beats every two minutes, and a request that cannot be stored in the old name."""
    liveness = Liveness(SQLiteStore(tmp_path / "jobs.db"), 600)
    try:
        old = await liveness.start()
        await other.reap([(old, None)], 2, 1.0)
        assert await liveness.another_identity(old) == liveness.process != old
    finally:
        await liveness.stop()


async def test_an_app_does_not_wait_long_for_a_store_that_opens_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It starts without, says so, and tries on."""
    monkeypatch.setattr("afterward.living._START_UP_SECONDS", 0.05)
    store = SlowToOpen(tmp_path / "jobs.db")
    tasks = Afterward(store=store)
    async with tasks.running(None):
        assert store.opening.is_set()
        assert "store.slow" in caplog.text
        assert liveness_of(tasks).process is None
        store.may_open.set()
        await soon(lambda: liveness_of(tasks).process, "it has joined")


async def test_each_death_is_told_once_with_its_own_jobs(
    tmp_path: Path, other: SQLiteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """However many pages it takes to queue them again."""
    caplog.set_level(logging.WARNING, "afterward")
    for process, count in [("few", 3), ("many", 450)]:
        await other.join(Process(process, 1, "example"))
        jobs = [NewJob(new_id(), "app:send", "default", 0, "{}") for _ in range(count)]
        await other.enqueue([(job, Placement.leased) for job in jobs], process)
    await other.close()
    liveness = Liveness(SQLiteStore(tmp_path / "jobs.db"), 10.0)
    await liveness.start()
    await soon(lambda: caplog.text.count("process.died") >= 2)
    await liveness.stop()
    told = sorted(message for message in caplog.messages if message.startswith("process.died"))
    assert told == ["process.died process=few jobs=3", "process.died process=many jobs=450"]


async def test_the_heart_does_not_wait_for_what_is_said_or_asked_beside_it(tmp_path: Path) -> None:
    """That may wait for others, longer than a lease: this process would be taken for dead, and lose its jobs."""
    store = SlowToDescribe(tmp_path / "jobs.db")
    liveness = Liveness(store, 0.5)
    with liveness.serving(lambda: Served({}, None, 1, 1)):
        await liveness.start()
        await soon(store.describing.is_set, "it describes itself")
        before = store.beats
        await soon(lambda: store.beats > before + 3, "its heart beats")
        store.may_describe.set()
        await liveness.stop()


async def test_all_are_told_what_is_lost_though_one_of_them_listens_no_more(tmp_path: Path) -> None:
    """Each is told once: who is passed over would run on what another has by now."""
    liveness = Liveness(SQLiteStore(tmp_path / "jobs.db"), 10.0)
    told: list[dict[str, int]] = []
    leaving = ExitStack()
    leaving.enter_context(liveness.telling_lost(lambda _: leaving.close()))
    with leaving, liveness.telling_lost(told.append):
        await liveness.start()
        liveness.holdings.have("job", 1)
        await liveness.beat()
        await liveness.stop()
    assert told == [{"job": 1}]
