"""One file's names: where each is bound, and to what; and the calls made in it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Imported:
    """`import module`, or `from module import name`; `level` counts the dots before it."""

    module: str
    level: int = 0
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Assigned:
    """`name: annotation = value`, either of which may be missing."""

    value: ast.expr | None
    annotation: ast.expr | None = None


@dataclass(frozen=True, slots=True)
class Entered:
    """`with value as name`."""

    value: ast.expr


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a function or a lambda; `is_self`: what a method is called on is passed for it."""

    annotation: ast.expr | None
    default: ast.expr | None
    is_self: bool


@dataclass(frozen=True, slots=True)
class Opaque:
    """Bound to what is not followed: a loop's variable, a part of a tuple, an exception."""


What = Imported | Assigned | Entered | Parameter | Opaque | FunctionNode | ast.ClassDef


@dataclass(frozen=True, slots=True)
class Binding:
    """A name is bound to `what`, which is to be read in `scope`, from the end of `line` on.

    `is_certain`: whoever comes by the next statement has come by this one.
    """

    what: What
    scope: Scope
    line: int
    is_certain: bool


@dataclass(eq=False, slots=True)
class Scope:
    """The names of a module, a class or a function. `attributes`, of a class: what its methods bind to `self`."""

    kind: Literal["module", "class", "function"]
    module: Module
    parent: Scope | None = None
    node: ast.AST | None = None
    bindings: dict[str, list[Binding]] = field(default_factory=dict[str, list[Binding]])
    attributes: dict[str, list[Binding]] = field(default_factory=dict[str, list[Binding]])
    stars: list[Imported] = field(default_factory=list[Imported])
    outer_names: set[str] = field(default_factory=set[str])

    def is_inside_a_function(self) -> bool:
        """Is this a function's scope, or that of a class in one?"""
        return self.kind == "function" or (self.parent is not None and self.parent.is_inside_a_function())


class Module:
    """One file, or a folder without one (a namespace package)."""

    def __init__(self, path: Path, tree: ast.Module | None = None, lines: list[str] | None = None) -> None:
        self.path = path
        self.lines = lines or []
        self.scope = Scope("module", self)
        self.inner: dict[ast.AST, Scope] = {}
        self.calls: list[tuple[ast.Call, Scope]] = []
        self.functions: list[tuple[FunctionNode, Scope]] = []
        if tree is not None:
            _Reader(self).read(tree)

    def column(self, node: ast.expr | ast.stmt) -> int:
        """Where a node begins, in characters from 1; the parser counts bytes from 0."""
        line = self.lines[node.lineno - 1] if node.lineno <= len(self.lines) else ""
        return len(line.encode(errors="surrogatepass")[: node.col_offset].decode(errors="replace")) + 1


