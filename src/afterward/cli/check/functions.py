"""What is wrong with adding a function that is not durable."""

from __future__ import annotations

from dataclasses import dataclass

from afterward.cli.check.codebase import is_library
from afterward.cli.check.finding import CANNOT_TELL, shown
from afterward.cli.check.libraries import is_task
from afterward.cli.check.values import (
    Class,
    Durable,
    External,
    Function,
    Instance,
    Lambda,
    Member,
    Partial,
    Unknown,
    Value,
)

_LOST = "runs in memory only, and is lost with the process"


@dataclass(frozen=True, slots=True)
class Said:
    """A rule, and what it says of one place."""

    rule: str
    message: str


def what_is_wrong_with(function: Value) -> Said:  # noqa: PLR0911 - one answer for each kind of value
    """Why this, which is no task, should not be added; or that it cannot be told."""
    match function:
        case Lambda():
            return Said("lambda", f"a lambda {_LOST}: make it a function of a module, decorated with @tasks.task")
        case Partial(of):
            return Said("partial", f"a partial of {_name(of)} {_LOST}: add the task itself, with all its arguments")
        case Function():
            return _undecorated(function)
        case External():
            return _external(function)
        case Member(owner=Instance() | Durable()):
            return _bound_method(function)
        case Class(node) | Instance(of=Class(node)):
            return Said("undecorated", f"{node.name} {_LOST}: call it in a function decorated with @tasks.task")
        case Unknown(why):
            return Said(CANNOT_TELL, f"{why}, so it is not known whether it is a task")
        case _:
            return Said(CANNOT_TELL, "it is not known whether this is a task")


def _undecorated(function: Function) -> Said:
    node, scope = function.node, function.scope
    place = f"{node.name} ({shown(scope.module.path)}:{node.lineno})"
    if scope.is_inside_a_function():
        mend = "move it to the level of its module, and decorate it with @tasks.task"
        return Said("nested-function", f"{place}, which is defined inside a function, {_LOST}: {mend}")
    return Said("undecorated", f"{place} {_LOST}: decorate it with @tasks.task")


def _external(function: External) -> Said:
    if not is_library(function.root):
        why = f"{function.root} is not of this code base, nor known as a library here"
        return Said(CANNOT_TELL, f"{why}, so it is not known whether {function.name} is a task")
    path = function.path.removeprefix("builtins.")
    return Said("library-function", f"{path} {_LOST}: call it in a function of your own, decorated with @tasks.task")


def _bound_method(method: Member) -> Said:
    owner, name = method.owner, f"{_name(method.owner)}.{method.name}"
    if is_task(owner):
        return Said("bound-method", f"{name} {_LOST}: add the task itself")
    if isinstance(owner, Instance) and isinstance(owner.of, External) and not is_library(owner.of.root):
        return Said(CANNOT_TELL, f"{owner.of.root} is not known as a library here, so neither whether {name} is a task")
    mend = "call it in a function decorated with @tasks.task, to which the data is passed"
    return Said("bound-method", f"the bound method {name} {_LOST}: {mend}")


def _name(value: Value) -> str:
    match value:
        case Function(node) | Class(node) | Durable(function=Function(node)) | Instance(of=Class(node)):
            return node.name
        case External() as kind:
            return kind.name
        case Instance(of=External() as kind):
            return kind.name
        case Member(name=name):
            return name
        case _:
            return "this"
