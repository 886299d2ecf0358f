"""Generator functions as tasks: run to their end, and each item that they yield is said."""

from __future__ import annotations

import collections.abc
import functools
import inspect
from collections.abc import Callable
from contextlib import aclosing, closing
from functools import cached_property
from typing import Any, get_args, get_origin

from pydantic import TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import SchemaSerializer

from afterward.annotations import signature_of
from afterward.blame import type_name
from afterward.codec import BYTES_AS_BASE64, type_hints
from afterward.context import VOICE
from afterward.errors import ResultError, TaskCancelled, TaskError
from afterward.job import EventKind
from afterward.saying import MAX_EVENT_BYTES

_ITERATORS = frozenset(
    {
        collections.abc.AsyncGenerator,
        collections.abc.AsyncIterable,
        collections.abc.AsyncIterator,
        collections.abc.Generator,
        collections.abc.Iterable,
        collections.abc.Iterator,
    }
)


def yields(function: Callable[..., Any]) -> bool:
    """Does calling `function` give a generator?"""
    return yields_in_loop(function) or any(inspect.isgeneratorfunction(look) for look in _looks(function))


def yields_in_loop(function: Callable[..., Any]) -> bool:
    """Does calling `function` give an asynchronous generator?"""
    return any(inspect.isasyncgenfunction(look) for look in _looks(function))


def _looks(function: Callable[..., Any]) -> tuple[Any, ...]:
    while isinstance(function, functools.partial):
        function = function.func
    return function, getattr(function, "__call__", None)  # noqa: B004 - an object that can be called


class ItemCodec:
    """What one generator function yields → JSON text, by its return annotation."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._function = function
        self._name = name

    @cached_property
    def annotation(self) -> Any:
        """The type of its items; `Any` where nothing is said of it. Raises `TaskError`."""
        returned = signature_of(self._function, f"task {self._name}").return_annotation
        if returned is inspect.Signature.empty:
            return Any
        said = type_hints(self._function, self._name, {"return": returned})["return"]
        return get_args(said)[0] if get_origin(said) in _ITERATORS else Any

    @cached_property
    def _to_json(self) -> Callable[..., bytes]:
        try:
            schema = TypeAdapter[Any](self.annotation).core_schema
        except (PydanticSchemaGenerationError, PydanticUserError):
            schema = TypeAdapter(Any).core_schema  # its items may still be what JSON knows
        except Exception as error:  # whatever else is wrong with it, a name that is not there as a rule
            raise TaskError(
                f"task {self._name}: its return annotation, of items {type_name(self.annotation)}, cannot be made out; "
                f"define all that it names, or that its fields name, at module level, not under TYPE_CHECKING"
            ) from error
        return SchemaSerializer(schema, BYTES_AS_BASE64).to_json

    def check(self) -> None:
        """Raise `TaskError` when the return annotation names what is not there."""
        self._to_json  # noqa: B018 - built and kept

    def dump(self, item: Any) -> str:
        """The JSON text of an item. Raises `ResultError`."""
        try:
            data = self._to_json(item, warnings="error", by_alias=True)
        except TaskError as error:
            raise self._refusal(item, str(error)) from error
        except Exception as error:  # whatever a user's type raises
            raise self._refusal(item, str(error)) from error
        if len(data) > MAX_EVENT_BYTES:
            raise self._refusal(item, f"it takes {len(data):,} bytes, more than the {MAX_EVENT_BYTES:,} allowed")
        return data.decode()

    def _refusal(self, item: Any, why: str) -> ResultError:
        return ResultError(
            f"task {self._name} yielded what cannot be stored ({type_name(item.__class__)}): {why}; yield what can be "
            f"written as JSON, and what its return annotation says"
        )


def exhausting(function: Callable[..., Any], items: ItemCodec) -> Callable[..., Any]:
    """What runs a generator function to its end; it is closed when the attempt is to end before."""
    return _in_loop(function, items) if yields_in_loop(function) else _in_thread(function, items)


def _in_loop(function: Callable[..., Any], items: ItemCodec) -> Callable[..., Any]:
    async def exhaust(*args: Any, **kwargs: Any) -> None:
        voice = VOICE.get()
        async with aclosing(function(*args, **kwargs)) as generator:
            async for item in generator:
                await voice.give(EventKind.item, items.dump(item))
                if voice.is_to_end:  # and it has let its cancellation pass, or none could reach it
                    raise TaskCancelled("this job was asked to end")

    return exhaust


def _in_thread(function: Callable[..., Any], items: ItemCodec) -> Callable[..., Any]:
    def exhaust(*args: Any, **kwargs: Any) -> None:
        voice = VOICE.get()
        with closing(function(*args, **kwargs)) as generator:
            for item in generator:
                voice.say(EventKind.item, items.dump(item))
                if voice.is_to_end:
                    raise TaskCancelled("this job was asked to end")

    return exhaust
