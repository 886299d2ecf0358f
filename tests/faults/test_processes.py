"""Child processes, killed for real, and what becomes of them when their worker is."""

import os
import signal

import psutil

from tests.faults.patience import wait_until
from tests.support.alive import is_running
from tests.support.site import Site


def test_a_child_that_is_killed_costs_its_own_job_alone(site: Site) -> None:
    """For want of memory, say. It is counted, and the job is run again; its neighbours notice nothing."""
    server = site.serve(children=2)
    site.door.add("slow_at_first_process", "key~killed", seconds=60)
    site.door.add("slow_at_first_process", "key~neighbour", seconds=3)
    site.door.add("slow_at_first_thread", "key~thread", seconds=3)
    [killed] = wait_until(lambda: site.effects.of("key~killed"), "it runs", 20)
    wait_until(lambda: len(site.effects.runs()) == 3, "all run", 20)

    os.kill(killed.pid, signal.SIGKILL)

    wait_until(lambda: site.database.unfinished() == 0, seconds=30)
    job = site.database.job("key~killed")
    assert (job.status, job.attempt, job.failures, job.deaths) == ("succeeded", 2, 0, 1)
    assert job.ended == {1: "died"}
    for key in ("key~neighbour", "key~thread"):
        neighbour = site.database.job(key)
        assert (neighbour.status, neighbour.attempt, neighbour.deaths) == ("succeeded", 1, 0)
    assert server.is_alive()


def test_no_child_outlives_a_worker_that_is_killed(site: Site) -> None:
    """Neither one that has nothing to do, nor one that is in C code, nor what that has started. Its job runs again."""
    site.serve(worker=0)
    worker = site.work(children=2)
    site.door.add("quick_process", "key~quick")
    site.door.add("holds_its_process", "key~holding")
    site.door.add("quick_process", "key~quick-too")
    wait_until(lambda: site.database.unfinished() == 1 and site.effects.of("key~holding"), "they have run", 30)
    [holding] = site.effects.of("key~holding")
    [program] = psutil.Process(holding.pid).children()
    children = worker.children()
    assert len(children) == 2
    assert holding.pid in children

    worker.kill()

    wait_until(lambda: not any(map(is_running, [*children, program.pid])), "they have all ended")
    site.work(children=1)
    wait_until(lambda: site.database.unfinished() == 0, seconds=30)
    job = site.database.job("key~holding")
    assert (job.status, job.attempt, job.failures, job.deaths) == ("succeeded", 2, 0, 1)
