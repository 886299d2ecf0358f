"""Tasks that kill, block or hang what runs them harm nobody but themselves, and not for ever."""

import os
from contextlib import suppress

import pytest

from tests.faults.app_under_test import EXCEPTIONS
from tests.faults.patience import wait_until
from tests.support.site import Site


@pytest.mark.parametrize("poison", ["exits", "segfaults", "kills_itself"])
def test_a_task_that_kills_its_process_is_set_aside_after_three_deaths(site: Site, poison: str) -> None:
    """Twice it takes a server with it; the third time it is alone, in a child process. Its neighbours all succeed."""
    neighbours = {"key~loop": "slow", "key~thread": "slow_thread"}
    server = site.serve()
    for key, task in neighbours.items():
        site.door.add(task, key, seconds=0.5)
    wait_until(lambda: site.effects.started() == len(neighbours))
    site.door.add(poison, "key~poison", seconds=0.1)
    server.wait()
    site.serve(ready=False).wait()
    server = site.serve()
    wait_until(lambda: site.database.unfinished() == 0, seconds=30)

    job = site.database.job("key~poison")
    assert (job.status, job.attempt, job.failures, job.deaths) == ("failed", 3, 0, 3)
    assert job.ended == {1: "died", 2: "died", 3: "died"}
    assert job.failure
    assert "died" in job.failure
    assert "WorkerDied" in job.failure
    *_, third = site.effects.of("key~poison")
    assert [run.ended for run in site.effects.of("key~poison")] == [None] * 3
    assert third.pid != server.pid
    assert third.parent == server.pid

    for key in neighbours:
        neighbour = site.database.job(key)
        assert (neighbour.status, neighbour.failures) == ("succeeded", 0)
        assert neighbour.deaths <= 2
    site.door.add("quick", "key~after")
    wait_until(lambda: site.database.job("key~after").status == "succeeded")
    assert server.is_alive()


def test_many_suspects_neither_swamp_the_machine_nor_hold_up_the_queue(site: Site) -> None:
    """A worker killed twice makes suspects of all that it ran. They take turns, and the innocent do not wait."""
    suspects = [f"key~{number}" for number in range(40)]
    server = site.serve(worker=0, log="WARNING")
    for key in suspects:
        site.door.add("slow", key, seconds=60)
    for starts in (1, 2):
        worker = site.work(log="WARNING", concurrency=50)
        wait_until(lambda starts=starts: len(site.effects.runs()) == starts * len(suspects))
        worker.kill()
    wait_until(lambda: {job.deaths for job in site.database.jobs().values()} == {2})

    worker = site.work(log="WARNING", concurrency=50)
    wait_until(worker.children, "the first suspect runs")
    answered = site.door.add("quick", "key~innocent")
    most = 0

    def innocent_has_run() -> bool:
        nonlocal most
        most = max(most, len(worker.children()))
        return bool(site.effects.of("key~innocent"))

    wait_until(innocent_has_run, "the innocent job runs", 5)
    assert answered.status == 202
    assert server.is_alive()
    assert most <= 2 * (os.cpu_count() or 1) + 4


def test_the_timeout_of_a_suspect_is_for_its_function_and_not_for_the_start_of_its_process(site: Site) -> None:
    """A child process takes longer to start than this task may run."""
    site.serve(ready=False)
    with suppress(ConnectionError):
        site.door.add("exits_twice", "key~1")
    wait_until(lambda: not site.processes[-1].is_alive())
    site.serve(ready=False).wait()
    site.serve()
    wait_until(lambda: site.database.unfinished() == 0)
    job = site.database.job("key~1")
    assert (job.status, job.attempt, job.failures, job.deaths) == ("succeeded", 3, 0, 2)


def test_a_task_that_never_ends_is_ended_by_its_timeout(site: Site) -> None:
    server = site.serve()
    site.door.add("never_ends", "key~1")
    wait_until(lambda: site.database.job("key~1").status == "failed")
    job = site.database.job("key~1")
    assert (job.attempt, job.failures, job.deaths, job.ended) == (2, 2, 0, {1: "retry", 2: "failed"})
    assert job.failure
    assert "AttemptTimedOut" in job.failure
    assert server.is_alive()


def test_a_thread_that_ends_too_late_keeps_its_slot_and_is_not_heard(site: Site) -> None:
    """A thread cannot be stopped. Its job is failed in time; the next takes its slot only when it is free."""
    site.serve(threads=1)
    site.door.add("ends_late", "key~late", seconds=2)
    wait_until(lambda: site.database.job("key~late").status == "failed")
    site.door.add("quick_thread", "key~next")
    wait_until(lambda: site.database.job("key~next").status == "succeeded")
    [late], [next_] = site.effects.of("key~late"), site.effects.of("key~next")
    assert late.ended
    assert next_.started > late.ended
    job = site.database.job("key~late")
    assert (job.status, job.attempt, job.result) == ("failed", 1, None)


def test_a_task_that_does_not_hear_its_cancellation_is_failed_in_time_and_is_not_heard(site: Site) -> None:
    server = site.serve(lease=1)
    site.door.add("hears_nothing", "key~deaf", seconds=2.5)
    wait_until(lambda: site.database.job("key~deaf").status == "failed", seconds=2)
    wait_until(lambda: site.effects.of("key~deaf")[0].ended is not None)
    job = site.database.job("key~deaf")
    assert (job.status, job.attempt, job.failures, job.result) == ("failed", 1, 1, None)
    assert server.is_alive()


@pytest.mark.parametrize("task", ["raises", "raises_thread", "raises_timed", "raises_thread_timed"])
def test_no_exception_ends_a_worker(site: Site, task: str) -> None:
    """`SystemExit`, `KeyboardInterrupt` and their like are failures of the task alone."""
    server = site.serve()
    site.door.add("slow", "key~neighbour", seconds=0.5)
    for kind in EXCEPTIONS:
        site.door.add(task, f"key~{kind}", kind=kind)
    wait_until(lambda: site.database.unfinished() == 0)
    jobs = site.database.jobs()
    assert jobs.pop("key~neighbour").status == "succeeded"
    for kind in EXCEPTIONS:
        job = jobs.pop(f"key~{kind}")
        assert (job.status, job.deaths) == ("failed", 0), kind
        assert job.failure
        assert kind in job.failure or kind == "StopIteration"
        assert len(site.effects.of(job.key)) == job.attempt == job.failures
    site.door.add("quick_thread", "key~after")
    site.door.add("quick", "key~after-too")
    wait_until(lambda: site.database.unfinished() == 0)
    assert server.is_alive()


def test_what_a_task_that_was_left_behind_raises_ends_no_worker(site: Site) -> None:
    server = site.serve()
    site.door.add("exits_too_late", "key~late", seconds=1)
    wait_until(lambda: site.database.job("key~late").status == "failed")
    wait_until(lambda: site.effects.of("key~late")[0].ended is not None)
    site.door.add("quick", "key~after")
    wait_until(lambda: site.database.job("key~after").status == "succeeded")
    assert server.is_alive()


def test_a_result_that_cannot_be_stored_fails_the_job_at_once(site: Site) -> None:
    """It ran to its end: doing it again would not help."""
    server = site.serve()
    site.door.add("returns_what_cannot_be_stored", "key~1")
    wait_until(lambda: site.database.job("key~1").status == "failed")
    job = site.database.job("key~1")
    assert (job.attempt, job.failures, len(site.effects.of("key~1"))) == (1, 1, 1)
    assert job.failure
    assert "cannot be stored" in job.failure
    assert server.is_alive()
