"""Our functions on a real Celery worker: all that a worker does for them, it does there too."""

import os
from typing import Any

import pytest

from afterward import JobCancelled, JobFailed
from afterward.job import EventKind, Ruling
from afterward.task import Task
from tests.support import hosted
from tests.support.celery_workers import Fleet

pytestmark = pytest.mark.anyio

SECONDS = 20.0


@pytest.mark.parametrize("task", [hosted.surroundings, hosted.surroundings_in_thread], ids=["async def", "def"])
async def test_a_function_has_all_around_it_that_it_asks_for(fleet: Fleet, task: Task[[str], Any]) -> None:
    """Its arguments, its dependencies, the lifespan of the app, and the context that travels with the job."""
    token = hosted.language.set("fr")
    try:
        job = await fleet.add(task, "a")
    finally:
        hosted.language.reset(token)
    name, session, begun_in, ran_in, language = await job.result(timeout=SECONDS)
    assert (name, session, language) == ("a", "open", "fr")
    assert begun_in == ran_in != os.getpid()
    assert await fleet.said(job) == ["closed"]


async def test_what_a_function_says_is_heard(fleet: Fleet) -> None:
    job = await fleet.add(hosted.tell_all)
    await job.result(timeout=SECONDS)
    [stream] = await fleet.tasks.store.events([(job.id, 0)], 100)
    assert stream is not None
    assert {event.kind for event in stream.events} == {EventKind.progress, EventKind.log, EventKind.item}
    [line] = [event.data for event in stream.events if event.kind is EventKind.log]
    assert '"logger": "shop", "message": "a line"' in line


async def test_a_failure_is_tried_again(fleet: Fleet) -> None:
    job = await fleet.add(hosted.fail_at_first)
    assert await job.result(timeout=SECONDS) == 2


async def test_the_last_failure_is_for_good(fleet: Fleet) -> None:
    job = await fleet.add(hosted.fail)
    with pytest.raises(JobFailed, match="LookupError: for good"):
        await job.result(timeout=SECONDS)


@pytest.mark.parametrize("task", [hosted.sleep_too_long, hosted.block_too_long], ids=["async def", "def"])
async def test_a_function_that_takes_too_long_has_failed(fleet: Fleet, task: Task[[], Any]) -> None:
    job = await fleet.add(task)
    with pytest.raises(JobFailed, match="longer than its timeout"):
        await job.result(timeout=SECONDS)


@pytest.mark.parametrize("task", [hosted.sleep_on, hosted.block_on], ids=["async def", "def"])
async def test_a_function_that_is_asked_to_end_is_cancelled(fleet: Fleet, task: Task[[], Any]) -> None:
    job = await fleet.add(task)
    await fleet.until_said(job)
    assert await fleet.tasks.cancel(job.id) is Ruling.asked
    with pytest.raises(JobCancelled, match="cancelled while running"):
        await job.result(timeout=SECONDS)
