"""What disks, other programs and clocks do to a store: an error in time, never a false answer, and nobody restarts."""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, AsyncExitStack, suppress
from pathlib import Path

import pytest

from afterward import Afterward, current_job
from afterward.engine.worker import WorkerOptions
from afterward.stores.sqlite import SQLiteStore
from tests.faults.patience import soon, wait_until
from tests.support.database import Database
from tests.support.full_disk import FullDisk, file_size_limit, may_mount, small_disk
from tests.support.lock import held
from tests.support.processes import Process
from tests.support.site import Answer, Site

PATIENCE = 5.0
"""How long the store waits for another's lock, by default."""

DISKS: list[Callable[[Path], AbstractContextManager[FullDisk]]] = [file_size_limit]
if may_mount():
    DISKS.append(small_disk)


def test_a_file_locked_by_another_program_makes_requests_wait_or_fail_and_nobody_is_taken_for_dead(site: Site) -> None:
    server = site.serve(lease=2)
    worker = site.work(lease=2)
    wait_until(lambda: worker.pid in site.database.processes().values())
    site.door.add("slow", "key~running", seconds=1)
    wait_until(lambda: site.effects.started() == 1)
    alive = site.database.processes()

    def ask(number: int) -> tuple[Answer, float]:
        time.sleep(number * 0.4)
        began = time.monotonic()
        return site.door.add("quick", f"key~{number}"), time.monotonic() - began

    with held(site.database.path) as lock, ThreadPoolExecutor(12) as clients:
        used = server.cpu_seconds() + worker.cpu_seconds()
        asked = [clients.submit(ask, number) for number in range(12)]
        time.sleep(5)
        used = server.cpu_seconds() + worker.cpu_seconds() - used
        lock.let_go()
        answers = [future.result(60) for future in asked]
    assert used < 2.5, "nobody turns in circles"
    assert {answer.status for answer, _ in answers} <= {202, 503}
    assert all("retry-after" in answer.headers for answer, _ in answers if answer.status == 503)
    assert max(seconds for _, seconds in answers) < 2 * PATIENCE + 2

    healed = time.monotonic()
    assert site.door.add("quick", "key~after").status == 202
    wait_until(lambda: site.database.unfinished() == 0)
    assert site.effects.of("key~after")[0].started - healed < 5
    kept = {f"key~{number}" for number, (answer, _) in enumerate(answers) if answer.status == 202}
    assert site.database.jobs().keys() == kept | {"key~running", "key~after"}
    assert {len(runs) for runs in site.effects.by_key().values()} == {1}
    assert site.database.processes() == alive
    assert "process.frozen" not in site.outputs()


@pytest.fixture(params=DISKS, ids=lambda kind: kind.__name__)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FullDisk]:
    with request.param(tmp_path / "disk") as disk:
        yield disk


def fill_and_ask_until_refused(site: Site, disk: FullDisk, server: Process, keys: Iterator[str]) -> set[str]:
    """Answers the keys that were still accepted."""
    disk.fill(server)
    accepted: set[str] = set()
    for _ in range(300):
        key = next(keys)
        answer = site.door.add("quick", key)
        if answer.status == 503:
            assert "retry-after" in answer.headers
            return accepted
        assert answer.status == 202
        accepted.add(key)
    raise AssertionError("it never ran full")


