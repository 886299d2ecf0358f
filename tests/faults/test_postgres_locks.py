"""Transactions of others that keep a job's row locked: nobody else is held up."""

import time
from contextlib import ExitStack

import psycopg

from tests.faults.patience import wait_until
from tests.support.served_site import ServedSite

LOCKED_SECONDS = 4
NOT_HELD_UP_SECONDS = 3


def test_a_row_that_another_transaction_keeps_locked_holds_up_nobody_but_its_own_job(served: ServedSite) -> None:
    """The one job ends while it is locked, in one batch with others; and one that waits is locked as well."""
    served.serve(worker=0, log="WARNING")
    worker = served.work(threads=4)
    together = [f"key~{number}" for number in range(6)]
    served.door.add("+".join(["slow"] * 6), "key~locked", seconds=2)
    served.door.add("quick", "key~later", delay=2)
    wait_until(lambda: len(served.effects.runs()) >= 6)
    with psycopg.connect(served.url) as other, ExitStack() as ending:
        ending.callback(other.rollback)
        other.execute(
            "SELECT 1 FROM afterward.jobs WHERE arguments LIKE '%locked-3%' OR arguments LIKE '%later%' FOR UPDATE"
        )
        locked = time.monotonic()
        slowest = 0.0
        while time.monotonic() - locked < LOCKED_SECONDS:
            key = f"key~while-{time.monotonic()}"
            began = time.monotonic()
            assert served.door.add("quick", key).status == 202
            wait_until(lambda key=key: served.tables.job(key).status == "succeeded", "it is done", LOCKED_SECONDS)
            slowest = max(slowest, time.monotonic() - began)
            together.append(key)
        jobs = served.tables.jobs()
        assert {key for key, job in jobs.items() if job.status != "succeeded"} == {"key~locked-3", "key~later"}
        assert [run.ended is not None for run in served.effects.of("key~locked-3")] == [True], "it waits to be written"
        assert worker.events("worker.store_unavailable") == []
    print(f"{len(together)} jobs were done meanwhile, the slowest in {slowest:.3f} s")
    assert slowest < NOT_HELD_UP_SECONDS
    wait_until(lambda: served.tables.unfinished() == 0, "when it is let go, the rest ends", 6)
    assert {len(runs) for runs in served.effects.by_key().values()} == {1}
