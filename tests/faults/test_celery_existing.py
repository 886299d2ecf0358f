"""Deaths around a Celery task whose code knows nothing of us: never lost, and never published twice unseen.

Who relays:
- dies before the broker has the message: the job is queued again, and its next attempt is published.
- dies when the broker has it, before that is stored: the next attempt is published, too, with another id in Celery.
  Both run, for nothing there can refuse one; the log of the job tells it.
- dies when that is stored: nobody needs it any more.

Who follows:
- dies once the store has in its name what Celery told it: another one goes on, and no death is counted.
- dies once the end is stored: nothing is left to be done.

Who runs it:
- a child of a Celery worker dies: Celery tells of it, and so the job has failed; it is not tried again by itself.
"""

import json
import os
import signal

import pytest

from tests.faults.conftest import FleetAt
from tests.faults.patience import wait_until
from tests.support.fleet_site import FleetSite


@pytest.fixture
def fleet(broker_url: str, valkey_results: str, fleet_at: FleetAt) -> FleetSite:
    """A fleet that tells what becomes of its tasks."""
    settings = {"result_backend": valkey_results, "task_ignore_result": False, "task_track_started": True}
    return fleet_at(broker_url, **settings)


def check_has_run(site: FleetSite, *, attempt: int, runs: int = 1) -> None:
    wait_until(lambda: site.database.unfinished() == 0, "it has run")
    job = site.database.job("key~1")
    assert (job.status, job.attempt, job.failures, job.result) == ("succeeded", attempt, 0, "5")
    wait_until(lambda: len(site.effects.of("key~1")) == runs, "so often")


def lines(site: FleetSite) -> list[str]:
    """What the logs of the jobs tell."""
    return [json.loads(data)["message"] for (data,) in site.database.query("SELECT data FROM events")]


def test_a_relay_that_dies_before_it_has_stored_that_the_broker_has_it(fleet: FleetSite) -> None:
    server = fleet.serve(crash="after_publish")
    fleet.door.begin("POST", "/jobs/existing", key="key~1")
    server.wait()
    fleet.serve()
    wait_until(lambda: list(fleet.handed.values()) == [2], "it is published again")
    fleet.hire(slots=1)
    check_has_run(fleet, attempt=2, runs=2)
    [line] = lines(fleet)
    assert line.startswith("it is published as attempt 2")
    assert line.endswith("if an attempt before was published, it may run too")


def test_a_relay_that_dies_when_that_is_stored(fleet: FleetSite) -> None:
    fleet.serve(worker=0)
    relay = fleet.work(crash="after_hand_over")
    fleet.door.add("existing", "key~1")
    relay.wait()
    fleet.hire()
    fleet.work()
    check_has_run(fleet, attempt=1)
    assert fleet.database.job("key~1").deaths == 0
    assert lines(fleet) == []


@pytest.mark.parametrize("crash", ["after_follower_begin", "after_follower_finish"])
def test_a_follower_that_dies(fleet: FleetSite, crash: str) -> None:
    fleet.serve(worker=0)
    fleet.hire()
    follower = fleet.work(crash=crash)
    fleet.door.add("existing", "key~1")
    follower.wait()
    fleet.work()
    check_has_run(fleet, attempt=1)
    assert fleet.database.job("key~1").deaths == 0


def test_a_child_of_a_celery_worker_that_dies(fleet: FleetSite) -> None:
    fleet.serve()
    fleet.hire()
    fleet.door.add("existing", "key~1", seconds=60)
    [run] = wait_until(lambda: fleet.effects.of("key~1"), "it runs")
    os.kill(run.pid, signal.SIGKILL)
    wait_until(lambda: fleet.database.unfinished() == 0, "it has ended")
    job = fleet.database.job("key~1")
    assert (job.status, job.attempt) == ("failed", 1)
    assert "WorkerLostError" in str(job.failure)
