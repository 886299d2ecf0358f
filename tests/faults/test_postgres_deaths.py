"""Who has died, or stands still, where the store is a PostgreSQL server and nothing proves a death."""

import statistics
import time

import pytest

from tests.faults.patience import wait_until
from tests.support.served_site import ServedSite

TAKEN_OVER_SECONDS = 3
LEASE = 2


@pytest.mark.timeout(120)
def test_the_jobs_of_a_killed_worker_run_elsewhere_within_three_seconds(served: ServedSite) -> None:
    """With the default lease of ten seconds: its lock is gone, and its counter stands still."""
    served.serve(worker=0)
    workers = [served.work(), served.work()]
    taken: list[float] = []
    for number in range(4):
        wait_until(
            lambda workers=workers: {worker.pid for worker in workers} <= set(served.tables.processes().values())
        )
        keys = [f"key~{number}-{of}" for of in range(8)]
        for key in keys:
            served.door.add("slow_at_first", key, seconds=60)
        wait_until(lambda keys=keys: all(served.effects.of(key) for key in keys))
        victim, workers = workers[0], [*workers[1:], served.work()]
        theirs = [run.key for run in served.effects.runs() if run.pid == victim.pid and run.ended is None]
        killed = victim.kill().after
        wait_until(lambda theirs=theirs: all(len(served.effects.of(key)) == 2 for key in theirs), "they run elsewhere")
        taken += [served.effects.of(key)[1].started - killed for key in theirs]
        wait_until(lambda theirs=theirs: _have_succeeded(served, theirs), "that is stored, before the next is killed")
    print(f"{len(taken)} jobs, taken over after {statistics.median(taken):.2f} s, at most {max(taken):.2f} s")
    assert taken
    assert max(taken) < TAKEN_OVER_SECONDS
    taken_over = [job for job in served.tables.jobs().values() if len(served.effects.of(job.key)) == 2]
    assert len(taken_over) == len(taken)
    assert [job.ended for job in taken_over] == [{1: "died"}] * len(taken)


def _have_succeeded(served: ServedSite, keys: list[str]) -> bool:
    jobs = served.tables.jobs()
    return all(jobs[key].status == "succeeded" for key in keys)


def test_a_worker_that_stood_still_past_its_lease_can_neither_finish_nor_fail_nor_keep_its_jobs(
    served: ServedSite,
) -> None:
    """Its sessions are still there, and its lock with them. It takes a new identity, and goes on serving."""
    frozen = served.serve(lease=LEASE)
    served.door.add("slow", "key~finishes", seconds=4)
    served.door.add("slow_thread", "key~finishes-thread", seconds=4)
    served.door.add("fails_at_first", "key~fails", seconds=4)
    served.door.add("slow_at_first", "key~goes-on", seconds=60)
    served.door.add("slow_at_first_thread", "key~goes-on-thread", seconds=60)
    wait_until(lambda: served.effects.started() == 5)
    frozen.freeze()
    stopped = time.monotonic()
    identity = {pid: process for process, pid in served.tables.processes().items()}[frozen.pid]
    another = served.serve(door=served.another_door(), lease=LEASE)
    wait_until(lambda: served.tables.unfinished() == 0, "others have done its jobs", 20)
    print(f"done elsewhere after {time.monotonic() - stopped:.1f} s")
    assert another.events("process.frozen")
    before = served.tables.jobs()
    assert {(job.status, job.attempt, job.failures) for job in before.values()} == {("succeeded", 2, 0)}

    frozen.thaw()
    wait_until(lambda: frozen.events("liveness.taken_for_dead"), "it finds out")
    wait_until(lambda: len(frozen.events("job.lost") + frozen.events("job.refused")) == 5, "it lets go of its jobs")
    assert frozen.events("job.finished") == []
    assert served.tables.jobs() == before
    another.stop()
    served.door.add("quick", "key~new")
    wait_until(lambda: served.tables.job("key~new").status == "succeeded")
    assert [run.pid for run in served.effects.of("key~new")] == [frozen.pid]
    assert identity not in served.tables.processes()
    wait_until(lambda: served.tables.taken() == 0)


def test_a_blocked_loop_keeps_its_lease(served: ServedSite) -> None:
    """The heartbeat has a thread, a loop and a connection of its own."""
    blocked = served.serve(lease=1)
    another = served.serve(door=served.another_door(), lease=1)
    served.door.add("blocks_the_loop", "key~blocks", seconds=4)
    wait_until(lambda: served.tables.job("key~blocks").status == "succeeded", "it ends", 20)
    [run] = served.effects.of("key~blocks")
    assert (run.pid, run.attempt) == (blocked.pid, 1)
    assert another.events("process.frozen") + another.events("process.died") == []
    assert blocked.events("liveness.taken_for_dead") == []
