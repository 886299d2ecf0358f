"""What classes derive from, and what they have."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from afterward.cli.check.asking import Asking
from afterward.cli.check.names import Names
from afterward.cli.check.scopes import Scope
from afterward.cli.check.values import Class, External, Instance, TypeForm, Value


class Classes:
    """Follows classes to their bases, as far as those can be told."""

    def __init__(self, ask: Asking, names: Names) -> None:
        self._ask = ask
        self._names = names

    def ancestors(self, of: Class | External) -> Iterator[Value]:
        """A class, and all that it derives from."""
        seen: set[Value] = set()
        todo: list[Value] = [of]
        while todo:
            kind = todo.pop()
            if kind in seen:
                continue
            seen.add(kind)
            yield kind
            if isinstance(kind, Class):
                todo += [self._base(base, kind.scope) for base in kind.node.bases]

    def externals(self, of: Class | External) -> list[External]:
        """The classes of libraries among the ancestors."""
        return [kind for kind in self.ancestors(of) if isinstance(kind, External)]

    def is_known(self, of: Class | External) -> bool:
        """Are all its ancestors known, so that it is certainly none of anything else?"""
        return all(isinstance(kind, Class | External) for kind in self.ancestors(of)) and not (
            isinstance(of, Class) and self.is_protocol(of)
        )

    def is_protocol(self, value: Class) -> bool:
        """Is it a class that says of objects of any other what they can do?"""
        return any(kind.name == "Protocol" for kind in self.externals(value))

    def has_own(self, value: Instance, name: str) -> bool:
        """Is it of a class of the code base that has this method itself, or from another one?"""
        return isinstance(value.of, Class) and self.found(value.of, name) is not None

    def found(self, owner: Class, name: str) -> Value | None:
        """What the class, or another one of the code base that it derives from, has under this name."""
        for kind in self.ancestors(owner):
            if isinstance(kind, Class):
                scope = kind.scope.module.inner[kind.node]
                if name in scope.bindings:
                    return self._names.bound(scope.bindings[name])
                if name in scope.attributes:
                    return self._names.bound(scope.attributes[name])
        return None

    def _base(self, node: ast.expr, scope: Scope) -> Value:
        value = self._ask.value(node, scope)
        if isinstance(value, TypeForm) and isinstance(value.node, ast.Subscript):
            return self._ask.value(value.node.value, value.scope)
        return value
