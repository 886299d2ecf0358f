"""One connection to Celery's broker, for one thread."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

from kombu import exceptions

from afterward.celery.confirms import Confirms
from afterward.celery.messages import Message
from afterward.celery.routing import queue_of
from afterward.celery.sender import Once, Sender

CONNECT_SECONDS = 4.0
"""How long it may take to connect to one host."""

STEP_SECONDS = 4.0
"""How long the broker may take for an answer that is waited for by itself."""

HEARTBEAT_SECONDS = 5.0
"""How often both sides show that they are there, where the protocol has that."""

NOT_IN_TIME = "the broker has not confirmed it in time"

LOST = "the connection to the broker was lost before it was confirmed"

_PUBLISH = (60, 40)
"""The number of the protocol's method basic.publish."""

# Newer versions of the library have the second.
_WRAPPERS = tuple(
    getattr(exceptions, name) for name in ("OperationalError", "BatchPublishError") if hasattr(exceptions, name)
)


class BrokerLost(Exception):
    """The broker cannot be reached, or does not answer: the connection is of no use any more."""


class BrokerRefused(Exception):
    """The broker refuses one of several messages, and does not say which: the connection is of no use any more."""


class Said(NamedTuple):
    """Of each message None, where the broker has confirmed it, else why it has not; and what has broken the link."""

    reasons: list[str | None]
    broken_by: BrokerLost | BrokerRefused | None = None


