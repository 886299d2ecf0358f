"""The rules: which calls would lose work, or be refused."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from afterward.cli.check.arguments import UPLOAD, Arguments, Culprit
from afterward.cli.check.codebase import CodeBase
from afterward.cli.check.evaluation import Evaluator
from afterward.cli.check.finding import CANNOT_TELL, Finding, shown
from afterward.cli.check.functions import Said, what_is_wrong_with
from afterward.cli.check.libraries import is_of_web, is_ours, is_task
from afterward.cli.check.scopes import FunctionNode, Module, Scope, parameters
from afterward.cli.check.values import (
    Durable,
    External,
    Function,
    Instance,
    Member,
    Several,
    Site,
    Unknown,
    Value,
    possible,
)

_MEANT = re.compile(r"#\s*afterward:\s*in-memory(?![\w-])")
_ENQUEUES = frozenset(("enqueue", "enqueue_sync", "prepare"))


@dataclass(frozen=True, slots=True)
class _Adding:
    """A call that makes a job of a function and its arguments.

    `function` is None where a `*` hides it. `container`: the name of the class that it is added to, if any; `is_stock`:
    it is FastAPI's own.
    """

    function: ast.expr | None
    args: list[ast.expr]
    keywords: list[ast.keyword]
    container: str | None = None
    is_stock: bool = False


class Rules:
    """Applies all rules to one module after the other; what concerns them all is said at the end."""

    def __init__(self, code: CodeBase) -> None:
        self._code = code
        self._evaluator = Evaluator(code)
        self._arguments = Arguments(self._evaluator)
        self._declared: dict[Site, None] = {}
        self._installed: set[Site | None] = set()
        self._has_requests = False

    def of_module(self, module: Module) -> Iterator[Finding]:
        """What is wrong in one module, unless its line says that it is meant so."""
        for node, scope in module.functions:
            if not _is_meant(module, node.lineno, node.lineno):
                yield from (_finding(module, node, said) for said in self._of_declaration(node, scope))
        for call, scope in module.calls:
            self._note(call, scope)
            adding = self._adding(call, scope)
            if adding is not None and not _is_meant(module, call.lineno, call.end_lineno or call.lineno):
                found = [(call, adding)] if isinstance(adding, Said) else self._of_adding(adding, call, scope)
                yield from (_finding(module, node, said) for node, said in found)

    def of_all(self) -> Iterator[Finding]:
        """What is missing everywhere."""
        if not self._has_requests or None in self._installed:
            return
        for module, call in self._declared:
            if (module, call) in self._installed or _is_meant(module, call.lineno, call.lineno):
                continue
            if self._code.is_checked(module) and self._code.is_whole():
                yield _finding(module, call, _NOT_INSTALLED)

    # declarations

    def _of_declaration(self, node: FunctionNode, scope: Scope) -> Iterator[Said]:
        task = self._evaluator.defined(node, scope) if node.decorator_list else None
        if not isinstance(task, Durable):
            return
        if task.owner is not None and task.owner.site is not None:
            self._declared[task.owner.site] = None
        if scope.is_inside_a_function():
            why = "is defined inside a function, where other processes cannot import it"
            yield Said("nested-task", f"{node.name} {why}: move it to the level of its module")

    def _note(self, call: ast.Call, scope: Scope) -> None:
        """Remember what tells whether the tasks are installed, and whether they must be."""
        name = _last_name(call.func)
        if name == "install" and isinstance(call.func, ast.Attribute):
            for owner in possible(self._evaluator.value(call.func.value, scope)):
                if isinstance(owner, Instance) and self._is_ours(owner, "Afterward"):
                    self._installed.add(owner.site)
                elif isinstance(owner, Unknown):
                    self._installed.add(None)  # it may be anyone's
        elif name in {"FastAPI", "Starlette"}:
            self._has_requests = True

    # calls that add a task

    def _adding(self, call: ast.Call, scope: Scope) -> _Adding | Said | None:
        if not isinstance(call.func, ast.Attribute):
            return self._called(self._evaluator.value(call.func, scope), call)
        if call.func.attr == "add_task":
            return self._added_to(self._evaluator.value(call.func.value, scope), call)
        if call.func.attr in _ENQUEUES and is_task(self._evaluator.value(call.func.value, scope)):
            return _Adding(call.func.value, call.args, call.keywords)
        if call.func.attr == "BackgroundTask":
            return self._called(self._evaluator.value(call.func, scope), call)
        return None

    def _called(self, callee: Value, call: ast.Call) -> _Adding | Said | None:
        match callee:
            case Member(owner=owner, name="add_task"):
                return self._added_to(owner, call)
            case External() if is_ours(callee, "BackgroundTask"):
                return _split(call, "BackgroundTask", is_stock=False)
            case External() if is_of_web(callee, "BackgroundTask"):
                return _split(call, "BackgroundTask", is_stock=True)
            case _:
                return None

    def _added_to(self, container: Value, call: ast.Call) -> _Adding | Said | None:
        kinds = {self._kind(one) for one in possible(container)}
        if "other" in kinds:
            return None
        if "unknown" in kinds:
            return Said(CANNOT_TELL, "it is not known what this adds to: annotate it with its class")
        return _split(call, "BackgroundTasks", is_stock=kinds == {"stock"})

    def _kind(self, value: Value) -> str:
        if not isinstance(value, Instance):
            return "unknown" if isinstance(value, Unknown | Member) else "other"
        if self._evaluator.classes.has_own(value, "add_task"):
            return "other"
        if self._is_ours(value, "BackgroundTasks", "Injected"):
            return "ours"
        if any(is_of_web(kind, "BackgroundTasks") for kind in self._evaluator.classes.externals(value.of)):
            return "stock"
        return "other" if self._evaluator.classes.is_known(value.of) else "unknown"

    def _is_ours(self, value: Instance, *names: str) -> bool:
        return any(is_ours(kind, *names) for kind in self._evaluator.classes.externals(value.of))

    # what is wrong with them

    def _of_adding(self, adding: _Adding, call: ast.Call, scope: Scope) -> Iterator[tuple[ast.expr, Said]]:
        if adding.function is None:
            yield call, Said(CANNOT_TELL, "its arguments do not show which function it adds")
            return
        function = self._evaluator.value(adding.function, scope)
        said = self._of_function(function, adding)
        if said is not None:
            yield call, said
        if said is None or said.rule != CANNOT_TELL:
            for argument, culprit in self._culprits(adding, function, scope):
                yield argument, _of_argument(argument, culprit)

    def _of_function(self, function: Value, adding: _Adding) -> Said | None:
        if isinstance(function, Several):
            all_said = [self._of_function(one, adding) for one in function.values]
            if None in all_said or any(said is not None and said.rule == CANNOT_TELL for said in all_said):
                return Said(CANNOT_TELL, "it depends on the run what this adds") if any(all_said) else None
            return all_said[0]
        if is_task(function):
            self._has_requests = self._has_requests or adding.container is not None
            return _stock_container(adding) if adding.is_stock else None
        said = what_is_wrong_with(function)
        if adding.is_stock and said.rule != CANNOT_TELL:
            return Said(said.rule, f"{said.message}, and import {adding.container} from afterward")
        return said

    def _culprits(self, adding: _Adding, function: Value, scope: Scope) -> Iterator[tuple[ast.expr, Culprit]]:
        parameters = _Parameters(function)
        for key, argument in _keyed(adding):
            culprit = self._arguments.culprit(self._evaluator.value(argument, scope))
            if culprit is not None and self._is_refused(culprit, function, parameters, key):
                yield argument, culprit

    def _is_refused(self, culprit: Culprit, function: Value, parameters: _Parameters, key: int | str | None) -> bool:
        """Is it certain, whatever the function says of its parameters?"""
        if culprit.rule == "function-argument":
            return not isinstance(function, External)  # what runs it in its place is a function of one's own
        if culprit.rule not in {"object-argument", "self-argument", "upload-argument"}:
            return True
        if parameters.scope is None or key is None:
            return False
        annotation = parameters.annotation(key)
        if annotation is None:
            return True
        if culprit is UPLOAD:
            taken = self._evaluator.of_type(annotation, parameters.scope)
            return not isinstance(taken, Unknown) and self._arguments.culprit(taken) is not UPLOAD
        return all(_last_name(node) != "Annotated" for node in ast.walk(annotation) if isinstance(node, ast.expr))


_NOT_INSTALLED = Said(
    "not-installed",
    "its tasks are declared, but never installed, so that the first add_task would be refused: "
    "call tasks.install(app) where the app is made",
)


class _Parameters:
    """What a function says of its parameters, by position and by name; `scope` is None where it is not known."""

    def __init__(self, function: Value) -> None:
        known = function.function if isinstance(function, Durable) else function
        self.scope: Scope | None = None
        self._by_name: dict[str, ast.expr | None] = {}
        self._by_position: list[ast.arg] = []
        self._rest: ast.arg | None = None
        self._more: ast.arg | None = None
        if isinstance(known, Function):
            arguments = known.node.args
            self.scope = known.scope
            self._by_name = {parameter.arg: parameter.annotation for parameter, _ in parameters(arguments)}
            self._by_position = [*arguments.posonlyargs, *arguments.args]
            self._rest, self._more = arguments.vararg, arguments.kwarg

    def annotation(self, key: int | str) -> ast.expr | None:
        """The annotation of the parameter that takes this positional or keyword argument, if it has one."""
        if isinstance(key, str):
            return self._by_name.get(key, self._more and self._more.annotation)
        there = self._by_position[key] if key < len(self._by_position) else self._rest
        return there and there.annotation


def _keyed(adding: _Adding) -> Iterator[tuple[int | str | None, ast.expr]]:
    """The arguments, by position or name; by None those whose place a `*` hides."""
    is_hidden = False
    for number, argument in enumerate(adding.args):
        is_hidden = is_hidden or isinstance(argument, ast.Starred)
        yield None if is_hidden else number, argument
    for keyword in adding.keywords:
        yield keyword.arg, keyword.value


def _split(call: ast.Call, container: str, *, is_stock: bool) -> _Adding:
    if call.args:
        first = None if isinstance(call.args[0], ast.Starred) else call.args[0]
        return _Adding(first, call.args[1:], call.keywords, container, is_stock)
    named = next((keyword for keyword in call.keywords if keyword.arg == "func"), None)
    rest = [keyword for keyword in call.keywords if keyword is not named]
    return _Adding(None if named is None else named.value, [], rest, container, is_stock)


def _stock_container(adding: _Adding) -> Said:
    why = f"this is a task, but it is added to FastAPI's own {adding.container}, which runs it in memory only"
    return Said("stock-container", f"{why}: import {adding.container} from afterward")


def _of_argument(argument: ast.expr, culprit: Culprit) -> Said:
    text = ast.unparse(argument)
    named = f"{text} " if len(text) <= 40 and isinstance(argument, ast.Name | ast.Attribute) else ""
    return Said(culprit.rule, f"the argument {named}cannot be stored, for it is {culprit.what}: {culprit.mend}")


def _finding(module: Module, node: ast.expr | ast.stmt, said: Said) -> Finding:
    return Finding(shown(module.path), node.lineno, module.column(node), said.rule, said.message)


def _is_meant(module: Module, first_line: int, last_line: int) -> bool:
    return any(_MEANT.search(line) for line in module.lines[first_line - 1 : last_line])


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