class _Reader:
    """One walk over a tree, without recursion: a generated file may be nested deeply."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._todo: list[tuple[ast.AST, Scope, bool]] = []

    def read(self, tree: ast.Module) -> None:
        self._later(tree.body, self._module.scope, True)
        while self._todo:
            self._visit(*self._todo.pop())

    def _later(self, nodes: Iterable[ast.AST | None], scope: Scope, is_certain: bool) -> None:
        self._todo.extend((node, scope, is_certain) for node in reversed([n for n in nodes if n is not None]))

    def _visit(self, node: ast.AST, scope: Scope, is_certain: bool) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._function(node, scope, is_certain)
            case ast.ClassDef():
                self._class(node, scope, is_certain)
            case ast.Lambda():
                self._later([node.body], self._enter(node, node.args, scope), True)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                inner = Scope("function", self._module, scope, node)
                self._later(ast.iter_child_nodes(node), inner, False)
            case ast.Call():
                self._module.calls.append((node, scope))
                self._later(ast.iter_child_nodes(node), scope, is_certain)
            case _:
                self._bind_of(node, scope, is_certain)
                branches = isinstance(
                    node, ast.If | ast.For | ast.AsyncFor | ast.While | ast.Try | ast.TryStar | ast.Match
                )
                self._later(ast.iter_child_nodes(node), scope, is_certain and not branches)

    def _bind_of(self, node: ast.AST, scope: Scope, is_certain: bool) -> None:
        match node:
            case ast.Import() | ast.ImportFrom():
                self._import(node, scope, is_certain)
            case ast.Assign():
                for target in node.targets:
                    self._assign(target, Assigned(node.value), scope, node.end_lineno or node.lineno, is_certain)
            case ast.AnnAssign():
                what = Assigned(node.value, node.annotation)
                self._assign(node.target, what, scope, node.end_lineno or node.lineno, is_certain)
            case ast.NamedExpr():
                self._assign(node.target, Assigned(node.value), scope, node.lineno, False)
            case ast.withitem(context_expr=value, optional_vars=ast.expr() as target):
                self._assign(target, Entered(value), scope, target.lineno, is_certain)
            case ast.Global() | ast.Nonlocal():
                scope.outer_names.update(node.names)
            case _:
                for name in _opaque_names(node):
                    self._bind(name, Opaque(), scope, getattr(node, "lineno", 0), is_certain)

    def _import(self, node: ast.Import | ast.ImportFrom, scope: Scope, is_certain: bool) -> None:
        for name, what in _imports(node):
            if name == "*":
                scope.stars.append(what)
            else:
                self._bind(name, what, scope, node.lineno, is_certain)

    def _assign(self, target: ast.expr, what: What, scope: Scope, line: int, is_certain: bool) -> None:
        match target:
            case ast.Name():
                self._bind(target.id, what, scope, line, is_certain)
            case ast.Attribute(value=ast.Name(id="self")):
                if scope.parent is not None and scope.parent.kind == "class":
                    there = scope.parent.attributes.setdefault(target.attr, [])
                    there.append(Binding(what, scope, line, False))
            case ast.Tuple() | ast.List():
                for element in target.elts:
                    self._assign(element, Opaque(), scope, line, is_certain)
            case ast.Starred():
                self._assign(target.value, Opaque(), scope, line, is_certain)
            case _:
                pass

    def _bind(self, name: str, what: What, scope: Scope, line: int, is_certain: bool) -> None:
        if name in scope.outer_names:  # of whichever scope outside; a module's, nearly always
            outer = self._module.scope
            outer.bindings.setdefault(name, []).append(Binding(what, scope, line, False))
        else:
            scope.bindings.setdefault(name, []).append(Binding(what, scope, line, is_certain))

    def _function(self, node: FunctionNode, scope: Scope, is_certain: bool) -> None:
        self._module.functions.append((node, scope))
        self._bind(node.name, node, scope, node.lineno, is_certain)
        self._later(node.decorator_list, scope, is_certain)
        self._later(node.body, self._enter(node, node.args, scope), True)

    def _class(self, node: ast.ClassDef, scope: Scope, is_certain: bool) -> None:
        self._bind(node.name, node, scope, node.lineno, is_certain)
        self._later([*node.decorator_list, *node.bases, *(k.value for k in node.keywords)], scope, is_certain)
        inner = self._module.inner[node] = Scope("class", self._module, scope, node)
        self._later(node.body, inner, True)

    def _enter(self, node: FunctionNode | ast.Lambda, arguments: ast.arguments, scope: Scope) -> Scope:
        inner = self._module.inner[node] = Scope("function", self._module, scope, node)
        first = _self_of(node) if scope.kind == "class" else None
        for argument, default in parameters(arguments):
            what = Parameter(argument.annotation, default, argument is first)
            inner.bindings[argument.arg] = [Binding(what, scope, node.lineno, True)]
        for rest in (arguments.vararg, arguments.kwarg):
            if rest is not None:
                inner.bindings[rest.arg] = [Binding(Opaque(), scope, node.lineno, True)]
        self._later([*arguments.defaults, *arguments.kw_defaults], scope, True)
        return inner


def parameters(arguments: ast.arguments) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """The parameters that have a name of their own, in order, each with its default."""
    positional = [*arguments.posonlyargs, *arguments.args]
    missing = len(positional) - len(arguments.defaults)
    yield from zip(positional, [*[None] * missing, *arguments.defaults], strict=True)
    yield from zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)


def own_nodes(function: FunctionNode) -> Iterator[ast.AST]:
    """The nodes of a function's body, without those of the functions and classes in it."""
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, FunctionNode | ast.Lambda | ast.ClassDef):
            todo.extend(ast.iter_child_nodes(node))


def all_nodes(function: FunctionNode) -> Iterator[ast.AST]:
    """The nodes of a function's body, with those of the functions and classes in it."""
    return (node for statement in function.body for node in ast.walk(statement))


def is_generator(function: FunctionNode) -> bool:
    """Does it `yield`?"""
    return any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own_nodes(function))


def _self_of(node: FunctionNode | ast.Lambda) -> ast.arg | None:
    if isinstance(node, ast.Lambda):
        return None
    names = {decorator.id for decorator in node.decorator_list if isinstance(decorator, ast.Name)}
    positional = [] if names & {"staticmethod", "classmethod"} else [*node.args.posonlyargs, *node.args.args]
    return positional[0] if positional else None


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Imported]]:
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            yield alias.asname or alias.name, Imported(node.module or "", node.level, alias.name)
        elif alias.asname:
            yield alias.asname, Imported(alias.name)
        else:  # `import a.b` binds `a`
            top = alias.name.partition(".")[0]
            yield top, Imported(top)


def _opaque_names(node: ast.AST) -> list[str]:
    match node:
        case ast.For() | ast.AsyncFor() | ast.comprehension() | ast.AugAssign():
            return [name.id for name in ast.walk(node.target) if isinstance(name, ast.Name)]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
        case _:
            return []
