"""What is published arrives as Celery itself would have sent it, and nothing else counts as arrived."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery, signals
from kombu import Exchange, Queue

from afterward.celery.messages import Message, arguments_of
from afterward.celery.publisher import Publisher
from afterward.stores.handing import Start
from servers.rabbitmq import RabbitMQ
from tests.support.fleet import count, declare, delete, message, messages, take
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio

ETA = datetime(2100, 1, 1, tzinfo=UTC)


@contextmanager
def told(signal: Any) -> Generator[list[dict[str, Any]]]:
    """What the receivers of one of Celery's signals are told."""
    heard: list[dict[str, Any]] = []

    def hear(sender: Any = None, **said: Any) -> None:
        heard.append({"sender": sender, "headers": dict(said["headers"]), "body": said["body"]})

    signal.connect(hear)
    try:
        yield heard
    finally:
        signal.disconnect(hear)


async def test_a_task_of_the_user_s_arrives_as_apply_async_would_have_sent_it(
    celery: Celery, publisher: Publisher, broker_url: str
) -> None:
    @celery.task(name="shop.pack", shared=False, serializer="json", time_limit=90)
    def pack(parcel: str, number: int, *, wrap: bool) -> None: ...

    celery.conf.task_routes = {"shop.*": {"queue": "packing"}}
    options: dict[str, Any] = {"eta": ETA, "headers": {"trace": "abc"}, "soft_time_limit": 30, "shadow": "packs"}
    pack.apply_async(("parcel", 3), {"wrap": True}, task_id="one", **options)
    assert await publisher.publish([message("one", **options)]) == [None]
    theirs, ours = take(broker_url, "packing")
    assert ours == theirs
    assert (ours.headers["id"], ours.headers["trace"], ours.body[0]) == ("one", "abc", ["parcel", 3])


async def test_one_that_is_known_by_its_name_alone_arrives_as_send_task_would_have_sent_it(
    celery: Celery, publisher: Publisher, broker_url: str
) -> None:
    soon_over = datetime.now(UTC) + timedelta(hours=1)
    options: dict[str, Any] = {"queue": "packing", "priority": 6, "expires": soon_over}
    celery.send_task("shop.pack", ("parcel", 3), {"wrap": True}, task_id="one", **options)
    assert await publisher.publish([message("one", **options)]) == [None]
    theirs, ours = take(broker_url, "packing")
    assert {**ours.properties, "expiration": None} == {**theirs.properties, "expiration": None}
    assert ours._replace(properties={}) == theirs._replace(properties={})


async def test_one_of_our_own_arrives_so_too(celery: Celery, publisher: Publisher, broker_url: str) -> None:
    arguments = arguments_of(Start("0198", 2, "sender"))
    options: dict[str, Any] = {"queue": "packing", "priority": 6, "time_limit": 90}
    celery.send_task("shop:pack", tuple(arguments), task_id="0198-2", ignore_result=True, **options)
    own = Message("shop:pack", arguments, {}, "0198-2", options, is_ours=True)
    assert await publisher.publish([own]) == [None]
    theirs, ours = take(broker_url, "packing")
    assert ours == theirs
    assert ours.start == Start("0198", 2, "sender")


async def test_the_signals_of_publishing_tell_of_it(celery: Celery, publisher: Publisher) -> None:
    own = Message("shop:pack", arguments_of(Start("0198", 1, "sender")), {}, "0198", {}, is_ours=True)
    with told(signals.before_task_publish) as before, told(signals.after_task_publish) as after:
        assert await publisher.publish([message("one"), own]) == [None, None]
    assert [(one["sender"], one["headers"]["id"]) for one in before] == [("shop.pack", "one"), ("shop:pack", "0198")]
    assert [one["headers"]["id"] for one in after] == ["one", "0198"]


async def test_events_of_what_is_sent_are_sent_too(celery: Celery, publisher: Publisher, broker_url: str) -> None:
    """They are no messages that are waited for, though they go out among them."""
    celery.conf.task_send_sent_event = True
    assert await publisher.publish(messages(5)) == [None] * 5
    assert count(broker_url) == 5


async def test_a_result_that_is_kept_is_not_subscribed_to(
    broker_url: str, valkey_url: str, publishing: Callable[[Celery], Publisher]
) -> None:
    """Nobody here would ever read it. The worker is told to keep it all the same."""
    celery = Celery("shop", broker=broker_url, backend="redis://127.0.0.1:1", set_as_current=False)

    @celery.task(name="shop.pack", shared=False)
    def pack(parcel: str, number: int, *, wrap: bool) -> None: ...

    assert pack.name == "shop.pack"
    assert await publishing(celery).publish([message("one"), message("two", task="shop.send")]) == [None, None]
    assert [bool(found.headers["ignore_result"]) for found in take(broker_url)] == [False, False]


async def test_many_are_confirmed_at_once_and_in_order(publisher: Publisher, broker_url: str) -> None:
    assert await publisher.publish(messages(700)) == [None] * 700
    assert [found.headers["id"] for found in take(broker_url)] == [f"id-{number}" for number in range(700)]


