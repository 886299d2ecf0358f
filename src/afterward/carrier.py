"""Context variables that travel with a job, to every attempt of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from pydantic import TypeAdapter

from afterward.errors import ArgumentError, ConfigurationError

_VALUES: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


class Carrier:
    """Stores the values of declared context variables, and sets them again."""

    def __init__(self, variables: Sequence[ContextVar[Any]]) -> None:
        self._variables = {variable.name: variable for variable in variables}
        if len(self._variables) < len(variables):
            raise ConfigurationError("two of context_variables= have the same name; names tell them apart in the store")

    def capture(self) -> str | None:
        """The values that are set now, as JSON. Raises `ArgumentError` for one that would not come back equal."""
        if not self._variables:
            return None
        values = {
            name: value for name, variable in self._variables.items() if (value := variable.get(_UNSET)) is not _UNSET
        }
        if not values:
            return None
        try:
            text = _VALUES.dump_json(values).decode()
            equal = _VALUES.validate_json(text) == values
        except Exception as error:  # whatever a user's type raises while it is dumped or compared
            raise ArgumentError(f"a context variable cannot be stored: {error}; {_MEND}") from error
        if not equal:
            again = json.loads(text)
            name = next(name for name, value in values.items() if again[name] != value)
            raise ArgumentError(
                f"context variable {name!r} cannot be stored: it would come back with another value; {_MEND}"
            )
        return text

    def restore(self, stored: str) -> None:
        """Set, in the current context, what was captured; variables no longer declared are passed over."""
        for name, value in _VALUES.validate_json(stored).items():
            if name in self._variables:
                self._variables[name].set(value)


_MEND = "declared context variables hold what JSON knows: text, numbers, booleans, None, lists and dicts of these"
_UNSET: Any = object()
