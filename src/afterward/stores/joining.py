"""What a store offers to transactions that are somebody else's: statements, to be carried out on any connection.

A script is a generator: it yields statements, is sent the answer of each, and returns what they came to. So one script
serves every driver, with an event loop or without.
"""

from __future__ import annotations

from asyncio import Future, get_running_loop
from collections.abc import Awaitable, Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from afterward.job import Lease, NewJob, Stored, Succeeded

T = TypeVar("T")


class Statement(NamedTuple):
    """SQL with one parameter, `$1`, which is the JSON text `said`. It gives one row with one text, which is JSON."""

    sql: str
    said: str

    def written(self, parameter: str) -> str:
        """The SQL, with the parameter as a driver writes it."""
        return self.sql.replace("$1", parameter)


Script: TypeAlias = Generator[Statement, str, T]


@dataclass(frozen=True, slots=True)
class Entered:
    """What became of jobs in a transaction: one answer for each, in order; and which transaction that is."""

    transaction: str
    answers: Sequence[Stored]


class Joins(Protocol):
    """Jobs and ends of attempts that are written by transactions of others, on their connections."""

    @property
    def is_pretended(self) -> bool:
        """Is nothing written, for the store is in no database of the application's? So it is in tests."""
        ...

    def enter(self, jobs: Sequence[NewJob]) -> Script[Entered]:
        """new → queued and free, when the transaction commits: `stored`, or `exists`.

        The contents of their files are there, in the name of a process. Raises `DuplicateJob` for one that is refused,
        `ReservationLost` for one that is unreserved, `StoreUnavailable` where a file is not whole, and
        `ConfigurationError` for a connection that leads elsewhere.
        """
        ...

    def end(self, lease: Lease, outcome: Succeeded) -> Script[bool]:
        """running → succeeded, when the transaction commits; False for an attempt that no longer holds its job.

        Raises `ConfigurationError` for a connection that leads elsewhere.
        """
        ...

    def explained(self, error: Exception) -> Exception:
        """An error of whatever driver, as one that names the mend, if the store knows it; else itself."""
        ...

    def in_progress(self, transactions: Collection[str]) -> Future[frozenset[str]]:
        """Which of these transactions have neither been committed nor rolled back."""
        ...


class Pretended:
    """Joins a transaction by no statement at all: who has it join stores the jobs once it is committed."""

    is_pretended = True

    def enter(self, jobs: Sequence[NewJob]) -> Script[Entered]:
        yield from ()
        return Entered("", [Stored.stored for _ in jobs])

    def end(self, lease: Lease, outcome: Succeeded) -> Script[bool]:  # noqa: ARG002 - as the real one has it
        yield from ()
        return True

    def explained(self, error: Exception) -> Exception:
        return error

    def in_progress(self, transactions: Collection[str]) -> Future[frozenset[str]]:  # noqa: ARG002 - as above
        answer: Future[frozenset[str]] = get_running_loop().create_future()
        answer.set_result(frozenset())
        return answer


def carry_out(script: Script[T], execute: Callable[[Statement], str], joins: Joins) -> T:
    """Carry out a script; `execute` does one statement, and blocks."""
    answer: Any = None
    while True:
        try:
            statement = script.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        try:
            answer = execute(statement)
        except Exception as error:
            if (explained := joins.explained(error)) is error:
                raise
            raise explained from error


async def carry_out_async(script: Script[T], execute: Callable[[Statement], Awaitable[str]], joins: Joins) -> T:
    """Carry out a script; `execute` does one statement."""
    answer: Any = None
    while True:
        try:
            statement = script.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        try:
            answer = await execute(statement)
        except Exception as error:
            if (explained := joins.explained(error)) is error:
                raise
            raise explained from error
