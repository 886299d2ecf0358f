"""What a Celery fleet finds in its broker."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

from kombu import Connection, Queue

from afterward.celery.messages import Message, start_of
from afterward.stores.handing import Start
from tests.support.proxy import Proxy


class Found(NamedTuple):
    """A message as a worker gets it, without what differs from one sending to the next."""

    headers: dict[str, Any]
    properties: dict[str, Any]
    body: Any

    @property
    def start(self) -> Start:
        """What it says where it begins an attempt of ours."""
        return start_of(self.body[0])


_INCIDENTAL = {"delivery_tag", "reply_to"}


def take(url: str, queue: str = "celery") -> list[Found]:
    """All messages that wait in a queue, in order. They are gone from there."""
    found: list[Found] = []
    with Connection(url, transport_options={"read_timeout": 20}) as connection, connection.channel() as channel:
        while (message := Queue(queue)(channel).get(no_ack=True)) is not None:
            properties = {name: value for name, value in message.properties.items() if name not in _INCIDENTAL}
            properties.pop("application_headers", None)
            headers = {name: value for name, value in message.headers.items() if name not in _INCIDENTAL}
            found.append(Found(headers, properties, message.decode()))
    return found


def count(url: str, queue: str = "celery") -> int:
    """How many messages wait in a queue."""
    with Connection(url, transport_options={"read_timeout": 20}) as connection:
        channel: Any = connection.channel()
        try:
            return int(channel.queue_declare(queue, passive=True).message_count)
        except connection.channel_errors:  # on Redis a queue with nothing in it is not there
            return 0


def declare(url: str, queue: Queue) -> None:
    """Make a queue, as somebody else does."""
    with Connection(url, transport_options={"read_timeout": 20}) as connection, connection.channel() as channel:
        queue(channel).declare()


def delete(url: str, queue: str) -> None:
    """Remove a queue, with all that waits in it."""
    with Connection(url, transport_options={"read_timeout": 20}) as connection, connection.channel() as channel:
        Queue(queue)(channel).delete()


@contextmanager
def proxied(url: str) -> Generator[tuple[Proxy, str]]:
    """A network to a broker, and the broker's URL through there."""
    with Proxy(int(url.rpartition(":")[2].partition("/")[0])) as proxy:
        yield proxy, proxy.url(url)


def message(task_id: str = "one", task: str = "shop.pack", **options: Any) -> Message:
    """A message of a task that is known by its name alone."""
    return Message(task, ("parcel", 3), {"wrap": True}, task_id, options)


def messages(number: int, **options: Any) -> list[Message]:
    """So many of them."""
    return [message(f"id-{one}", **options) for one in range(number)]
