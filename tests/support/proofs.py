"""What the proofs on the pages of the documentation need."""

import asyncio

from afterward import Afterward, Job, JobHandle, Status
from tests.support.waiting import wait_until

_ENDED = {Status.succeeded, Status.failed, Status.cancelled}


def job_of(tasks: Afterward, job: str | JobHandle) -> Job:
    """A job as the store holds it now."""
    found = asyncio.run(tasks.get(job if isinstance(job, str) else job.id))
    assert found is not None, f"job {job} is unknown"
    return found


def ended(tasks: Afterward, job: str | JobHandle) -> Job:
    """A job that some worker is running: how it has ended."""
    wait_until(lambda: job_of(tasks, job).status in _ENDED, "the job has ended", seconds=20)
    return job_of(tasks, job)
