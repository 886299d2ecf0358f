"""`afterward enqueue`: a call of a task, typed."""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Any, cast

from afterward.app import Afterward
from afterward.cli import output
from afterward.cli.exits import DONE, code_of
from afterward.cli.reading import ended_in, found_in
from afterward.cli.target import load
from afterward.cli.telling import complain
from afterward.errors import ArgumentError, ConfigurationError
from afterward.job import Job, NewJob, Status
from afterward.states import summary
from afterward.task import Task
from afterward.uploads import stored_in

Values = dict[str, Any]


def enqueue(
    target: str,
    name: str,
    typed: Sequence[str],
    args_json: str | None,
    options: dict[str, Any],
    *,
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> int:
    """Store one call of a task of what `target` names; the exit code."""
    task = find(name, load(target).afterwards)
    new_job = _prepared(task.options(**options), _typed(typed), _given(args_json))
    owner = cast("Afterward", task.owner)

    async def put() -> Job | None:
        async with owner.running(None):
            await owner.enqueue_many([new_job])
            if not as_json:
                print(new_job.id, flush=True)
            if wait:
                return await ended_in(owner.store, new_job.id, timeout)
            return await found_in(owner.store, new_job.id) if as_json else None

    job = asyncio.run(put())
    if job is not None and as_json:
        output.print_job(job, as_json=True)
    if job is None or not wait:
        return DONE
    if job.status is not Status.succeeded:
        why = job.note or "" if job.failure is None else summary(job.failure)
        complain(f"job {job.id} is {job.status.value}: {why}")
    return code_of(job)


def find(name: str, afterwards: Iterable[Afterward]) -> Task[..., Any]:
    """The task of this name, or the only one whose name ends so. Raises `ConfigurationError`, with the near ones."""
    tasks = {task.name: task for afterward in afterwards for task in afterward.tasks.values()}
    found = (
        [tasks[name]] if name in tasks else [tasks[full] for full in tasks if full.endswith((f":{name}", f".{name}"))]
    )
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigurationError(f"several tasks are named {name}: {_listed(task.name for task in found)}")
    near = {full for word in (name, name.rpartition(":")[2]) for full in _near(word, tasks)}
    meant = f"did you mean {_listed(near)}?" if near else f"there are {_listed(tasks)}"
    raise ConfigurationError(f"there is no task {name}; {meant}")


def _near(word: str, names: Iterable[str]) -> list[str]:
    by_word = {part: full for full in names for part in (full, full.rpartition(":")[2])}
    return [by_word[part] for part in difflib.get_close_matches(word, by_word, n=3)]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _typed(pairs: Sequence[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigurationError(f"{pair!r} is no argument; write NAME=VALUE, for one n=3 or 'to=ada@example.com'")
        if name in values:
            raise ConfigurationError(f"argument {name} is given twice")
        values[name] = value
    return values


def _given(text: str | None) -> Values:
    if text is None:
        return {}
    try:
        values = json.loads(text, parse_constant=_refuse, object_pairs_hook=_each_once)
    except RecursionError:
        raise ConfigurationError("--args-json is nested too deeply") from None
    except ValueError as error:
        raise ConfigurationError(f"--args-json is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigurationError("--args-json must be a JSON object, by the names of the arguments")
    return cast("Values", values)


def _each_once(pairs: list[tuple[str, Any]]) -> Values:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = {name for name in values if names.count(name) > 1}
        raise ConfigurationError(f"--args-json says {_listed(twice)} twice")
    return values


def _prepared(task: Task[..., Any], typed: dict[str, str], given: Values) -> NewJob:
    """The call, checked. What was typed counts as JSON where it is, and fits; else as text."""
    twice = typed.keys() & given.keys()
    if twice:
        raise ConfigurationError(f"argument {_listed(twice)} is given twice: once in --args-json")
    values = given | {name: _value(text) for name, text in typed.items()}
    misfits = task.arguments.misfits(json.dumps(values))
    if misfits.keys() & typed.keys():
        values |= {name: text for name, text in typed.items() if name in misfits}
        misfits = task.arguments.misfits(json.dumps(values))
    if misfits:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in misfits.items())
        raise ConfigurationError(f"task {task.name} cannot be called so: {reasons}")
    args, kwargs = task.arguments.load(json.dumps(values))
    try:
        new_job: NewJob = task.new_job(args, kwargs)
    except ArgumentError as error:
        raise ConfigurationError(str(error)) from error
    if task.arguments.take_files and stored_in(new_job.arguments):
        raise ConfigurationError(
            f"task {task.name} cannot be called so: what only names a file in the store is not one; "
            f"call it from Python, with an UploadFile"
        )
    return new_job


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(word: str) -> Any:
    raise ValueError(word)  # NaN and Infinity are words here, for JSON has no such numbers
