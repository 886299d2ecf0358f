"""A PostgreSQL server that goes away and comes back: nothing is lost, and nobody restarts anything."""

import time
from collections.abc import Callable

import pytest

from servers.postgres import Server
from tests.faults.patience import wait_until
from tests.support.effects import Run
from tests.support.processes import Process
from tests.support.served_site import Clients, ServedSite

ENDS = [Server.kill, Server.abort, Server.stop]
BACK_SECONDS = 5
"""How long after the server's return jobs may wait until they are run again."""


def check(site: ServedSite, clients: Clients) -> None:
    """What was acknowledged has run, and nothing ran twice: no process has died, and no attempt was lost."""
    jobs, runs = site.tables.jobs(), site.effects.by_key()
    assert clients.accepted
    assert set(clients.accepted) <= jobs.keys()
    assert jobs.keys() <= {*clients.accepted, *clients.refused}, "what was refused may have been stored all the same"
    assert {job.status for job in jobs.values()} == {"succeeded"}
    assert runs.keys() == jobs.keys()
    assert {len(theirs) for theirs in runs.values()} == {1}
    assert {(job.failures, job.deaths) for job in jobs.values()} == {(0, 0)}


def runs_since(site: ServedSite, moment: float) -> list[Run]:
    return [run for run in site.effects.runs() if run.started > moment]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("leasing", [True, False], ids=["embedded worker", "worker of its own"])
def test_a_server_that_ends_under_load_loses_nothing_and_workers_go_on_when_it_is_back(
    served: ServedSite, end: Callable[[Server], None], leasing: bool
) -> None:
    processes = [served.serve(worker=int(leasing), log="WARNING")]
    if not leasing:
        processes.append(served.work(log="WARNING"))
    with Clients(served.door) as clients:
        wait_until(lambda: len(served.effects.runs()) > 50, "jobs run")
        for _ in range(3):
            end(served.server)
            served.server.start()
            back, accepted = time.monotonic(), len(clients.accepted)
            wait_until(lambda accepted=accepted: len(clients.accepted) > accepted, "it stores again", BACK_SECONDS)
            wait_until(lambda back=back: runs_since(served, back), "it runs again", BACK_SECONDS)
            so_far = len(served.effects.runs())
            wait_until(lambda so_far=so_far: len(served.effects.runs()) > so_far + 20, "jobs run")
    wait_until(lambda: served.tables.unfinished() == 0, "the queue drains")
    check(served, clients)
    assert all(process.is_alive() for process in processes)
    assert "liveness.taken_for_dead" not in served.outputs()


@pytest.mark.timeout(120)
def test_while_a_server_is_away_nobody_turns_in_circles_and_jobs_run_soon_after_its_return(served: ServedSite) -> None:
    """Longer than anybody's patience: each has been told that it is away, and pauses between its tries."""
    web, worker = served.serve(worker=0), served.work()
    served.door.add("slow", "key~running", seconds=1)
    wait_until(lambda: served.effects.started() == 1)
    served.server.stop()
    with served.listening_instead() as tries:
        began = time.monotonic()
        used = web.cpu_seconds() + worker.cpu_seconds()
        answer = served.door.add("quick", "key~refused")
        assert answer.status == 503
        assert "retry-after" in answer.headers
        assert time.monotonic() - began < 2 * 5 + 2
        wait_until(lambda: "worker.store_unavailable" in worker.output(), "the worker has noticed")
        wait_until(lambda: time.monotonic() - began > 12, "some time has passed")
        passed = time.monotonic() - began
        used = web.cpu_seconds() + worker.cpu_seconds() - used
    print(f"{tries()} connections were tried in {passed:.1f} s, and {used:.2f} s of processor used")
    assert tries() < 2 * 10 * passed
    assert used < 0.25 * passed
    assert served.outputs().count("unavailable") < 40

    served.server.start()
    back = time.monotonic()
    wait_until(lambda: served.tables.job("key~running").status == "succeeded", "what ended meanwhile is written", 5)
    wait_until(lambda: served.door.add("quick", f"key~{time.monotonic()}").status == 202, "it stores again", 5)
    wait_until(lambda: runs_since(served, back), "it runs again", 5)
    print(f"a job ran {runs_since(served, back)[0].started - back:.2f} s after the server was back")
    wait_until(lambda: served.tables.unfinished() == 0)
    assert [run.attempt for run in served.effects.of("key~running")] == [1]
    assert "process.died" not in served.outputs()
    assert "process.frozen" not in served.outputs()


def stood_still(process: Process, site: ServedSite, end: Callable[[Server], None]) -> None:
    """When a process stands still at the point it was told to, the server ends and comes back; then it goes on."""
    wait_until(lambda: process.stands_still, "it stands still at its point")
    end(site.server)
    site.server.start()
    process.thaw()


@pytest.mark.parametrize("end", [Server.kill, Server.abort])
@pytest.mark.parametrize("point", ["before_store", "after_insert", "after_store", "before_finish", "after_finish"])
def test_a_server_that_ends_in_mid_enqueue_or_mid_finish_makes_no_job_run_twice(
    served: ServedSite, point: str, end: Callable[[Server], None]
) -> None:
    process = served.serve(stop=point)
    answer = served.door.begin("POST", "/jobs/quick", key="key~1")
    stood_still(process, served, end)
    assert answer().status == 202
    wait_until(lambda: served.tables.job("key~1").status == "succeeded")
    [run] = served.effects.of("key~1")
    job = served.tables.job("key~1")
    assert (run.attempt, job.attempt, job.failures, job.deaths, job.ended) == (1, 1, 0, 0, {})


@pytest.mark.parametrize("end", [Server.kill, Server.abort])
def test_a_server_that_ends_while_a_transaction_is_open_has_all_of_it_done_again(
    served: ServedSite, end: Callable[[Server], None]
) -> None:
    """A job with a file is stored by several statements."""
    process = served.serve(stop="after_insert")
    answer = served.door.begin("POST", "/files/digest", key="key~1", mebibytes=0.5)
    stood_still(process, served, end)
    assert answer().status == 202
    wait_until(lambda: served.tables.job("key~1").status == "succeeded")
    assert len(served.effects.of("key~1")) == 1


@pytest.mark.parametrize("end", [Server.kill, Server.abort])
@pytest.mark.parametrize("task", ["quick", "quick_thread"])
def test_a_server_that_ends_after_a_claim_costs_no_attempt(
    served: ServedSite, task: str, end: Callable[[Server], None]
) -> None:
    served.serve(worker=0)
    served.door.add(task, "key~1")
    worker = served.work(stop="after_claim")
    stood_still(worker, served, end)
    wait_until(lambda: served.tables.job("key~1").status == "succeeded")
    [run] = served.effects.of("key~1")
    assert served.tables.job("key~1").attempt == run.attempt
    assert served.tables.job("key~1").deaths == 0
