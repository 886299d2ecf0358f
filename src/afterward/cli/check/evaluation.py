"""What the names and expressions of a code base stand for, as far as its text tells."""

from __future__ import annotations

import ast
import builtins
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace

from afterward.cli.check import libraries
from afterward.cli.check.codebase import CodeBase, is_library
from afterward.cli.check.libraries import is_of_web, is_ours
from afterward.cli.check.scopes import (
    Assigned,
    Binding,
    Entered,
    FunctionNode,
    Imported,
    Module,
    Parameter,
    Scope,
    all_nodes,
    is_generator,
    own_nodes,
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
    Several,
    Source,
    TypeForm,
    Unknown,
    Value,
    joined,
    possible,
)

_DEEPEST = 60
_STARRED = {
    "afterward": {"Afterward", "BackgroundTask", "BackgroundTasks"},
    "fastapi": {"BackgroundTasks", "Depends", "Request", "UploadFile", "WebSocket"},
    "starlette": {"BackgroundTask", "BackgroundTasks", "Request", "WebSocket"},
}
_GIVES_A_SESSION = re.compile(
    r"(?:(?:get|make|create|open|provide|yield|new)_)?(?:(?:async|sync|db|sql|database|read|write)_)*"
    r"(?:db|database|session|conn|connection)"
)


