"""Existing Celery tasks, whose code does not change: stored, published, run by a real worker, and followed."""

import pytest

from afterward.job import Status
from tests.support.their_fleet import Shop

pytestmark = pytest.mark.anyio


async def test_what_an_endpoint_adds_runs_in_the_fleet_and_its_result_is_the_job_s(shop: Shop) -> None:
    job = await shop.add(shop.theirs.add, 2, other=3)
    ended = await shop.ended(job)
    assert (ended.status, ended.result, ended.task, ended.attempt) == (Status.succeeded, "5", "celery:theirs.add", 1)
