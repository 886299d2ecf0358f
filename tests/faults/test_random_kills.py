"""2,000 requests under load, and 20 kills at random moments: nothing is lost, and only a kill makes a job run again."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.faults.patience import soon, wait_until
from tests.support.database import Row
from tests.support.effects import Run
from tests.support.processes import Death
from tests.support.site import LOOPBACK, Door, Site

REQUESTS = 2000
KILLS = 20
CLIENTS = 32
FEW_SLOTS: dict[str, Any] = {"concurrency": 8, "threads": 4, "log": "WARNING"}
"""Most jobs wait at a kill, and some run: few of these twice in a row, for a suspect takes a second of a processor."""

TASKS = ["quick", "quick_thread", "slow", "slow_thread"]


class Load:
    """Clients that ask for jobs, as many as they were allowed, and remember what was acknowledged."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._allowed = 0
        self._next = 0
        self._more = asyncio.Condition()
        self.acknowledged: list[str] = []
        self.cut: list[str] = []

    @property
    def answered(self) -> int:
        return len(self.acknowledged) + len(self.cut)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._ask_until_all_is_asked())

    async def allow(self, requests: int) -> None:
        async with self._more:
            self._allowed = requests
            self._more.notify_all()

    async def _ask_until_all_is_asked(self) -> None:
        while self._next < REQUESTS:
            number, self._next = self._next, self._next + 1
            async with self._more:
                await self._more.wait_for(lambda number=number: number < self._allowed)
            await self._ask(number)

    async def _ask(self, number: int) -> None:
        key = f"key~{number:04}"
        task = TASKS[number % len(TASKS)]
        reader, writer = await asyncio.open_connection(LOOPBACK, self._door.port)
        try:
            line = f"POST /jobs/{task}?key={key}&seconds=0.03 HTTP/1.1"
            writer.write(f"{line}\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
            status = await reader.readline()  # with this line alone the client may go on: the job is stored
            if status.endswith(b"\n"):
                assert status.startswith(b"HTTP/1.1 202 "), status
                self.acknowledged.append(key)
            else:
                self.cut.append(key)
        except ConnectionError:
            self.cut.append(key)
        finally:
            writer.close()


def check(
    load: Load, jobs: dict[str, Row], runs: dict[str, list[Run]], deaths: dict[int, Death], stored_and_cut: bool
) -> None:
    """Nothing lost; nothing twice but for a kill; no two runs of a job at once."""
    assert load.answered == REQUESTS
    lost = [key for key in load.acknowledged if not (runs.get(key) and runs[key][-1].ended)]
    assert lost == []
    assert {job.status for job in jobs.values()} == {"succeeded"}
    assert runs.keys() == jobs.keys()
    assert jobs.keys() - set(load.acknowledged) <= (set(load.cut) if stored_and_cut else set())
    for key, theirs in runs.items():
        job = jobs[key]
        assert set(job.ended.values()) <= {"died", "released"}, "released: one of many suspects, before it began"
        assert (job.failures, job.attempt) == (0, len(job.ended) + 1)
        *again, last = theirs
        assert last.attempt == job.attempt
        for run, following in zip(again, theirs[1:], strict=True):
            assert job.ended.get(run.attempt) == "died", "it ran again only because its attempt ended in a death"
            death = deaths.get(run.pid) or deaths[run.parent]
            assert run.started <= death.before, "it had begun when its process was killed"
            assert run.ended is None or run.ended <= death.before
            assert following.started >= death.after, "nobody took it over before"


def report(load: Load, runs: dict[str, list[Run]], deaths: list[Death]) -> None:
    again = sum(len(theirs) - 1 for theirs in runs.values())
    print(f"{len(load.acknowledged)} acknowledged, {len(load.cut)} cut off, {len(deaths)} kills, {again} runs again")


@pytest.mark.timeout(240)
def test_a_server_killed_at_random_moments_loses_nothing(site: Site) -> None:
    """The worker is embedded: at each kill some requests are being answered, and some jobs run."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    deaths: list[Death] = []

    async def kill_again_and_again(load: Load) -> None:
        server = await asyncio.to_thread(site.serve, **FEW_SLOTS)
        for number in range(KILLS):
            first, window = load.answered, REQUESTS // KILLS
            await load.allow((number + 1) * window)
            enough = first + chance.randrange(1, window - CLIENTS)
            await soon(lambda enough=enough: load.answered >= enough, "requests are answered", 30)
            await asyncio.sleep(chance.uniform(0, 0.03))
            deaths.append(server.kill())
            site.database.check()
            server = await asyncio.to_thread(site.serve, **FEW_SLOTS)

    load = asyncio.run(under_load(site, kill_again_and_again))
    wait_until(lambda: site.database.unfinished() == 0, "the queue drains", 60)
    runs = site.effects.by_key()
    report(load, runs, deaths)
    check(load, site.database.jobs(), runs, {death.pid: death for death in deaths}, stored_and_cut=True)


@pytest.mark.timeout(240)
def test_a_worker_killed_at_random_moments_loses_nothing_and_no_request_notices(site: Site) -> None:
    """The server only stores. Every request is answered; the jobs wait for the next worker, and for nothing else."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    deaths: list[Death] = []
    server = site.serve(worker=0, log="WARNING")

    async def kill_again_and_again(load: Load) -> None:
        worker = await asyncio.to_thread(site.work, **FEW_SLOTS)
        for number in range(KILLS):
            window = REQUESTS // KILLS
            await load.allow((number + 1) * window)
            enough = site.effects.count() + chance.randrange(1, 2 * window)
            await soon(lambda enough=enough: site.effects.count() >= enough, "jobs run", 30)
            deaths.append(worker.kill())
            worker = await asyncio.to_thread(site.work, **FEW_SLOTS)

    load = asyncio.run(under_load(site, kill_again_and_again))
    wait_until(lambda: site.database.unfinished() == 0, "the queue drains", 60)
    runs = site.effects.by_key()
    report(load, runs, deaths)
    assert load.cut == []
    assert server.is_alive()
    check(load, site.database.jobs(), runs, {death.pid: death for death in deaths}, stored_and_cut=False)


async def under_load(site: Site, trouble: Callable[[Load], Awaitable[None]]) -> Load:
    load = Load(site.door)
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run())
        await trouble(load)
    return load
