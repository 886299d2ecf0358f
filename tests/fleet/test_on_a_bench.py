"""Tasks of a fleet in the tests of an application, where there is neither a fleet nor a broker."""

from unittest.mock import ANY

import pytest
from celery import Celery, chain, shared_task
from fastapi import FastAPI
from fastapi.testclient import TestClient

from afterward import Afterward, BackgroundTasks, ConfigurationError, Status, TaskError
from afterward.testing import Bench

fleet = Celery("shop", broker="amqp://never-reached", set_as_current=False)


@fleet.task(name="shop.pack", shared=False)
def pack(parcel: int, wrap: bool = False) -> None:
    raise AssertionError("it is the fleet's to run")


@shared_task(name="bench.send")
def send(parcel: int) -> None:
    raise AssertionError("it is the fleet's to run")


@shared_task(name="bench.send_bound", bind=True)
def send_bound(self: object, parcel: int) -> None:
    raise AssertionError("it is the fleet's to run")


another = Celery("another", broker="amqp://never-reached", set_as_current=False)


@another.task(name="shop.pack", shared=False)
def pack_otherwise(parcel: int) -> None:
    raise AssertionError("it is another fleet's")


app = FastAPI()
tasks = Afterward("sqlite:///never-opened.db", celery=fleet)
tasks.install(app)
elsewhere = tasks.celery_task("shop.weigh")


@app.post("/parcels/{parcel}")
async def accept(parcel: int, background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(pack, parcel, wrap=True)


@app.post("/shared/{parcel}")
def accept_in_thread(parcel: int, background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(send, parcel)
    background_tasks.add_task(send_bound.s(parcel + 1))
    background_tasks.add_task(chain(send.s(parcel + 2), send.si(0)))


@app.post("/others")
async def accept_for_others(background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(pack_otherwise, 1)


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


def test_a_shared_task_is_one_of_the_app_that_was_given() -> None:
    """Whatever app is Celery's current one, which differs from thread to thread."""
    with Bench(tasks) as bench:
        TestClient(app).post("/shared/3").raise_for_status()
        assert [job.task for job in bench.jobs] == [f"celery:bench.{name}" for name in ("send", "send_bound", "send")]
        bench.assert_enqueued(send, 3)
        bench.assert_enqueued(send_bound, 4)
        bench.assert_enqueued(send, 5)


def test_one_of_another_app_is_refused() -> None:
    """Though there is one of the same name in the app that was given."""
    with Bench(tasks), pytest.raises(ConfigurationError, match="of the Celery app 'another'"):
        TestClient(app).post("/others")


def test_what_is_none_is_refused() -> None:
    """An assertion about it would be true, or false, for nothing."""
    with Bench(tasks) as bench, pytest.raises(TaskError, match="not <function accept"):
        bench.assert_not_enqueued(accept)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