class Evaluator:
    """Follows names through assignments, imports, annotations and calls. What it cannot follow is `Unknown`."""

    def __init__(self, code: CodeBase) -> None:
        self._code = code
        self._depth = 0
        self._values: dict[int, Value] = {}  # of bindings, by their ids: they live as long as their modules

    def value(self, node: ast.expr, scope: Scope) -> Value:
        """What an expression stands for where it stands."""
        if self._depth >= _DEEPEST:
            return Unknown()
        self._depth += 1
        try:
            return self._value(node, scope)
        finally:
            self._depth -= 1

    def _value(self, node: ast.expr, scope: Scope) -> Value:  # noqa: PLR0911 - one answer for each kind of expression
        match node:
            case ast.Name():
                return self._name(node.id, scope, node.lineno)
            case ast.Attribute():
                return self.member(self.value(node.value, scope), node.attr)
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

    # names

    def _name(self, name: str, scope: Scope, line: int) -> Value:
        home: Scope | None = scope
        while home is not None:
            if name in home.bindings and (home is scope or home.kind != "class"):
                return self._bound(home.bindings[name], line if home is scope else None)
            home = home.parent
        if (starred := self._from_star(name, scope.module)) is not None:
            return starred
        return External(f"builtins.{name}") if hasattr(builtins, name) else Unknown()

    def _from_star(self, name: str, module: Module) -> Value | None:
        for imported in module.scope.stars:
            found = self._imported(replace(imported, name=None), module)
            if isinstance(found, Source) and found.module is not module:
                value = self._module_member(found.module, name)
                if not isinstance(value, Unknown):
                    return value
            elif isinstance(found, External) and name in _STARRED.get(found.root, ()):
                return External(f"{found.path}.{name}")
        return Unknown() if module.scope.stars and not hasattr(builtins, name) else None

    def _bound(self, bindings: list[Binding], line: int | None) -> Value:
        """What the name is bound to: by the last binding that is sure, or one that may have come after it."""
        before = [binding for binding in bindings if line is None or binding.line < line] or bindings
        values: list[Value] = []
        for binding in sorted(before, key=lambda binding: binding.line, reverse=True):
            values.append(self._binding(binding))
            if binding.is_certain:
                break
        return joined(values)

    def _binding(self, binding: Binding) -> Value:
        if id(binding) not in self._values:
            self._values[id(binding)] = Unknown()  # to itself
            self._values[id(binding)] = self._bound_to(binding)
        return self._values[id(binding)]

    def _bound_to(self, binding: Binding) -> Value:  # noqa: PLR0911 - one answer for each kind of binding
        match binding.what:
            case Imported() as imported:
                return self._imported(imported, binding.scope.module)
            case Assigned() as assigned:
                return self._assigned(assigned, binding.scope)
            case Entered(value):
                return self._entered(self.value(value, binding.scope))
            case Parameter() as parameter:
                return self._parameter(parameter, binding)
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

    def _imported(self, imported: Imported, importer: Module) -> Value:
        found = self._code.find(importer, imported)
        if found is None:
            if imported.level or self._code.is_own(importer, imported.module):
                return Unknown("it is imported from a module that is not there")
            return External(f"{imported.module}.{imported.name}" if imported.name else imported.module)
        if not imported.level and imported.module.partition(".")[0] in sys.stdlib_module_names:
            return Unknown("it has the name of one of Python's own modules")
        return Source(found) if imported.name is None else self._module_member(found, imported.name)

    def _module_member(self, module: Module, name: str) -> Value:
        if name in module.scope.bindings:
            return self._bound(module.scope.bindings[name], None)
        submodule = self._code.submodule(module, name)
        if submodule is not None:
            return Source(submodule)
        return self._from_star(name, module) or Unknown()

    # functions, and what makes tasks of them

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

    def _base(self, node: ast.expr, scope: Scope) -> Value:
        value = self.value(node, scope)
        if isinstance(value, TypeForm) and isinstance(value.node, ast.Subscript):
            return self.value(value.node.value, value.scope)
        return value

    def externals(self, of: Class | External) -> list[External]:
        """The classes of libraries among the ancestors."""
        return [kind for kind in self.ancestors(of) if isinstance(kind, External)]

    def is_known(self, of: Class | External) -> bool:
        """Are all its ancestors known, so that it is certainly none of anything else?"""
        return all(isinstance(kind, Class | External) for kind in self.ancestors(of)) and not (
            isinstance(of, Class) and self.is_protocol(of)
        )

    def has_own(self, value: Instance, name: str) -> bool:
        """Is it of a class of the code base that has this method itself, or from another one?"""
        return isinstance(value.of, Class) and self._class_member(value.of, name) is not None

    # attributes

    def member(self, owner: Value, name: str) -> Value:  # noqa: PLR0911 - one answer for each kind of value
        """`owner.name`."""
        match owner:
            case Several():
                return joined(self.member(one, name) for one in owner.values)
            case Source(module):
                return self._module_member(module, name)
            case External(path):
                return External(f"{path}.{name}")
            case Class():
                return self._class_member(owner, name) or Unknown()
            case Instance():
                return self._instance_member(owner, name)
            case Function() | Durable() | Partial():
                return Member(owner, name)
            case _:
                return Unknown()

    def _class_member(self, owner: Class, name: str) -> Value | None:
        for kind in self.ancestors(owner):
            if isinstance(kind, Class):
                scope = kind.scope.module.inner[kind.node]
                if name in scope.bindings:
                    return self._bound(scope.bindings[name], None)
                if name in scope.attributes:
                    return self._bound(scope.attributes[name], None)
        return None

    def _instance_member(self, owner: Instance, name: str) -> Value:
        if isinstance(owner.of, External):
            if name == "task" and is_ours(owner.of, "Afterward"):
                return Maker(owner)
            kind = libraries.ATTRIBUTES.get((owner.of.name, name))
            return Member(owner, name) if kind is None else Instance(kind)
        found = self._class_member(owner.of, name)
        if isinstance(found, Function):
            return self._method(owner, found)
        if found is not None:
            return found
        externals = self.externals(owner.of)
        if any(is_ours(kind, "Afterward") for kind in externals) and name == "task":
            return Maker(owner)
        return Member(owner, name) if externals else Unknown()

    def _method(self, owner: Instance, function: Function) -> Value:
        decorators = {self._path(decorator, function.scope) for decorator in function.node.decorator_list}
        if "builtins.staticmethod" in decorators:
            return function
        if decorators & {"builtins.property", "functools.cached_property"}:
            return self._returned(function)
        return Member(owner, function.node.name, function)

    def _path(self, node: ast.expr, scope: Scope) -> str | None:
        value = self.value(node, scope)
        return value.path if isinstance(value, External) else None

    # calls

    def _call(self, node: ast.Call, scope: Scope) -> Value:
        return joined(self._called(one, node, scope) for one in possible(self.value(node.func, scope)))

    def _called(self, callee: Value, node: ast.Call, scope: Scope) -> Value:  # noqa: PLR0911 - one answer for each kind of value
        match callee:
            case Class():
                return Instance(callee, (scope.module, node))
            case External():
                return self._called_external(callee, node, scope)
            case Function():
                return self._returned(callee)
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
            return self._returned(method.function)
        if isinstance(method.owner, Instance) and isinstance(method.owner.of, External):
            kind = libraries.RETURNED_BY_METHOD.get((method.owner.of.name, method.name))
            return Unknown() if kind is None else Instance(kind)
        return Unknown()

    def _made(self, maker: Maker, node: ast.Call, scope: Scope) -> Value:
        if not node.args:
            return maker
        function = self.value(node.args[0], scope)
        return Durable(function if isinstance(function, Function) else None, maker.owner)

    def _returned(self, function: Function) -> Value:
        if is_generator(function.node) and not function.node.decorator_list:
            return GeneratorObject()
        if function.node.returns is None:
            return Unknown()
        return self.of_type(self._yielded_type(function.node.returns, function.scope), function.scope)

    def _yielded_type(self, annotation: ast.expr, scope: Scope) -> ast.expr:
        """`Iterator[X]` → X, for functions that `yield` once, to be entered or depended on."""
        if isinstance(annotation, ast.Subscript):
            value = self.value(annotation.value, scope)
            if isinstance(value, External) and value.name in libraries.ITERATORS:
                inner = annotation.slice
                return inner.elts[0] if isinstance(inner, ast.Tuple) and inner.elts else inner
        return annotation

    # parameters, and what FastAPI gives for them

    def _parameter(self, parameter: Parameter, binding: Binding) -> Value:
        outer = binding.scope
        if parameter.is_self and isinstance(outer.node, ast.ClassDef) and outer.parent is not None:
            return Instance(Class(outer.node, outer.parent), is_self=True)
        told = Unknown() if parameter.annotation is None else self.of_type(parameter.annotation, outer)
        if not isinstance(told, Unknown) or parameter.default is None:
            return told
        return self._given(parameter.default, outer)

    def _given(self, default: ast.expr, scope: Scope) -> Value:
        """What FastAPI passes for `Depends(…)`."""
        if not isinstance(default, ast.Call):
            return Unknown()
        called = self.value(default.func, scope)
        if not (isinstance(called, External) and is_of_web(called, "Depends", "Security")):
            return Unknown()
        dependency = default.args[0] if default.args else None
        for keyword in default.keywords:
            dependency = keyword.value if keyword.arg == "dependency" else dependency
        return Unknown() if dependency is None else self._provided(dependency, scope)

    def _provided(self, dependency: ast.expr, scope: Scope) -> Value:
        provider = self.value(dependency, scope)
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
            told = self.of_type(self._yielded_type(node.returns, scope), scope)
            if not isinstance(told, Unknown):
                return told
        inner = scope.module.inner[node]
        given = [n.value for n in own_nodes(node) if isinstance(n, ast.Yield | ast.Return) and n.value is not None]
        return self._joined(given, inner)

    # annotations

    def of_type(self, annotation: ast.expr, scope: Scope) -> Value:
        """An object of the type that an annotation names."""
        if self._depth >= _DEEPEST:
            return Unknown()
        self._depth += 1
        try:
            return joined(self._of_type(annotation, scope))
        finally:
            self._depth -= 1

    def _of_type(self, node: ast.expr, scope: Scope) -> Iterator[Value]:
        match node:
            case ast.Constant(value=str(text)):
                parsed = _parsed(text, node)
                yield Unknown() if parsed is None else self.of_type(parsed, scope)
            case ast.Constant(value=None):
                yield Data(is_none=True)
            case ast.BinOp(op=ast.BitOr()):
                yield self.of_type(node.left, scope)
                yield self.of_type(node.right, scope)
            case ast.Subscript():
                yield self._of_generic(node, scope)
            case _:
                for value in possible(self.value(node, scope)):
                    yield self._of_named(value)

    def _of_named(self, value: Value) -> Value:
        match value:
            case Class() if not self.is_protocol(value):
                return Instance(value)
            case External() if value.root in libraries.TYPING and value.name in libraries.COLLECTIONS:
                return Data()
            case External() if value.name not in libraries.ANYTHING:
                return Instance(value)
            case TypeForm(node, scope):
                return self.of_type(node, scope)
            case _:
                return Unknown()

    def is_protocol(self, value: Class) -> bool:
        """Is it a class that says of objects of any other what they can do?"""
        return any(kind.name == "Protocol" for kind in self.externals(value))

    def _of_generic(self, node: ast.Subscript, scope: Scope) -> Value:
        base = self.value(node.value, scope)
        arguments = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if isinstance(base, Class):
            return self._of_named(base)
        if not isinstance(base, External) or base.name in libraries.ANYTHING or not arguments:
            return Unknown()
        if base.name == "Annotated":
            return self._of_annotated(arguments, scope)
        if base.name in {"Optional", "Union", "ClassVar", "Final", "Required"}:
            return joined(self.of_type(argument, scope) for argument in arguments)
        if base.name in libraries.COLLECTIONS:
            return Data(tuple(self.of_type(argument, scope) for argument in arguments))
        return Instance(base) if base.root not in libraries.TYPING else Unknown()

    def _of_annotated(self, arguments: list[ast.expr], scope: Scope) -> Value:
        told = self.of_type(arguments[0], scope)
        if not isinstance(told, Unknown):
            return told
        given = (self._given(metadata, scope) for metadata in arguments[1:])
        return next((value for value in given if not isinstance(value, Unknown)), told)


def is_task(value: Value) -> bool:
    """Is it durable, be its function known or not?"""
    is_one = isinstance(value, Instance) and isinstance(value.of, External) and is_ours(value.of, "Task")
    return is_one or isinstance(value, Durable)


def _parsed(text: str, at: ast.expr) -> ast.expr | None:
    try:
        expression = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return None
    for inner in ast.walk(expression):
        ast.copy_location(inner, at)
    return expression
