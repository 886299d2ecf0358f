"""SQLite: what may happen to a file in use. Nothing acknowledged is lost, nothing is said to be stored that is not."""

# ruff: noqa: ASYNC240 - what a test waits for on the disk is there

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from afterward.errors import StoreError, StoreUnavailable
from afterward.job import EventKind, Lease, NewEvent, Placement, Process, Report, Status, Stored, Succeeded
from afterward.stores.base import Store
from afterward.stores.sqlite import SQLiteStore
from tests.support.stores import OtherProcess, check_sqlite, get, ids, new_job, put, send

pytestmark = pytest.mark.anyio


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    """Where the database is; whole when the test is over, if it is still there."""
    yield tmp_path / "jobs.db"
    check_sqlite(tmp_path)


@pytest.fixture
async def connection_and_store(path: Path) -> AsyncIterator[tuple[apsw.Connection, Store]]:
    """A store, and the connection that it made for itself."""
    made: list[apsw.Connection] = []
    apsw.connection_hooks.append(made.append)
    store = SQLiteStore(path, patience=0.3)
    try:
        await store.open()
    finally:
        apsw.connection_hooks.remove(made.append)
    yield made[-1], store
    await store.close()


@pytest.fixture
async def store(connection_and_store: tuple[apsw.Connection, Store]) -> Store:
    return connection_and_store[1]


async def enqueue(store: Store, *arguments: str) -> list[Stored]:
    return await store.enqueue([(new_job(arguments=text), Placement.free) for text in arguments or ("{}",)], None)


async def every_operation_is_refused(store: Store, match: str) -> None:
    """Within a bounded time; reading too."""
    operations: list[Callable[[], Awaitable[Any]]] = [
        lambda: enqueue(store),
        lambda: store.claim("worker", send(), "token"),
        lambda: store.finish([]),
        lambda: store.release("worker", ["x"]),
        lambda: store.beat("worker"),
        lambda: store.reap([], 2, 1.0),
        lambda: store.report([]),
        lambda: store.asked_to_end("worker"),
        lambda: store.get(["x"]),
        lambda: store.events([("x", 0)], 1),
        store.list,
    ]
    for operation in operations:
        with pytest.raises(StoreUnavailable, match=match):
            await operation()


# The file goes away.


async def test_a_deleted_file_is_told_and_no_new_one_is_made(path: Path, store: Store) -> None:
    await enqueue(store)
    path.unlink()
    await every_operation_is_refused(store, r"jobs\.db was deleted or replaced while in use")
    assert not path.exists()


async def test_a_replaced_file_is_told_and_left_alone(path: Path, store: Store, tmp_path: Path) -> None:
    """As by a restore under a running process: the new file's jobs are not mixed with those of the old."""
    await enqueue(store)
    other = SQLiteStore(tmp_path / "restored.db")
    await other.open()
    [restored] = await put(other, new_job())
    await other.close()
    (tmp_path / "restored.db").rename(path)
    before = path.read_bytes()

    await every_operation_is_refused(store, "deleted or replaced")

    assert path.read_bytes() == before
    await store.close()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    await store.open()
    assert [job.id for job in await store.list()] == [restored]


async def test_a_file_put_back_is_used_again(path: Path, store: Store) -> None:
    """Without a restart: it is the same file."""
    [first] = await put(store, new_job())
    aside = path.with_name("aside.db")
    path.rename(aside)
    with pytest.raises(StoreUnavailable):
        await enqueue(store)
    aside.rename(path)
    [second] = await put(store, new_job())
    assert [job.id for job in await store.list()] == [second, first]


async def test_after_its_journal_was_deleted_nothing_is_said_to_be_stored_that_is_not(tmp_path: Path) -> None:
    """What is committed is in the journal until a checkpoint: in one that was deleted, it dies with the process."""
    process = OtherProcess("sqlite", str(tmp_path / "jobs.db"), 0)
    acknowledged: list[str] = []
    try:
        process.call("open")
        process.call("enqueue", [(new_job(), Placement.free)], None)
        (tmp_path / "jobs.db-wal").unlink()
        with contextlib.suppress(StoreUnavailable):
            job = new_job()
            process.call("enqueue", [(job, Placement.free)], None)
            acknowledged.append(job.id)
    finally:
        process.kill()
    reader = SQLiteStore(tmp_path / "jobs.db")
    await reader.open()
    stored = {job.id for job in await reader.list()}
    await reader.close()
    assert set(acknowledged) <= stored


