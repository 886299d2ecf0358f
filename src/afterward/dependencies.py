"""The dependencies of a task: which of its parameters FastAPI's `Depends` is to fill, and from what.

A graph, built from signatures alone; `engine/provider.py` is where it is walked and anything called. What needs the
request is refused here, for a job has none.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Annotated, Any, get_args, get_origin

from fastapi import params
from fastapi.requests import HTTPConnection
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.datastructures import State
from starlette.responses import Response

from afterward.annotations import resolved, signature_of, without_partials
from afterward.errors import TaskError

Overrides = Mapping[Callable[..., Any], Callable[..., Any]]
"""What is to be called in place of what: `app.dependency_overrides`."""

_NO_OVERRIDES: Overrides = {}


INSIDE = "__afterward_inside__"
"""Where a dependency that adds nothing but what belongs to a request keeps the `Depends` of the one it gives."""


async def lifespan_state(connection: HTTPConnection) -> State:
    """What the app's lifespan has yielded: `state: Annotated[State, Depends(lifespan_state)]`.

    The one dependency that works in a request and in a task, though a task has no connection: there, a worker gives it
    the state of the lifespan that it lives in. Each request and each job has a copy of its own.
    """
    return connection.state


class Kind(Enum):
    """How a dependency is called."""

    given = "by nobody: it is `lifespan_state`, which the worker knows"
    awaited = "in the loop"
    threaded = "in a thread"
    generator = "in a thread, up to its `yield`; and from there on after the function"
    async_generator = "in the loop, likewise"


@dataclass(frozen=True, slots=True, eq=False)
class Dependency:
    """One call that gives a parameter its value. `needs`: the parameters of its own.

    `key`: what it is known by within a job; `call`: the same, or what overrides it. `marker`: the `Depends` that asks
    for it.
    """

    key: Callable[..., Any]
    call: Callable[..., Any]
    marker: params.Depends
    kind: Kind
    needs: Needs

    @property
    def at_once(self) -> int | None:
        """How many may be in use at once; None for any number. Not every FastAPI has `Depends(max_concurrency=…)`."""
        return getattr(self.marker, "max_concurrency", None)


Needs = tuple[tuple[str, Dependency], ...]
"""Parameters that are dependencies, in their order, each with its name."""


class Unresolvable(TaskError):
    """An annotation names what is not there; or not yet there, while a module is being imported."""


def dependencies_of(function: Callable[..., Any], task: str, overrides: Overrides = _NO_OVERRIDES) -> Needs:
    """The dependencies among the parameters of a task's function.

    Raises `TaskError` for what cannot work: it names the way to the parameter, and the mend.
    """
    whose = f"task {task}"
    signature = signature_of(function, whose)
    graph = _Graph(whose, overrides)
    found: list[tuple[str, Dependency]] = []
    takes_more = any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values())
    for parameter in signature.parameters.values():
        asked = _Asked.by(function, parameter, whose, (parameter.name,))
        if asked.marker is None:
            if (refusal := _needs_request(asked)) is not None:
                raise refusal.of(whose, asked.way)
            continue
        _check_kind(asked, takes_more=takes_more)
        found.append((parameter.name, graph.dependency(asked, ())))
    return tuple(found)


def needs_lifespan(needs: Needs) -> bool:
    """Does any of these, or what they need, ask for what a lifespan has yielded?"""
    return any(dependency.kind is Kind.given or needs_lifespan(dependency.needs) for _, dependency in needs)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What one parameter asks for. `way`: how it is reached; `field`: what FastAPI would read it from."""

    whose: str
    way: tuple[str, ...]
    parameter: inspect.Parameter
    annotation: Any
    marker: params.Depends | None
    field: params.Param | params.Body | None

    @classmethod
    def by(cls, function: Callable[..., Any], parameter: inspect.Parameter, whose: str, way: tuple[str, ...]) -> _Asked:
        default: object = parameter.default
        if isinstance(default, params.Depends) and default.dependency is not None:
            annotation = _resolved_if_possible(function, parameter)
        else:
            annotation = _resolved(function, parameter, whose, way)
        while type(annotation).__name__ == "TypeAliasType":  # of `typing` or of `typing_extensions`
            annotation = annotation.__value__
        said: tuple[object, ...] = ()
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            said = tuple(one for one in more if isinstance(one, params.Depends | params.Param | params.Body))
        last = said[-1] if said else None  # the last one counts, as in FastAPI
        if isinstance(default, params.Depends):
            if last is not None:
                raise TaskError(f"{whose}: {_spelled(way)} is said twice, in Annotated and as its default; say it once")
            last = default
        elif isinstance(default, params.Param | params.Body):
            last = default
        marker = last if isinstance(last, params.Depends) else None
        field = last if isinstance(last, params.Param | params.Body) else None
        if marker is not None and marker.dependency is None:  # Depends() alone: the annotation is what to call
            marker = replace(marker, dependency=annotation)
        return cls(whose, way, parameter, annotation, marker, field)


def _resolved(function: Callable[..., Any], parameter: inspect.Parameter, whose: str, way: tuple[str, ...]) -> Any:
    if parameter.annotation is parameter.empty:
        return Any
    try:
        return resolved(function, {"it": parameter.annotation})["it"]
    except Exception as error:  # whatever the evaluation of an annotation raises
        raise Unresolvable(
            f"{whose}: its annotations cannot be resolved, at {_spelled(way)} ({type(error).__name__}: {error}); "
            f"import what they name at module level, not under TYPE_CHECKING"
        ) from error


