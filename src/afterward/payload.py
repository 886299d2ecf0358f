"""Arguments and results as JSON, by the function's signature.

The one rule: what is stored must read back equal to what was given. What does not is refused, at the call.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any, NotRequired, cast, get_type_hints

from pydantic import BaseModel, ConfigDict, PydanticUndefinedAnnotation, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from typing_extensions import TypedDict

from afterward.errors import ArgumentError, ArgumentsDoNotFit, ResultError, TaskError

DEFAULT_MAX_BYTES = 256 * 1024

_CONFIG = ConfigDict(extra="forbid", ser_json_bytes="base64", val_json_bytes="base64", defer_build=False)
_KINDS = inspect.Parameter

_MENDS = {
    "starlette.requests": "pass what the task needs of the request (its path, a header, the parsed body)",
    "starlette.websockets": "a connection does not outlive its process: pass ids, and look the connection up again",
    "starlette.datastructures": "read what you need before, and pass that (for a file: where it is kept)",
    "fastapi": "pass plain data in its place",
    "sqlalchemy": "pass the primary key, and open a session inside the task",
    "sqlmodel": "pass the primary key, and load it inside the task",
    "pydantic.types": "a secret is never stored: pass what names it, and read the secret inside the task",
    "asyncpg": "open a connection inside the task",
    "psycopg": "open a connection inside the task",
}


class ArgumentCodec:
    """The arguments of one function ↔ JSON text, by parameter name."""

    def __init__(self, function: Callable[..., Any], name: str, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._function = function
        self._name = name
        self._max_bytes = max_bytes
        self._signature = signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        self._positional = [
            p.name for p in parameters if p.kind in (_KINDS.POSITIONAL_ONLY, _KINDS.POSITIONAL_OR_KEYWORD)
        ]
        self._keywords = frozenset(
            p.name for p in parameters if p.kind in (_KINDS.POSITIONAL_OR_KEYWORD, _KINDS.KEYWORD_ONLY)
        )
        self._required = frozenset(
            p.name
            for p in parameters
            if p.default is _KINDS.empty and p.kind not in (_KINDS.VAR_POSITIONAL, _KINDS.VAR_KEYWORD)
        )
        self._positional_only = frozenset(p.name for p in parameters if p.kind is _KINDS.POSITIONAL_ONLY)
        self._var_positional = next((p.name for p in parameters if p.kind is _KINDS.VAR_POSITIONAL), None)
        self._var_keyword = next((p.name for p in parameters if p.kind is _KINDS.VAR_KEYWORD), None)
        self._plain = not (self._positional_only or self._var_positional or self._var_keyword)

    @cached_property
    def _annotations(self) -> dict[str, Any]:
        # Read at the first use: annotations may name what is defined later in the module.
        hints = type_hints(self._function, self._name)
        found = {name: hints.get(name, Any) for name in self._signature.parameters}
        if self._var_positional:
            found[self._var_positional] = list[found[self._var_positional]]
        if self._var_keyword:
            found[self._var_keyword] = dict[str, found[self._var_keyword]]
        return found

    @cached_property
    def _adapter(self) -> TypeAdapter[dict[str, Any]]:
        fields: dict[str, Any] = {}
        for name, annotation in self._annotations.items():
            try:
                _adapter_of(annotation)
            except (PydanticSchemaGenerationError, PydanticUserError, PydanticUndefinedAnnotation) as error:
                raise TaskError(
                    f"task {self._name}: argument {name!r} is annotated {_type_name(annotation)}, "
                    f"which cannot be stored; {_mend(annotation)}"
                ) from error
            fields[name] = annotation if name in self._required else NotRequired[annotation]
        make: Any = TypedDict
        arguments: Any = make("arguments", fields)
        arguments.__pydantic_config__ = _CONFIG
        return TypeAdapter(arguments)

    @cached_property
    def _to_json(self) -> Callable[..., bytes]:
        return self._adapter.serializer.to_json

    @cached_property
    def _from_json(self) -> Callable[[str | bytes], dict[str, Any]]:
        return self._adapter.validator.validate_json

    def check(self) -> None:
        """Raise `TaskError` when the function's annotations cannot be stored."""
        self._adapter  # noqa: B018 - built and kept

    def dump(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The JSON text of one call. Raises `ArgumentError`, naming the argument and the mend."""
        given = self._bind(args, kwargs)
        to_json, from_json = self._to_json, self._from_json
        try:
            data = to_json(given, warnings=False)
            if from_json(data) == given:
                if len(data) <= self._max_bytes:
                    return data.decode()
                raise ArgumentError(
                    f"task {self._name}: its arguments take {len(data):,} bytes, more than the {self._max_bytes:,} "
                    f"allowed; keep the data elsewhere and pass where it is, or raise Afterward(max_payload_bytes=…)"
                )
        except ArgumentError:
            raise
        except Exception as error:  # whatever a user's type raises while it is dumped, read or compared
            raise self._refusal(given, error) from error
        raise self._refusal(given, None)

    def load(self, data: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call stored as `data`. Raises `ArgumentsDoNotFit` when it no longer fits the function."""
        try:
            values = self._from_json(data)
        except ValidationError as error:
            reasons = "; ".join(
                f"{_path(e['loc'])}: {e['msg']}" for e in error.errors(include_url=False, include_input=False)
            )
            raise ArgumentsDoNotFit(f"the stored arguments do not fit {self._name} here: {reasons}") from None
        if self._plain:
            return (), values
        return self._spread(values)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """`Signature.bind` without its cost; what it refuses is left to `Signature.bind` to explain."""
        if self._plain and len(args) <= len(self._positional):
            given = dict(zip(self._positional, args, strict=False))
            if not kwargs:
                if len(args) == len(self._positional) or self._required <= given.keys():
                    return given
            elif kwargs.keys() <= self._keywords and not (kwargs.keys() & given.keys()):
                given.update(kwargs)
                if self._required <= given.keys():
                    return given
        try:
            bound = self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise ArgumentError(f"task {self._name}{self._signature}: {error}") from None
        if self._var_positional in bound:
            bound[self._var_positional] = list(bound[self._var_positional])
        return dict(bound)

    def _spread(self, values: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        rest: list[Any] = values.pop(self._var_positional, []) if self._var_positional else []
        more: dict[str, Any] = values.pop(self._var_keyword, {}) if self._var_keyword else {}
        args: list[Any] = []
        for name in self._positional:
            if name not in values or (name not in self._positional_only and not rest):
                break
            args.append(values.pop(name))
        if rest and len(args) < len(self._positional):
            raise ArgumentsDoNotFit(f"the stored arguments do not fit {self._name} here: a positional one is missing")
        return (*args, *rest), {**values, **more}

    def _refusal(self, given: dict[str, Any], error: Exception | None) -> ArgumentError:
        """Find the argument that is to blame, by trying each alone."""
        for name, value in given.items():
            try:
                adapter = _adapter_of(self._annotations[name])
                difference = _difference(value, adapter.validate_json(adapter.dump_json(value, warnings=False)), name)
            except Exception as cause:  # noqa: BLE001 - the same breadth as above
                difference = name, _reason(cause)
            if difference is not None:
                where, why = difference
                kind = _kind(value)
                return ArgumentError(
                    f"task {self._name}: argument {where!r} ({_type_name(kind)}) cannot be stored: {why}; {_mend(kind)}"
                )
        return ArgumentError(f"task {self._name}: its arguments cannot be stored and read back equal ({error})")


class ResultCodec:
    """What one function returns ↔ JSON text."""

    def __init__(self, function: Callable[..., Any], name: str, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._function = function
        self._name = name
        self._max_bytes = max_bytes

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        annotation = type_hints(self._function, self._name).get("return", Any)
        try:
            return _adapter_of(annotation)
        except (PydanticSchemaGenerationError, PydanticUserError):
            return _adapter_of(Any)  # it may still return None, or what JSON knows

    def dump(self, value: Any) -> str | None:
        """The JSON text of `value`, None for None. Raises `ResultError`."""
        if value is None:
            return None
        try:
            data = self._adapter.dump_json(value, warnings=False)
            difference = _difference(value, self._adapter.validate_json(data), "result")
        except Exception as error:  # whatever a user's type raises while it is dumped, read or compared
            raise self._refusal(value, _reason(error)) from error
        if difference is not None:
            raise self._refusal(value, difference[1])
        if len(data) > self._max_bytes:
            raise self._refusal(value, f"it takes {len(data):,} bytes, more than the {self._max_bytes:,} allowed")
        return data.decode()

    def load(self, data: str | None) -> Any:
        """The value stored as `data`."""
        return None if data is None else self._adapter.validate_json(data)

    def _refusal(self, value: Any, why: str) -> ResultError:
        return ResultError(
            f"task {self._name} ran to its end, but what it returned ({_type_name(type(value))}) cannot be stored: "
            f"{why}; return None, or data of the type that its return annotation names"
        )


def type_hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    """The function's annotations, resolved. Raises `TaskError` for one that names nothing."""
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        return get_type_hints(target, include_extras=True)
    except (NameError, TypeError) as error:
        raise TaskError(
            f"task {name}: its annotations cannot be resolved ({error}); import what they name at module level, "
            f"not under TYPE_CHECKING"
        ) from error


def _adapter_of(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"))
    except PydanticUserError:  # a model, a dataclass, a TypedDict: it brings a configuration of its own
        return TypeAdapter(annotation)


def _difference(given: Any, again: Any, path: str) -> tuple[str, str] | None:
    """Where `again`, read back, is not what was given, and how: None when they are equal."""
    if bool(given == again):
        return None
    parts = [
        found
        for key, mine, other in _parts(given, again)
        if (found := _difference(mine, other, f"{path}{key}")) is not None
    ]
    whole = path, f"{_type_name(type(given))} comes back as {_type_name(type(again))} with another value"
    return parts[0] if parts else whole


def _parts(given: Any, again: Any) -> list[tuple[str, Any, Any]]:
    """What two values of the same kind consist of, side by side."""
    kind = _kind(given)
    if isinstance(given, dict) and isinstance(again, dict):
        ours, theirs = cast("dict[Any, Any]", given), cast("dict[Any, Any]", again)
        return [(f"[{key!r}]", ours[key], theirs[key]) for key in ours if key in theirs]
    if isinstance(given, list | tuple) and isinstance(again, kind):
        return [
            (f"[{n}]", mine, other)
            for n, (mine, other) in enumerate(zip(cast("list[Any]", given), cast("list[Any]", again), strict=False))
        ]
    if isinstance(given, BaseModel) and type(given) is type(again):
        return [(f".{name}", value, getattr(again, name)) for name, value in given if hasattr(again, name)]
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind) if hasattr(again, field.name)]
        return [(f".{name}", getattr(given, name), getattr(again, name)) for name in names]
    return []


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(e["msg"] for e in error.errors(include_url=False, include_input=False)[:3])
    return f"{type(error).__name__}: {error}"[:300]


def _path(parts: tuple[int | str, ...]) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).lstrip(".") or "arguments"


def _mend(type_: Any) -> str:
    candidates = [type_, *getattr(type_, "__mro__", ())]
    for module in (getattr(c, "__module__", "") or "" for c in candidates):
        for prefix, mend in _MENDS.items():
            if module == prefix or module.startswith(prefix + "."):
                return mend
    return "pass plain data (text, numbers, a Pydantic model, a dataclass …), annotated with its exact type"


def _kind(value: Any) -> Any:
    return value.__class__


def _type_name(type_: Any) -> str:
    return getattr(type_, "__qualname__", None) or str(type_)
