"""Connections of drivers: they tell nothing of commits, so a job is written at once, and its transaction asked for.

Nothing of asyncpg and psycopg is imported before there is such a connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from afterward.errors import ConfigurationError
from afterward.job import NewJob
from afterward.stores.joining import Entered, Script, Statement, carry_out, carry_out_async
from afterward.transactions.host import Host
from afterward.transactions.joined import Joined, Standing

T = TypeVar("T")

_ASYNCPG = {("asyncpg.connection", "Connection"), ("asyncpg.pool", "PoolConnectionProxy")}
_PSYCOPG = {("psycopg", "AsyncConnection")}
_PSYCOPG_SYNC = {("psycopg", "Connection")}


def is_connection(thing: object) -> bool:
    """Is it a connection of asyncpg's, or of psycopg's?"""
    return _is_of(thing, _ASYNCPG | _PSYCOPG | _PSYCOPG_SYNC)


def transaction_of(connection: Any, host: Host) -> AsyncConnectionTransaction | ConnectionTransaction:
    """What jobs join on a connection."""
    if _is_of(connection, _PSYCOPG_SYNC):
        return ConnectionTransaction(connection, host)
    return AsyncConnectionTransaction(connection, host, is_psycopg=_is_of(connection, _PSYCOPG))


def _is_of(thing: object, classes: set[tuple[str, str]]) -> bool:
    return any((cls.__module__, cls.__name__) in classes for cls in type(thing).__mro__)


class AsyncConnectionTransaction:
    """A connection that is awaited: what was added is written by `write`."""

    writes_by_itself = False

    def __init__(self, connection: Any, host: Host, *, is_psycopg: bool) -> None:
        self._connection = connection
        self._host = host
        self._execute = self._execute_psycopg if is_psycopg else self._execute_asyncpg
        self._waiting: list[Joined] = []

    def add(self, jobs: Sequence[NewJob]) -> Joined:
        joined = Joined(jobs, Standing.unwritten)
        self._waiting.append(joined)
        return joined

    async def write(self) -> None:
        waiting, self._waiting = self._waiting, []
        jobs = [job for joined in waiting for job in joined.jobs]
        if not jobs:
            return
        if not self._host.is_ready_for(jobs):
            await self._host.prepare(jobs)
        try:
            entered = await self.carry_out(self._host.joins.enter(jobs))
        except BaseException:
            self._host.settle(jobs, are_stored=False)
            raise
        _note(entered, waiting, self._host)

    async def carry_out(self, script: Script[T]) -> T:
        return await carry_out_async(script, self._execute, self._host.joins)

    def carry_out_sync(self, script: Script[T]) -> T:
        script.close()
        raise ConfigurationError("this connection has to be awaited, and this code has no event loop")

    async def _execute_asyncpg(self, statement: Statement) -> str:
        answer: str = await self._connection.fetchval(statement.sql, statement.said)
        return answer

    async def _execute_psycopg(self, statement: Statement) -> str:
        from psycopg.rows import tuple_row

        async with self._connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(statement.written("%s"), [statement.said])
            answer: str = (await cursor.fetchone())[0]
        return answer


class ConnectionTransaction:
    """A connection that blocks: what is added is written at once."""

    writes_by_itself = True

    def __init__(self, connection: Any, host: Host) -> None:
        self._connection = connection
        self._host = host

    def add(self, jobs: Sequence[NewJob]) -> Joined:
        if not self._host.is_ready_for(jobs):
            self._host.prepare_sync(jobs)
        joined = Joined(jobs)
        try:
            entered = self.carry_out_sync(self._host.joins.enter(jobs))
        except BaseException:
            self._host.settle(jobs, are_stored=False)
            raise
        _note(entered, [joined], self._host)
        return joined

    async def write(self) -> None:
        """Nothing is left to be written."""

    async def carry_out(self, script: Script[T]) -> T:
        return self.carry_out_sync(script)

    def carry_out_sync(self, script: Script[T]) -> T:
        return carry_out(script, self._execute, self._host.joins)

    def _execute(self, statement: Statement) -> str:
        from psycopg.rows import tuple_row

        with self._connection.cursor(row_factory=tuple_row) as cursor:
            answer: str = cursor.execute(statement.written("%s"), [statement.said]).fetchone()[0]
        return answer


def _note(entered: Entered, written: Sequence[Joined], host: Host) -> None:
    """They are written: who runs jobs is called when their transaction is over."""
    for joined in written:
        joined.standing, joined.transaction = Standing.written, entered.transaction
    host.follow(entered.transaction, [job for joined in written for job in joined.jobs])