def _resolved_if_possible(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Nothing hangs on it where the default says what to call: it may be there for type checkers alone."""
    try:
        return _resolved(function, parameter, "", ())
    except Unresolvable:
        return Any


def _check_kind(asked: _Asked, *, takes_more: bool = False) -> None:
    kind = asked.parameter.kind
    if kind in {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        what = "one that is passed by name, for so are dependencies"
    elif takes_more and kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
        what = "keyword-only: put it after the *parameter, which takes all that is passed by position"
    else:
        return
    raise TaskError(f"{asked.whose}: the dependency {_spelled(asked.way)} cannot be filled; make it {what}")


class _Graph:
    """Builds what a task depends on."""

    def __init__(self, whose: str, overrides: Overrides) -> None:
        self._whose = whose
        self._overrides = overrides

    def dependency(self, asked: _Asked, above: tuple[Callable[..., Any], ...]) -> Dependency:
        """What a parameter asks for. `above`: the dependencies that lead to it."""
        marker = asked.marker
        assert marker is not None  # noqa: S101 - the caller has looked
        inside: params.Depends | None = getattr(marker.dependency, INSIDE, None)
        if inside is not None:
            return self.dependency(replace(asked, marker=inside), above)
        key: Any = marker.dependency
        if (refusal := _cannot_be_called(key, asked)) is not None:
            raise refusal.of(self._whose, asked.way)
        if not callable(key) or key is Any or not _is_hashable(key):
            raise TaskError(
                f"{self._whose}: {_spelled(asked.way)} depends on {key!r:.100}, which cannot be "
                f"{'called' if not callable(key) or key is Any else 'told from others (it has no hash)'}; "
                f"depend on a function or a class"
            )
        call = self._overrides.get(key, key)
        # Up to here, the parameter is the last step of the way; what it depends on takes its place.
        way = (*asked.way[:-1], _name_of(call))
        if key in above:
            raise TaskError(f"{self._whose}: {_spelled(way)} depends on itself; break the circle")
        if call is lifespan_state:
            return Dependency(key, call, marker, Kind.given, ())
        needs = tuple(self._needs(call, way, (*above, key)))
        return Dependency(key, call, marker, _kind_of(call), needs)

    def _needs(
        self, call: Callable[..., Any], way: tuple[str, ...], above: tuple[Callable[..., Any], ...]
    ) -> Iterator[tuple[str, Dependency]]:
        signature = signature_of(call, f"{self._whose}: its dependency {_spelled(way)}")
        for parameter in signature.parameters.values():
            asked = _Asked.by(call, parameter, self._whose, (*way, parameter.name))
            if asked.marker is None:
                raise (_needs_request(asked) or _PLAIN).of(self._whose, asked.way)
            _check_kind(asked)
            yield parameter.name, self.dependency(asked, above)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a job cannot have it, and what to do."""

    what: str
    mend: str

    def of(self, whose: str, way: tuple[str, ...]) -> TaskError:
        return TaskError(f"{whose}: {_spelled(way)} needs the request ({self.what}), and a job has none; {self.mend}")


_READ_IT_BEFORE = "read it in the endpoint, and pass it as an argument of the task"
_ENQUEUE = "inside a task, `await other_task.enqueue(…)` adds another"
_PLAIN = _Refusal(
    "FastAPI would read it from the query or the body",
    "give the dependency no parameters but dependencies, and pass what it is to know as an argument of the task",
)
_OF_THE_REQUEST: tuple[tuple[type, str], ...] = (
    (BackgroundTasks, _ENQUEUE),
    (BackgroundTask, _ENQUEUE),  # and with it afterward's own BackgroundTasks
    (HTTPConnection, "pass what the task needs of it (a header, a path, the parsed body) as an argument"),
    (Response, "nobody waits for a response; return what the task has made, as its result"),
    (SecurityScopes, "check rights in the endpoint, and pass what follows from them as an argument of the task"),
)


def _needs_request(asked: _Asked) -> _Refusal | None:
    """Why a parameter that is no dependency cannot be had; None when it is plain."""
    if asked.field is not None:
        return _Refusal(type(asked.field).__name__, _READ_IT_BEFORE)
    return _of_the_request(asked.annotation)


def _cannot_be_called(key: Any, asked: _Asked) -> _Refusal | None:
    scheme = without_partials(key)
    if isinstance(scheme, SecurityBase):
        mend = "check rights in the endpoint, and pass what follows from them (the user's id) as an argument"
        return _Refusal(type(scheme).__name__, mend)
    if inspect.isclass(asked.annotation) and issubclass(asked.annotation, BackgroundTask):
        return _of_the_request(asked.annotation)
    return None


def _of_the_request(annotation: Any) -> _Refusal | None:
    if inspect.isclass(annotation):
        for kind, mend in _OF_THE_REQUEST:
            if issubclass(annotation, kind):
                return _Refusal(annotation.__name__, mend)
    return None


def _kind_of(call: Callable[..., Any]) -> Kind:
    """As FastAPI tells them apart: by what is called, and by what that wraps."""
    inner = without_partials(call)
    outer = inspect.unwrap(inner)
    looks = [inner, outer]
    if not inspect.isclass(outer):
        looks += [getattr(one, "__call__", None) for one in (inner, outer)]  # noqa: B004 - objects that can be called
    if any(inspect.isgeneratorfunction(look) for look in looks):
        return Kind.generator
    if any(inspect.isasyncgenfunction(look) for look in looks):
        return Kind.async_generator
    return Kind.awaited if any(inspect.iscoroutinefunction(look) for look in looks) else Kind.threaded


def _is_hashable(key: Any) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True


def _name_of(call: Callable[..., Any]) -> str:
    call = without_partials(call)
    return getattr(call, "__name__", None) or type(call).__name__


def _spelled(way: tuple[str, ...]) -> str:
    return " → ".join(way)
