"""The Celery app through which jobs are published: the user's own, or one that is made for a broker."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, cast

from afterward.errors import ConfigurationError

if TYPE_CHECKING:
    from celery import Celery  # pyright: ignore[reportMissingTypeStubs]

_NAME = "afterward"

_INSTALL = 'pip install "afterward[celery]"'


def celery_app(given: Celery | str | None) -> Celery:
    """The app that was `given`, or one for the broker of this URL. Raises `ConfigurationError`.

    One that is made here reads and writes JSON alone, and has no result back end: what becomes of a job is in the
    store. It is not Celery's current app, so that it takes nothing from another.
    """
    if importlib.util.find_spec("celery") is None:
        raise ConfigurationError(f"tasks.celery needs Celery, which is not installed: {_INSTALL}")
    if given is None:
        raise ConfigurationError(
            "tasks.celery needs a broker: Afterward(celery=…) with your Celery app or a broker's URL, as in "
            'celery="amqp://user:password@host", or set AFTERWARD_CELERY_URL'
        )
    return _made_for(given) if isinstance(given, str) else _checked(given)


def begins_with_smallest(app: Any) -> bool:
    """Does the broker of this app begin with the messages of the smallest priority? RabbitMQ does with the largest."""
    return bool(app.connection_for_write().transport.driver_type == "redis")


def _made_for(url: str) -> Celery:
    from celery import Celery  # pyright: ignore[reportMissingTypeStubs]

    settings: dict[str, Any] = {
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "broker_connection_retry_on_startup": True,
    }
    app: Any = Celery(_NAME, broker=url, set_as_current=False)
    app.conf.update(settings)
    return cast("Celery", app)


def _checked(app: object) -> Celery:
    from celery import Celery  # pyright: ignore[reportMissingTypeStubs]

    if not isinstance(app, Celery):
        raise ConfigurationError(f"Afterward(celery=…) takes a Celery app, or a broker's URL, not {app!r:.100}")
    return app