def test_a_full_disk_refuses_requests_and_heals_without_a_restart(disk: FullDisk, site: Site) -> None:
    site.store_folder = disk.folder
    server = site.serve(lease=2)
    keys = (f"key~{number}" for number in range(10_000))
    accepted = {next(keys) for _ in range(40)}
    for key in accepted:
        assert site.door.add("quick", key).status == 202
    wait_until(lambda: site.database.unfinished() == 0)
    site.door.add("slow", "key~running", seconds=2)
    wait_until(lambda: site.effects.of("key~running"))
    identity = site.database.processes()

    accepted |= fill_and_ask_until_refused(site, disk, server, keys)
    refused = {next(keys) for _ in range(5)}
    for key in refused:
        began = time.monotonic()
        assert site.door.add("quick", key).status == 503
        assert time.monotonic() - began < PATIENCE
    assert site.door.request("GET", "/health").status == 200
    wait_until(lambda: site.effects.of("key~running")[0].ended, "the job that ran has ended")

    used, said = server.cpu_seconds(), len(server.output())
    time.sleep(2)
    assert server.cpu_seconds() - used < 0.7, "it does not turn in circles"
    assert len(server.output()[said:].splitlines()) < 40
    assert site.database.job("key~running").status == "running"

    disk.free(server)
    wait_until(lambda: site.door.add("quick", key := next(keys)).status == 202 and not accepted.add(key), seconds=10)
    wait_until(lambda: site.database.unfinished() == 0, "everything ends", 15)
    jobs, runs = site.database.jobs(), site.effects.by_key()
    assert accepted <= jobs.keys()
    assert not refused & jobs.keys()
    assert {job.status for job in jobs.values()} == {"succeeded"}
    assert {len(theirs) for theirs in runs.values()} == {1}
    assert site.database.processes() == identity
    site.database.check()


def test_a_server_that_starts_on_a_full_disk_serves_and_heals_without_a_restart(site: Site, tmp_path: Path) -> None:
    """What needs no store is served from the start."""
    with DISKS[-1](tmp_path / "disk") as disk:
        site.store_folder = disk.folder
        server = site.serve()
        for number in range(60):
            assert site.door.add("quick", f"key~{number}", delay=3600).status == 202
        another = site.another_door()
        disk.fill(server)
        if DISKS[-1] is file_size_limit:
            server = site.serve(door=another, file_size=1)
        else:
            server = site.serve(door=another)
        assert another.request("GET", "/health").status == 200
        assert another.add("quick", "key~refused").status == 503
        disk.free(server)
        keys = (f"key~after-{number}" for number in range(10_000))
        wait_until(lambda: another.add("quick", next(keys)).status == 202, seconds=15)
        wait_until(lambda: "succeeded" in site.database.statuses())
        site.database.check()
        for process in site.processes:
            process.kill()


@pytest.mark.parametrize("trouble", ["deleted", "replaced by an empty file", "replaced by another store"])
def test_a_file_that_is_taken_away_in_use_is_missed_at_once(site: Site, trouble: str) -> None:
    """What would be written to it is nowhere; a new one must not be begun in silence."""
    site.serve()
    site.door.add("quick", "key~before")
    wait_until(lambda: site.database.unfinished() == 0)
    path = site.database.path
    aside = path.with_name("aside")
    path.rename(aside)
    if trouble == "replaced by an empty file":
        path.touch()
    elif trouble == "replaced by another store":
        shutil.copy(aside, path)
    answer = site.door.add("quick", "key~refused")
    assert answer.status == 503
    assert path.exists() == (trouble != "deleted")
    assert "deleted or replaced" in site.outputs()

    aside.replace(path)
    wait_until(lambda: site.door.request("GET", "/health").status == 200)
    assert site.door.add("quick", "key~after").status == 202
    wait_until(lambda: site.database.job("key~after").status == "succeeded")
    assert site.database.jobs().keys() == {"key~before", "key~after"}


@pytest.mark.parametrize(
    ("offset", "said"), [(0, "not a SQLite database"), (100, "damaged"), (None, "another program")]
)
def test_a_file_that_cannot_be_used_ends_the_start_and_is_left_as_it_is(
    site: Site, offset: int | None, said: str
) -> None:
    """Overwritten at its head, overwritten in its first page, or not ours: named, and not begun anew."""
    site.serve().stop()
    path = site.database.path
    sound = path.read_bytes()
    if offset is None:
        spoilt = sound[:68] + b"else" + sound[72:]  # the application's id: https://www.sqlite.org/fileformat.html
    else:
        spoilt = sound[:offset] + b"\xff" * 32 + sound[offset + 32 :]
    path.write_bytes(spoilt)
    server = site.serve(ready=False)
    assert server.wait() != 0
    assert said in server.output()
    assert path.read_bytes() == spoilt
    path.write_bytes(sound)
    assert site.serve()


