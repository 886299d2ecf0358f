"""Tasks of a fleet in the tests of an application, where there is neither a fleet nor a broker."""

from unittest.mock import ANY

import pytest
from celery import Celery
from fastapi import FastAPI
from fastapi.testclient import TestClient

from afterward import Afterward, BackgroundTasks, Status, TaskError
from afterward.testing import Bench

fleet = Celery("shop", broker="amqp://never-reached", set_as_current=False)


@fleet.task(name="shop.pack", shared=False)
def pack(parcel: int, wrap: bool = False) -> None:
    raise AssertionError("it is the fleet's to run")


app = FastAPI()
tasks = Afterward("sqlite:///never-opened.db", celery=fleet)
tasks.install(app)
elsewhere = tasks.celery_task("shop.weigh")


@app.post("/parcels/{parcel}")
async def accept(parcel: int, background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(pack, parcel, wrap=True)


def test_a_celery_task_that_was_added_is_seen_and_not_run() -> None:
    """By its arguments, as for any task."""
    with Bench(tasks) as bench:
        TestClient(app).post("/parcels/3").raise_for_status()
        assert bench.assert_enqueued(pack, 3, wrap=True).status is Status.queued
        bench.assert_enqueued(pack, ANY, ANY)
        bench.assert_not_enqueued(pack, 3)
        with pytest.raises(AssertionError, match="parcel=3, wrap=True"):
            bench.assert_enqueued(pack, 4)


def test_one_that_only_the_fleet_has_is_known_by_its_name() -> None:
    with Bench(tasks) as bench:
        handle = elsewhere.options(delay=60).enqueue_sync(3, unit="kg")
        assert (handle.task, handle.id) == ("celery:shop.weigh", bench.jobs[0].id)
        bench.assert_enqueued(elsewhere, 3, unit="kg")
        bench.assert_not_enqueued(elsewhere, 4, unit="kg")


def test_what_is_none_is_refused() -> None:
    """An assertion about it would be true, or false, for nothing."""
    with Bench(tasks) as bench, pytest.raises(TaskError, match="not <function accept"):
        bench.assert_not_enqueued(accept)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