async def test_a_deleted_folder_of_locks_kills_nobody(path: Path, store: Store) -> None:
    """Who is not seen by a lock is seen by its heartbeat; and a process that joins makes it again."""
    await store.join(Process("worker", 1, "example"))
    other = SQLiteStore(path)
    await other.open()
    shutil.rmtree(path.with_name("jobs.db.processes"))
    assert await other.dead() == []
    assert await store.beat("worker") is not None
    await other.join(Process("other", 1, "example"))
    assert await store.dead() == []
    assert await other.dead() == []
    await store.leave("worker")
    await other.leave("other")
    await other.close()


# The disk is full.


async def test_on_a_full_disk_nothing_is_said_to_be_stored(
    connection_and_store: tuple[apsw.Connection, Store], path: Path
) -> None:
    """All or none of a batch; what was stored before stays; it heals without a restart when there is space again."""
    connection, store = connection_and_store
    await store.join(Process("worker", 1, "example"))
    kept = await put(store, *(new_job() for _ in range(5)))
    limit = connection.pragma("max_page_count")
    assert isinstance(limit, int)
    connection.pragma("max_page_count", 1)  # that is: not one page more than there are

    large = '"' + "x" * 20_000 + '"'
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await enqueue(store, "{}", large, "{}")
    assert {job.id for job in await store.list(limit=1000)} == set(kept)

    connection.pragma("max_page_count", limit)
    assert await enqueue(store, large) == [Stored.stored]
    assert len((await store.claim("worker", send(100), "token")).leases) == len(kept) + 1
    await store.leave("worker")


async def test_on_a_full_disk_small_operations_of_the_same_moment_go_on(
    connection_and_store: tuple[apsw.Connection, Store],
) -> None:
    """Work that needs no space is finished, though another's batch does not fit."""
    connection, store = connection_and_store
    await store.join(Process("worker", 1, "example"))
    await put(store, *(new_job() for _ in range(5)))
    leases = (await store.claim("worker", send(), "token")).leases
    connection.pragma("max_page_count", 1)

    large = '"' + "x" * 200_000 + '"'
    refused, finished, there = await asyncio.gather(
        enqueue(store, large),
        store.finish([(lease, Succeeded()) for lease in leases]),
        store.get(ids(leases)),
        return_exceptions=True,
    )

    assert isinstance(refused, StoreUnavailable)
    assert finished == [True] * 5
    assert isinstance(there, list)
    assert {job.status for job in await store.list()} == {Status.succeeded}
    connection.pragma("max_page_count", 1_000_000)
    await store.leave("worker")


# The file is locked.


class Locker:
    """Another process that holds the lock of the database, as a backup or a careless tool does."""

    def __init__(self, path: Path) -> None:
        self._process = OtherProcess("sqlite", str(path), 0)
        self._path = path

    def lock(self, statement: str = "BEGIN IMMEDIATE") -> None:
        self._process.run(hold, str(self._path), statement)

    def unlock(self) -> None:
        self._process.run(let_go)

    def kill(self) -> None:
        self._process.kill()


_held: list[apsw.Connection] = []


def hold(path: str, statement: str) -> None:
    connection = apsw.Connection(path)
    connection.execute(statement)
    _held.append(connection)


def let_go() -> None:
    _held.pop().close()


@pytest.fixture
async def locker(path: Path) -> AsyncIterator[Locker]:
    locker = Locker(path)
    yield locker
    locker.kill()


async def test_a_lock_held_for_a_moment_is_waited_for(path: Path, locker: Locker) -> None:
    """Shorter than the store's patience: nobody notices. The event loop goes on meanwhile."""
    store = SQLiteStore(path, patience=30)
    await store.open()
    await enqueue(store)
    locker.lock()
    asked = asyncio.create_task(enqueue(store))
    began = time.monotonic()
    for _ in range(50):
        await asyncio.sleep(0.001)
    assert time.monotonic() - began < 20
    assert not asked.done()
    locker.unlock()
    assert await asked == [Stored.stored]
    await store.close()


