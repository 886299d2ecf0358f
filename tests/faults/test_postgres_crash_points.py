"""`kill -9` of a process at each named point of a job's path, where the store is a PostgreSQL server."""

from contextlib import suppress
from typing import Any

import pytest

from tests.faults.patience import wait_until
from tests.support.served_site import ServedSite

KEY = "key~1"

POINTS = {
    # Where it dies: how many runs there are, how many attempts, and how many deaths. None: nothing was stored.
    "before_store": None,
    "after_insert": (1, 2, 1),
    "after_store": (1, 2, 1),
    "running": (1, 2, 1),
    "before_finish": (2, 2, 1),
    "after_finish": (1, 1, 0),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_process_killed_at_a_point_leaves_its_job_to_the_next_and_none_is_run_twice_but_where_it_must(
    served: ServedSite, point: str
) -> None:
    """Its jobs are leased to its own worker; before their end is written, what was done is done again."""
    process = served.serve(crash=point, leasing=True)
    with suppress(ConnectionError):
        served.door.request("POST", "/jobs/quick", key=KEY)
    process.wait()
    served.serve()
    served.door.add("quick", "key~afterwards")
    wait_until(lambda: served.effects.of("key~afterwards"))
    wait_until(lambda: served.tables.unfinished() == 0)
    expected = POINTS[point]
    if expected is None:
        assert KEY not in served.tables.jobs()
        return
    job = served.tables.job(KEY)
    assert (len(served.effects.of(KEY)), job.attempt, job.deaths) == expected
    assert (job.status, job.failures) == ("succeeded", 0)


@pytest.mark.parametrize("path", ["/files/digest", "/lingering/quick"])
def test_a_process_killed_before_its_request_is_over_leaves_a_held_job_that_runs_at_no_cost_or_none(
    served: ServedSite, path: str
) -> None:
    """One is killed in the middle of its transaction, which is as if it had not been begun; one after it."""
    is_file = path == "/files/digest"
    process = served.serve(crash="after_insert" if is_file else "after_store", worker=0)
    with suppress(ConnectionError):
        more: dict[str, Any] = {"mebibytes": 0.3} if is_file else {"linger": 60}
        served.door.request("POST", path, key=KEY, **more)
    process.wait()
    served.work()
    if is_file:
        wait_until(lambda: len(served.tables.processes()) == 1)
        assert served.tables.jobs() == {}
        wait_until(lambda: served.tables.query("SELECT 1 FROM afterward.files") == [], "what it contained is freed")
        return
    wait_until(lambda: served.tables.job(KEY).status == "succeeded")
    job = served.tables.job(KEY)
    assert ([run.attempt for run in served.effects.of(KEY)], job.attempt, job.deaths) == ([1], 1, 0)


def test_a_worker_killed_after_its_claim_costs_its_jobs_an_attempt_and_no_more(served: ServedSite) -> None:
    served.serve(worker=0)
    served.door.add("quick+quick_thread", KEY)
    wait_until(lambda: served.tables.taken() == 0)
    served.work(crash="after_claim").wait()
    served.work()
    wait_until(lambda: served.tables.unfinished() == 0)
    assert {(job.attempt, job.deaths, job.failures) for job in served.tables.jobs().values()} == {(2, 1, 0)}
    assert {run.attempt for run in served.effects.runs()} == {2}


@pytest.mark.parametrize("point", ["in_migration", "in_prune"])
def test_a_process_killed_in_mid_migration_or_mid_pruning_leaves_nothing_half_done(
    served: ServedSite, point: str
) -> None:
    if point == "in_migration":
        served.serve(crash=point, ready=False).wait()
        assert not served.tables.is_there()
        served.serve()
        served.door.add("quick", KEY)
        wait_until(lambda: served.tables.job(KEY).status == "succeeded")
        return
    served.pruned = {f"key~{number}" for number in range(6)}
    server = served.serve()
    for key in served.pruned:
        served.door.add("quick", key)
    wait_until(lambda: served.tables.unfinished() == 0)
    server.kill()
    served.work(crash=point, keep=0).wait()
    served.work(keep=0)
    wait_until(lambda: served.tables.jobs() == {})
