"""Hosts whose clocks are an hour apart: what counts is the server's."""

import time

import pytest

from tests.faults.patience import wait_until
from tests.support.served_site import ServedSite

HOUR = 3600


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_delays_and_expiries_are_the_servers_whatever_the_clocks_of_processes_say(
    served: ServedSite, ahead: int
) -> None:
    served.serve(worker=0, clock=ahead)
    assert served.door.add("quick", "key~expired", expires=0.2).status == 202
    assert served.door.add("quick", "key~expiring", expires=600).status == 202
    wait_until(lambda: served.tables.query("SELECT 1 FROM afterward.jobs WHERE to_timestamp(expires_at) < now()"))
    served.work(clock=-ahead)
    wait_until(lambda: served.tables.job("key~expired").status == "cancelled")
    wait_until(lambda: served.tables.job("key~expiring").status == "succeeded")

    began = time.monotonic()
    assert served.door.add("quick", "key~later", delay=1).status == 202
    stored = time.monotonic()
    assert served.door.add("quick", "key~much-later", delay=600).status == 202
    wait_until(lambda: served.tables.job("key~later").status == "succeeded")
    [run] = served.effects.of("key~later")
    print(f"run {run.started - stored:.3f} s after it was stored")
    assert run.started - began >= 1
    assert run.started - stored < 4
    assert served.tables.job("key~much-later").status == "queued"
    assert "process.died" not in served.outputs()
    assert "process.frozen" not in served.outputs()


def test_jobs_are_claimed_in_the_order_in_which_they_were_stored_whatever_the_clocks_of_those_who_stored_them_say(
    served: ServedSite,
) -> None:
    doors = [served.door, served.another_door(), served.another_door()]
    for door, ahead in zip(doors, (HOUR, -HOUR, 0), strict=True):
        served.serve(door=door, worker=0, clock=ahead)
    keys = [f"key~{number}" for number in range(12)]
    for number, key in enumerate(keys):
        assert doors[number % 3].add("quick", key).status == 202
    wait_until(lambda: served.tables.taken() == 0)
    served.work(concurrency=1, clock=HOUR)
    wait_until(lambda: served.tables.unfinished() == 0)
    assert [run.key for run in served.effects.runs()] == keys
    rows = served.tables.query("SELECT id, created_at FROM afterward.finished ORDER BY created_at")
    assert all(abs(created_at - time.time()) < 60 for _, created_at in rows), "times are the server's"
    ids = [id_ for id_, _ in rows]
    assert ids != sorted(ids), "their ids alone are by the clocks of those who stored them"


def test_a_process_whose_clock_is_set_forward_buries_nobody(served: ServedSite) -> None:
    """Life is told by counters; and what is kept for a time is kept by the server's."""
    server = served.serve(lease=1)
    served.door.add("quick", "key~done")
    wait_until(lambda: served.tables.unfinished() == 0)
    served.door.add("slow", "key~running", seconds=3)
    wait_until(lambda: served.effects.of("key~running"))
    late = served.work(lease=1, clock=48 * HOUR)
    wait_until(lambda: late.pid in served.tables.processes().values())
    wait_until(lambda: served.tables.job("key~running").status == "succeeded")
    assert [run.pid for run in served.effects.of("key~running")] == [server.pid]
    assert late.events("process.frozen") + late.events("process.died") == []
    assert served.tables.jobs().keys() == {"key~done", "key~running"}, "nothing is pruned before its time"
