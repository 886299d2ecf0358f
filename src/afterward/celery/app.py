"""The Celery app through which jobs are published: the user's own, or one that is made for a broker."""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING, Any, cast

from afterward.errors import ConfigurationError

if TYPE_CHECKING:
    from celery import Celery

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
    """Does the broker of this app begin with the messages of the smallest priority? RabbitMQ does with the largest.

    Raises `ConfigurationError` where what speaks to such a broker is not installed.
    """
    try:
        return bool(app.connection_for_write().transport.driver_type == "redis")
    except ImportError as error:
        raise ConfigurationError(
            f"the broker of the Celery app {app.main!r} needs a package that is not there ({error}); for Redis: "
            'pip install "celery[redis]"'
        ) from error


def place_of(app: Any) -> str:
    """Where the broker of this app is, without its account."""
    try:
        return re.sub(r"//[^/@]*@", "//", str(app.connection_for_write().as_uri()))
    except Exception:  # noqa: BLE001 - whatever is wrong with the settings of the app
        return "the broker"


def without_password(app: Any, text: str) -> str:
    """The text, without the password by which this app is let in by its broker."""
    try:
        password = app.connection_for_write().password
    except Exception:  # noqa: BLE001 - as above
        return text
    return text.replace(password, "**") if isinstance(password, str) and password else text


def _made_for(url: str) -> Celery:
    from celery import Celery

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
    from celery import Celery

    if not isinstance(app, Celery):
        raise ConfigurationError(f"Afterward(celery=…) takes a Celery app, or a broker's URL, not {app!r:.100}")
    return cast("Celery", app)
