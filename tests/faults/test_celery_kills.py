"""500 jobs, and 10 kills of what runs them in a Celery fleet: nothing is lost, and only a kill has a job run again."""

import itertools
import os
import random
import signal
import time

import pytest

from tests.faults.conftest import FleetAt
from tests.faults.patience import wait_until
from tests.support.alive import is_running
from tests.support.effects import Run
from tests.support.fleet_site import FleetSite
from tests.support.processes import Death

KILLS = 10
AT_ONCE = 50
"""So many jobs are added before each kill: 500 in all."""

SECONDS = 0.1
"""That of one. Those of one kill take the four processes of the fleet more than a second."""

EARLY = "tests.faults.app_under_test:slow_fleet"
"""Told to be acknowledged before it runs, and to be dropped with its process."""

SETTINGS = {"task_annotations": {EARLY: {"acks_late": False, "reject_on_worker_lost": False}}}


class Fleet:
    """Two workers, of which one is killed again and again: all of it and one of its children, by turns."""

    def __init__(self, site: FleetSite, chance: random.Random) -> None:
        self._site = site
        self._chance = chance
        self._workers = [site.hire(ready=False), site.hire(ready=False)]
        self.deaths: dict[int, Death] = {}
        for worker in self._workers:
            site.wait_for(worker)

    def kill_some(self, number: int) -> None:
        """Whoever runs something just now."""
        time.sleep(self._chance.uniform(0, SECONDS))
        run = wait_until(self._running, "something runs")[-1]
        if number % 2:
            self._kill_child(run)
        else:
            self._kill_worker(run)

    def _running(self) -> list[Run]:
        parents = {worker.pid for worker in self._workers}
        runs = [run for run in self._site.effects.runs()[-8:] if run.parent in parents and run.pid not in self.deaths]
        return [run for run in runs if run.ended is None]

    def _kill_child(self, run: Run) -> None:
        after = time.monotonic()
        os.kill(run.pid, signal.SIGKILL)
        wait_until(lambda: not is_running(run.pid), "it is gone")
        self.deaths[run.pid] = Death(run.pid, after, time.monotonic())

    def _kill_worker(self, run: Run) -> None:
        [worker] = [worker for worker in self._workers if worker.pid == run.parent]
        self.deaths |= self._site.kill(worker)
        self._workers.remove(worker)
        self._workers.append(self._site.hire(ready=False))


@pytest.mark.timeout(150)
def test_kills_lose_nothing(broker_url: str, fleet_at: FleetAt) -> None:
    """Whether messages are acknowledged before they run or after, and whatever the broker gives again, or does not."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    site = fleet_at(broker_url, **SETTINGS)
    site.serve(log="WARNING")
    chance = random.Random(seed)
    fleet = Fleet(site, chance)
    keys: list[str] = []
    for number in range(KILLS):
        told = site.effects.count()
        keys += add(site, number)
        enough = told + chance.randrange(1, AT_ONCE)
        wait_until(lambda enough=enough: site.effects.count() >= enough, "some of them run")
        fleet.kill_some(number)
    wait_until(lambda: site.database.unfinished() == 0, "the queue drains", 90)
    check(site, keys, fleet.deaths)


def add(site: FleetSite, window: int) -> list[str]:
    """Jobs of both tasks, by turns; their keys."""
    keys = [f"key~{window}-{number:02}" for number in range(AT_ONCE)]
    for number, key in enumerate(keys):
        assert site.door.add(("slow_fleet", "slow_fleet_async")[number % 2], key, seconds=SECONDS).status == 202
    return keys


def check(site: FleetSite, keys: list[str], deaths: dict[int, Death]) -> None:
    """Nothing lost; nothing twice but for a kill; no two runs of a job at once."""
    jobs, runs = site.database.jobs(), site.effects.by_key()
    assert jobs.keys() == runs.keys() == set(keys)
    assert {job.status for job in jobs.values()} == {"succeeded"}
    assert sum(len(theirs) - 1 for theirs in runs.values()) >= KILLS // 2, "kills hit what ran"
    for key, theirs in runs.items():
        job = jobs[key]
        assert (job.result, job.failures, theirs[-1].attempt) == (f'"{key}"', 0, job.attempt)
        assert theirs[-1].ended
        for run, following in itertools.pairwise(theirs):
            assert job.ended[run.attempt] == "died"
            death = deaths.get(run.pid) or deaths[run.parent]
            assert run.ended is None or run.ended <= death.before
            assert run.started <= death.before
            assert following.started >= death.after
