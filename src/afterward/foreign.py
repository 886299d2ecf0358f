"""Recognising what is Celery's own, without importing Celery: who does not use it does not pay for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol


class CeleryTaskLike(Protocol):
    """A task of a Celery app, as type checkers know it."""

    name: str

    @property
    def apply_async(self) -> Callable[..., Any]: ...
    @property
    def signature_from_request(self) -> Callable[..., Any]: ...


class SignatureLike(Protocol):
    """A call of such a task that is not made yet, as type checkers know it; or a chain of several."""

    @property
    def apply_async(self) -> Callable[..., Any]: ...
    @property
    def freeze(self) -> Callable[..., Any]: ...
    @property
    def link_error(self) -> Callable[..., Any]: ...


def is_celery_task(thing: Any) -> bool:
    """Is it a task of a Celery app?"""
    return _is(thing, "celery.app.task", "Task")


def is_signature(thing: Any) -> bool:
    """Is it a call of such a task that is not made yet?"""
    return _is(thing, "celery.canvas", "Signature")


def is_of_celery(thing: Any) -> bool:
    """Is it one or the other?"""
    return is_celery_task(thing) or is_signature(thing)


def _is(thing: Any, module: str, name: str) -> bool:
    kind = getattr(sys.modules.get(module), name, None)  # where nobody has imported it, nothing is one
    return kind is not None and isinstance(thing, kind)
