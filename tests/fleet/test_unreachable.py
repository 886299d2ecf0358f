"""A broker that cannot be reached: it is noticed, told, and waited for, and nothing is held up by it."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from celery import Celery

from afterward.celery.publisher import Publisher
from servers.rabbitmq import RabbitMQ
from servers.valkey import Valkey
from tests.support.fleet import count, message, messages, proxied
from tests.support.proxy import Proxy
from tests.support.ticking import Ticker
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio

LOST = "the connection to the broker was lost before it was confirmed"
NOT_IN_TIME = "the broker has not confirmed it in time"
UNREACHABLE = "the broker cannot be reached"


@pytest.fixture
def proxy(broker_url: str) -> Iterator[Proxy]:
    """The network between a publisher and its broker."""
    with proxied(broker_url) as (proxy, _):
        yield proxy


@pytest.fixture
def celery(broker_url: str, proxy: Proxy) -> Celery:
    return Celery("shop", broker=proxy.url(broker_url), set_as_current=False)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """All has to happen in less time than it usually may take."""
    monkeypatch.setattr("afterward.celery.publisher.LONGEST_SECONDS", 3.0)
    monkeypatch.setattr("afterward.celery.link.STEP_SECONDS", 1.0)
    monkeypatch.setattr("afterward.celery.link.CONNECT_SECONDS", 1.0)


@asynccontextmanager
async def responsive(seconds: float = 0.5) -> AsyncGenerator[None]:
    """While the block lasts, the event loop is never held up for so long; a call that waits for a broker would hold it
    up for longer, and a machine that has much to do for less.
    """
    ticker = Ticker()
    with ticker.ticking():
        yield
    assert ticker.longest < seconds


async def test_one_that_refuses_connections_is_told_of_and_reached_as_soon_as_it_is_there(
    celery: Celery, publishing: Callable[[Celery], Publisher], proxy: Proxy
) -> None:
    proxy.reset()
    publisher = publishing(celery)
    async with responsive():
        await soon(lambda: publisher.trouble)
        assert await publisher.publish(messages(2)) == [UNREACHABLE] * 2
        assert await publisher.backlog([message()]) == [None]
    assert f"127.0.0.1:{proxy.port}" in str(publisher.trouble)
    proxy.heal()
    await soon(lambda: publisher.is_reachable)
    assert publisher.trouble is None
    assert await publisher.publish([message()]) == [None]


@pytest.mark.usefixtures("hurried")
async def test_nobody_waits_longer_for_one_that_swallows_what_it_is_sent(
    publisher: Publisher, proxy: Proxy, broker_url: str
) -> None:
    assert await publisher.publish([message()]) == [None]
    proxy.blackhole()
    began = time.monotonic()
    async with responsive():
        reasons = await publisher.publish(messages(50))
        assert set(reasons) <= {NOT_IN_TIME, LOST}
        assert time.monotonic() - began < 4
        await soon(lambda: publisher.trouble)
        assert await publisher.publish([message()]) in ([UNREACHABLE], [NOT_IN_TIME])
    proxy.heal()
    await soon(lambda: publisher.is_reachable)
    assert await publisher.publish([message()]) == [None]
    assert count(broker_url) >= 2


@pytest.mark.usefixtures("hurried")
async def test_a_connection_that_leads_nowhere_is_left(publisher: Publisher, proxy: Proxy) -> None:
    """Nobody has told that its other end is gone. What is published then is not confirmed, or by another connection."""
    assert await publisher.publish([message()]) == [None]
    proxy.swallow()
    assert await publisher.publish([message()]) in ([NOT_IN_TIME], [LOST], [None])
    await soon(lambda: publisher.is_reachable)
    assert await publisher.publish([message()]) == [None]


@pytest.mark.usefixtures("hurried")
async def test_one_that_goes_away_while_nothing_is_published_is_noticed(
    monkeypatch: pytest.MonkeyPatch, celery: Celery, publishing: Callable[[Celery], Publisher], proxy: Proxy
) -> None:
    monkeypatch.setattr("afterward.celery.link.HEARTBEAT_SECONDS", 1.0)
    monkeypatch.setattr("afterward.celery.publisher._LOOK_SECONDS", 0.2)
    publisher = publishing(celery)
    await soon(lambda: publisher.is_reachable)
    proxy.blackhole()
    await soon(lambda: publisher.trouble, seconds=10)
    proxy.heal()
    await soon(lambda: publisher.is_reachable)


async def test_what_was_confirmed_before_an_answer_is_lost_counts_as_confirmed(
    publisher: Publisher, proxy: Proxy, broker_url: str
) -> None:
    """All else is not, though it may have arrived."""
    assert await publisher.publish([message()]) == [None]
    proxy.lose_answer()
    assert await publisher.publish([message("two")]) == [LOST]
    await soon(lambda: publisher.is_reachable)
    assert await publisher.publish([message("two")]) == [None]
    assert count(broker_url) == 3


def valkey_that_keeps() -> Valkey:
    """What it has answered outlives it."""
    return Valkey(appendonly=True, appendfsync="always")


@pytest.mark.parametrize("make", [RabbitMQ, valkey_that_keeps], ids=["rabbitmq", "redis"])
async def test_messages_survive_that_a_broker_is_killed_and_started_again(
    make: Callable[[], RabbitMQ | Valkey], publishing: Callable[[Celery], Publisher]
) -> None:
    """Those that were confirmed, as far as the broker keeps them."""
    with make() as broker:
        publisher = publishing(Celery("shop", broker=broker.url(), set_as_current=False))
        assert await publisher.publish(messages(10)) == [None] * 10
        under_way = asyncio.create_task(publisher.publish(messages(400)))
        broker.kill()
        reasons = await under_way
        await soon(lambda: publisher.trouble)
        broker.start()
        await soon(lambda: publisher.is_reachable)
        assert count(broker.url()) >= 10 + reasons.count(None)


async def test_a_password_is_told_to_nobody(publishing: Callable[[Celery], Publisher], rabbitmq: RabbitMQ) -> None:
    url = f"amqp://guest:not-that-one@127.0.0.1:{rabbitmq.port}//"
    publisher = publishing(Celery("shop", broker=url, set_as_current=False))
    await soon(lambda: publisher.trouble)
    assert "not-that-one" not in str(publisher.trouble)
    assert "guest" not in str(publisher.trouble).partition(": ")[0]
    assert "ACCESS_REFUSED" in str(publisher.trouble)


@pytest.mark.usefixtures("hurried")
async def test_it_stops_though_the_broker_does_not_answer(publisher: Publisher, proxy: Proxy) -> None:
    """What it was asked for is answered."""
    proxy.blackhole()
    under_way = asyncio.create_task(publisher.publish([message()]))
    await asyncio.sleep(0)
    await publisher.stop()
    assert await under_way in ([NOT_IN_TIME], [LOST])
    await publisher.stop()
    assert await publisher.publish([message()]) == ["nothing is published here any more"]


async def test_a_process_that_was_forked_has_a_connection_of_its_own(publisher: Publisher, broker_url: str) -> None:
    """As of a server that loads the application before it makes its workers."""
    assert await publisher.publish([message()]) == [None]
    child = os.fork()
    if not child:
        try:
            os._exit(asyncio.run(_publish_anew(publisher)))
        finally:
            os._exit(2)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert await publisher.publish([message()]) == [None]
    assert count(broker_url) == 3


async def _publish_anew(publisher: Publisher) -> int:
    before = await publisher.publish([message()])
    publisher.start()
    after = await publisher.publish([message()])
    await publisher.stop()
    return 0 if (before, after) == (["nothing is published here any more"], [None]) else 1
