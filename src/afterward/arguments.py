"""The arguments of a task as JSON, by the function's signature."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Collection
from functools import cached_property
from typing import Any, NotRequired

from pydantic import ConfigDict, PydanticUndefinedAnnotation, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from typing_extensions import TypedDict

from afterward.annotations import signature_of
from afterward.blame import mend_of, spelled, type_name, what_is_wrong
from afterward.codec import DEFAULT_MAX_BYTES, Codec, type_hints
from afterward.errors import ArgumentError, ArgumentsDoNotFit, TaskError
from afterward.job import NewFile
from afterward.uploads import DEFAULT_MAX_FILE_BYTES, as_stored, is_for_files, take

_KINDS = inspect.Parameter


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

    @cached_property
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
                    f"task {self._name}: argument {name!r} is annotated {type_name(annotation)}, "
                    f"which cannot be stored; {mend_of(annotation)}"
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
            reasons = "; ".join(f"{spelled(e['loc'])}: {e['msg']}" for e in errors)
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
            return {spelled(e["loc"][:1]): e["msg"] for e in errors}
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
            found = what_is_wrong(Codec(self._annotations[name]), value)
            if found is not None:
                place, reason, culprit = found
                return ArgumentError(
                    f"task {self._name}: argument {name + place!r} ({type_name(culprit)}) cannot be stored: {reason}; "
                    f"{mend_of(culprit)}"
                )
        return ArgumentError(f"task {self._name}: its arguments cannot be stored and read back the same")
