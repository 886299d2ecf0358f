"""`kill -9` at each named point of a job's path, and what the client, the store and the tasks have seen of it."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.faults.patience import wait_until
from tests.support.database import Row
from tests.support.effects import Run
from tests.support.processes import REPOSITORY
from tests.support.site import Site

KEY = "key~1"
TASKS = ["quick", "quick_thread"]


def after_a_restart(site: Site) -> tuple[Row | None, list[Run]]:
    """Start again, let everything that is stored end, and see what became of the job."""
    site.serve()
    site.door.add("quick", "key~afterwards")
    wait_until(lambda: site.effects.of("key~afterwards"))
    wait_until(lambda: site.database.unfinished() == 0, seconds=20)
    return site.database.jobs().get(KEY), site.effects.of(KEY)


def refused(site: Site, path: str, **query: Any) -> bool:
    """Does the client learn that its request came to nothing?"""
    try:
        site.door.request("POST", path, key=KEY, **query)
    except ConnectionError:
        return True
    return False


@pytest.mark.parametrize("path", ["/jobs/quick", "/held/quick"])
def test_before_store_the_client_gets_no_answer_and_nothing_is_kept(site: Site, path: str) -> None:
    site.serve(crash="before_store")
    assert refused(site, path)
    assert after_a_restart(site) == (None, [])


@pytest.mark.parametrize("path", ["/jobs/quick", "/held/quick"])
def test_after_insert_the_client_gets_no_answer_and_nothing_is_kept(site: Site, path: str) -> None:
    site.serve(crash="after_insert")
    assert refused(site, path)
    assert after_a_restart(site) == (None, [])


@pytest.mark.parametrize("task", TASKS)
def test_after_store_the_client_gets_no_answer_and_the_job_runs_once(site: Site, task: str) -> None:
    """It was leased to the server that died: that attempt is spent."""
    site.serve(crash="after_store", leasing=True)
    assert refused(site, f"/jobs/{task}")
    job, runs = after_a_restart(site)
    assert job
    assert [run.attempt for run in runs] == [2]
    assert (job.status, job.attempt, job.failures, job.deaths) == ("succeeded", 2, 0, 1)
    assert job.ended == {1: "died"}


def test_after_store_a_job_that_was_held_runs_once_at_no_cost(site: Site) -> None:
    site.serve(crash="after_store")
    assert refused(site, "/held/quick")
    job, runs = after_a_restart(site)
    assert job
    assert [run.attempt for run in runs] == [1]
    assert (job.status, job.attempt, job.failures, job.deaths, job.ended) == ("succeeded", 1, 0, 0, {})


@pytest.mark.parametrize("task", TASKS)
def test_after_response_the_client_has_its_answer_and_the_job_runs_once(site: Site, task: str) -> None:
    """The request lingers, so that the answer has left the server when it dies."""
    server = site.serve(crash="after_response", leasing=True)
    answer = site.door.request("POST", f"/lingering/{task}", key=KEY, linger=0.2)
    assert answer.status == 202
    server.wait()
    job, runs = after_a_restart(site)
    assert job
    assert job.id == answer.job
    assert [run.attempt for run in runs] == [2]
    assert (job.status, job.attempt, job.failures, job.deaths) == ("succeeded", 2, 0, 1)


def test_after_response_a_job_that_was_held_runs_once_at_no_cost(site: Site) -> None:
    server = site.serve(crash="after_response", worker=0)
    answer = site.door.request("POST", "/lingering/quick", key=KEY, linger=0.2)
    assert answer.status == 202
    server.wait()
    job, runs = after_a_restart(site)
    assert job
    assert [run.attempt for run in runs] == [1]
    assert (job.status, job.attempt, job.failures, job.deaths, job.ended) == ("succeeded", 1, 0, 0, {})


@pytest.mark.parametrize("task", TASKS)
def test_after_claim_the_job_runs_once(site: Site, task: str) -> None:
    """The server that stored the job lives on, and sees its worker's death."""
    site.serve(worker=0)
    site.door.add(task, KEY)
    wait_until(lambda: site.database.taken() == 0, "it is let go of")
    site.work(crash="after_claim").wait()
    site.work()
    wait_until(lambda: site.database.job(KEY).status == "succeeded")
    job = site.database.job(KEY)
    assert [run.attempt for run in site.effects.of(KEY)] == [2]
    assert (job.attempt, job.failures, job.deaths, job.ended) == (2, 0, 1, {1: "died"})


@pytest.mark.parametrize("task", TASKS)
def test_running_but_not_begun_the_job_runs_once(site: Site, task: str) -> None:
    server = site.serve(crash="running")
    refused(site, f"/jobs/{task}")  # the answer may or may not have left before
    server.wait()
    job, runs = after_a_restart(site)
    assert job
    assert [run.attempt for run in runs] == [2]
    assert (job.status, job.attempt, job.failures, job.deaths) == ("succeeded", 2, 0, 1)


