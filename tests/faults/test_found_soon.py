"""A job whose process was killed is running again within a second."""

import time
from contextlib import suppress

import pytest

from tests.faults.patience import wait_until
from tests.support.site import Site

SOON_SECONDS = 1.0


@pytest.mark.parametrize("task", ["slow_at_first", "slow_at_first_thread"])
def test_a_job_of_a_killed_worker_runs_in_another_within_a_second(site: Site, task: str) -> None:
    """Nothing else is going on that could wake the other: an idle queue is watched too."""
    killed = site.serve()
    another = site.work()
    wait_until(lambda: another.pid in site.database.processes().values())
    site.door.add(task, "key~1", seconds=60)
    wait_until(lambda: site.effects.started() == 1)

    death = killed.kill()
    wait_until(lambda: len(site.effects.of("key~1")) == 2)
    [first, second] = site.effects.of("key~1")
    print(f"running again after {second.started - death.before:.3f} s")
    assert (first.pid, second.pid) == (killed.pid, another.pid)
    assert second.started - death.before < SOON_SECONDS
    wait_until(lambda: site.database.job("key~1").status == "succeeded")


def test_a_job_held_by_a_killed_server_runs_in_a_worker_within_a_second(site: Site) -> None:
    server = site.serve(worker=0)
    worker = site.work()
    wait_until(lambda: worker.pid in site.database.processes().values())
    answer = site.door.begin("POST", "/lingering/quick", key="key~1", linger=60)
    wait_until(lambda: "key~1" in site.database.jobs())
    assert site.effects.runs() == []

    death = server.kill()
    with suppress(ConnectionError):  # its answer may have left before
        answer()
    wait_until(lambda: site.effects.of("key~1"))
    [run] = site.effects.of("key~1")
    print(f"running after {run.started - death.before:.3f} s")
    assert run.started - death.before < SOON_SECONDS
    wait_until(lambda: site.database.job("key~1").status == "succeeded")
    assert site.database.job("key~1").deaths == 0


def test_a_job_of_the_only_process_runs_within_a_second_of_its_restart(site: Site) -> None:
    server = site.serve()
    site.door.add("slow_at_first", "key~1", seconds=60)
    wait_until(lambda: site.effects.started() == 1)
    server.kill()

    site.serve()
    ready = time.monotonic()
    wait_until(lambda: len(site.effects.of("key~1")) == 2)
    [_, second] = site.effects.of("key~1")
    print(f"running again {second.started - ready:.3f} s after it was ready")
    assert second.started - ready < SOON_SECONDS
    wait_until(lambda: site.database.job("key~1").status == "succeeded")


def test_several_processes_that_see_a_death_at_once_queue_each_job_again_once(site: Site) -> None:
    """More jobs than one page of a reaping holds."""
    keys = [f"key~{number}" for number in range(250)]
    server = site.serve(worker=0, log="WARNING")
    for key in keys:
        site.door.add("slow_at_first", key, seconds=60)
    killed = site.work(concurrency=300, log="WARNING")
    wait_until(lambda: site.effects.started() == len(keys), seconds=20)
    others = [site.work(concurrency=300, log="WARNING") for _ in range(2)]
    wait_until(lambda: {other.pid for other in others} <= set(site.database.processes().values()))

    killed.kill()
    wait_until(lambda: site.database.unfinished() == 0, seconds=20)
    assert server.is_alive()
    jobs, runs = site.database.jobs(), site.effects.by_key()
    for key in keys:
        assert (jobs[key].status, jobs[key].attempt, jobs[key].deaths) == ("succeeded", 2, 1)
        assert jobs[key].ended == {1: "died"}
        assert [run.attempt for run in runs[key]] == [1, 2]
