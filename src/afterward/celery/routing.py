"""Where Celery sends a message."""

from __future__ import annotations

from typing import Any

from afterward.celery.messages import Message


def queue_of(app: Any, message: Message) -> str | None:
    """The name of the queue that this message would go to, by the routes of a Celery app; None where it is no queue.

    Raises whatever a router of the user's does.
    """
    task = app.tasks.get(message.task)
    options = {**_said_of(task), **message.options}
    route: dict[str, Any] = app.amqp.router.route(options, message.task, message.args, message.kwargs, task)
    queue = route.get("queue")
    return None if queue is None else str(getattr(queue, "name", queue))


def _said_of(task: Any) -> dict[str, Any]:
    """What is said of a task where it is declared, as far as it routes."""
    said = {name: getattr(task, name, None) for name in ("queue", "exchange", "routing_key")}
    return {name: value for name, value in said.items() if value is not None}
