"""Arguments and results as JSON, by the function's signature.

The one rule: what is stored must read back the same as it was given. What does not is refused, at the call.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any, NotRequired, cast

from pydantic import ConfigDict, PydanticUndefinedAnnotation, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import CoreConfig, SchemaSerializer, SchemaValidator, to_json
from typing_extensions import TypedDict

from afterward.annotations import resolved, signature_of
from afterward.errors import ArgumentError, ArgumentsDoNotFit, ResultError, TaskError
from afterward.job import NewFile
from afterward.sameness import difference, parts
from afterward.uploads import DEFAULT_MAX_FILE_BYTES, as_stored, is_for_files, take

DEFAULT_MAX_BYTES = 256 * 1024

_KINDS = inspect.Parameter
_BYTES: CoreConfig = {"ser_json_bytes": "base64", "val_json_bytes": "base64"}
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


class Codec:
    """Values of one type ↔ JSON, both ways checked."""

    def __init__(self, annotation: Any) -> None:
        self.adapter = TypeAdapter(annotation)
        schema = self.adapter.core_schema
        self._to_json = SchemaSerializer(schema, _BYTES).to_json
        self._from_json = SchemaValidator(schema, _BYTES).validate_json

    def dump(self, value: Any) -> bytes:
        """JSON that `load` reads back the same. Raises `Unstorable`, or whatever a user's type raises meanwhile."""
        # Without what was never set, so that it is unset again; with it, where its default is made anew each time, or
        # tells the members of a union apart.
        try:
            return self._dump(value, exclude_unset=True)
        except (Unstorable, ValidationError):
            return self._dump(value, exclude_unset=False)

    def dump_unchecked(self, value: Any) -> bytes:
        """JSON of a value that is known to come back the same."""
        return self._to_json(value)

    def _dump(self, value: Any, *, exclude_unset: bool) -> bytes:
        data = self._to_json(value, warnings=False, round_trip=True, exclude_unset=exclude_unset, by_alias=False)
        found = difference(value, self.load(data))
        if found is not None:
            raise Unstorable(*found)
        return data

    def load(self, data: str | bytes) -> Any:
        """The value stored as `data`. Raises pydantic's `ValidationError`."""
        return self._from_json(data, by_alias=False, by_name=True)


