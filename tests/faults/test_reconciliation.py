"""What a process believes to hold and what the store says of it: however they came apart, they come together again.

These run in one process, on a real store: what must coincide is made to coincide by holding the file's lock.
"""

import asyncio
import os
import random
import select
import signal
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from afterward import Afterward, BackgroundTasks, current_job
from afterward.engine.worker import WorkerOptions
from afterward.holdings import Holdings, Known
from afterward.identity import new_id
from afterward.job import Job, NewJob, Placement, Process, Status, Stored
from afterward.liveness import Liveness
from afterward.stores.base import Answer, Wanted
from afterward.stores.sqlite import SQLiteStore
from tests.faults.patience import soon
from tests.support.database import Database
from tests.support.insides import liveness_of, would_lease
from tests.support.lock import held
from tests.support.processes import run_aside

pytestmark = pytest.mark.anyio

LEASE = 1.0
BEAT = LEASE / 5


class Shop:
    """An application and its worker, in this process."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "jobs.db"
        self.database = Database(self.path)
        self.tasks = Afterward(f"sqlite:///{self.path}", lease=LEASE)
        self.app = FastAPI()
        self.runs: list[tuple[str, int]] = []
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()

        @self.tasks.task(backoff=0)
        async def note(key: str, linger: float = 0, fails: int = 0) -> None:
            attempt = current_job().attempt
            self.runs.append((key, attempt))
            await asyncio.sleep(linger)
            if attempt <= fails:
                await self.go_on.wait()
                raise OSError("not yet")

        self.note = note

        @self.app.post("/notes", status_code=202)
        async def add(key: str, background_tasks: BackgroundTasks) -> dict[str, str]:
            self.entered.set()
            return {"job": background_tasks.add_task(note, key).id}

        async def wait_at_the_end() -> AsyncIterator[None]:
            yield
            self.entered.set()
            await self.go_on.wait()

        @self.app.post("/lingering", status_code=202, dependencies=[Depends(wait_at_the_end)])
        async def add_and_linger(key: str, background_tasks: BackgroundTasks, linger: float = 0) -> dict[str, str]:
            return {"job": background_tasks.add_task(note, key, linger).id}

    async def post(self, path: str, **query: str | float) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(path, params=query)

    def runs_of(self, key: str) -> list[int]:
        return [attempt for one, attempt in self.runs if one == key]

    async def two_beats(self) -> None:
        """Let the heartbeat look twice."""
        [before] = self.counters()
        await soon(lambda: self.counters()[0] >= before + 2, "two beats")

    def counters(self) -> list[int]:
        return [beat for (beat,) in self.database.query("SELECT beat FROM processes")]


@asynccontextmanager
async def opened(folder: Path, *, worker: bool = True) -> AsyncGenerator[Shop]:
    shop = Shop(folder)
    shop.tasks.install(shop.app, worker=worker, grace=1)
    async with shop.app.router.lifespan_context(shop.app):
        await liveness_of(shop.tasks).start()
        yield shop


@pytest.mark.parametrize("worker", [True, False], ids=["leased", "held"])
async def test_a_request_cancelled_in_mid_commit_leaves_a_job_that_runs_once(tmp_path: Path, worker: bool) -> None:
    """Nobody was told that it is stored, and it is: it starts when the call is over, however the call ends."""
    async with opened(tmp_path, worker=worker) as shop:
        with held(shop.path) as lock:
            asking = asyncio.create_task(shop.post("/notes", key="key~1"))
            await shop.entered.wait()
            await asyncio.sleep(0.05)
            asking.cancel()
            done, _ = await asyncio.wait({asking}, timeout=0.1)
            assert not done, "who is cancelled learns it only once the job's fate is known"
            lock.let_go()
            with pytest.raises(asyncio.CancelledError):
                await asking
        assert "key~1" in shop.database.jobs()
        if not worker:
            await shop.two_beats()
            assert shop.database.taken() == 0
            async with shop.tasks.running(WorkerOptions()):
                await soon(lambda: shop.database.job("key~1").status == "succeeded")
        await soon(lambda: shop.database.job("key~1").status == "succeeded")
        await shop_is_at_rest(shop)
        assert shop.runs_of("key~1") == [1]


async def shop_is_at_rest(shop: Shop) -> None:
    await asyncio.sleep(3 * BEAT)
    assert shop.database.taken() == 0
    assert shop.database.unfinished() == 0


async def test_a_job_whose_claim_was_never_heard_of_is_given_back(tmp_path: Path) -> None:
    """Who waited for the answer was cancelled. While the claim was on its way, nobody touched what it would bring."""
    store = SQLiteStore(tmp_path / "jobs.db")
    liveness = Liveness(store, LEASE)
    process = await liveness.start()
    try:
        job = NewJob(new_id(), "note", "default", 0, '{"key":"key~1"}')
        assert await store.enqueue([(job, Placement.free)], None) == [Stored.stored]
        token = new_id()
        liveness.holdings.expect_claim(token)

        async def claim() -> None:
            try:
                await store.claim(process, [Wanted({"note"}, 1)], token)
            finally:
                await asyncio.sleep(3 * BEAT)
                assert (await the(store, job)).status is Status.running, "its token is known"
                liveness.holdings.forget_claim(token)

        claiming = asyncio.create_task(claim())
        await asyncio.sleep(0)
        claiming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await claiming

        async def is_given_back() -> bool:
            return (await the(store, job)).status is Status.queued

        deadline = time.monotonic() + 10
        while not await is_given_back():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        given_back = await the(store, job)
        assert (given_back.failures, given_back.deaths, given_back.process) == (0, 0, None)
        claimed = await store.claim(process, [Wanted({"note"}, 1)], new_id())
        assert [(lease.id, lease.attempt) for lease in claimed.leases] == [(job.id, 2)]
    finally:
        await liveness.stop()


async def the(store: SQLiteStore, job: NewJob) -> Job:
    [found] = await store.get([job.id])
    assert found
    return found


async def test_a_process_that_was_taken_for_dead_holds_nothing_in_its_old_name(tmp_path: Path) -> None:
    """Another reaped its row while it slept: what it ran, what it held and what it is asked for all get done."""
    async with opened(tmp_path) as shop:
        running = await shop.note.enqueue("key~running", 60)
        await soon(lambda: shop.runs_of("key~running"))
        lingering = asyncio.create_task(shop.post("/lingering", key="key~kept"))
        await shop.entered.wait()

        liveness = liveness_of(shop.tasks)
        old = liveness.process
        assert old
        await shop.tasks.store.reap([(old, None)], 2, 1.0)
        answer = await shop.post("/notes", key="key~asked")
        assert answer.status_code == 202
        assert liveness.process not in (None, old)

        shop.go_on.set()
        assert (await lingering).status_code == 202
        await soon(lambda: shop.database.job("key~asked").status == "succeeded")
        await soon(lambda: shop.database.job("key~kept").status == "succeeded")
        await soon(lambda: len(shop.runs_of("key~running")) == 2)
        assert shop.runs_of("key~asked") == [1]
        job = await shop.tasks.get(running.id)
        assert job
        assert (job.process, job.attempt, job.failures) == (liveness.process, 2, 0)
        names = {row.process for row in shop.database.jobs().values()}
        assert names == {None, liveness.process}


async def test_a_job_that_is_stored_again_under_a_new_identity_is_begun_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first enqueue was carried out, and the answer lost; meanwhile its process was taken for dead."""
    async with opened(tmp_path) as shop:
        store = shop.tasks.store
        enqueue = store.enqueue

        async def enqueue_twice(jobs: list[tuple[NewJob, Placement]], process: str) -> list[Stored]:
            assert jobs[0][1] is Placement.leased
            assert await enqueue(jobs, process) == [Stored.stored]
            await store.reap([(process, None)], 2, 1.0)
            return await enqueue(jobs, process)

        def enqueue_first(jobs: list[tuple[NewJob, Placement]], process: str) -> Answer[list[Stored]]:
            monkeypatch.undo()
            return asyncio.ensure_future(enqueue_twice(jobs, process))

        await shop.note.enqueue("key~first")
        await soon(lambda: shop.database.job("key~first").status == "succeeded")
        await soon(lambda: would_lease(shop.tasks))  # it has looked, and found nothing else
        monkeypatch.setattr(store, "enqueue", enqueue_first)
        assert (await shop.post("/notes", key="key~1")).status_code == 202
        await soon(lambda: shop.database.job("key~1").status == "succeeded")
        await shop_is_at_rest(shop)
        assert shop.runs_of("key~1") == [2]


