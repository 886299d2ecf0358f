"""What an expression can be known to be without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from afterward.cli.check.scopes import FunctionNode, Module, Scope

Site = tuple[Module, ast.Call]


@dataclass(frozen=True, slots=True)
class Unknown:
    """It cannot be told; `why`, for the one who asks."""

    why: str = "it is not known what this is"


@dataclass(frozen=True, slots=True)
class External:
    """Something outside of the code base, by its dotted name."""

    path: str

    @property
    def root(self) -> str:
        return self.path.partition(".")[0]

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Source:
    """A module of the code base."""

    module: Module


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the code base, whatever harmless decorators it has; `scope` is where it is defined."""

    node: FunctionNode
    scope: Scope


@dataclass(frozen=True, slots=True)
class Class:
    """A class of the code base; `scope` is where it is defined."""

    node: ast.ClassDef
    scope: Scope


@dataclass(frozen=True, slots=True)
class Instance:
    """An object of a class: made at `site`, or `self` in its own methods, or only said to be one by an annotation."""

    of: Class | External
    site: Site | None = None
    is_self: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """`owner.name`: the owner's method, where `function` is known; else anything that the owner has."""

    owner: Value
    name: str
    function: Function | None = None


@dataclass(frozen=True, slots=True)
class Lambda:
    """A lambda."""


@dataclass(frozen=True, slots=True)
class GeneratorObject:
    """What a generator expression, or a call of a generator function, gives."""


@dataclass(frozen=True, slots=True)
class Partial:
    """`functools.partial(of, …)`."""

    of: Value


@dataclass(frozen=True, slots=True)
class Maker:
    """`tasks.task`, or `tasks.task(…)`: what makes a function durable."""

    owner: Instance


@dataclass(frozen=True, slots=True)
class Durable:
    """A task: `function` is known where it is of the code base."""

    function: Function | None
    owner: Instance | None = None


@dataclass(frozen=True, slots=True)
class Data:
    """A constant, or a collection of these parts."""

    parts: tuple[Value, ...] = ()
    is_none: bool = False


@dataclass(frozen=True, slots=True)
class TypeForm:
    """A type that is not a class: `X | None`, `Annotated[X, …]`, `list[X]`; to be read in `scope`."""

    node: ast.expr
    scope: Scope


@dataclass(frozen=True, slots=True)
class Several:
    """One of these, which depends on the run."""

    values: tuple[Value, ...]


Value = (
    Unknown | External | Source | Function | Class | Instance | Member | Lambda | GeneratorObject | Partial
    | Maker | Durable | Data | TypeForm | Several
)  # fmt: skip


def possible(value: Value) -> Iterator[Value]:
    """Each thing that it can be; None is left out where it can be anything else."""
    yield from value.values if isinstance(value, Several) else (value,)


def joined(values: Iterable[Value]) -> Value:
    """One value that stands for all of them."""
    found = list(dict.fromkeys(one for value in values for one in possible(value)))
    found = [value for value in found if not (isinstance(value, Data) and value.is_none)] or found
    if not found:
        return Unknown()
    return found[0] if len(found) == 1 else Several(tuple(found))