@pytest.mark.parametrize("task", TASKS)
def test_before_finish_the_job_runs_twice(site: Site, task: str) -> None:
    """The one window in which what has been done is done again."""
    server = site.serve(crash="before_finish")
    refused(site, f"/jobs/{task}")
    server.wait()
    job, runs = after_a_restart(site)
    assert job
    assert [(run.attempt, run.ended is not None) for run in runs] == [(1, True), (2, True)]
    assert (job.status, job.attempt, job.failures, job.deaths) == ("succeeded", 2, 0, 1)


@pytest.mark.parametrize("task", TASKS)
def test_after_finish_the_job_is_not_run_again(site: Site, task: str) -> None:
    server = site.serve(crash="after_finish")
    refused(site, f"/jobs/{task}")
    server.wait()
    job, runs = after_a_restart(site)
    assert job
    assert [run.attempt for run in runs] == [1]
    assert (job.status, job.attempt, job.failures, job.deaths, job.ended) == ("succeeded", 1, 0, 0, {})
    assert job.result == f'"{KEY}"'


def test_before_finish_a_failure_that_was_not_stored_is_not_counted(site: Site) -> None:
    server = site.serve(crash="before_finish")
    refused(site, "/jobs/fails_at_first", seconds=0)
    server.wait()
    job, runs = after_a_restart(site)
    assert job
    assert [run.attempt for run in runs] == [1, 2]
    assert (job.status, job.attempt, job.failures, job.deaths) == ("succeeded", 2, 0, 1)


def test_after_finish_a_failure_that_was_stored_is_counted_once(site: Site) -> None:
    server = site.serve(crash="after_finish")
    refused(site, "/jobs/fails_at_first", seconds=0)
    server.wait()
    job, runs = after_a_restart(site)
    assert job
    assert [run.attempt for run in runs] == [1, 2]
    assert (job.status, job.attempt, job.failures, job.deaths, job.ended) == ("succeeded", 2, 1, 0, {1: "retry"})


@pytest.mark.parametrize(("point", "runs"), [("before_finish", 2), ("after_finish", 1)])
def test_what_follows_a_job_is_stored_with_its_end_or_not_at_all(site: Site, point: str, runs: int) -> None:
    server = site.serve(crash=point)
    refused(site, "/jobs/followed")
    server.wait()
    job, ran = after_a_restart(site)
    assert job
    assert (job.status, len(ran)) == ("succeeded", runs)
    assert site.database.job(f"after {KEY}").status == "succeeded"
    assert len(site.effects.of(f"after {KEY}")) == 1


def test_in_prune_nothing_half_forgotten_is_left_and_the_next_does_it(site: Site) -> None:
    server = site.serve()
    site.pruned = {f"key~{number}" for number in range(6)}
    for key in site.pruned:
        site.door.add("quick", key)
    wait_until(lambda: site.database.unfinished() == 0)
    server.kill()

    site.serve(crash="in_prune", keep=0, ready=False).wait()
    assert {job.status for job in site.database.jobs().values()} == {"succeeded"}
    assert len(site.database.jobs()) == 6

    site.serve(keep=0)
    wait_until(lambda: site.database.jobs() == {})


def test_in_reap_each_orphan_is_queued_again_exactly_once(site: Site) -> None:
    """The reaper dies in the middle of a page; the next does all of it, and nothing of it twice."""
    server = site.serve()
    keys = [f"key~{number}" for number in range(6)]
    for key in keys:
        site.door.add("slow_at_first", key, seconds=60)
    wait_until(lambda: site.effects.started() == len(keys))
    server.kill()

    site.serve(crash="in_reap:4", ready=False).wait()
    jobs = site.database.jobs()
    assert {(job.status, job.attempt, job.deaths) for job in jobs.values()} == {("running", 1, 0)}

    site.serve()
    wait_until(lambda: site.database.unfinished() == 0)
    for key, job in site.database.jobs().items():
        assert (job.status, job.attempt, job.failures, job.deaths) == ("succeeded", 2, 0, 1)
        assert job.ended == {1: "died"}
        assert [run.attempt for run in site.effects.of(key)] == [1, 2]


def test_in_migration_nothing_half_made_is_left_and_the_next_start_does_it(site: Site) -> None:
    site.serve(crash="in_migration", ready=False).wait()
    assert site.database.query("SELECT name FROM sqlite_schema") == []
    job, runs = after_a_restart(site)
    assert (job, runs) == (None, [])
    assert site.database.job("key~afterwards").status == "succeeded"


def test_every_crash_point_of_the_library_is_hit_by_a_test() -> None:
    """A test whose armed process did not die at its point has failed; here each point must have such a test."""
    source = "".join(path.read_text() for path in (REPOSITORY / "src").rglob("*.py"))
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    points = set(re.findall(r'crash_point\("(\w+)"\)', source))
    assert points
    given = " ".join(re.findall(r'parametrize\("crash", \[(.*?)\]', tests))
    assert points <= {*re.findall(r'crash="(\w+)', tests), *re.findall(r"\w+", given)}
