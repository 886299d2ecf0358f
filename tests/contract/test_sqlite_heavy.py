"""SQLite: what takes long is carried out in a thread, and never on the loop of an application."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import apsw
import pytest

from afterward.job import EventKind, Lease, NewEvent, Placement, Process, Report, Status, Succeeded
from afterward.stores.sqlite import SQLiteStore
from afterward.stores.sqlite.store import LARGE, MANY
from afterward.stores.sqlite.writer import HEAVY, Operation
from tests.support.stores import MORNING, new_job

pytestmark = pytest.mark.anyio


LEASE = Lease("nothing", 1, "worker", "app:send", "{}")


def said(many: int, data: str) -> Report:
    return Report(1, (NewEvent(EventKind.item, data),) * many)


class Watched(SQLiteStore):
    """Notes where each kind of operation is carried out, and how many of them at once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.threads: dict[str, set[int]] = {}
        self.most = 0

    def _stage(self, connection: apsw.Connection, operations: Sequence[Operation]) -> None:
        for operation in operations:
            self.threads.setdefault(operation.kind, set()).add(threading.get_ident())
        self.most = max(self.most, len(operations))
        super()._stage(connection, operations)


async def test_tidying_reaping_and_large_batches_are_carried_out_in_a_thread(tmp_path: Path) -> None:
    store = Watched(tmp_path / "jobs.db")
    await store.open()
    await store.tidy({Status.succeeded: 60}, 100, 8)
    await store.reap([], 2, 1.0)
    await store.enqueue([(new_job(), Placement.free) for _ in range(MANY + 1)], None)
    await store.report([(LEASE, said(MANY + 1, '"1"'))])
    await store.finish([(LEASE, Succeeded(report=said(3, '"1"'))), (LEASE, Succeeded(report=said(1, "1" * LARGE)))])
    await store.close()
    here = threading.get_ident()
    assert {kind: here in threads for kind, threads in store.threads.items()} == {
        "tidy": False, "reap": False, "enqueue": False, "report": False, "finish_saying": False,
    }  # fmt: skip


async def test_what_is_small_is_carried_out_at_once(tmp_path: Path) -> None:
    """A hand-over costs more than it."""
    store = Watched(tmp_path / "jobs.db")
    await store.open()
    await store.join(Process("worker", 1, "example"))
    await store.enqueue([(new_job(), Placement.free) for _ in range(MANY)], None)
    await store.report([(LEASE, said(MANY, '"1"'))])
    await store.finish([(LEASE, Succeeded(report=said(MANY, '"1"'))), (LEASE, Succeeded())])
    await store.finish([(LEASE, Succeeded())])
    await store.close()
    kinds = ("join", "enqueue", "report", "finish_saying", "finish")
    assert store.threads == {kind: {threading.get_ident()} for kind in kinds}


async def test_large_batches_go_a_few_at_a_time(tmp_path: Path) -> None:
    """So that others are not held up by all of them, and all are stored in the end."""
    store = Watched(tmp_path / "jobs.db")
    await store.open()
    answers = [store.enqueue([(new_job(), Placement.free) for _ in range(MANY + 1)], None) for _ in range(7)]
    for answer in answers:
        await answer
    assert store.most == HEAVY
    assert len(await store.list(limit=10_000)) == 7 * (MANY + 1)
    await store.close()


class SlowClock:
    """A clock that, once it is stopped, is read by nobody before it goes on."""

    def __init__(self) -> None:
        self.is_stopped = False
        self.goes_on = threading.Event()

    def __call__(self) -> float:
        if self.is_stopped:
            self.goes_on.wait(10)
        return MORNING


async def test_who_counts_all_jobs_holds_up_nobody_who_looks_at_one(tmp_path: Path) -> None:
    """A dashboard over many jobs, beside clients that ask for their own."""
    clock = SlowClock()
    store = SQLiteStore(tmp_path / "jobs.db", clock=clock)
    await store.open()
    clock.is_stopped = True
    counting = store.stats()
    assert await asyncio.wait_for(store.get(["unheard of"]), 3) == [None]
    assert not counting.done()
    clock.goes_on.set()
    await counting
    await store.close()
