"""Brokers, each test's own part of one, and what publishes to them."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery

from afterward.celery.publisher import Publisher
from afterward.engine.worker import WorkerOptions
from servers.rabbitmq import RabbitMQ
from servers.valkey import Valkey
from tests.support import hosted, their_fleet
from tests.support.celery_workers import Fleet, Place, worker
from tests.support.processes import Process, Starter
from tests.support.their_fleet import Brokerage, Shop
from tests.support.waiting import soon

BROKERS = ["rabbitmq_url", "valkey_url"]


@pytest.fixture(params=BROKERS, ids=["rabbitmq", "redis"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty broker, of each kind."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def celery(broker_url: str) -> Celery:
    """A user's Celery app."""
    return Celery("shop", broker=broker_url, set_as_current=False)


@pytest.fixture
async def publishing() -> AsyncIterator[Callable[[Celery], Publisher]]:
    """Makes publishers, which are stopped in the end."""
    made: list[Publisher] = []

    def publish_by(app: Celery) -> Publisher:
        publisher = Publisher(app, lambda: None)
        made.append(publisher)
        publisher.start()
        return publisher

    yield publish_by
    for publisher in made:
        await publisher.stop()


@pytest.fixture
async def publisher(celery: Celery, publishing: Callable[[Celery], Publisher]) -> Publisher:
    """One that has reached its broker."""
    publisher = publishing(celery)
    await soon(lambda: publisher.is_reachable, "the broker is reached")
    return publisher


@pytest.fixture(scope="session")
def prefork(
    rabbitmq: RabbitMQ, starter: Starter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Place, Process]]:
    """A worker with the prefork pool, on RabbitMQ."""
    folder = tmp_path_factory.mktemp("prefork")
    with rabbitmq.host() as url:
        place = Place(f"sqlite:///{folder}/jobs.db", url)
        with worker(starter, place, "prefork", folder / "log") as process:
            yield place, process


@pytest.fixture(scope="session")
def threads(
    valkey: Valkey, starter: Starter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Place, Process]]:
    """A worker with the threads pool, on Redis."""
    folder = tmp_path_factory.mktemp("threads")
    with valkey.database() as url:
        place = Place(f"sqlite:///{folder}/jobs.db", url)
        with worker(starter, place, "threads", folder / "log") as process:
            yield place, process


@pytest.fixture(params=["prefork", "threads"])
async def fleet(request: pytest.FixtureRequest) -> AsyncIterator[Fleet]:
    """A worker of each pool, each on another broker, which tests share; and what passes jobs on to it."""
    place, process = request.getfixturevalue(request.param)
    tasks = hosted.front(place.store, place.broker)
    async with tasks.running(WorkerOptions()):
        yield Fleet(place, process, tasks)


@pytest.fixture(scope="session")
def theirs_on_rabbitmq(
    rabbitmq: RabbitMQ, valkey: Valkey, starter: Starter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Brokerage]:
    """A fleet of somebody else's, which takes messages from RabbitMQ and keeps results in Redis."""
    output = tmp_path_factory.mktemp("theirs") / "log"
    with rabbitmq.host() as url, valkey.database() as results:
        place = Brokerage(url, results)
        with their_fleet.worker(starter, place, output):
            yield place


@pytest.fixture(scope="session")
def theirs_on_redis(valkey: Valkey, starter: Starter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokerage]:
    """The same with Redis for both."""
    output = tmp_path_factory.mktemp("theirs") / "log"
    with valkey.database() as url, valkey.database() as results:
        place = Brokerage(url, results)
        with their_fleet.worker(starter, place, output):
            yield place


@pytest.fixture(params=["theirs_on_rabbitmq", "theirs_on_redis"], ids=["rabbitmq", "redis"])
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shop]:
    """An application that hands tasks over to such a fleet, which tests share."""
    shop = Shop(tmp_path / "jobs.db", request.getfixturevalue(request.param))
    async with shop.running():
        yield shop
