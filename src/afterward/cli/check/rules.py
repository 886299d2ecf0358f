"""The rules: which calls would lose work, or be refused."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from afterward.cli.check.arguments import UPLOAD, Arguments, Culprit
from afterward.cli.check.codebase import CodeBase, is_library
from afterward.cli.check.evaluation import Evaluator, is_task
from afterward.cli.check.finding import CANNOT_TELL, Finding, shown
from afterward.cli.check.libraries import is_of_web, is_ours
from afterward.cli.check.scopes import FunctionNode, Module, Scope, is_generator, parameters
from afterward.cli.check.values import (
    Class,
    Data,
    Durable,
    External,
    Function,
    Instance,
    Lambda,
    Member,
    Partial,
    Several,
    Site,
    Unknown,
    Value,
    possible,
)

_IN_MEMORY = re.compile(r"#\s*afterward:\s*in-memory\b")
_ENQUEUES = frozenset(("enqueue", "enqueue_sync", "prepare"))
_IMPORT = "and import BackgroundTasks from afterward"


@dataclass(frozen=True, slots=True)
class _Said:
    """A rule, and what it says."""

    rule: str
    message: str


@dataclass(frozen=True, slots=True)
class _Adding:
    """A call that adds a task: the arguments after the function, and whether FastAPI's own class is what it is added to.

    `function` is None where the arguments are a `*` that hides it.
    """

    function: ast.expr | Value | None
    args: list[ast.expr]
    keywords: list[ast.keyword]
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
        """What is wrong in one module, line by line, unless the line says that it is meant so."""
        for node, scope in module.functions:
            yield from self._said(module, node, self._of_declaration(node, scope))
        for call, scope in module.calls:
            self._note(call, scope)
            adding = self._adding(call, scope)
            if isinstance(adding, _Said):
                yield from self._said(module, call, [adding])
            elif adding is not None:
                yield from self._of_adding(adding, call, scope)

    def of_all(self) -> Iterator[Finding]:
        """What is missing everywhere."""
        if not self._has_requests or None in self._installed:
            return
        for module, call in self._declared:
            if (module, call) not in self._installed and self._code.is_checked(module):
                message = "tasks are declared, but install(app) is never called: the first add_task will be refused; "
                yield from self._said(
                    module, call, [_Said("not-installed", message + "call tasks.install(app) where the app is made")]
                )

    def _said(
        self, module: Module, node: ast.expr | ast.stmt, what: list[_Said], among: ast.expr | None = None
    ) -> Iterator[Finding]:
        first, last = (among or node).lineno, (among or node).end_lineno or node.lineno
        if isinstance(node, FunctionNode):
            first, last = node.lineno, node.lineno
        if any(_IN_MEMORY.search(line) for line in module.lines[first - 1 : last]):
            return
        for said in what:
            yield Finding(shown(module.path), node.lineno, module.column(node), said.rule, said.message)

    # declarations

    def _of_declaration(self, node: FunctionNode, scope: Scope) -> list[_Said]:
        task = self._evaluator.defined(node, scope) if node.decorator_list else None
        if not isinstance(task, Durable):
            return []
        if task.owner is not None and task.owner.site is not None:
            self._declared[task.owner.site] = None
        said: list[_Said] = []
        if is_generator(node):
            message = f"{node.name} is a generator function, which cannot be a task: make it return"
            said.append(_Said("generator-task", message))
        if scope.is_inside_a_function():
            message = f"{node.name} is defined inside a function, where other processes cannot import it: move it out"
            said.append(_Said("nested-task", message))
        return said

    def _note(self, call: ast.Call, scope: Scope) -> None:
        """Remember what tells whether the tasks are installed."""
        if isinstance(call.func, ast.Attribute) and call.func.attr == "install":
            for owner in possible(self._evaluator.value(call.func.value, scope)):
                if isinstance(owner, Instance) and self._is(owner, "Afterward"):
                    self._installed.add(owner.site)
                elif isinstance(owner, Unknown):
                    self._installed.add(None)  # it may be anyone's
        elif _last_name(call.func) in {"FastAPI", "Starlette"}:
            self._has_requests = True

    # calls that add a task

    def _adding(self, call: ast.Call, scope: Scope) -> _Adding | _Said | None:
        name = _last_name(call.func)
        if isinstance(call.func, ast.Attribute):
            if name == "add_task":
                return self._added_to(self._evaluator.value(call.func.value, scope), call)
            if name in _ENQUEUES:
                task = self._evaluator.value(call.func.value, scope)
                return _Adding(task, call.args, call.keywords) if is_task(task) else None
            if name != "BackgroundTask":
                return None
        return self._called(self._evaluator.value(call.func, scope), call)

    def _added_to(self, container: Value, call: ast.Call) -> _Adding | _Said | None:
        kinds = [self._container(one) for one in possible(container)]
        if "none" in kinds:
            return None
        if "unknown" in kinds:
            return _Said(CANNOT_TELL, "it is not known what this adds to; annotate it, as BackgroundTasks if it is one")
        return _split(call, is_stock="ours" not in kinds)

    def _container(self, value: Value) -> str:
        if isinstance(value, Instance):
            if self._is(value, "BackgroundTasks", "Injected"):
                return "ours"
            if self._is_web(value, "BackgroundTasks"):
                return "stock"
            return "none" if self._is_known(value.of) else "unknown"
        return "unknown" if isinstance(value, Unknown | Member) else "none"

    def _called(self, callee: Value, call: ast.Call) -> _Adding | _Said | None:
        match callee:
            case Member(owner=owner, name="add_task"):
                return self._added_to(owner, call)
            case External() if is_ours(callee, "BackgroundTask"):
                return _split(call, is_stock=False)
            case External() if is_of_web(callee, "BackgroundTask"):
                return _split(call, is_stock=True)
            case _:
                return None

    def _is(self, value: Instance, *names: str) -> bool:
        return any(is_ours(kind, *names) for kind in self._evaluator.externals(value.of))

    def _is_web(self, value: Instance, *names: str) -> bool:
        return any(is_of_web(kind, *names) for kind in self._evaluator.externals(value.of))

    def _is_known(self, of: Class | External) -> bool:
        """Are all its ancestors known, and it no protocol, so that it is certainly nothing else?"""
        if isinstance(of, Class) and self._evaluator.is_protocol(of):
            return False
        return all(isinstance(kind, Class | External) for kind in self._evaluator.ancestors(of))

    # what is wrong with them

    def _of_adding(self, adding: _Adding, call: ast.Call, scope: Scope) -> Iterator[Finding]:
        module = scope.module
        function = adding.function
        if isinstance(function, ast.expr):
            function = self._evaluator.value(function, scope)
        if function is None:
            hidden = "the function is hidden in a * argument"
            yield from self._said(module, call, [_Said(CANNOT_TELL, hidden)])
            return
        said = self._of_function(function, is_stock=adding.is_stock)
        yield from self._said(module, call, [] if said is None else [said])
        if said is None or said.rule != CANNOT_TELL:
            for argument, wrong in self._wrong_arguments(adding, function, scope):
                yield from self._said(module, argument, [wrong], among=call)

    def _of_function(self, function: Value, *, is_stock: bool) -> _Said | None:
        if isinstance(function, Several):
            said = [self._of_function(one, is_stock=is_stock) for one in function.values]
            if None in said and any(said):
                return _Said(CANNOT_TELL, "it depends on the run whether this is a task")
            return next((one for one in said if one is not None and one.rule == CANNOT_TELL), said[0])
        if is_task(function):
            self._has_requests = True
            message = f"{_name(function)} is a task, but FastAPI's own class runs it in memory only: import "
            return (
                _Said("stock-container", message + "BackgroundTasks, BackgroundTask from afterward")
                if is_stock
                else None
            )
        said = self._not_durable(function)
        if said is not None and is_stock and said.rule != CANNOT_TELL:
            return _Said(said.rule, f"{said.message}, {_IMPORT}")
        return said

    def _not_durable(self, function: Value) -> _Said | None:
        match function:
            case Lambda():
                mend = "make it a function of a module, decorated with @tasks.task"
                return _Said("lambda", f"a lambda runs in memory only, and is lost with the process: {mend}")
            case Partial(of):
                mend = "pass the task itself, and its arguments to add_task"
                return _Said(
                    "partial", f"a partial of {_name(of)} runs in memory only, and is lost with the process: {mend}"
                )
            case Function(node, scope):
                return self._undecorated(node, scope)
            case External():
                return self._external(function)
            case Member():
                return self._member(function)
            case Class(node) | Instance(of=Class(node)):
                return _Said("undecorated", f"{node.name} {_LOST}: call it in a function decorated with @tasks.task")
            case Data(is_none=False):
                return None
            case Unknown(why):
                return _Said(CANNOT_TELL, f"{why}, so neither whether it is a task")
            case _:
                return _Said(CANNOT_TELL, "it is not known whether this is a task")

    def _undecorated(self, node: FunctionNode, scope: Scope) -> _Said:
        place = f"{node.name} ({shown(scope.module.path)}:{node.lineno})"
        if scope.is_inside_a_function():
            mend = "move it to the level of its module, and decorate it with @tasks.task"
            return _Said("nested-function", f"{place}, defined inside a function, {_LOST}: {mend}")
        return _Said("undecorated", f"{place} {_LOST}: decorate it with @tasks.task")

    def _external(self, function: External) -> _Said:
        if not is_library(function.root):
            why = f"{function.root} is neither of this code base nor installed here"
            return _Said(CANNOT_TELL, f"{why}, so it is not known whether {function.name} is a task")
        path = function.path.removeprefix("builtins.")
        mend = "call it in a function of your own, decorated with @tasks.task"
        return _Said("library-function", f"{path} {_LOST}: {mend}")

    def _member(self, function: Member) -> _Said:
        owner = function.owner
        if isinstance(owner, Durable):
            return _Said("bound-method", f"{_name(owner)}.{function.name} {_LOST}: add the task itself")
        if isinstance(owner, Instance):
            mend = "call it in a function decorated with @tasks.task, to which its data is passed"
            return _Said("bound-method", f"{_name(owner)}.{function.name}, a bound method, {_LOST}: {mend}")
        return _Said(CANNOT_TELL, f"it is not known whether {function.name} is a task")

    # arguments

    def _wrong_arguments(self, adding: _Adding, function: Value, scope: Scope) -> Iterator[tuple[ast.expr, _Said]]:
        taken = _Taken(function)
        given = [*enumerate(adding.args), *((k.arg, k.value) for k in adding.keywords)]
        for key, argument in given:
            culprit = self._arguments.culprit(self._evaluator.value(argument, scope))
            if culprit is not None and not self._is_taken(taken, key, culprit):
                text = "" if len(text := ast.unparse(argument)) > 40 or "\n" in text else f"{text} "
                message = f"the argument {text}cannot be stored, for it is {culprit.what}: {culprit.mend}"
                yield argument, _Said(culprit.rule, message)

    def _is_taken(self, taken: _Taken, key: int | str | None, culprit: Culprit) -> bool:
        """Does the task's parameter say how to store such a value?"""
        annotation = taken.annotation(key)
        if annotation is None or taken.scope is None:
            return False
        names = {_last_name(node) for node in ast.walk(annotation) if isinstance(node, ast.expr)}
        if culprit is UPLOAD:
            return self._arguments.culprit(self._evaluator.of_type(annotation, taken.scope)) is UPLOAD
        return culprit.rule == "object-argument" and "Annotated" in names