async def test_a_job_let_go_while_a_claim_waits_is_kept_by_the_claim(tmp_path: Path) -> None:
    """One transaction takes the hold off and leases it to the same process: the end of the one is not of the other."""
    async with opened(tmp_path, worker=False) as shop:
        lingering = asyncio.create_task(shop.post("/lingering", key="key~1", linger=4 * BEAT))
        await shop.entered.wait()
        async with shop.tasks.running(WorkerOptions()):
            await asyncio.sleep(0.1)
            with held(shop.path) as lock:
                first = asyncio.create_task(shop.note.enqueue("key~first"))
                await asyncio.sleep(0.1)  # it waits for the lock, and whatever comes now is gathered behind it
                shop.tasks.store.ring()
                await asyncio.sleep(0.1)  # the claim
                shop.go_on.set()
                await asyncio.sleep(0.1)  # the release
                lock.let_go()
                await first
            assert (await lingering).status_code == 202
            await soon(lambda: shop.database.unfinished() == 0)
            assert shop.runs_of("key~1") == [1]
            assert shop.database.job("key~1").attempt == 1


async def test_a_job_that_fails_while_a_claim_waits_is_kept_by_the_claim(tmp_path: Path) -> None:
    """One transaction queues it again and leases it to the same process."""
    async with opened(tmp_path) as shop:
        await shop.note.enqueue("key~1", linger=4 * BEAT, fails=1)
        await soon(lambda: shop.runs_of("key~1"))
        await asyncio.sleep(4 * BEAT + 0.1)
        with held(shop.path) as lock:
            first = asyncio.create_task(shop.note.enqueue("key~first"))
            await asyncio.sleep(0.1)
            shop.tasks.store.ring()
            await asyncio.sleep(0.1)
            shop.go_on.set()
            await asyncio.sleep(0.1)
            lock.let_go()
            await first
        await soon(lambda: shop.database.unfinished() == 0)
        assert shop.runs_of("key~1") == [1, 2]
        assert shop.database.job("key~1").attempt == 2


