"""Values of one type as JSON.

The one rule: what is stored must read back the same as it was given. What does not is refused, at the call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import CoreConfig, SchemaSerializer, SchemaValidator

from afterward.annotations import resolved
from afterward.errors import TaskError
from afterward.sameness import difference

DEFAULT_MAX_BYTES = 256 * 1024

BYTES_AS_BASE64: CoreConfig = {"ser_json_bytes": "base64", "val_json_bytes": "base64"}
"""How bytes are written in JSON."""


class Codec:
    """Values of one type ↔ JSON, both ways checked."""

    def __init__(self, annotation: Any) -> None:
        self.adapter = TypeAdapter(annotation)
        schema = self.adapter.core_schema
        serializer = SchemaSerializer(schema, BYTES_AS_BASE64)
        self._to_json = serializer.to_json
        self._to_python = serializer.to_python
        self._from_json = SchemaValidator(schema, BYTES_AS_BASE64).validate_json

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

    def show(self, value: Any) -> Any:
        """A value for those outside, as JSON knows it: by the names and with the fields that its type shows."""
        return self._to_python(value, mode="json", by_alias=True, warnings=False)

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


def type_hints(function: Callable[..., Any], name: str, annotations: Mapping[str, Any]) -> dict[str, Any]:
    """Annotations of the function, resolved. Raises `TaskError` for one that names nothing."""
    try:
        return resolved(function, annotations)
    except Exception as error:  # whatever the evaluation of an annotation raises
        raise TaskError(
            f"task {name}: its annotations cannot be resolved ({type(error).__name__}: {error}); "
            f"import what they name at module level, not under TYPE_CHECKING"
        ) from error