def test_a_power_cut_in_mid_run_loses_nothing_that_was_acknowledged(site: Site) -> None:
    """The files as they were at the cut, without what the kernel kept in memory, and on another machine: no locks."""
    server = site.serve(lease=1)
    done = {f"key~done-{number}" for number in range(20)}
    later = {f"key~later-{number}" for number in range(20)}
    for key in done:
        site.door.add("quick", key)
    wait_until(lambda: site.database.unfinished() == 0)
    for key in later:
        site.door.add("quick", key, delay=3)
    site.door.add("slow_at_first", "key~running", seconds=60)
    site.door.add("slow_at_first_thread", "key~running-too", seconds=60)
    lingering = site.door.begin("POST", "/lingering/quick", key="key~not-begun", linger=60)
    wait_until(lambda: "key~not-begun" in site.database.jobs())
    wait_until(lambda: len(site.effects.runs()) == len(done) + 2)

    site.freeze_unlocked(server)
    site.store_folder = site.database.copy_to(site.folder / "copy").path.parent
    server.kill()
    with suppress(ConnectionError):
        lingering()
    site.database.check()
    site.serve(lease=1)
    wait_until(lambda: site.database.unfinished() == 0)
    jobs, runs = site.database.jobs(), site.effects.by_key()
    running = {"key~running", "key~running-too"}
    assert jobs.keys() == done | later | running | {"key~not-begun"}
    assert {key: len(theirs) for key, theirs in runs.items()} == dict.fromkeys(jobs, 1) | dict.fromkeys(running, 2)
    assert {job.failures for job in jobs.values()} == {0}


class Clock:
    """A store's clock that a test can set."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.mark.anyio
@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_a_clock_that_is_set_costs_no_lease_and_starts_nothing_early(tmp_path: Path, jump: float) -> None:
    """Two workers on one file, of which one has its clock set, and then the other too."""
    path = tmp_path / "jobs.db"
    clocks = [Clock(), Clock()]
    runs: list[tuple[str, int]] = []
    release = asyncio.Event()

    async def note(key: str, waits: bool = False) -> None:
        runs.append((key, current_job().attempt))
        if waits:
            await release.wait()

    async with AsyncExitStack() as ending:
        both: list[Afterward] = []
        for clock in clocks:
            tasks = Afterward(store=SQLiteStore(path, clock=clock), lease=1)
            tasks.task(name="note")(note)
            await ending.enter_async_context(tasks.running(WorkerOptions(concurrency=1)))
            both.append(tasks)
        database = Database(path)
        first, second = (tasks.tasks["note"] for tasks in both)
        for number in range(2):
            await first.enqueue(f"key~running-{number}", True)
        await soon(lambda: len(runs) == 2, "each runs one")
        await first.options(delay=7200 + jump).enqueue("key~later")
        alive = database.processes()
        beats = counters(database)

        for clock in clocks:
            clock.ahead += jump
            before = counters(database)
            await soon(lambda before=before: all(n >= before[p] + 8 for p, n in counters(database).items()), "8 beats")
        assert database.processes() == alive
        assert counters(database).keys() == beats.keys()
        release.set()
        await soon(lambda: database.statuses() == {"succeeded": 2, "queued": 1})
        await second.enqueue("key~now")
        await soon(lambda: database.job("key~now").status == "succeeded", "what is due now is not held up")
        assert database.job("key~later").status == "queued"
        assert {job.attempt for job in database.jobs().values() if job.status == "succeeded"} == {1}
        for clock in clocks:
            clock.ahead += 7200
        await soon(lambda: database.job("key~later").status == "succeeded")
    assert sorted(runs) == [(key, 1) for key in ("key~later", "key~now", "key~running-0", "key~running-1")]


def counters(database: Database) -> dict[str, int]:
    return dict(database.query("SELECT id, beat FROM processes"))
