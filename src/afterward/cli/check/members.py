"""What `owner.name` stands for."""

from __future__ import annotations

import ast

from afterward.cli.check import libraries
from afterward.cli.check.annotations import Annotations
from afterward.cli.check.asking import Asking
from afterward.cli.check.classes import Classes
from afterward.cli.check.libraries import is_ours
from afterward.cli.check.names import Names
from afterward.cli.check.scopes import Scope
from afterward.cli.check.values import (
    Class,
    Durable,
    External,
    Function,
    Instance,
    Maker,
    Member,
    Partial,
    Several,
    Source,
    Unknown,
    Value,
    joined,
)


class Members:
    """Looks up what modules, classes and objects have under a name."""

    def __init__(self, ask: Asking, names: Names, classes: Classes, annotations: Annotations) -> None:
        self._ask = ask
        self._names = names
        self._classes = classes
        self._annotations = annotations

    def member(self, owner: Value, name: str) -> Value:  # noqa: PLR0911 - one answer for each kind of value
        """`owner.name`."""
        match owner:
            case Several():
                return joined(self.member(one, name) for one in owner.values)
            case Source(module):
                return self._names.of_module(module, name)
            case External(path):
                return External(f"{path}.{name}")
            case Class():
                return self._classes.found(owner, name) or Unknown()
            case Instance():
                return self._instance_member(owner, name)
            case Function() | Durable() | Partial():
                return Member(owner, name)
            case _:
                return Unknown()

    def _instance_member(self, owner: Instance, name: str) -> Value:
        if isinstance(owner.of, External):
            if name == "task" and is_ours(owner.of, "Afterward"):
                return Maker(owner)
            kind = libraries.ATTRIBUTES.get((owner.of.name, name))
            return Member(owner, name) if kind is None else Instance(kind)
        found = self._classes.found(owner.of, name)
        if isinstance(found, Function):
            return self._method(owner, found)
        if found is not None:
            return found
        externals = self._classes.externals(owner.of)
        if any(is_ours(kind, "Afterward") for kind in externals) and name == "task":
            return Maker(owner)
        return Member(owner, name) if externals else Unknown()

    def _method(self, owner: Instance, function: Function) -> Value:
        decorators = {self._path(decorator, function.scope) for decorator in function.node.decorator_list}
        if "builtins.staticmethod" in decorators:
            return function
        if decorators & {"builtins.property", "functools.cached_property"}:
            return self._annotations.returned(function)
        return Member(owner, function.node.name, function)

    def _path(self, node: ast.expr, scope: Scope) -> str | None:
        value = self._ask.value(node, scope)
        return value.path if isinstance(value, External) else None
