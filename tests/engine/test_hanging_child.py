"""A child process that does not come to run its attempt is not waited for without end."""

from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from afterward import Afterward
from afterward.engine import process
from afterward.engine.pool import Pool
from afterward.engine.worker import WorkerOptions
from afterward.job import Lease, Released
from tests.support.hanging import hang
from tests.support.reports import unheard
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("how", ["it is cancelled", "its worker ends"])
async def test_one_that_has_not_begun_is_given_up_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """There is nothing to be cleaned up: its child is killed."""
    monkeypatch.setenv("HANGS_AT_IMPORT", "1")
    tasks = Afterward(f"sqlite:///{tmp_path}/jobs.db")
    hanging = tasks.task(name=hang.name, executor="process")(hang.function)
    async with tasks.running(None):
        others = {*psutil.Process().children()}
        async with tasks.running(WorkerOptions(children=1, grace=0)):
            handle = await hanging.enqueue()
            [child] = await soon(lambda: {*psutil.Process().children()} - others, seconds=20)
            if how == "it is cancelled":
                await tasks.cancel(handle.id)
                await tasks.ended([handle.id], timeout=10)
        job = await handle.job()
    assert job is not None
    status = "cancelled" if how == "it is cancelled" else "queued"
    assert (job.status, job.attempt, job.failures, job.deaths) == (status, 1, 0, 0)
    assert not child.is_running()


async def no_chunks(_file: str) -> AsyncIterator[bytes]:
    return
    yield


async def test_a_module_that_hangs_as_it_is_imported_costs_the_job_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has not begun: the child is killed, and the job is released with a delay."""
    monkeypatch.setenv("HANGS_AT_IMPORT", "1")
    monkeypatch.setattr(process, "_BEGIN_SECONDS", 1.0)
    outcome = await Pool(no_chunks).run(hang, Lease("job", 3, "process", hang.name, "{}", deaths=2), unheard())
    assert isinstance(outcome, Released)
    assert "had not begun after 1 s" in outcome.note
    assert outcome.delay > 0
