"""Brokers, each test's own part of one, and what publishes to them."""

from collections.abc import AsyncIterator, Callable

import pytest
from celery import Celery

from afterward.celery.publisher import Publisher
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
