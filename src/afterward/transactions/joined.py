"""What has become of jobs that joined a transaction, and what such a transaction can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeVar

from afterward.job import NewJob
from afterward.stores.joining import Script

T = TypeVar("T")


class Standing(Enum):
    """Where the jobs stand that were added at once to a transaction."""

    waiting = "waiting"
    """They are written, at the latest, when the transaction is committed; it is open, as far as is known here."""
    unwritten = "unwritten"
    """Nothing writes them before it is told to."""
    written = "written"
    """They are, by a transaction that does not tell when it ends."""
    stored = "stored"
    """It has been committed."""
    undone = "undone"
    """It has been rolled back, or its savepoint has."""
    left = "left"
    """It has ended, without having been committed or rolled back."""


@dataclass(slots=True, eq=False)
class Joined:
    """Jobs that were added at once. `transaction`: which one has written them, as the server calls it."""

    jobs: Sequence[NewJob]
    standing: Standing = Standing.waiting
    transaction: str | None = None


class Transaction(Protocol):
    """A session or connection of the application's own, as jobs join what it has under way."""

    @property
    def writes_by_itself(self) -> bool:
        """Is what was added written without a `write`: at once, or by the commit?"""
        ...

    def add(self, jobs: Sequence[NewJob]) -> Joined:
        """Have these jobs written with the transaction that is under way now, or begins next."""
        ...

    async def write(self) -> None:
        """Write now what was added and is not written."""
        ...

    async def carry_out(self, script: Script[T]) -> T:
        """Carry out a script within the transaction."""
        ...

    def carry_out_sync(self, script: Script[T]) -> T:
        """The same, for code without an event loop. Raises `ConfigurationError` where that is needed."""
        ...
