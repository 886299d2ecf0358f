"""An attempt that a worker is given while it runs it: its store has lost the claim by which it began."""

import anyio
import psycopg
import pytest

from afterward import Afterward, current_job, lookout
from afterward.engine.worker import WorkerOptions
from afterward.job import Status

_LOSE_CLAIMS = "UPDATE afterward.jobs SET status = 'queued', process = NULL, token = NULL, attempt = 0"


@pytest.mark.anyio
async def test_it_goes_on_and_is_counted_once_and_leaves_its_slot(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a failover to a standby that did not get the claim."""
    monkeypatch.setattr(lookout, "LONGEST_BEAT_SECONDS", 60.0)  # no heartbeat finds out before
    tasks = Afterward(postgres_url, lease=300)
    may_end = anyio.Event()
    started: list[int] = []

    @tasks.task(name="waits")
    async def waits() -> None:
        started.append(current_job().attempt)
        await may_end.wait()

    @tasks.task(name="calls")
    async def calls(sender: str) -> str:
        return sender

    async with tasks.running(WorkerOptions(concurrency=2)):
        with anyio.fail_after(10):
            waiting = await waits.enqueue()
            while not started:  # noqa: ASYNC110 - a job tells of it
                await anyio.sleep(0.01)
            with psycopg.connect(postgres_url) as other:
                other.execute(_LOSE_CLAIMS)
            await (await calls.enqueue("first")).result()
            await (await calls.enqueue("second")).result()
            may_end.set()
            await waiting.result()
            await (await calls.enqueue("third")).result()
        job = await tasks.get(waiting.id)
    assert started == [1]
    assert job is not None
    assert (job.status, job.attempt) == (Status.succeeded, 1)