async def test_what_was_claimed_by_a_process_that_then_slept_is_not_begun_but_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wakes between its claim and the start; until it has beaten, the job may be another's."""
    async with opened(tmp_path, worker=False) as shop:
        liveness = liveness_of(shop.tasks)
        claimed = asyncio.Event()
        claim = shop.tasks.store.claim

        async def claim_and_sleep(*arguments: Any) -> Any:
            answer = await claim(*arguments)
            if answer.leases and not claimed.is_set():
                claimed.set()
                monkeypatch.setattr(liveness, "_shown_alive_at", time.monotonic() - 2 * LEASE)
            return answer

        monkeypatch.setattr(shop.tasks.store, "claim", claim_and_sleep)
        job = await shop.note.enqueue("key~1")
        async with shop.tasks.running(WorkerOptions()):
            await soon(lambda: shop.database.job("key~1").status == "succeeded")
        assert claimed.is_set()
        assert shop.runs_of("key~1") == [2], "the first attempt was not begun"
        found = shop.database.job("key~1")
        assert (found.id, found.attempt, found.failures, found.deaths) == (job.id, 2, 0, 0)


async def test_a_loop_that_stops_does_not_stop_the_operations_of_others(tmp_path: Path) -> None:
    """Each loop asks for itself: a heartbeat does not wait for the application."""
    store = SQLiteStore(tmp_path / "jobs.db")
    await store.open()
    await store.join(Process("this", 4711, "example"))
    standing, beaten = threading.Event(), threading.Event()

    def beat() -> None:
        assert standing.wait(5)
        for _ in range(2):  # the first takes the release along, whose loop does not hear the answer
            asyncio.run(_beat(store))
        beaten.set()

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        pending = asyncio.ensure_future(store.release("this", ["no-job"]))
        standing.set()
        heard = beaten.wait(5)  # on purpose, this loop stands still
        assert await pending == [False]
        assert heard
    finally:
        await asyncio.to_thread(beating.join)
        await store.close()


