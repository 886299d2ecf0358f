"""Sending messages by Celery's own means, without waiting for anything, and without trying anything twice."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import celery
from kombu import common, messaging

from afterward.celery.messages import Message
from afterward.errors import ConfigurationError

_Producer: Any = messaging.Producer
_common: Any = common

_UNSAID = None if celery.VERSION >= (5, 7) else False
"""What Celery says of the result of a task that is known by its name alone. None leaves it to the worker's own."""


class Once(_Producer):
    """A producer that tries nothing twice, whatever it is told."""

    def publish(self, body: Any, **options: Any) -> Any:
        return _Producer.publish(self, body, **{**options, "retry": False})


class Sender(_Producer):
    """A producer on one channel, to be given to Celery. `declaring`: gives the channel on which queues are declared.

    A declaration that the broker refuses closes its channel, and must not close the one on which others wait for their
    confirmation. `count`: called after each message that went out, with whether it is the one that was to be sent: an
    event that Celery says of it is another.
    """

    def __init__(self, channel: Any, declaring: Callable[[], Any], count: Callable[[bool], None]) -> None:
        _Producer.__init__(self, channel, auto_declare=False)
        self._declaring = declaring
        self._count = count
        self._sending: Message | None = None
        self._ignores_result: bool | None = None
        self._declared: dict[int, Any] = {}

    def forget_declared(self) -> None:
        """What was declared may be there no more."""
        self._declared.clear()

    def send(self, app: Any, message: Message) -> None:
        """Send it as `apply_async` does. Raises whatever that raises."""
        self._sending = message
        try:
            if message.is_ours:
                self._send_ours(app, message)
            else:
                self._apply(app, message)
        finally:
            self._sending = None

    def _send_ours(self, app: Any, message: Message) -> None:
        """Without a task's own way of being sent, in a third of the time."""
        said = dict(message.options)
        time_limit = said.pop("time_limit", None)
        task = app.tasks.get(message.task)
        options = app.amqp.router.route(said, message.task, message.args, message.kwargs, task)
        made = app.amqp.create_task_message(
            message.task_id,
            message.task,
            tuple(message.args),
            dict(message.kwargs),
            reply_to=app.thread_oid,
            time_limit=time_limit,
            argsrepr=repr(tuple(message.args)),  # texts and a number, which Celery shows in the same way
            kwargsrepr=repr(dict(message.kwargs)),
            create_sent_event=app.conf.task_send_sent_event,
            ignore_result=True,
        )
        app.amqp.send_task_message(self, message.task, made, serializer="json", retry=False, **options)

    def _apply(self, app: Any, message: Message) -> None:
        """By the task itself where `app` knows it, which may have ways of its own."""
        task = app.tasks.get(message.task)
        if task is not None and app.conf.task_always_eager:
            raise ConfigurationError("Celery is told to run tasks at once, in place of sending them: task_always_eager")
        send = partial(app.send_task, message.task) if task is None else task.apply_async
        said = _UNSAID if task is None else task.ignore_result
        self._ignores_result = message.options.get("ignore_result", said)
        # Told to ignore the result, it does not subscribe to it: nobody here would ever read it, or unsubscribe.
        options = {**message.options, "ignore_result": True, "retry": False, "add_to_parent": False}
        send(tuple(message.args), dict(message.kwargs), task_id=message.task_id, producer=self, **options)

    def publish(self, body: Any, **options: Any) -> Any:
        message = self._sending
        headers: dict[str, Any] = options.get("headers") or {}
        if message is None or _id_in(headers, body) != message.task_id:
            return self._publish_beside(body, options)
        if "ignore_result" in headers and not message.is_ours:
            headers["ignore_result"] = self._ignores_result
        result = _Producer.publish(self, body, **{**options, "retry": False, "mandatory": True})
        self._sending = None
        self._count(True)
        return result

    def _publish_beside(self, body: Any, options: dict[str, Any]) -> Any:
        result = _Producer.publish(self, body, **{**options, "retry": False})
        self._count(False)
        return result

    def maybe_declare(self, entity: Any, **_: Any) -> Any:
        """As Celery's own; but what was found to be declared is not asked for again, which takes a copy of it."""
        if not entity or id(entity) in self._declared:
            return None
        declared = _common.maybe_declare(entity, self._declaring())
        if entity.can_cache_declaration:
            self._declared[id(entity)] = entity  # kept, so that the number stays its own
        return declared


def _id_in(headers: dict[str, Any], body: Any) -> Any:
    """The id of a task's message, in either protocol; None of another message."""
    return headers.get("id") or (body.get("id") if isinstance(body, dict) else None)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
