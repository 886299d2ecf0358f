"""Servers that are asked to end, and their successors: the same version of the application, or another."""

import os
import signal
import time

import pytest

from tests.faults.patience import wait_until
from tests.support.alive import is_running
from tests.support.site import Site


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("task", ["slow", "slow_thread"])
def test_a_job_shorter_than_the_grace_is_let_end(site: Site, task: str, number: int) -> None:
    server = site.serve(grace=20)
    site.door.add(task, "key~1", seconds=1)
    wait_until(lambda: site.effects.started() == 1)
    server.terminate(number)
    server.wait()
    job = site.database.job("key~1")
    assert (job.status, job.attempt, job.failures, job.deaths) == ("succeeded", 1, 0, 0)
    assert site.database.processes() == {}


@pytest.mark.parametrize("role", ["server", "worker"])
@pytest.mark.parametrize("task", ["slow_at_first", "slow_at_first_thread"])
def test_a_job_longer_than_the_grace_is_released_uncharged_and_runs_at_once_in_the_next(
    site: Site, task: str, role: str
) -> None:
    ending = site.serve(grace=0.3, worker=int(role == "server"))
    if role == "worker":
        ending = site.work(grace=0.3)
    site.door.add(task, "key~1", seconds=60)
    wait_until(lambda: site.effects.started() == 1)
    asked = ending.terminate()
    ending.wait(10)
    assert time.monotonic() - asked < 10
    job = site.database.job("key~1")
    assert (job.status, job.process, job.attempt, job.failures, job.deaths) == ("queued", None, 1, 0, 0)
    assert job.ended == {1: "released"}

    if role == "worker":
        site.work()
    else:
        site.serve()
    ready = time.monotonic()
    wait_until(lambda: len(site.effects.of("key~1")) == 2)
    if role == "server":
        assert site.effects.of("key~1")[1].started - ready < 1
    wait_until(lambda: site.database.job("key~1").status == "succeeded")
    job = site.database.job("key~1")
    assert (job.attempt, job.failures, job.deaths) == (2, 0, 0)


def test_a_job_released_by_one_runs_at_once_in_another_that_lives(site: Site) -> None:
    ending = site.serve(grace=0.3)
    site.door.add("slow_at_first", "key~1", seconds=60)
    wait_until(lambda: site.effects.started() == 1)
    another = site.work()
    wait_until(lambda: another.pid in site.database.processes().values())
    ending.stop()
    ended = time.monotonic()
    wait_until(lambda: len(site.effects.of("key~1")) == 2)
    [_, second] = site.effects.of("key~1")
    assert second.pid == another.pid
    assert second.started - ended < 1


def test_nothing_is_begun_after_the_signal_though_a_stream_stays_open(site: Site) -> None:
    """The server waits for its open connections; jobs that fall due meanwhile are left for the next."""
    server = site.serve(grace=5)
    stream = site.door.open("/stream", seconds=60)
    assert stream.status == 200
    site.door.add("+".join(["quick"] * 5), "key~1", delay=1.0)
    server.terminate()
    not_due = "SELECT 1 FROM jobs WHERE run_at >= unixepoch('subsec') - 1"
    wait_until(lambda: not site.database.query(not_due), "all have been due for a second")
    assert server.is_alive()
    stream.close()
    server.wait()
    assert site.effects.runs() == []
    assert {(job.status, job.attempt) for job in site.database.jobs().values()} == {("queued", 0)}

    site.serve()
    wait_until(lambda: site.database.unfinished() == 0)
    assert [run.attempt for run in site.effects.runs()] == [1] * 5


@pytest.mark.parametrize("task", ["quick", "quick_thread"])
def test_a_request_that_is_over_after_the_signal_leaves_its_job_to_the_next_at_no_cost(site: Site, task: str) -> None:
    """Its job was to start in this very process, which has not let it."""
    server = site.serve(grace=5)
    answer = site.door.begin("POST", f"/lingering/{task}", key="key~1", linger=1)
    wait_until(lambda: "key~1" in site.database.jobs())
    server.terminate()
    assert answer().status == 202
    server.wait()
    assert site.effects.runs() == []
    job = site.database.job("key~1")
    assert (job.status, job.process, job.failures, job.deaths) == ("queued", None, 0, 0)

    site.serve()
    wait_until(lambda: site.database.job("key~1").status == "succeeded")
    job = site.database.job("key~1")
    assert (job.failures, job.deaths, len(site.effects.of("key~1"))) == (0, 0, 1)


