"""Drivers of PostgreSQL, each as one connection, used in the way that is fastest with it."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import asyncpg
import psycopg
from psycopg.rows import tuple_row

Rows = Sequence[Sequence[Any]]


class Driver(Protocol):
    """One connection; every statement is prepared once, and is a transaction of its own unless in `together`."""

    async def fetch(self, statement: str, *arguments: Any) -> Rows: ...

    async def run(self, statements: str) -> None: ...

    def together(self) -> AbstractAsyncContextManager[Any]:
        """One transaction."""
        ...

    async def ahead(self, *statements: tuple[str, tuple[Any, ...]]) -> list[Rows]:
        """Several statements in one transaction, each sent without a wait for the one before where the driver can."""
        ...

    async def close(self) -> None: ...


class Asyncpg:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @classmethod
    async def connect(cls, url: str) -> "Asyncpg":
        return cls(await asyncpg.connect(url))

    async def fetch(self, statement: str, *arguments: Any) -> Rows:
        rows: Rows = await self._connection.fetch(statement, *arguments)
        return rows

    async def run(self, statements: str) -> None:
        await self._connection.execute(statements)

    def together(self) -> AbstractAsyncContextManager[Any]:
        transaction: AbstractAsyncContextManager[Any] = self._connection.transaction()
        return transaction

    async def ahead(self, *statements: tuple[str, tuple[Any, ...]]) -> list[Rows]:
        async with self.together():
            return [await self.fetch(statement, *arguments) for statement, arguments in statements]

    async def close(self) -> None:
        await self._connection.close()


class Psycopg:
    """With PostgreSQL's own numbering of arguments, and results in binary."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._cursor = psycopg.AsyncRawCursor(connection, row_factory=tuple_row)

    @classmethod
    async def connect(cls, url: str) -> "Psycopg":
        if psycopg.pq.__impl__ != "binary":
            raise RuntimeError(f"not the compiled psycopg, but {psycopg.pq.__impl__}")
        return cls(await psycopg.AsyncConnection.connect(url, autocommit=True))

    async def fetch(self, statement: str, *arguments: Any) -> Rows:
        cursor = await self._cursor.execute(statement.encode(), arguments, prepare=True, binary=True)
        return await cursor.fetchall() if cursor.description else []

    async def run(self, statements: str) -> None:
        await self._connection.execute(statements.encode())

    def together(self) -> AbstractAsyncContextManager[Any]:
        return self._connection.transaction()

    async def ahead(self, *statements: tuple[str, tuple[Any, ...]]) -> list[Rows]:
        """In pipeline mode: what is sent up to one point is one transaction, with no BEGIN and no COMMIT."""
        cursors = [psycopg.AsyncRawCursor(self._connection, row_factory=tuple_row) for _ in statements]
        async with self._connection.pipeline():
            for cursor, (statement, arguments) in zip(cursors, statements, strict=True):
                await cursor.execute(statement.encode(), arguments, prepare=True, binary=True)
        return [await cursor.fetchall() for cursor in cursors]

    async def close(self) -> None:
        await self._connection.close()


DRIVERS: dict[str, Callable[[str], Awaitable[Driver]]] = {"asyncpg": Asyncpg.connect, "psycopg": Psycopg.connect}
