"""What the names and expressions of a code base stand for, as far as its text tells."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from afterward.cli.check import libraries
from afterward.cli.check.annotations import Annotations
from afterward.cli.check.classes import Classes
from afterward.cli.check.codebase import CodeBase, is_library
from afterward.cli.check.libraries import is_task
from afterward.cli.check.members import Members
from afterward.cli.check.names import Names
from afterward.cli.check.scopes import (
    Assigned,
    Binding,
    Entered,
    FunctionNode,
    Imported,
    Parameter,
    Scope,
    all_nodes,
)
from afterward.cli.check.values import (
    Class,
    Data,
    Durable,
    External,
    Function,
    GeneratorObject,
    Instance,
    Lambda,
    Maker,
    Member,
    Partial,
    TypeForm,
    Unknown,
    Value,
    joined,
    possible,
)

_DEEPEST = 60


class Evaluator:
    """Follows names through assignments, imports, annotations and calls. What it cannot follow is `Unknown`."""

    def __init__(self, code: CodeBase) -> None:
        self._depth = 0
        self._names = Names(code, self)
        self.classes = Classes(self, self._names)
        self._annotations = Annotations(self, self.classes)
        self._members = Members(self, self._names, self.classes, self._annotations)

    def value(self, node: ast.expr, scope: Scope) -> Value:
        """What an expression stands for where it stands."""
        if self._depth >= _DEEPEST:
            return Unknown()
        self._depth += 1
        try:
            return self._value(node, scope)
        finally:
            self._depth -= 1

    def of_type(self, annotation: ast.expr, scope: Scope) -> Value:
        """An object of the type that an annotation names."""
        if self._depth >= _DEEPEST:
            return Unknown()
        self._depth += 1
        try:
            return joined(self._annotations.read(annotation, scope))
        finally:
            self._depth -= 1

    def _value(self, node: ast.expr, scope: Scope) -> Value:  # noqa: PLR0911 - one answer for each kind of expression
        match node:
            case ast.Name():
                return self._names.named(node.id, scope, node.lineno)
            case ast.Attribute():
                return self._members.member(self.value(node.value, scope), node.attr)
            case ast.Call():
                return self._call(node, scope)
            case ast.Lambda():
                return Lambda()
            case ast.GeneratorExp():
                return GeneratorObject()
            case ast.Await() | ast.NamedExpr() | ast.Starred():
                return self.value(node.value, scope)
            case ast.IfExp():
                return self._joined([node.body, node.orelse], scope)
            case ast.BoolOp():
                return self._joined(node.values, scope)
            case _:
                return self._structure(node, scope)

    def _structure(self, node: ast.expr, scope: Scope) -> Value:  # noqa: PLR0911 - one answer for each kind of expression
        match node:
            case ast.Constant():
                return Data(is_none=node.value is None)
            case ast.List() | ast.Tuple() | ast.Set():
                return Data(tuple(self.value(element, scope) for element in node.elts))
            case ast.Dict():
                return Data(tuple(self.value(element, scope) for element in node.values))
            case ast.JoinedStr() | ast.Compare():
                return Data()
            case ast.Subscript() if not isinstance(self.value(node.value, scope), Unknown | Data):
                return TypeForm(node, scope)
            case ast.BinOp(op=ast.BitOr()):
                return TypeForm(node, scope)
            case _:
                return Unknown()

    def _joined(self, nodes: Iterable[ast.expr], scope: Scope) -> Value:
        return joined(self.value(node, scope) for node in nodes)

    def bound_to(self, binding: Binding) -> Value:  # noqa: PLR0911 - one answer for each kind of binding
        """What one binding gives its name."""
        match binding.what:
            case Imported() as imported:
                return self._names.imported(imported, binding.scope.module)
            case Assigned() as assigned:
                return self._assigned(assigned, binding.scope)
            case Entered(value):
                return self._entered(self.value(value, binding.scope))
            case Parameter() as parameter:
                return self._annotations.parameter(parameter, binding)
            case ast.ClassDef() as node:
                return Class(node, binding.scope)
            case ast.FunctionDef() | ast.AsyncFunctionDef() as node:
                return self.defined(node, binding.scope)
            case _:
                return Unknown()

    def _assigned(self, assigned: Assigned, scope: Scope) -> Value:
        if assigned.value is not None:
            value = self.value(assigned.value, scope)
            if assigned.annotation is None or not isinstance(value, Unknown):
                return value
        return Unknown() if assigned.annotation is None else self.of_type(assigned.annotation, scope)

    def _entered(self, value: Value) -> Value:
        """What `with value as` binds: of a session, a connection or a file, the same."""
        return value if isinstance(value, Instance) and isinstance(value.of, External) else Unknown()

    def defined(self, node: FunctionNode, scope: Scope) -> Value:
        """What a `def` and its decorators leave under its name."""
        value: Value = Function(node, scope)
        for decorator in reversed(node.decorator_list):
            if isinstance(value, Function):
                value = self._decorated(value, decorator, scope)
        return value

    def _decorated(self, function: Function, decorator: ast.expr, scope: Scope) -> Value:
        value = self.value(decorator, scope)
        if isinstance(value, Maker):
            return Durable(function, value.owner)
        called = self.value(decorator.func, scope) if isinstance(decorator, ast.Call) else value
        if libraries.makes_celery_tasks(called):
            return Instance(libraries.CELERY_TASK)
        return function if self._is_harmless(called) else Unknown("it is not known what its decorator makes of it")

    def _is_harmless(self, decorator: Value) -> bool:
        """Is it sure that it makes no task? A library cannot; a function here does, if at all, by a `.task`."""
        match decorator:
            case External():
                return is_library(decorator.root)
            case Function(node, scope):
                return not any(self._names_maker(inner, scope.module.inner[node]) for inner in all_nodes(node))
            case Member(owner=Instance(of=External() as kind)):
                return is_library(kind.root)
            case Member(owner=Function() | External() as owner):
                return self._is_harmless(owner)
            case _:
                return False

    def _names_maker(self, node: ast.AST, scope: Scope) -> bool:
        if isinstance(node, ast.Name):
            return isinstance(self.value(node, scope), Maker)
        return isinstance(node, ast.Attribute) and node.attr == "task"

    def _call(self, node: ast.Call, scope: Scope) -> Value:
        return joined(self._called(one, node, scope) for one in possible(self.value(node.func, scope)))

    def _called(self, callee: Value, node: ast.Call, scope: Scope) -> Value:  # noqa: PLR0911 - one answer for each kind of value
        match callee:
            case Class():
                return Instance(callee, (scope.module, node))
            case External():
                return self._called_external(callee, node, scope)
            case Function():
                return self._annotations.returned(callee)
            case Maker():
                return self._made(callee, node, scope)
            case Member():
                return self._called_method(callee)
            case Instance(of=External(path)) if path.endswith(".sessionmaker"):
                return Instance(libraries.SESSION)
            case _:
                return Unknown()

    def _called_external(self, callee: External, node: ast.Call, scope: Scope) -> Value:
        first = node.args[0] if node.args else None
        if callee.path == "functools.partial" and first is not None:
            inner = self.value(first, scope)
            return inner if isinstance(inner, Maker) else Partial(inner)
        if callee.path == "typing.cast" and first is not None:
            return self.of_type(first, scope)
        if callee.path in {"builtins.dict", "builtins.list", "builtins.set", "builtins.tuple"}:
            return Data(tuple(self.value(keyword.value, scope) for keyword in node.keywords))
        if callee.path in libraries.CLASSES:
            return libraries.CLASSES[callee.path]
        if callee.path in libraries.RETURNED:
            return Instance(libraries.RETURNED[callee.path], (scope.module, node))
        is_class = callee.name[:1].isupper() and callee.name not in libraries.ANYTHING
        return Instance(callee, (scope.module, node)) if is_class else Unknown()

    def _called_method(self, method: Member) -> Value:
        if method.name == "options" and is_task(method.owner):
            return method.owner
        if method.function is not None:
            return self._annotations.returned(method.function)
        if isinstance(method.owner, Instance) and isinstance(method.owner.of, External):
            kind = libraries.RETURNED_BY_METHOD.get((method.owner.of.name, method.name))
            return Unknown() if kind is None else Instance(kind)
        return Unknown()

    def _made(self, maker: Maker, node: ast.Call, scope: Scope) -> Value:
        if not node.args:
            return maker
        function = self.value(node.args[0], scope)
        return Durable(function if isinstance(function, Function) else None, maker.owner)