async def _beat(store: SQLiteStore) -> None:
    assert await store.beat("this") is not None


async def test_what_a_process_holds_is_known_at_every_moment() -> None:
    """The heartbeat's thread may look between any two steps of those who store, claim and finish."""
    holdings = Holdings()
    ended = threading.Event()
    missed: list[Known] = []

    def look() -> None:
        while not ended.is_set():
            known = holdings.known()
            if "job" not in known.certain and "job" not in known.possible:
                missed.append(known)

    holdings.expect("job", 1)
    switching = sys.getswitchinterval()
    looking = threading.Thread(target=look)
    looking.start()
    sys.setswitchinterval(1e-6)
    try:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            holdings.have("job", 1)
            holdings.leave([("job", 1)])
    finally:
        sys.setswitchinterval(switching)
        ended.set()
        looking.join()
    assert len(missed) == 0


async def test_the_bell_is_heard_after_a_new_identity(tmp_path: Path) -> None:
    """One store rings, in a process that has just been taken for dead and has joined again the other waits."""
    store, other = SQLiteStore(tmp_path / "jobs.db"), SQLiteStore(tmp_path / "jobs.db")
    try:
        await store.open()
        await other.open()
        await store.join(Process("first", 4711, "example"))
        await other.join(Process("other", 4711, "example"))
        waiting = asyncio.create_task(store.wait(60))
        await asyncio.sleep(0.05)
        await other.reap([("first", None)], 2, 1.0)
        assert await store.beat("first") is None
        await store.join(Process("second", 4711, "example"))
        await store.beat("second")
        await other.beat("other")
        other.ring()
        await asyncio.wait_for(waiting, 5)
        assert closed_readers() == []
    finally:
        await store.close()
        await other.close()


def closed_readers() -> list[int]:
    """Descriptors that the running loop watches though they are closed: whoever gets their number next is not heard."""
    loop: Any = asyncio.get_running_loop()
    watched: list[int] = [key.fd for key in loop._selector.get_map().values()]
    return [descriptor for descriptor in watched if not is_open(descriptor)]


def is_open(descriptor: int) -> bool:
    return Path(f"/proc/self/fd/{descriptor}").exists()


_WAITS_ALL_THE_TIME = """
import asyncio, os, signal, sys
from afterward import Afterward
from afterward.engine.worker import WorkerOptions

was_told = True

def hear(*_):
    global was_told
    was_told = True

signal.signal(signal.SIGTERM, hear)
tasks = Afterward("sqlite:///" + sys.argv[1])

async def main():
    global was_told
    async with tasks.running(WorkerOptions()):
        while True:
            if was_told:  # one at a time: handlers that are interrupted by the next signal pile up
                was_told = False
                os.write(1, b".")
            await tasks.store.wait(0)

asyncio.run(main())
"""


async def test_a_signal_at_any_moment_does_not_hang_the_process(tmp_path: Path) -> None:
    """The handler runs between any two steps of the main thread, also between those that hold a lock."""
    process = run_aside(_WAITS_ALL_THE_TIME, tmp_path / "jobs.db")
    assert process.stdout
    answers = process.stdout.fileno()
    try:
        until = time.monotonic() + 4
        while time.monotonic() < until:
            assert select.select([answers], [], [], 10)[0], "it handles no signals any more"
            os.read(answers, 1)
            await asyncio.sleep(random.uniform(0, 0.001))
            process.send_signal(signal.SIGTERM)
    finally:
        process.kill()
        process.communicate()
