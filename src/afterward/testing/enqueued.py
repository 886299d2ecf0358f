"""Which jobs were enqueued by which calls, and how to say it when it was another one."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from afterward.errors import ArgumentsDoNotFit
from afterward.job import Job, NewJob
from afterward.task import CallOptions, Task

_OPTIONS = [option.name for option in fields(CallOptions) if option.name in NewJob._fields]


class Enqueued(NamedTuple):
    """A job as it is stored, as it was enqueued (None: by the store itself), and its task."""

    job: Job
    new: NewJob | None
    task: Task[..., Any]

    def option(self, name: str) -> Any:
        """What was said of this call."""
        return getattr(self.job if self.new is None else self.new, name, None)

    def text(self) -> str:
        """One line for who reads why a test failed."""
        options = {name: self.option(name) for name in _OPTIONS}
        said = [f"{name}={value!r}" for name, value in options.items() if value != getattr(CallOptions(), name)]
        try:
            given = _bound(self.task, *self.task.arguments.load(self.job.arguments))
            call = ", ".join(f"{name}={value!r}" for name, value in given.items())
        except ArgumentsDoNotFit:
            call = self.job.arguments
        name = self.task.name.rpartition(":")[2]
        return f"{name}({call})  {', '.join([*said, self.job.status.value])}"


class Expected:
    """A call of a task, with the options that its copy says otherwise than the task as it was declared."""

    def __init__(
        self, declared: Task[..., Any], task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._name = task.name
        self._options = {
            name: value
            for name in _OPTIONS
            if (value := getattr(task.call_options, name)) != getattr(declared.call_options, name)
        }
        self._arguments = _bound(task, args, kwargs) if args or kwargs else None
        call = (
            "…"
            if self._arguments is None
            else ", ".join([*(repr(value) for value in args), *(f"{name}={value!r}" for name, value in kwargs.items())])
        )
        said = "".join(f", {name}={value!r}" for name, value in self._options.items())
        self.text = f"{task.name.rpartition(':')[2]}({call}){said}"

    def matches(self, enqueued: Enqueued) -> bool:
        """Is it this call, as far as it says?"""
        task = enqueued.task
        if task.name != self._name or any(enqueued.option(name) != value for name, value in self._options.items()):
            return False
        if self._arguments is None:
            return True
        try:
            # The arguments as the task gets them: what was stored, read back.
            return _bound(task, *task.arguments.load(enqueued.job.arguments)) == self._arguments
        except ArgumentsDoNotFit:
            return False


def listing(enqueued: Sequence[Enqueued]) -> str:
    """All of them, each on a line."""
    return "".join(f"\n    {one.text()}" for one in enqueued) or " nothing"


def _bound(task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    call = inspect.signature(task.function).bind(*args, **kwargs)
    call.apply_defaults()
    return call.arguments
