"""What a task returns as JSON, by its return annotation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any

from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from afterward.annotations import signature_of
from afterward.blame import type_name, what_is_wrong
from afterward.codec import DEFAULT_MAX_BYTES, Codec, type_hints
from afterward.errors import ResultError, TaskError


class ResultCodec:
    """What one function returns ↔ JSON text. `yields`: it is a generator function, and nothing is its result."""

    def __init__(
        self, function: Callable[..., Any], name: str, max_bytes: int = DEFAULT_MAX_BYTES, *, yields: bool = False
    ) -> None:
        self._function = function
        self._name = name
        self._max_bytes = max_bytes
        self._yields = yields

    @cached_property
    def annotation(self) -> Any:
        """What the function says that it returns; `Any` where it does not say. Raises `TaskError`."""
        if self._yields:  # what it yields is said while it runs; it returns nothing
            return None
        returned = signature_of(self._function, f"task {self._name}").return_annotation
        if returned is inspect.Signature.empty:
            return Any
        return type_hints(self._function, self._name, {"return": returned})["return"]

    @cached_property
    def _codec(self) -> Codec:
        annotation = self.annotation
        try:
            return Codec(annotation)
        except (PydanticSchemaGenerationError, PydanticUserError):
            return Codec(Any)  # it may still return None, or what JSON knows
        except Exception as error:  # whatever else is wrong with it, a name that is not there as a rule
            raise TaskError(
                f"task {self._name}: its return annotation {type_name(annotation)} cannot be made out; define all "
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
            wrong = what_is_wrong(self._codec, value)
            place, reason, culprit = wrong or ("", "it cannot be read back", value.__class__)
            raise self._refusal(culprit, f"{'result' + place}: {reason}") from error
        if len(data) > self._max_bytes:
            why = f"it takes {len(data):,} bytes, more than the {self._max_bytes:,} allowed"
            raise self._refusal(value.__class__, why)
        return data.decode()

    def load(self, data: str | None) -> Any:
        """The value stored as `data`."""
        return None if data is None else self._codec.load(data)

    def show(self, data: str) -> Any:
        """What is stored as `data`, in the form in which FastAPI would show a value of its type, as JSON knows it."""
        return self._codec.show(self._codec.load(data))

    def _refusal(self, kind: Any, why: str) -> ResultError:
        return ResultError(
            f"task {self._name} ran to its end, but what it returned ({type_name(kind)}) cannot be stored: "
            f"{why}; return None, or data of the type that its return annotation names"
        )
