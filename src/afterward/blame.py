"""What in a value cannot be stored, and the mend."""

from __future__ import annotations

from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import to_json

from afterward.codec import Codec, Unstorable
from afterward.sameness import parts

_DEEPEST_PLACE = 50

_FILE_MEND = (
    "a file is stored as an argument of its own, annotated UploadFile, UploadFile | None or list[UploadFile]; "
    "of other data, read what you need before, and pass that"
)
_MENDS = {
    "starlette.requests": "pass what the task needs of the request (its path, a header, the parsed body)",
    "starlette.websockets": "a connection does not outlive its process: pass ids, and look the connection up again",
    "fastapi.datastructures": _FILE_MEND,
    "starlette.datastructures": _FILE_MEND,
    "fastapi": "pass plain data in its place",
    "sqlalchemy": "pass the primary key, and open a session inside the task",
    "sqlmodel": "pass the primary key, and load it inside the task",
    "pydantic.types": "a secret is never stored: pass what names it, and read the secret inside the task",
    "asyncpg": "open a connection inside the task",
    "psycopg": "open a connection inside the task",
}


def what_is_wrong(codec: Codec, value: Any) -> tuple[str, str, Any] | None:
    """Where in `value` is what cannot be stored, why, and of what type it is; None when all of it can be."""
    try:
        codec.dump(value)
    except Unstorable as changed:
        return changed.place, str(changed), _at(value, changed.place).__class__
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_input=False)[0]
        place = _place(value, first["loc"])
        return place, first["msg"], _at(value, place).__class__
    except Exception as error:  # noqa: BLE001 - whatever a user's type raises while it is dumped, read or compared
        place, culprit = _smallest(value)
        return place, f"{type(error).__name__}: {error}"[:300], culprit.__class__
    return None


def _smallest(value: Any, depth: int = 0) -> tuple[str, Any]:
    """The smallest part of `value` that JSON cannot express, with the way to it."""
    if depth < _DEEPEST_PLACE:
        for place, part in parts(value):
            try:
                to_json(part, bytes_mode="base64", inf_nan_mode="constants")
            except Exception:  # noqa: BLE001 - as above
                deeper, culprit = _smallest(part, depth + 1)
                return place + deeper, culprit
    return "", value


def _place(value: Any, steps: tuple[int | str, ...]) -> str:
    """The way that a validator names, in the words of `parts`; a step that leads nowhere names a union's branch."""
    path = ""
    for step in steps:
        inside = dict(parts(value))
        way = next((w for w in (f"[{step!r}]", f".{step}") if w in inside), None)
        if way is not None:
            path, value = path + way, inside[way]
    return path


def _at(value: Any, path: str) -> Any:
    """The part of `value` that a path of `parts` leads to."""
    while path:
        for place, part in parts(value):
            if path == place or path.startswith((place + ".", place + "[")):
                path, value = path[len(place) :], part
                break
        else:
            return value
    return value


def spelled(steps: tuple[int | str, ...]) -> str:
    """The way that a validator names, in words for people."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".") or "arguments"


def mend_of(kind: Any) -> str:
    """What to pass in place of what is of this type."""
    candidates = [kind, *getattr(kind, "__mro__", ())]
    for module in (getattr(c, "__module__", "") or "" for c in candidates):
        for prefix, mend in _MENDS.items():
            if module == prefix or module.startswith(prefix + "."):
                return mend
    return "pass plain data (text, numbers, a Pydantic model, a dataclass …), annotated with its exact type"


def type_name(kind: Any) -> str:
    """A type, or an annotation, in words for people."""
    return getattr(kind, "__qualname__", None) or str(cast("object", kind))