async def test_a_lock_held_for_long_is_told_in_a_bounded_time(store: Store, locker: Locker) -> None:
    """Every writing operation is refused, none of it is written, and reading goes on."""
    await store.join(Process("worker", 1, "example"))
    [id_] = await put(store, new_job())
    locker.lock()
    began = time.monotonic()
    said = await asyncio.gather(
        enqueue(store),
        enqueue(store),
        store.claim("worker", send(), "token"),
        store.beat("worker"),
        return_exceptions=True,
    )
    assert time.monotonic() - began < 10
    assert [type(answer) for answer in said] == [StoreUnavailable] * 4
    assert "lock" in str(said[0])
    assert (await get(store, id_)).status is Status.queued
    locker.unlock()
    assert len(await store.list()) == 1
    await store.leave("worker")


async def test_when_the_lock_is_gone_all_goes_on_without_a_restart(store: Store, locker: Locker) -> None:
    await store.join(Process("worker", 1, "example"))
    for _ in range(2):
        locker.lock()
        with pytest.raises(StoreUnavailable):
            await enqueue(store)
        locker.unlock()
        assert await enqueue(store) == [Stored.stored]
    assert len((await store.claim("worker", send(), "token")).leases) == 2
    assert await store.beat("worker") is not None
    await store.leave("worker")


async def test_when_the_locker_is_killed_all_goes_on(path: Path, locker: Locker) -> None:
    store = SQLiteStore(path, patience=30)
    await store.open()
    locker.lock()
    asked = asyncio.create_task(enqueue(store))
    locker.kill()
    assert await asked == [Stored.stored]
    await store.close()


async def test_a_store_can_be_opened_while_another_process_writes(path: Path, store: Store, locker: Locker) -> None:
    """A writer's lock is no reason to refuse a start."""
    locker.lock()
    second = SQLiteStore(path, patience=0.3)
    await second.open()
    assert await second.list() == []
    locker.unlock()
    await second.close()


async def test_a_file_locked_by_a_stranger_from_the_beginning_is_told(path: Path, locker: Locker) -> None:
    """In a bounded time, as unavailable: it is opened when the lock is gone."""
    locker.lock("BEGIN EXCLUSIVE; CREATE TABLE x (y)")
    store = SQLiteStore(path, patience=0.3)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="lock"):
        await store.open()
    assert time.monotonic() - began < 10
    locker.unlock()
    await store.open()
    assert await enqueue(store) == [Stored.stored]
    await store.close()


async def test_who_could_not_leave_is_seen_to_be_dead(path: Path, store: Store, locker: Locker) -> None:
    """The row stays behind, and the lock is gone: the next reaper knows at once, and need not wait for a lease."""
    await store.join(Process("worker", 1, "example"))
    job = new_job()
    await store.enqueue([(job, Placement.leased)], "worker")
    locker.lock()
    with pytest.raises(StoreUnavailable):
        await store.leave("worker")
    locker.unlock()
    other = SQLiteStore(path)
    await other.open()
    assert await other.dead() == ["worker"]
    assert (await other.reap([("worker", None)], 2, 1.0)).jobs == 1
    await other.close()


async def test_who_could_not_join_leaves_nothing_behind(path: Path, store: Store, locker: Locker) -> None:
    """And can join later, by the same name."""
    locker.lock()
    with pytest.raises(StoreUnavailable):
        await store.join(Process("worker", 1, "example"))
    locker.unlock()
    assert [entry.name for entry in path.with_name("jobs.db.processes").iterdir()] == []
    await store.join(Process("worker", 1, "example"))
    assert await store.beat("worker") is not None
    await store.leave("worker")


async def test_closing_does_not_wait_for_ever_for_a_lock(path: Path, store: Store, locker: Locker) -> None:
    locker.lock()
    asked = asyncio.create_task(enqueue(store))
    await asyncio.sleep(0)
    began = time.monotonic()
    await store.close()
    assert time.monotonic() - began < 10
    with pytest.raises(StoreError):
        await asked
    locker.unlock()


# Killed, and the power cut.