class Link:
    """Connected, until it is closed, or broken. Raises `BrokerLost` where it cannot be."""

    def __init__(self, app: Any) -> None:
        self._app = app
        seconds: float = app.conf.broker_connection_timeout or CONNECT_SECONDS
        self._connection: Any = app.connection_for_write(
            connect_timeout=min(CONNECT_SECONDS, seconds), heartbeat=HEARTBEAT_SECONDS
        )
        self._is_amqp: bool = self._connection.transport.driver_type == "amqp"
        self.is_blocked = False
        """Does the broker take nothing for now, for want of memory or disk, and has said so?"""
        self._confirms: Confirms | None = None
        self._declaring: Any = None
        try:
            self._open()
        except Exception as error:
            self.drop()
            raise BrokerLost(_text_of(error)) from error

    def _open(self) -> None:
        others = max(0, len(self._connection.alt) - 1)
        self._connection.transport_options = self._transport_options()
        self._connection.ensure_connection(max_retries=others, interval_start=0, interval_step=0, interval_max=0)
        self._raw: Any = self._connection.connection
        self._raw.on_blocked, self._raw.on_unblocked = self._hear_of_block, self._hear_of_end_of_block
        if self._is_amqp:
            self._hear_once_for_many()
        self._channel: Any = self._connection.channel()
        if hasattr(self._channel, "confirm_select"):
            self._confirms = Confirms(self._channel)
        self._sender = Sender(self._channel, self._declaring_channel, self._count)

    def _transport_options(self) -> dict[str, Any]:
        """The user's own, but for what would have this thread wait for ever, or for each message by itself."""
        said: dict[str, Any] = dict(self._connection.transport_options or {})
        if self._is_amqp:
            return {**said, "read_timeout": STEP_SECONDS, "write_timeout": STEP_SECONDS, "confirm_publish": False}
        bounds = {"socket_timeout": STEP_SECONDS, "socket_connect_timeout": CONNECT_SECONDS}
        return {**bounds, **{name: value for name, value in said.items() if value is not None}}

    def _hear_once_for_many(self) -> None:
        """Its library looks for the broker's word of being blocked before each message, which takes as long as sending
        it; here it is looked before those that are sent together. The broker has been told of this ability by now.
        """
        said = self._raw.client_properties
        abilities = {**said.get("capabilities", {}), "connection.blocked": False}
        self._raw.client_properties = {**said, "capabilities": abilities}

    def publish(self, messages: Sequence[Message], deadline: float) -> Said:
        """Send them, and wait for the broker's word once."""
        said = (
            self._publish_answered(messages)
            if self._confirms is None
            else self._publish_confirmed(messages, self._confirms, deadline)
        )
        if any(said.reasons):  # a queue that was declared may be gone: it is declared again the next time
            self._connection.declared_entities.clear()
            self._sender.forget_declared()
        return said

    def _publish_confirmed(self, messages: Sequence[Message], confirms: Confirms, deadline: float) -> Said:
        confirms.begin()
        unsent: dict[int, str] = {}
        broken_by: BrokerLost | BrokerRefused | None = None
        try:
            self._hear()
            self._send(messages, unsent)
            confirms.wait(self._raw, deadline)
        except Exception as error:  # noqa: BLE001 - whatever the connection raises
            broken_by = self._translated(error)
        otherwise = NOT_IN_TIME if broken_by is None else _reason_of(broken_by)
        refused = {**dict.fromkeys(range(len(messages)), otherwise), **dict.fromkeys(confirms.confirmed)}
        reasons = [{**refused, **confirms.refused, **unsent}[number] for number in range(len(messages))]
        if NOT_IN_TIME in reasons and not self.is_blocked:
            broken_by = BrokerLost("it does not confirm what is published")
        return Said(reasons, broken_by)

    def _publish_answered(self, messages: Sequence[Message]) -> Said:
        """By a broker that answers each message, as Redis does; all at once, where that can be."""
        batch = getattr(self._sender, "batch", contextlib.nullcontext)
        unsent: dict[int, str] = {}
        try:
            with batch():
                self._send(messages, unsent)
        except Exception as error:  # noqa: BLE001 - whatever the connection raises
            broken_by = self._translated(error)
            return Said([_reason_of(broken_by)] * len(messages), broken_by)
        return Said([unsent.get(number) for number in range(len(messages))])

    def _send(self, messages: Sequence[Message], unsent: dict[int, str]) -> None:
        """Send them one by one. `unsent`: is told why those cannot be sent that cannot, by their number."""
        for number, message in enumerate(messages):
            if self._confirms is not None:
                self._confirms.expect(number, message.task_id)
            try:
                self._sender.send(self._app, message)
            except Exception as error:  # whatever a router or a serializer raises
                if self._breaks(error):
                    raise
                unsent[number] = _text_of(error)

    def _hear_of_block(self, _: str) -> None:
        self.is_blocked = True

    def _hear_of_end_of_block(self) -> None:
        self.is_blocked = False

    def _count(self, is_expected: bool) -> None:
        if self._confirms is not None:
            self._confirms.count(is_expected=is_expected)

    def lengths(self, messages: Sequence[Message]) -> list[int | None]:
        """How many messages wait in the queue that each would go to; None where that is not known.

        Raises `BrokerLost`.
        """
        found: dict[str, int | None] = {}
        return [self._length_for(message, found) for message in messages]

    def _length_for(self, message: Message, found: dict[str, int | None]) -> int | None:
        try:
            queue = queue_of(self._app, message)
        except Exception:  # noqa: BLE001 - whatever a router of the user's raises: it will again, where it is sent
            return None
        if queue is not None and queue not in found:
            with self._telling_loss():
                found[queue] = self._length(queue)
        return None if queue is None else found[queue]

    def _length(self, queue: str) -> int | None:
        """Of one that is not there: 0, for nothing is."""
        try:
            return int(self._declaring_channel().queue_declare(queue, passive=True).message_count)
        except self._connection.channel_errors as error:
            self._declaring = None
            return 0 if "NOT_FOUND" in str(error) else None

    def revoke(self, task_ids: Sequence[str]) -> None:
        """Have all workers that listen end these tasks, or not begin them. Raises `BrokerLost`."""
        mailbox: Any = self._app.control.mailbox(self._connection)
        with self._telling_loss():
            producer = Once(self._connection.default_channel, auto_declare=False)
            mailbox.producer_pool = SimpleNamespace(acquire=lambda: contextlib.nullcontext(producer))
            mailbox.abcast("revoke", {"task_id": list(task_ids), "terminate": True, "signal": "SIGTERM"})

    def look(self) -> None:
        """Show that this side is there, and see that the other is. Raises `BrokerLost`."""
        with self._telling_loss():
            if self._is_amqp:
                self._hear()
                self._raw.heartbeat_tick(rate=2)
            elif hasattr(self._channel, "conn_or_acquire"):
                with self._channel.conn_or_acquire() as client:
                    client.ping()

    def _hear(self) -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                self._raw.drain_events(timeout=0)

    def close(self) -> None:
        """Leave in good order. Lawful twice."""
        with contextlib.suppress(Exception):
            self._connection.release()

    def drop(self) -> None:
        """Let go of a connection that is of no use any more, without a word to the broker."""
        with contextlib.suppress(Exception):
            self._connection.collect() if self._is_amqp else self._connection.release()

    def abort(self) -> None:
        """Have whatever waits for the broker fail. From another thread."""
        with contextlib.suppress(Exception):
            self._raw.transport.sock.shutdown(socket.SHUT_RDWR)

    def _declaring_channel(self) -> Any:
        if self._declaring is None:
            self._declaring = self._connection.channel()
        return self._declaring

    @contextmanager
    def _telling_loss(self) -> Generator[None]:
        try:
            yield
        except Exception as error:
            raise BrokerLost(_text_of(error)) from error

    def _breaks(self, error: Exception) -> bool:
        """Is it about the connection, or the channel, and not about the message that is sent just now?

        What is said of a declaration is about that message.
        """
        cause = _cause_of(error)
        if isinstance(cause, self._connection.channel_errors):
            return getattr(cause, "method_sig", None) == _PUBLISH
        return isinstance(cause, self._connection.connection_errors)

    def _translated(self, error: Exception) -> BrokerLost | BrokerRefused:
        is_refusal = isinstance(_cause_of(error), self._connection.channel_errors)
        broken_by = (BrokerRefused if is_refusal else BrokerLost)(_text_of(error))
        broken_by.__cause__ = error
        return broken_by


def _reason_of(broken_by: BrokerLost | BrokerRefused) -> str:
    """For whoever looks at the job, who need not know where the broker is."""
    return f"the broker has refused it: {broken_by}" if isinstance(broken_by, BrokerRefused) else LOST


def _cause_of(error: BaseException) -> BaseException:
    return error.__cause__ if isinstance(error, _WRAPPERS) and error.__cause__ is not None else error


def _text_of(error: BaseException) -> str:
    cause = _cause_of(error)
    return f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
