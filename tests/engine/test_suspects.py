"""Many suspects at once, as after a row of crashes: nobody else waits for them."""

from pathlib import Path

import pytest

from afterward import Afterward
from afterward.engine import suspects
from afterward.engine.worker import WorkerOptions
from afterward.job import Process, Status
from afterward.liveness import SUSPECT_AFTER
from afterward.stores.base import Wanted
from tests.support import resting

pytestmark = pytest.mark.anyio

MANY = 12


@pytest.mark.parametrize("most", [4, 100])
async def test_jobs_that_run_apart_take_no_slot_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """More of them than there are slots. Those that are too many even so are given back, at no cost."""
    monkeypatch.setattr(suspects, "MOST_SUSPECTS", most)
    tasks = Afterward(f"sqlite:///{tmp_path}/jobs.db")
    suspect = tasks.task(name=resting.rest.name)(resting.rest.function)

    @tasks.task
    def innocent(number: int) -> int:
        return number

    async with tasks.running(None):
        handles = await tasks.enqueue_many([suspect.prepare() for _ in range(MANY)])
        for death in range(SUSPECT_AFTER):
            await tasks.store.join(Process(f"dies-{death}", 1, "example"))
            claimed = await tasks.store.claim(f"dies-{death}", [Wanted({suspect.name}, MANY)], f"token-{death}")
            assert len(claimed.leases) == MANY
            await tasks.store.reap([(f"dies-{death}", None)], SUSPECT_AFTER, 0.0)
        async with tasks.running(WorkerOptions(threads=2, grace=0)):
            others = await tasks.enqueue_many([innocent.prepare(number) for number in range(10)])
            assert await tasks.results(others, timeout=20) == list(range(10))
        found = [await one.job() for one in handles]
    assert len([job for job in found if job and "waits for a process of its own" in str(job.attempts)]) == MANY - min(
        most, MANY
    )
    assert {(job.status, job.failures, job.deaths) for job in found if job} == {(Status.queued, 0, SUSPECT_AFTER)}
