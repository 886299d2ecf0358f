"""What annotations say: of a type, of what a function returns, and of what FastAPI passes for a parameter."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from afterward.cli.check import libraries
from afterward.cli.check.asking import Asking
from afterward.cli.check.classes import Classes
from afterward.cli.check.libraries import is_of_web
from afterward.cli.check.scopes import Binding, Parameter, Scope, is_generator, own_nodes
from afterward.cli.check.values import (
    Class,
    Data,
    External,
    Function,
    GeneratorObject,
    Instance,
    TypeForm,
    Unknown,
    Value,
    joined,
    possible,
)

_GIVES_A_SESSION = re.compile(
    r"(?:(?:get|make|create|open|provide|yield|new)_)?(?:(?:async|sync|db|sql|database|read|write)_)*"
    r"(?:db|database|session|conn|connection)"
)


class Annotations:
    """Reads annotations, and where there is none for a parameter, the dependency that is its default."""

    def __init__(self, ask: Asking, classes: Classes) -> None:
        self._ask = ask
        self._classes = classes

    def read(self, node: ast.expr, scope: Scope) -> Iterator[Value]:
        """Each thing that an object of the type can be."""
        match node:
            case ast.Constant(value=str(text)):
                parsed = _parsed(text, node)
                yield Unknown() if parsed is None else self._ask.of_type(parsed, scope)
            case ast.Constant(value=None):
                yield Data(is_none=True)
            case ast.BinOp(op=ast.BitOr()):
                yield self._ask.of_type(node.left, scope)
                yield self._ask.of_type(node.right, scope)
            case ast.Subscript():
                yield self._of_generic(node, scope)
            case _:
                for value in possible(self._ask.value(node, scope)):
                    yield self._of_named(value)

    def returned(self, function: Function) -> Value:
        """What a call of the function gives."""
        if is_generator(function.node) and not function.node.decorator_list:
            return GeneratorObject()
        if function.node.returns is None:
            return Unknown()
        return self._ask.of_type(self._yielded_type(function.node.returns, function.scope), function.scope)

    def parameter(self, parameter: Parameter, binding: Binding) -> Value:
        """What is passed for a parameter, by its annotation or by FastAPI."""
        outer = binding.scope
        if parameter.is_self and isinstance(outer.node, ast.ClassDef) and outer.parent is not None:
            return Instance(Class(outer.node, outer.parent), is_self=True)
        told = Unknown() if parameter.annotation is None else self._ask.of_type(parameter.annotation, outer)
        if not isinstance(told, Unknown) or parameter.default is None:
            return told
        return self._given(parameter.default, outer)

    def _of_named(self, value: Value) -> Value:
        match value:
            case Class() if not self._classes.is_protocol(value):
                return Instance(value)
            case External() if value.root in libraries.TYPING and value.name in libraries.COLLECTIONS:
                return Data()
            case External() if value.name not in libraries.ANYTHING:
                return Instance(value)
            case TypeForm(node, scope):
                return self._ask.of_type(node, scope)
            case _:
                return Unknown()

    def _of_generic(self, node: ast.Subscript, scope: Scope) -> Value:
        base = self._ask.value(node.value, scope)
        arguments = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if isinstance(base, Class):
            return self._of_named(base)
        if not isinstance(base, External) or base.name in libraries.ANYTHING or not arguments:
            return Unknown()
        if base.name == "Annotated":
            return self._of_annotated(arguments, scope)
        if base.name in {"Optional", "Union", "ClassVar", "Final", "Required"}:
            return joined(self._ask.of_type(argument, scope) for argument in arguments)
        if base.name in libraries.COLLECTIONS:
            return Data(tuple(self._ask.of_type(argument, scope) for argument in arguments))
        return Instance(base) if base.root not in libraries.TYPING else Unknown()

    def _of_annotated(self, arguments: list[ast.expr], scope: Scope) -> Value:
        told = self._ask.of_type(arguments[0], scope)
        if not isinstance(told, Unknown):
            return told
        given = (self._given(metadata, scope) for metadata in arguments[1:])
        return next((value for value in given if not isinstance(value, Unknown)), told)

    def _yielded_type(self, annotation: ast.expr, scope: Scope) -> ast.expr:
        """`Iterator[X]` → X, for functions that `yield` once, to be entered or depended on."""
        if isinstance(annotation, ast.Subscript):
            value = self._ask.value(annotation.value, scope)
            if isinstance(value, External) and value.name in libraries.ITERATORS:
                inner = annotation.slice
                return inner.elts[0] if isinstance(inner, ast.Tuple) and inner.elts else inner
        return annotation

    def _given(self, default: ast.expr, scope: Scope) -> Value:
        """What FastAPI passes for `Depends(…)`."""
        if not isinstance(default, ast.Call):
            return Unknown()
        called = self._ask.value(default.func, scope)
        if not (isinstance(called, External) and is_of_web(called, "Depends", "Security")):
            return Unknown()
        dependency = default.args[0] if default.args else None
        for keyword in default.keywords:
            dependency = keyword.value if keyword.arg == "dependency" else dependency
        return Unknown() if dependency is None else self._provided(dependency, scope)

    def _provided(self, dependency: ast.expr, scope: Scope) -> Value:
        provider = self._ask.value(dependency, scope)
        if isinstance(provider, Class):
            return Instance(provider)
        found = self._provided_by(provider) if isinstance(provider, Function) else Unknown()
        if not isinstance(found, Unknown):
            return found
        name = dependency.id if isinstance(dependency, ast.Name) else getattr(dependency, "attr", "")
        return Instance(libraries.SESSION) if _GIVES_A_SESSION.fullmatch(name) else Unknown()

    def _provided_by(self, provider: Function) -> Value:
        node, scope = provider.node, provider.scope
        if node.returns is not None:
            told = self._ask.of_type(self._yielded_type(node.returns, scope), scope)
            if not isinstance(told, Unknown):
                return told
        inner = scope.module.inner[node]
        given = [n.value for n in own_nodes(node) if isinstance(n, ast.Yield | ast.Return) and n.value is not None]
        return joined(self._ask.value(one, inner) for one in given)


def _parsed(text: str, at: ast.expr) -> ast.expr | None:
    try:
        expression = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return None
    for inner in ast.walk(expression):
        ast.copy_location(inner, at)
    return expression