_LOST = "runs in memory only, and is lost with the process"


class _Taken:
    """The parameters of a task, by position and by name."""

    def __init__(self, function: Value) -> None:
        known = function.function if isinstance(function, Durable) else None
        self.scope = None if known is None else known.scope
        arguments = None if known is None else known.node.args
        self._by_name = {} if arguments is None else {p.arg: p.annotation for p, _ in parameters(arguments)}
        self._by_position = [] if arguments is None else [*arguments.posonlyargs, *arguments.args]
        self._rest = None if arguments is None else arguments.vararg

    def annotation(self, key: int | str | None) -> ast.expr | None:
        if not isinstance(key, int):
            return self._by_name.get(key or "")
        there = self._by_position[key] if key < len(self._by_position) else self._rest
        return None if there is None else there.annotation


def _split(call: ast.Call, *, is_stock: bool) -> _Adding:
    if call.args:
        first = None if isinstance(call.args[0], ast.Starred) else call.args[0]
        return _Adding(first, call.args[1:], call.keywords, is_stock)
    named = next((keyword for keyword in call.keywords if keyword.arg == "func"), None)
    rest = [keyword for keyword in call.keywords if keyword is not named]
    return _Adding(None if named is None else named.value, [], rest, is_stock)


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _name(value: Value) -> str:
    match value:
        case Function(node) | Class(node) | Durable(function=Function(node)) | Instance(of=Class(node)):
            return node.name
        case External() | Instance(of=External()):
            return (value if isinstance(value, External) else value.of).name  # type: ignore[union-attr]
        case Member(name=name):
            return name
        case _:
            return "this"