@pytest.mark.parametrize("number", [None, signal.SIGTERM, signal.SIGINT])
def test_a_suspect_is_released_like_any_other(site: Site, number: signal.Signals | None) -> None:
    """It runs in a child process, which ends with its parent; a signal may come to both at once, and is no death.

    A Ctrl-C goes to all processes of a terminal, and a service manager ends all processes of a service.
    """
    for starts in (1, 2):
        server = site.serve()
        if starts == 1:
            site.door.add("slow", "key~1", seconds=60)
        wait_until(lambda starts=starts: site.effects.started() == starts)
        server.kill()

    server = site.serve(grace=0.3)
    wait_until(lambda: len(site.effects.of("key~1")) == 3)
    [*_, third] = site.effects.of("key~1")
    assert third.parent == server.pid
    if number:
        os.kill(third.pid, number)
    server.terminate(number or signal.SIGTERM)
    server.wait()
    job = site.database.job("key~1")
    assert (job.status, job.failures, job.deaths) == ("queued", 0, 2)
    assert job.ended == {1: "died", 2: "died", 3: "released"}
    wait_until(lambda: not is_running(third.pid), "the child has ended")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_while_a_suspect_is_about_to_begin_is_no_death(site: Site, number: int) -> None:
    """Its child process is still being started."""
    for starts in (1, 2):
        server = site.serve()
        if starts == 1:
            site.door.add("slow", "key~1", seconds=60)
        wait_until(lambda starts=starts: site.effects.started() == starts)
        server.kill()

    server = site.serve(grace=0.3)
    [child] = wait_until(server.children, "the child is started")
    os.kill(child, number)
    server.terminate(number)
    server.wait()
    job = site.database.job("key~1")
    assert (job.status, job.failures, job.deaths) == ("queued", 0, 2)


def test_a_function_that_is_gone_leaves_its_jobs_to_a_version_that_knows_it(site: Site) -> None:
    """They wait; nothing is held against them, and nothing waits behind them."""
    first = site.serve(version=1, worker=0)
    site.door.add("report", "key~1")
    wait_until(lambda: site.database.taken() == 0)
    first.stop()

    second = site.serve(version=2)
    site.door.add("quick", "key~other")
    wait_until(lambda: site.database.job("key~other").status == "succeeded")
    job = site.database.job("key~1")
    assert (job.status, job.attempt, job.failures, job.process) == ("queued", 0, 0, None)
    assert site.door.request("GET", f"/status/{job.id}").body["status"] == "queued"
    second.stop()

    site.serve(version=1)
    wait_until(lambda: site.database.job("key~1").status == "succeeded")
    assert [run.attempt for run in site.effects.of("key~1")] == [1]


def test_arguments_that_no_longer_fit_wait_for_a_version_that_they_fit(site: Site) -> None:
    """Meanwhile the job says why it waits."""
    first = site.serve(version=1, worker=0)
    site.door.add("report", "key~1")
    wait_until(lambda: site.database.taken() == 0)
    first.stop()

    third = site.serve(version=3)
    wait_until(lambda: site.database.job("key~1").note, "the job says why it waits")
    job = site.database.job("key~1")
    assert job.note
    assert "size" in job.note
    assert (job.status, job.failures, job.deaths) == ("queued", 0, 0)
    shown = site.door.request("GET", f"/status/{job.id}").body
    assert (shown["status"], shown["note"]) == ("queued", job.note)
    site.door.add("quick", "key~other")
    wait_until(lambda: site.database.job("key~other").status == "succeeded")
    attempts = site.database.job("key~1").attempt
    is_due = "SELECT 1 FROM jobs WHERE id = ? AND run_at < unixepoch('subsec')"
    wait_until(lambda: site.database.query(is_due, job.id), "its time has come again")
    site.door.add("quick", "key~later", delay=0.1)  # it cannot start at once: a claim looks for it
    wait_until(lambda: site.database.job("key~later").status == "succeeded")
    assert site.database.job("key~1").attempt == attempts, "it passes the job over from now on"
    third.stop()

    site.serve(version=4)
    wait_until(lambda: site.database.job("key~1").status == "succeeded")
    job = site.database.job("key~1")
    assert (job.failures, job.deaths, len(site.effects.of("key~1"))) == (0, 0, 1)


def test_two_versions_at_once_each_run_what_they_know(site: Site) -> None:
    """One that the arguments do not fit hands the job on to one that they fit."""
    new = site.another_door()
    site.serve(version=1, worker=0)
    site.serve(version=3, door=new)
    for number in range(10):
        site.door.add("report", f"key~{number}")
    wait_until(lambda: all(job.note for job in site.database.jobs().values()))
    site.work(version=4)
    wait_until(lambda: site.database.unfinished() == 0)
    assert {len(runs) for runs in site.effects.by_key().values()} == {1}
    assert {(job.failures, job.deaths) for job in site.database.jobs().values()} == {(0, 0)}