async def test_what_was_acknowledged_survives_a_kill(path: Path, store: Store) -> None:
    """Right after the answer, again and again."""
    acknowledged: set[str] = set()
    for _ in range(3):
        process = OtherProcess("sqlite", str(path), 0)
        process.call("open")
        for _ in range(10):
            job = new_job()
            assert process.call("enqueue", [(job, Placement.free)], None) == [Stored.stored]
            acknowledged.add(job.id)
        process.kill()
        assert {job.id for job in await store.list(limit=100)} == acknowledged


async def test_a_kill_in_the_middle_leaves_all_or_nothing_of_a_batch(path: Path, store: Store) -> None:
    for round_ in range(5):
        process = OtherProcess("sqlite", str(path), 0)
        process.call("open")
        jobs = [new_job(task=f"app:{round_}", arguments=f'"{"x" * 500}"') for _ in range(500)]
        process.begin("enqueue", [(job, Placement.free) for job in jobs], None)
        await asyncio.sleep(0.004 * round_)
        process.kill()
        assert len(await store.list(task=f"app:{round_}", limit=1000)) in (0, 500)


async def test_a_kill_in_the_middle_of_an_end_leaves_it_with_all_that_it_says_or_nothing(
    path: Path, store: Store
) -> None:
    """What an attempt says last is there exactly when it has ended."""
    for round_ in range(5):
        process = OtherProcess("sqlite", str(path), 0)
        process.call("open")
        process.call("join", Process(f"worker-{round_}", 1, "example"))
        job = new_job()
        process.call("enqueue", [(job, Placement.leased)], f"worker-{round_}")
        lease = Lease(job.id, 1, f"worker-{round_}", job.task, job.arguments)
        report = Report(1, (NewEvent(EventKind.item, f'"{"x" * 500}"'),) * 500)
        process.begin("finish", [(lease, Succeeded(report=report))])
        await asyncio.sleep(0.004 * round_)
        process.kill()
        [stream] = await store.events([(job.id, 0)], 1)
        assert stream is not None
        assert (stream.status, stream.last) in {(Status.running, 0), (Status.succeeded, 500)}


async def test_the_files_as_a_power_cut_leaves_them_hold_all_that_was_acknowledged(path: Path, store: Store) -> None:
    """Database and journal are copied between two operations, and opened elsewhere: a process leased its job there,
    and is dead here."""
    await store.join(Process("worker", 1, "example"))
    job, waiting = new_job(), new_job()
    await store.enqueue([(job, Placement.leased), (waiting, Placement.held)], "worker")
    copy = path.parent / "copy"
    copy.mkdir()
    for name in ("jobs.db", "jobs.db-wal"):
        shutil.copy(path.with_name(name), copy / name)

    after = SQLiteStore(copy / "jobs.db")
    await after.open()
    await after.join(Process("after", 1, "example"))
    assert await after.dead() == []  # its lock is not there to be seen: it is found by its counter
    assert (await after.reap([("worker", 0)], 2, 1.0)).jobs == 2
    leases = (await after.claim("after", send(), "token")).leases
    assert [(lease.id, lease.attempt, lease.deaths) for lease in leases] == [(job.id, 2, 1), (waiting.id, 1, 0)]
    await after.leave("after")
    await after.close()
    check_sqlite(copy)
    await store.leave("worker")


# Forked, and left alone.


async def test_a_forked_child_does_not_keep_its_parent_alive(path: Path) -> None:
    """The lock is the parent's: a child that outlives it holds no part of it."""
    process = OtherProcess("sqlite", str(path), 0)
    process.call("open")
    process.call("join", Process("parent", 1, "example"))
    child = process.run(fork_and_sleep)
    store = SQLiteStore(path)
    try:
        await store.open()
        assert await store.dead() == []
        process.kill()
        os.kill(child, 0)
        assert await store.dead() == ["parent"]
    finally:
        os.kill(child, 9)
        await store.close()


def fork_and_sleep() -> int:
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    return child


async def test_the_journal_does_not_grow_without_end(path: Path, store: Store) -> None:
    """It is checkpointed while the store is in use by two processes."""
    second = SQLiteStore(path)
    await second.open()
    largest = 0
    for _ in range(40):
        await enqueue(store, *['"' + "x" * 2000 + '"'] * 100)
        await second.list(limit=1)
        largest = max(largest, path.with_name("jobs.db-wal").stat().st_size)
    await second.close()
    assert largest < path.stat().st_size + 5_000_000
    assert largest < 8_000_000
