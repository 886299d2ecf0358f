"""What the parameters of a callable are, and what they are annotated with."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, get_type_hints

from afterward.errors import TaskError


def signature_of(function: Callable[..., Any], whose: str) -> inspect.Signature:
    """The signature, with annotations as they are written. Raises `TaskError` when there is none to be had."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise TaskError(f"{whose}: its signature cannot be had ({error}); wrap it in a `def`") from error


def resolved(function: Callable[..., Any], annotations: Mapping[str, Any]) -> dict[str, Any]:
    """Some annotations of `function`, evaluated where it is defined. Raises whatever their evaluation raises.

    Only some, for a name that is imported for type checkers alone spoils no other than its own.
    """
    return get_type_hints(
        SimpleNamespace(__annotations__=dict(annotations), __wrapped__=_definition(function)), include_extras=True
    )


def without_partials(function: Any) -> Any:
    """The function that `functools.partial` has been applied to, once or several times; or the same."""
    while isinstance(function, functools.partial):
        function = function.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - as Any as it is
    return function  # pyright: ignore[reportUnknownVariableType]


def _definition(function: Callable[..., Any]) -> Any:
    """The `def` that a call leads to."""
    function = without_partials(function)
    if inspect.isclass(function):
        begin: Any = function.__init__
        return function.__new__ if begin is object.__init__ else begin
    return function if inspect.isroutine(function) else type(function).__call__