async def test_how_many_wait_is_known_for_each_queue(publisher: Publisher) -> None:
    await publisher.publish([*messages(3), *messages(2, queue="packing")])
    assert await publisher.backlog([message(queue="packing"), message(), message(queue="other")]) == [2, 3, 0]


async def test_what_cannot_be_sent_is_refused_alone(publisher: Publisher, broker_url: str) -> None:
    """As what cannot be said in JSON, or what is to be run at once, in place of being sent."""
    odd = message("odd")._replace(args=[object()])
    reasons = await publisher.publish([message("one"), odd, message("two")])
    assert [reason is None for reason in reasons] == [True, False, True]
    assert "not JSON serializable" in str(reasons[1])
    assert [found.headers["id"] for found in take(broker_url)] == ["one", "two"]


async def test_a_task_that_is_to_be_run_at_once_is_not_run_here(celery: Celery, publisher: Publisher) -> None:
    celery.conf.task_always_eager = True
    ran: list[str] = []

    @celery.task(name="shop.pack", shared=False)
    def pack(parcel: str, number: int, *, wrap: bool) -> None:
        ran.append(pack.name)

    [reason] = await publisher.publish([message()])
    assert "task_always_eager" in str(reason)
    assert not ran


class TestRabbitMQ:
    """What only RabbitMQ says of messages."""

    @pytest.fixture
    def broker_url(self, rabbitmq_url: str) -> str:
        return rabbitmq_url

    async def test_one_that_no_queue_takes_is_not_confirmed(self, publisher: Publisher, broker_url: str) -> None:
        nowhere = message("nowhere", exchange=Exchange("amq.direct"), routing_key="nobody")
        reasons = await publisher.publish([message("one"), nowhere, message("two")])
        assert reasons == [None, "the broker has no queue for it: at exchange 'amq.direct', for the key 'nobody'", None]
        assert count(broker_url) == 2

    async def test_a_queue_that_was_deleted_is_declared_again(self, publisher: Publisher, broker_url: str) -> None:
        assert await publisher.publish([message("one")]) == [None]
        delete(broker_url, "celery")
        assert await publisher.publish([message("two")]) == ["the broker has no queue for it: 'celery'"]
        assert await publisher.publish([message("two")]) == [None]

    async def test_one_that_a_full_queue_refuses_is_not_confirmed(self, celery: Celery, publisher: Publisher) -> None:
        full = Queue("full", queue_arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
        celery.conf.task_queues = [full]
        reasons = await publisher.publish(messages(4, queue="full"))
        assert reasons == [None, None, *["the broker has refused it: its queue may be full"] * 2]

    async def test_of_many_of_which_the_broker_refuses_one_all_others_arrive(
        self, publisher: Publisher, broker_url: str
    ) -> None:
        """It closes the channel for it, and does not say which it was."""
        odd = message("odd", exchange=Exchange("missing", no_declare=True), routing_key="nobody")
        reasons = await publisher.publish([*messages(20), odd, *messages(20, queue="packing")])
        assert [number for number, reason in enumerate(reasons) if reason is not None] == [20]
        assert "NOT_FOUND - no exchange 'missing'" in str(reasons[20])
        assert {found.headers["id"] for found in take(broker_url)} == {f"id-{number}" for number in range(20)}
        assert count(broker_url, "packing") >= 20

    async def test_a_queue_that_is_declared_otherwise_is_refused_alone(
        self, publisher: Publisher, broker_url: str
    ) -> None:
        """By the channel on which it is declared: what waits for its confirmation on the other gets it."""
        declare(broker_url, Queue("packing"))
        odd = message("odd", queue=Queue("packing", queue_arguments={"x-max-priority": 9}))
        reasons = await publisher.publish([*messages(3), odd, *messages(3)])
        assert [reason is None for reason in reasons] == [True, True, True, False, True, True, True]
        assert "PRECONDITION_FAILED" in str(reasons[3])
        assert count(broker_url) == 6

    async def test_a_broker_without_memory_is_trouble_until_it_has_some(
        self, publishing: Callable[[Celery], Publisher], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("afterward.celery.publisher.LONGEST_SECONDS", 3.0)
        with RabbitMQ() as broker:
            publisher = publishing(Celery("shop", broker=broker.url(), set_as_current=False))
            assert await publisher.publish([message()]) == [None]
            broker.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.000001)")
            assert await publisher.publish([message()]) == ["the broker has not confirmed it in time"]
            assert publisher.trouble == (
                f"amqp://127.0.0.1:{broker.port}//: the broker takes nothing for now, for want of memory or disk"
            )
            assert await publisher.publish([message()]) == [
                "the broker takes nothing for now, for want of memory or disk"
            ]
            broker.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.6)")
            await soon(lambda: publisher.is_reachable)
            assert await publisher.publish([message()]) == [None]
