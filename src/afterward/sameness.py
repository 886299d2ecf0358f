"""Is what came back from the store what was given? And if not, where does it differ?

Stricter than `==`, which calls a subclass equal that lost its own fields, and a tuple with names equal to one without;
and milder where `==` cannot be trusted: two datetimes of the hour in which the clocks are set are never equal across
zones (PEP 495), though they name the same moment.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, time
from typing import Any, cast

from pydantic import BaseModel

_PLAIN = frozenset((str, int, bool, float, bytes, type(None)))
_NUMBERS = frozenset((int, bool, float))


def difference(given: Any, again: Any) -> tuple[str, str] | None:
    """The first place where `again` is not what was given, and how it differs; None when they are the same."""
    kind, other = given.__class__, again.__class__
    if kind in _PLAIN:
        same = given == again and (kind is other or (kind in _NUMBERS and other in _NUMBERS))
        return None if same else _changed(given, again)
    if kind is not other:
        return _changed(given, again)
    if kind is datetime or kind is time:
        return None if _is_same_time(given, again) else _changed(given, again)
    if kind in {dict, list, tuple} or issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind):
        found = _difference_inside(given, again)
        if found is not None:
            return found
        return None if kind in {dict, list, tuple} or bool(given == again) else _changed(given, again)
    return None if bool(given == again) else _changed(given, again)


def _difference_inside(given: Any, again: Any) -> tuple[str, str] | None:
    is_dict = given.__class__ is dict
    # Most are arguments: those are compared without the words for places that nobody asks for.
    by_name = is_dict and {*map(type, given), *map(type, again)} <= {str}
    ours, theirs = (given, again) if by_name else (dict(parts(given)), dict(parts(again)))
    if len(ours) != len(theirs) or (is_dict and len(given) != len(again)):
        return _changed(given, again)
    for place, part in ours.items():
        if place not in theirs:
            return _changed(given, again)
        found = difference(part, theirs[place])
        if found is not None:
            return (f"[{place!r}]" if by_name else place) + found[0], found[1]
    return None


def parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value consists of, each part with the text that leads to it."""
    if isinstance(value, dict):
        for key, part in cast("dict[Any, Any]", value).items():
            yield f"[{key!r}]", part
    elif isinstance(value, list | tuple):
        for number, part in enumerate(cast("list[Any]", value)):
            yield f"[{number}]", part
    elif isinstance(value, BaseModel):
        for name, part in (*value.__dict__.items(), *(value.__pydantic_extra__ or {}).items()):
            yield f".{name}", part
    elif dataclasses.is_dataclass(value.__class__):
        for field in dataclasses.fields(value.__class__):
            if field.compare and hasattr(value, field.name):
                yield f".{field.name}", getattr(value, field.name)


def _is_same_time(given: Any, again: Any) -> bool:
    if (given.tzinfo is None) != (again.tzinfo is None):
        return False
    if isinstance(given, datetime) and given.tzinfo is not None:
        return given.astimezone(UTC) == again.astimezone(UTC)
    return bool(given == again)


def _changed(given: Any, again: Any) -> tuple[str, str]:
    return "", f"{given.__class__.__qualname__} comes back as {again.__class__.__qualname__} with another value"
