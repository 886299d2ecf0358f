"""What a broker loses, or gives twice, and what those leave behind who die on the way to it: each job runs once."""

from pathlib import Path

from tests.faults.conftest import FleetAt
from tests.faults.patience import wait_until
from tests.support.fleet import take
from tests.support.fleet_site import FleetSite

KEYS = [f"key~{number}" for number in range(4)]


def check_all_ran(site: FleetSite, *keys: str, attempt: int) -> None:
    """Once, and this attempt."""
    wait_until(lambda: site.database.unfinished() == 0, "all has run")
    for key in keys:
        job = site.database.job(key)
        assert (job.status, job.attempt, job.failures, job.result) == ("succeeded", attempt, 0, f'"{key}"')
        assert [run.attempt for run in site.effects.of(key)] == [attempt]


def test_what_is_deleted_from_a_queue_is_published_again(broker_url: str, fleet_at: FleetAt) -> None:
    """With the attempt it had: it has not begun."""
    site = fleet_at(broker_url)
    site.serve()
    for key in KEYS:
        site.door.add("slow_fleet", key)
    wait_until(lambda: len(site.handed) == len(KEYS), "all are handed over")
    assert len(take(broker_url)) == len(KEYS)
    site.hire()
    check_all_ran(site, *KEYS, attempt=1)


def test_a_message_that_comes_again_while_its_job_runs_is_dropped(
    valkey_url: str, fleet_at: FleetAt, tmp_path: Path
) -> None:
    """Redis gives it to another after a time, which is shorter here than a worker takes to start, or the job."""
    site = fleet_at(valkey_url, broker_transport_options={"visibility_timeout": 0.01})
    site.serve()
    workers = [site.hire()]
    enough = tmp_path / "enough"
    site.door.add("waits_fleet", "key~1", until=enough)
    wait_until(lambda: site.effects.of("key~1"), "it runs")
    workers.append(site.hire())  # it looks at once for what was not acknowledged in time
    wait_until(lambda: any("job.message_dropped" in worker.output() for worker in workers), "it came again")
    assert site.database.job("key~1").status == "running"
    enough.touch()
    check_all_ran(site, "key~1", attempt=1)


def test_a_relay_that_dies_once_all_is_published(valkey_url: str, fleet_at: FleetAt) -> None:
    """Before it can say so. Another publishes the next attempt; of the one before, the message is dropped."""
    site = fleet_at(valkey_url)
    server = site.serve(crash="after_publish")
    site.door.begin("POST", "/jobs/slow_fleet", key="key~1")
    server.wait()
    site.serve()
    wait_until(lambda: list(site.handed.values()) == [2], "it is handed over")
    assert site.database.job("key~1").ended == {1: "died"}
    worker = site.hire()
    check_all_ran(site, "key~1", attempt=2)
    wait_until(lambda: "job.message_dropped" in worker.output(), "the first is dropped")


def test_a_relay_that_dies_when_all_is_handed_over(rabbitmq_url: str, fleet_at: FleetAt) -> None:
    """It is not needed any more."""
    site = fleet_at(rabbitmq_url)
    site.serve(worker=0)
    relay = site.work(crash="after_hand_over")
    site.door.add("slow_fleet", "key~1")
    relay.wait()
    site.hire()
    check_all_ran(site, "key~1", attempt=1)
    assert site.database.job("key~1").deaths == 0


def test_workers_of_both_kinds_share_a_store(rabbitmq_url: str, fleet_at: FleetAt) -> None:
    """Each runs its own tasks."""
    site = fleet_at(rabbitmq_url)
    site.serve(worker=0)
    ours, theirs = site.work(), site.hire(pool="threads")
    for task in ("quick", "quick_thread", "slow_fleet", "slow_fleet_async"):
        for number in range(3):
            site.door.add(task, f"key~{task}-{number}")
    wait_until(lambda: site.database.unfinished() == 0, "all has run")
    for key, [run] in site.effects.by_key().items():
        assert run.pid == (theirs.pid if "fleet" in key else ours.pid)
        assert site.database.job(key).status == "succeeded"
