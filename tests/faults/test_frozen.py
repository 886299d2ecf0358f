"""Processes that stand still, and those that only look like it."""

from collections.abc import Callable

import pytest

from tests.faults.patience import wait_until
from tests.support.processes import Process
from tests.support.site import Site

LEASE = 2


def taken_over(site: Site, frozen: Process) -> None:
    """Wait until others run what the frozen process was running."""
    theirs = {run.key for run in site.effects.runs() if run.pid == frozen.pid}
    wait_until(
        lambda: theirs == {run.key for run in site.effects.runs() if run.pid != frozen.pid and run.key in theirs},
        "the jobs of the frozen process run elsewhere",
        seconds=5 * LEASE,
    )


def test_a_frozen_worker_that_wakes_can_neither_finish_nor_fail_nor_keep_its_jobs(site: Site) -> None:
    """Each of its jobs is another's by then. It takes a new identity, and goes on serving."""
    frozen = site.serve(lease=LEASE)
    site.door.add("slow", "key~finishes", seconds=4)
    site.door.add("slow_thread", "key~finishes-thread", seconds=4)
    site.door.add("fails_at_first", "key~fails", seconds=4)
    site.door.add("slow_at_first", "key~goes-on", seconds=60)
    site.door.add("slow_at_first_thread", "key~goes-on-thread", seconds=60)
    wait_until(lambda: site.effects.started() == 5)
    site.freeze_unlocked(frozen)
    identity = {pid: process for process, pid in site.database.processes().items()}

    another = site.serve(door=site.another_door(), lease=LEASE)
    taken_over(site, frozen)
    assert another.events("process.frozen")
    wait_until(lambda: site.database.unfinished() == 0)
    before = site.database.jobs()
    assert {(job.status, job.attempt, job.failures) for job in before.values()} == {("succeeded", 2, 0)}

    frozen.thaw()
    wait_until(lambda: frozen.events("liveness.taken_for_dead"), "it finds out")
    wait_until(lambda: len(frozen.events("job.lost") + frozen.events("job.refused")) == 5, "it lets go of its jobs")
    assert frozen.events("job.finished") == []
    assert site.database.jobs() == before

    another.stop()
    site.door.add("quick", "key~new")
    wait_until(lambda: site.database.job("key~new").status == "succeeded")
    assert [run.pid for run in site.effects.of("key~new")] == [frozen.pid]
    wait_until(lambda: frozen.pid in site.database.processes().values())
    assert identity[frozen.pid] not in site.database.processes()
    wait_until(lambda: site.database.taken() == 0)


def test_a_frozen_server_that_wakes_answers_the_request_that_it_was_storing(site: Site) -> None:
    """Its job was held in the name of a process that is no more: it runs all the same, and once."""
    frozen = site.serve(lease=LEASE, worker=0)
    answer = site.door.begin("POST", "/lingering/quick", key="key~held", linger=2)
    wait_until(lambda: "key~held" in site.database.jobs())
    site.freeze_unlocked(frozen)
    site.serve(door=site.another_door(), lease=LEASE)
    wait_until(lambda: site.database.unfinished() == 0, "the job is run by another", 5 * LEASE)
    frozen.thaw()
    assert answer().status == 202
    wait_until(lambda: frozen.events("liveness.taken_for_dead"))
    assert site.door.add("quick", "key~after").status == 202
    wait_until(lambda: site.database.unfinished() == 0)
    assert [len(site.effects.of(key)) for key in ("key~held", "key~after")] == [1, 1]
    wait_until(lambda: site.database.taken() == 0)


def test_a_frozen_server_that_wakes_does_not_begin_what_another_has_done(site: Site) -> None:
    """Its job was leased to it, and to begin when the request is over: by then it is another's."""
    frozen = site.serve(lease=LEASE, leasing=True)
    answer = site.door.begin("POST", "/lingering/quick", key="key~leased", linger=2)
    wait_until(lambda: "key~leased" in site.database.jobs())
    site.freeze_unlocked(frozen)
    site.serve(door=site.another_door(), lease=LEASE)
    wait_until(lambda: site.database.unfinished() == 0, "the job is run by another", 5 * LEASE)
    done = site.database.job("key~leased")
    frozen.thaw()
    assert answer().status == 202
    wait_until(lambda: frozen.events("liveness.taken_for_dead"))
    assert site.door.add("quick", "key~after").status == 202
    wait_until(lambda: site.database.unfinished() == 0)
    assert site.database.job("key~leased") == done
    assert [run.attempt for run in site.effects.of("key~leased")] == [2]
    wait_until(lambda: site.database.taken() == 0)


def test_a_blocked_loop_keeps_its_lease(site: Site) -> None:
    """The heartbeat has a thread and a loop of its own."""
    blocked = site.serve(lease=1)
    another = site.serve(door=site.another_door(), lease=1)
    site.door.add("blocks_the_loop", "key~blocks", seconds=5)
    wait_until(lambda: site.database.job("key~blocks").status == "succeeded", "it ends", 20)
    [run] = site.effects.of("key~blocks")
    assert (run.pid, run.attempt) == (blocked.pid, 1)
    assert another.events("process.frozen") + another.events("process.died") == []
    assert blocked.events("liveness.taken_for_dead") == []


def test_a_loop_blocked_while_it_waits_for_the_store_keeps_its_lease(site: Site) -> None:
    """Another job of the same request ends just before, so that its outcome is on the way when the loop stops."""
    blocked = site.serve(lease=1)
    another = site.serve(door=site.another_door(), lease=1)
    site.door.add("quick+quick+blocks_the_loop", "key~blocks", seconds=4)
    wait_until(lambda: site.database.unfinished() == 0, "all have ended", 20)
    assert [(run.pid, run.attempt) for run in site.effects.runs()] == [(blocked.pid, 1)] * 3
    assert another.events("process.frozen") == []
    assert blocked.events("liveness.taken_for_dead") == []


def test_a_task_that_holds_the_interpreter_past_the_lease_is_never_done_twice(site: Site) -> None:
    """No thread of its process can beat, so it is taken over. At last it ends in a process whose lease was not lost."""
    site.serve(lease=1)
    site.serve(door=site.another_door(), lease=1)
    site.door.add("holds_the_interpreter", "key~holds", seconds=4)
    wait_until(lambda: site.database.job("key~holds").status == "succeeded", "it is done", 40)
    job = site.database.job("key~holds")
    assert job.deaths <= 2  # none, where it held the file's lock as well, so that nobody could beat
    assert (job.attempt, job.failures) == (job.deaths + 1, 0)
    assert list(job.ended.values()) == ["died"] * job.deaths
    wait_until(lambda: "job.finished" in site.outputs())
    wait_until(lambda: site.database.taken() == 0)
    assert site.outputs().count("job.finished") == 1


@pytest.mark.parametrize("end", [Process.kill, Process.stop])
def test_nothing_is_left_of_a_frozen_process_that_never_wakes(site: Site, end: Callable[[Process], None]) -> None:
    """Neither its row nor the file of its lock."""
    frozen = site.serve(lease=LEASE)
    site.freeze_unlocked(frozen)
    site.serve(door=site.another_door(), lease=LEASE)
    wait_until(lambda: frozen.pid not in site.database.processes().values(), "it is taken for dead", 5 * LEASE)
    if end is Process.stop:
        frozen.thaw()
    end(frozen)
    locks = site.database.path.with_name("jobs.db.processes")
    wait_until(lambda: len(list(locks.iterdir())) == len(site.database.processes()) == 1, "its lock is cleared away")
