"""What can be said of one call of a task, and whether a store could keep it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TypeAlias

from afterward.errors import TaskError
from afterward.job import OnDuplicate
from afterward.text import is_storable

Joinable: TypeAlias = object
"""A session of SQLAlchemy or SQLModel, or a connection of asyncpg or psycopg; with an event loop or without."""


class Unsaid(Enum):
    """What stands where nothing was said, and None says something."""

    unsaid = "unsaid"

    def __repr__(self) -> str:
        return "…"


UNSAID = Unsaid.unsaid

Seconds = float | timedelta
"""A span of time: a `timedelta`, or a number of seconds."""


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What can be said of one call; the rest is said of the task."""

    queue: str = "default"
    priority: int = 0
    delay: float | None = None
    run_at: datetime | None = None
    unique: str | None = None
    on_duplicate: OnDuplicate = OnDuplicate.keep
    expires: float | datetime | None = None
    max_attempts: int | None = None
    timeout: float | None = None
    run_on_error: bool = False
    transaction: Joinable | Unsaid | None = UNSAID
    owner: str | None = None


def seconds(span: Seconds) -> float:
    """A span of time in seconds. Raises `TaskError` for a negative one, or one that is no number."""
    try:
        value = span.total_seconds() if isinstance(span, timedelta) else float(span)
    except (TypeError, ValueError, OverflowError):
        value = -1.0
    if isinstance(span, str) or not 0 <= value < 1e10:
        raise TaskError(f"a span of {span!r:.100} makes no sense here; give a timedelta, or seconds, of 0 or more")
    return value


def timeout_of(span: Seconds | None, name: str) -> float | None:
    """The time limit of an attempt, in seconds. Raises `TaskError` for one that no attempt could keep."""
    timeout = None if span is None else seconds(span)
    if timeout == 0:
        raise TaskError(f"task {name}: timeout=0 would end every attempt as it begins; give more, or None for no limit")
    return timeout


def checked(options: CallOptions, name: str) -> CallOptions:
    """The same options. Raises `TaskError` for those that a store could not keep."""
    if not options.queue or len(options.queue) > 100:
        raise TaskError(f"task {name}: queue={options.queue!r} must have 1 to 100 characters")
    if type(options.priority) is not int or not -(2**31) <= options.priority < 2**31:
        raise TaskError(f"task {name}: priority={options.priority!r} must be an int from -2**31 to 2**31 - 1")
    if options.run_at is not None and options.run_at.tzinfo is None:
        raise TaskError(f"task {name}: run_at={options.run_at!r} has no time zone; use datetime.now(UTC), for one")
    if options.max_attempts is not None and options.max_attempts < 1:
        raise TaskError(f"task {name}: max_attempts={options.max_attempts} must be 1 or more")
    if options.on_duplicate is not OnDuplicate.keep and options.unique is None:
        raise TaskError(f"task {name}: on_duplicate={options.on_duplicate.value!r} needs a unique= key to go by")
    _check_expiry(options, name)
    if options.run_on_error and options.transaction not in (UNSAID, None):
        raise TaskError(
            f"task {name}: run_on_error= keeps a task of a request that fails, and transaction= would roll it back; "
            f"leave one of them out"
        )
    if options.unique is not None and not 0 < len(options.unique) <= 500:
        raise TaskError(f"task {name}: unique={options.unique!r} must have 1 to 500 characters")
    for text in (name, options.queue, options.unique or ""):
        if not is_storable(text):
            raise TaskError(f"task {name!r}: {text!r} holds characters that cannot be stored")
    return options


def checked_owner(owner: str) -> str:
    """The same owner. Raises `TaskError` for one that a store could not keep, or that says nothing."""
    if not isinstance(owner, str) or not 0 < len(owner) <= 500 or not is_storable(owner):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TaskError(f"an owner is a text of 1 to 500 characters that can be stored, not {owner!r:.100}")
    return owner


def _check_expiry(options: CallOptions, name: str) -> None:
    expires = options.expires
    if isinstance(expires, datetime):
        if expires.tzinfo is None:
            raise TaskError(f"task {name}: expires={expires!r} has no time zone; use datetime.now(UTC), for one")
        begins = options.run_at
    else:
        begins = options.delay
    if expires is not None and (expires == 0 or (begins is not None and expires <= begins)):  # type: ignore[operator]
        raise TaskError(f"task {name}: it would expire before it is due; expires= must be later than delay= or run_at=")


def on_duplicate_of(word: str, name: str) -> OnDuplicate:
    try:
        return OnDuplicate(word)
    except ValueError:
        raise TaskError(f"task {name}: on_duplicate={word!r} must be 'keep', 'replace' or 'refuse'") from None
