"""Calls of Celery tasks, as they are stored: in the JSON of Celery, by which a worker gets what was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from kombu.utils import json

from afterward.arguments import ArgumentCodec
from afterward.blame import type_name
from afterward.errors import ArgumentError
from afterward.sameness import difference
from afterward.text import is_storable

_json: Any = json

_ALONE = (
    "what it starts is several tasks at once, and there is none whose end is the end of all; give each of its tasks to "
    "add_task by itself, or one task of your fleet that calls it"
)


class Called(NamedTuple):
    """One call of a Celery task, and how it is to be sent. `then`: what follows it in a chain, in order."""

    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}
    then: Sequence[Mapping[str, Any]] = ()


class Signed(NamedTuple):
    """A signature: the name of the task that begins, and its call."""

    task: str
    called: Called
    is_immutable: bool


def signed(signature: Any) -> Signed:
    """What a signature says. Raises `ArgumentError` for one that stands for several tasks at once."""
    kind = signature.subtask_type
    if kind is None:
        called = Called(tuple(signature.args), dict(signature.kwargs), dict(signature.options))
        return Signed(str(signature.task), called, bool(signature.immutable))
    if kind == "chain" and signature.tasks:
        return _chained(signature)
    raise ArgumentError(f"a {kind} cannot be handed over: {_ALONE}")


def steps_of(signature: Any) -> Sequence[Any]:
    """The signatures that a chain is made of; of any other, itself."""
    return cast("Sequence[Any]", signature.tasks) if signature.subtask_type == "chain" else [signature]


def _chained(chain: Any) -> Signed:
    """A chain is its first task, which takes the others along."""
    first, *others = [signed(step.clone()) for step in chain.tasks]
    steps = [_step(other) for other in others]
    options = dict(chain.options)
    kwargs = {name: value for name, value in chain.kwargs.items() if name != "tasks"}
    _add_links((first.called.options, *(step["options"] for step in steps)), options)
    called = first.called._replace(
        args=(*(() if first.is_immutable else chain.args), *first.called.args),
        kwargs=first.called.kwargs if first.is_immutable else {**first.called.kwargs, **kwargs},
        options={**first.called.options, **options},
        then=steps,
    )
    return Signed(first.task, called, first.is_immutable)


def _step(one: Signed) -> dict[str, Any]:
    if one.called.then:
        raise ArgumentError(f"a chain within a chain cannot be handed over: {_ALONE}")
    options = dict(one.called.options)
    called = {"args": list(one.called.args), "kwargs": one.called.kwargs, "options": options}
    return {"task": one.task, **called, "subtask_type": None, "immutable": one.is_immutable}


def _add_links(steps: Sequence[Mapping[str, Any]], options: dict[str, Any]) -> None:
    """What follows a chain follows its last task; what follows its failure, that of any."""
    for name, those in (("link", steps[-1:]), ("link_error", steps)):
        more = _as_list(options.pop(name, None))
        for step in those if more else ():
            cast("dict[str, Any]", step)[name] = [*_as_list(step.get(name)), *more]


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return [*cast("list[Any]", value)] if isinstance(value, list | tuple) else [value]


def dump(called: Called, task: str) -> str:
    """Its JSON text. Raises `ArgumentError` for what would come back as another, naming it."""
    given = {"args": list(called.args), "kwargs": dict(called.kwargs)}
    _check(given, task)
    for step in called.then:
        _check({"args": step["args"], "kwargs": step["kwargs"]}, str(step["task"]))
    more = {"options": called.options, "then": called.then}
    text = _text({**given, **{name: value for name, value in more.items() if value}}, task)
    if not is_storable(text):
        raise ArgumentError(f"task {task}: its arguments hold characters that cannot be stored")
    return text


def load(text: str) -> Called:
    """The call that is stored as `text`."""
    stored: dict[str, Any] = _json.loads(text)
    return Called(**stored)


class CalledArguments(ArgumentCodec):
    """The arguments of a Celery task, in the calls that are stored of it."""

    def load(self, data: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        called = load(data)
        return tuple(called.args), dict(called.kwargs)


def _check(given: dict[str, Any], task: str) -> None:
    found = difference(given, _json.loads(_text(given, task)))
    if found is not None:
        place, reason = found
        raise ArgumentError(f"task {task}: {place.lstrip('.')} cannot be stored as Celery's JSON: {reason}")


def _text(values: Mapping[str, Any], task: str) -> str:
    try:
        return str(_json.dumps(values, ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        name = _culprit(values)
        raise ArgumentError(f"task {task}: {name} cannot be stored as Celery's JSON: {error}") from error


def _culprit(values: Mapping[str, Any]) -> str:
    """Where the first value is that is to blame."""
    for group, those in values.items():
        parts = those.items() if isinstance(those, Mapping) else enumerate(those)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        for name, value in cast("Any", parts):
            try:
                _json.dumps(value, allow_nan=False)
            except (TypeError, ValueError, RecursionError):
                return f"{group}[{name!r}] ({type_name(type(value))})"
    return "what it is called with"
