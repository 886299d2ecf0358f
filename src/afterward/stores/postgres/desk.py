"""What every statement needs beside its connection: the queries of one schema, the time, and where claims ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from afterward.stores.postgres.bookmarks import Bookmarks
from afterward.stores.postgres.pace import Pace
from afterward.stores.sql import load_queries

_SCHEMA = "afterward."


@dataclass(slots=True)
class Leftovers:
    """What the version before, which runs beside this one or did, has left of jobs that it has forgotten."""

    are_gone: bool = False
    """It was looked for since this store object was made, and nothing more was found."""


@dataclass(slots=True)
class Sweep:
    """How far what is kept of jobs in other hands has been looked at, job by job. Then it begins anew."""

    after: str = ""


@dataclass(frozen=True, slots=True)
class Desk:
    """`clock`: None in life, where the server's clock is the store's. `looks`: those of beats at what is held."""

    queries: dict[str, str]
    clock: Callable[[], float] | None = None
    bookmarks: Bookmarks = field(default_factory=Bookmarks)
    looks: Pace = field(default_factory=Pace)
    leftovers: Leftovers = field(default_factory=Leftovers)
    swept: Sweep = field(default_factory=Sweep)

    @property
    def now(self) -> float | None:
        """The first parameter of every query that asks for the time; None: what the server says."""
        return None if self.clock is None else self.clock()

    def __getitem__(self, name: str) -> str:
        return self.queries[name]


def desk_for(schema: str, clock: Callable[[], float] | None) -> Desk:
    """The queries, with the tables of a schema."""
    queries = load_queries("afterward.stores.postgres") | load_queries("afterward.stores.postgres", "handing.sql")
    return Desk({name: in_schema(query, schema) for name, query in queries.items()}, clock)


def in_schema(sql: str, schema: str) -> str:
    """SQL that names the tables of `afterward`, with those of another schema."""
    return sql if schema == "afterward" else sql.replace(_SCHEMA, f'"{schema}".')
