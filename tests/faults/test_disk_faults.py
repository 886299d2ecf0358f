"""What was promised is on the disk: whichever write or sync fails, and whenever the power is cut."""

import random
from pathlib import Path

import apsw
import pytest

from afterward.errors import StoreUnavailable
from afterward.identity import new_id
from afterward.job import NewJob, Placement, Process, Succeeded
from afterward.stores.base import Wanted
from afterward.stores.sqlite import SQLiteStore
from tests.support.database import Database
from tests.support.disk_faults import FailingDisk, RecordingDisk, failing_disk, recording_disk

pytestmark = pytest.mark.anyio


def job(number: int, size: int = 0) -> NewJob:
    key = f"key~{number}"
    return NewJob(new_id(), "note", "default", 0, f'{{"key":"{key}","text":"{"x" * size}"}}')


class Promises:
    """What a user of a store was told: the keys of jobs that are stored, and of those that have succeeded."""

    def __init__(self) -> None:
        self.stored: set[str] = set()
        self.succeeded: set[str] = set()

    def are_kept(self, database: Database) -> None:
        database.check()
        jobs = database.jobs()
        assert self.stored <= jobs.keys()
        assert self.succeeded <= {key for key, row in jobs.items() if row.status == "succeeded"}


async def use(store: SQLiteStore, promises: Promises) -> list[Exception]:
    """A little of everything; answers what went wrong."""
    wrong: list[Exception] = []
    for number in range(4):
        try:
            await store.enqueue([(job(number), Placement.free)], None)
            promises.stored.add(f"key~{number}")
        except StoreUnavailable as error:
            wrong.append(error)
    for _ in range(3):
        try:
            claimed = await store.claim("this", [Wanted({"note"}, 2)], new_id())
            for lease in claimed.leases:
                assert await store.finish([(lease, Succeeded())]) == [True]
                promises.succeeded.add(lease.arguments[8:13])
        except StoreUnavailable as error:
            wrong.append(error)
    return wrong


async def try_every(operation: str, folder: Path, disk: FailingDisk) -> list[tuple[Path, Promises]]:
    """Let the first, the second, … such operation fail, until none is left to; answers what came of each."""
    tried: list[tuple[Path, Promises]] = []
    for nth in range(1, 200):
        path = folder / f"{operation}-{nth}" / "jobs.db"
        path.parent.mkdir()
        store, promises = SQLiteStore(path), Promises()
        await store.open()
        await store.join(Process("this", 4711, "example"))
        disk.arm(operation, nth)
        wrong = await use(store, promises)
        disk.disarm()
        if not disk.has_failed:
            assert wrong == []
            await store.close()
            return tried
        assert len(wrong) <= 1, "it failed once, and the store goes on"
        await store.enqueue([(job(99), Placement.free)], None)
        promises.stored.add("key~99")
        await store.close()
        tried.append((path, promises))
    raise AssertionError("it never ends")


@pytest.mark.parametrize("operation", ["write", "sync"])
async def test_one_failed_disk_operation_is_one_clean_error(tmp_path: Path, operation: str) -> None:
    """Whichever it is: who was told otherwise has what he was told, and the next operation works."""
    with failing_disk() as disk:
        tried = await try_every(operation, tmp_path, disk)
    assert len(tried) >= 8
    for path, promises in tried:
        promises.are_kept(Database(path))


async def test_a_power_cut_at_any_moment_keeps_every_promise(tmp_path: Path) -> None:
    """Also during a checkpoint. What was written and not synced may be there, wholly, in part, or not at all."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with recording_disk() as disk:
        await fill(tmp_path / "jobs.db", disk)
    moments = set(disk.promises()) | set(chance.sample(disk.moments(), 40))
    first = min(disk.promises())
    for moment in sorted(moments):
        if moment < first:
            continue
        for luck in (0.0, 0.5, 1.0) if moment % 5 == 0 else (0.0,):
            folder = tmp_path / f"cut-{moment}-{luck}"
            disk.cut(moment, folder, chance, luck)
            check(folder / "jobs.db", disk.promised(moment))
            for file in folder.iterdir():
                file.unlink()


async def fill(path: Path, disk: RecordingDisk) -> None:
    """Store and finish jobs until the log has been written back into the file at least once."""
    store = SQLiteStore(path)
    await store.open()
    await store.join(Process("this", 4711, "example"))
    for round_ in range(12):
        jobs = [job(round_ * 10 + number, size=40_000) for number in range(10)]
        await store.enqueue([(one, Placement.free) for one in jobs], None)
        disk.promise(*(f"{one.id} queued" for one in jobs))
        claimed = await store.claim("this", [Wanted({"note"}, 5)], new_id())
        await store.finish([(lease, Succeeded()) for lease in claimed.leases])
        disk.promise(*(f"{lease.id} succeeded" for lease in claimed.leases))
    await store.close()


def check(path: Path, promised: set[str]) -> None:
    connection = apsw.Connection(str(path))
    try:
        assert connection.pragma("integrity_check") == "ok"
        statuses = dict(connection.execute("SELECT id, status FROM jobs"))
    finally:
        connection.close()
    for promise in promised:
        id_, status = promise.split()
        assert id_ in statuses
        assert status == "queued" or statuses[id_] == status