class Unstorable(Exception):
    """A value would come back as another: where, and how."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(reason)
        self.place = place


class ArgumentCodec:
    """The arguments of one function ↔ JSON text, by parameter name. `dependencies`: parameters that are none."""

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        max_bytes: int = DEFAULT_MAX_BYTES,
        dependencies: Collection[str] = (),
        max_file_bytes: int = DEFAULT_MAX_FILE_BYTES,
    ) -> None:
        self._function = function
        self._name = name
        self._max_bytes = max_bytes
        self._max_file_bytes = max_file_bytes
        self._dependencies = dependencies
        self._whole_signature = signature = signature_of(function, f"task {name}")
        parameters = [p for p in signature.parameters.values() if p.name not in dependencies]
        self._signature = signature.replace(parameters=parameters) if dependencies else signature
        positional = (_KINDS.POSITIONAL_ONLY, _KINDS.POSITIONAL_OR_KEYWORD)
        self._positional = [p.name for p in parameters if p.kind in positional]
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
        parameters = self._signature.parameters
        written = {name: p.annotation for name, p in parameters.items() if p.annotation is not p.empty}
        if (returned := self._signature.return_annotation) is not inspect.Signature.empty:
            written["return"] = returned  # not stored here, but a mistake in it is to be found as early
        hints = type_hints(self._function, self._name, written)
        found = {name: hints.get(name, Any) for name in parameters}
        if self._var_positional:
            found[self._var_positional] = list[found[self._var_positional]]
        if self._var_keyword:
            found[self._var_keyword] = dict[str, found[self._var_keyword]]
        return {name: as_stored(annotation) for name, annotation in found.items()}

    @cached_property
    def _for_files(self) -> frozenset[str]:
        return frozenset(name for name, annotation in self._annotations.items() if is_for_files(annotation))

    @property
    def take_files(self) -> bool:
        """May a file be among them?"""
        return bool(self._for_files)

    @cached_property
    def _codec(self) -> Codec:
        make: Any = TypedDict
        fields: dict[str, Any] = {}
        for name, annotation in self._annotations.items():
            try:
                Codec(annotation)
                make("argument", {name: annotation})
            except (PydanticSchemaGenerationError, PydanticUserError, PydanticUndefinedAnnotation, TypeError) as error:
                raise TaskError(
                    f"task {self._name}: argument {name!r} is annotated {_type_name(annotation)}, "
                    f"which cannot be stored; {_mend(annotation)}"
                ) from error
            fields[name] = annotation if name in self._required else NotRequired[annotation]
        arguments: Any = make("arguments", fields)
        arguments.__pydantic_config__ = ConfigDict(extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")
        return Codec(arguments)

    @cached_property
    def fingerprint(self) -> str:
        """Names the signature: the same for the same code, and another when the arguments or their types are others."""
        try:
            described: Any = self._codec.adapter.json_schema()
        except PydanticUserError:  # a type that JSON Schema has no words for
            described = [[name, name in self._required] for name in self._annotations]
        return hashlib.sha256(json.dumps([self._name, described], sort_keys=True).encode()).hexdigest()[:16]

    def check(self) -> None:
        """Raise `TaskError` when the function's annotations cannot be stored."""
        self._codec  # noqa: B018 - built and kept

    def dump(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, limited: bool = True) -> str:
        """The JSON text of one call. Raises `ArgumentError`, naming the argument and the mend."""
        return self.pack(args, kwargs, limited=limited)[0]

    def pack(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, limited: bool = True
    ) -> tuple[str, tuple[NewFile, ...]]:
        """The JSON text of one call, and the files that it names. Raises `ArgumentError` as `dump` does."""
        given = self._bind(args, kwargs)
        files = self._take_files(given) if self._for_files else ()
        codec = self._codec
        try:
            data = codec.dump_unchecked(given) if self._is_plain(given) else codec.dump(given)
        except Exception as error:  # whatever a user's type raises while it is dumped, read or compared
            raise self._refusal(given) from error
        if limited and len(data) > self._max_bytes:
            raise ArgumentError(
                f"task {self._name}: its arguments take {len(data):,} bytes, more than the {self._max_bytes:,} "
                f"allowed; keep the data elsewhere and pass where it is, or raise Afterward(max_payload_bytes=…)"
            )
        return data.decode(), files

    def _take_files(self, given: dict[str, Any]) -> tuple[NewFile, ...]:
        """Put what is stored of a file in the place of each."""
        files: list[NewFile] = []
        for name, value in given.items():
            if name in self._for_files:
                given[name] = take(value, f"task {self._name}: argument {name!r}", self._max_file_bytes, files)
        return tuple(files)

    def _is_plain(self, given: dict[str, Any]) -> bool:
        """Are these texts, small numbers and the like, as annotated? Such come back as they are, whatever they are."""
        plain = self._plain_types
        for name, value in given.items():
            kind = value.__class__
            if plain.get(name) is not kind or (kind is int and not -(2**63) <= value < 2**63):
                return False
        return True

    @cached_property
    def _plain_types(self) -> dict[str, type]:
        return {name: kind for name, kind in self._annotations.items() if any(kind is one for one in (str, int, bool))}

    def load(self, data: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call stored as `data`. Raises `ArgumentsDoNotFit` when it no longer fits the function."""
        codec = self._codec
        try:
            values = codec.load(data)
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False)
            reasons = "; ".join(f"{_spelled(e['loc'])}: {e['msg']}" for e in errors)
            raise ArgumentsDoNotFit(f"the stored arguments do not fit {self._name} here: {reasons}") from None
        except Exception as error:  # whatever a user's validator raises
            reason = f"{type(error).__name__}: {error}"[:300]
            raise ArgumentsDoNotFit(f"the stored arguments do not fit {self._name} here: {reason}") from error
        if self._plain:
            return (), values
        return self._spread(values)

    def misfits(self, data: str) -> dict[str, str]:
        """Why this JSON text does not fit the function, by argument; nothing when it does."""
        try:
            self._codec.load(data)
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False)
            return {_spelled(e["loc"][:1]): e["msg"] for e in errors}
        return {}

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of one call by the names of their parameters, with defaults. Raises `ArgumentError`."""
        call = self._bind_slowly(args, kwargs)
        call.apply_defaults()
        return dict(call.arguments)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """`Signature.bind` without its cost; what it refuses is left to `Signature.bind` to explain."""
        if self._plain and len(args) <= len(self._positional):
            given = dict(zip(self._positional, args, strict=False))
            if not kwargs:
                if self._required <= given.keys():
                    return given
            elif kwargs.keys() <= self._keywords and not (kwargs.keys() & given.keys()):
                given.update(kwargs)
                if self._required <= given.keys():
                    return given
        bound = self._bind_slowly(args, kwargs).arguments
        if self._var_positional in bound:
            bound[self._var_positional] = list(bound[self._var_positional])
        return dict(bound)

    def _bind_slowly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        self._refuse_dependencies(args, kwargs)
        try:
            return self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentError(f"task {self._name}{self._signature}: {error}") from None

    def _refuse_dependencies(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = [name for name in self._dependencies if name in kwargs]
        if self._dependencies and not given and not self._var_positional and len(args) > len(self._positional):
            # One too many: does the call mean the function as it is written?
            try:
                bound = self._whole_signature.bind(*args, **kwargs).arguments
            except TypeError:
                return
            given = [name for name in self._dependencies if name in bound]
        if given:
            raise ArgumentError(
                f"task {self._name}: {given[0]!r} is a dependency, and a value passed for it cannot be stored; "
                f"leave it out: it is made anew where the job runs"
            )

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

    def _refusal(self, given: dict[str, Any]) -> ArgumentError:
        """Find the argument that is to blame, by trying each alone."""
        for name, value in given.items():
            found = _what_is_wrong(Codec(self._annotations[name]), value)
            if found is not None:
                place, reason, culprit = found
                return ArgumentError(
                    f"task {self._name}: argument {name + place!r} ({_type_name(culprit)}) cannot be stored: {reason}; "
                    f"{_mend(culprit)}"
                )
        return ArgumentError(f"task {self._name}: its arguments cannot be stored and read back the same")


class ResultCodec:
    """What one function returns ↔ JSON text."""

    def __init__(self, function: Callable[..., Any], name: str, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._function = function
        self._name = name
        self._max_bytes = max_bytes

    @cached_property
    def _codec(self) -> Codec:
        returned = signature_of(self._function, f"task {self._name}").return_annotation
        annotation = (
            Any
            if returned is inspect.Signature.empty
            else type_hints(self._function, self._name, {"return": returned})["return"]
        )
        try:
            return Codec(annotation)
        except (PydanticSchemaGenerationError, PydanticUserError):
            return Codec(Any)  # it may still return None, or what JSON knows
        except Exception as error:  # whatever else is wrong with it, a name that is not there as a rule
            raise TaskError(
                f"task {self._name}: its return annotation {_type_name(annotation)} cannot be made out; define all "
                f"that it names, or that its fields name, at module level, not under TYPE_CHECKING"
            ) from error

    def check(self) -> None:
        """Raise `TaskError` when the return annotation names what is not there."""
        self._codec  # noqa: B018 - built and kept

    def dump(self, value: Any) -> str | None:
        """The JSON text of `value`, None for None. Raises `ResultError`."""
        if value is None:
            return None
        try:
            data = self._codec.dump(value)
        except TaskError as error:
            raise self._refusal(value.__class__, str(error)) from error
        except Exception as error:  # whatever a user's type raises while it is dumped, read or compared
            wrong = _what_is_wrong(self._codec, value)
            place, reason, culprit = wrong or ("", "it cannot be read back", value.__class__)
            raise self._refusal(culprit, f"{'result' + place}: {reason}") from error
        if len(data) > self._max_bytes:
            why = f"it takes {len(data):,} bytes, more than the {self._max_bytes:,} allowed"
            raise self._refusal(value.__class__, why)
        return data.decode()

    def load(self, data: str | None) -> Any:
        """The value stored as `data`."""
        return None if data is None else self._codec.load(data)

    def _refusal(self, kind: Any, why: str) -> ResultError:
        return ResultError(
            f"task {self._name} ran to its end, but what it returned ({_type_name(kind)}) cannot be stored: "
            f"{why}; return None, or data of the type that its return annotation names"
        )


def type_hints(function: Callable[..., Any], name: str, annotations: Mapping[str, Any]) -> dict[str, Any]:
    """Annotations of the function, resolved. Raises `TaskError` for one that names nothing."""
    try:
        return resolved(function, annotations)
    except Exception as error:  # whatever the evaluation of an annotation raises
        raise TaskError(
            f"task {name}: its annotations cannot be resolved ({type(error).__name__}: {error}); "
            f"import what they name at module level, not under TYPE_CHECKING"
        ) from error


def _what_is_wrong(codec: Codec, value: Any) -> tuple[str, str, Any] | None:
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


def _spelled(steps: tuple[int | str, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".") or "arguments"


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


def _mend(kind: Any) -> str:
    candidates = [kind, *getattr(kind, "__mro__", ())]
    for module in (getattr(c, "__module__", "") or "" for c in candidates):
        for prefix, mend in _MENDS.items():
            if module == prefix or module.startswith(prefix + "."):
                return mend
    return "pass plain data (text, numbers, a Pydantic model, a dataclass …), annotated with its exact type"


def _type_name(kind: Any) -> str:
    return getattr(kind, "__qualname__", None) or str(cast("object", kind))
