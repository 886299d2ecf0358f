"""Every sort of session and connection that jobs can join the transaction of, with the same few verbs for all."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none of its own
import psycopg
import sqlalchemy
import sqlmodel
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelAsyncSession

_INSERT = "INSERT INTO orders (item) VALUES ('{}')"


@dataclass(frozen=True)
class Sort:
    """`is_async`: it is awaited. `tells`: of its commits. `scheme`: how SQLAlchemy calls its driver."""

    cls: Any
    is_async: bool
    tells: bool
    scheme: str = ""

    def opener(self, url: str) -> Callable[[], Any]:
        """A dependency with `yield` that gives one, and commits nothing."""
        return _async_opener(self, url) if self.is_async else _opener(self, url)

    def committer(self, url: str) -> Callable[[], Any]:
        """A dependency with `yield` that commits after it, unless there is an exception: then it rolls back."""
        return _async_committer(self, url) if self.is_async else _committer(self, url)


SORTS = {
    "AsyncSession on asyncpg": Sort(AsyncSession, True, True, "asyncpg"),
    "AsyncSession on psycopg": Sort(AsyncSession, True, True, "psycopg_async"),
    "AsyncSession of SQLModel": Sort(SQLModelAsyncSession, True, True, "asyncpg"),
    "Session": Sort(Session, False, True, "psycopg"),
    "Session of SQLModel": Sort(sqlmodel.Session, False, True, "psycopg"),
    "connection of asyncpg": Sort(asyncpg, True, False),
    "async connection of psycopg": Sort(psycopg.AsyncConnection, True, False),
    "connection of psycopg": Sort(psycopg.Connection, False, False),
}


class Uniform:
    """What is done on any of them; each verb is awaited, also where nothing waits."""

    def __init__(self, raw: Any, sort: Sort) -> None:
        self.raw = raw
        self._sort = sort
        self._transaction: Any = None

    async def order(self, item: str) -> None:
        """Write a row."""
        statement: Any = _INSERT.format(item)
        execute = getattr(self.raw, "exec", self.raw.execute)  # SQLModel's own name for it
        await _settled(execute(sqlalchemy.text(statement) if self._sort.tells else statement))

    async def begin(self) -> None:
        """Where that is to be said."""
        if self._sort.cls is asyncpg:
            self._transaction = self.raw.transaction()
            await self._transaction.start()

    async def commit(self) -> None:
        await _settled((self._transaction or self.raw).commit())

    async def rollback(self) -> None:
        await _settled((self._transaction or self.raw).rollback())


async def _settled(result: Any) -> Any:
    return await result if hasattr(result, "__await__") else result


def _async_opener(sort: Sort, url: str) -> Callable[[], Any]:
    async def get_session() -> AsyncIterator[Any]:
        if sort.tells:
            engine = create_async_engine(url.replace("postgresql", f"postgresql+{sort.scheme}", 1), poolclass=NullPool)
            async with sort.cls(engine) as session:
                yield session
        elif sort.cls is asyncpg:
            connection = await cast("Any", asyncpg).connect(url)
            try:
                yield connection
            finally:
                await connection.close()
        else:
            other = await psycopg.AsyncConnection.connect(url)
            try:
                yield other
            finally:
                await other.close()

    return get_session


def _opener(sort: Sort, url: str) -> Callable[[], Any]:
    def get_session() -> Iterator[Any]:
        if sort.tells:
            engine = sqlalchemy.create_engine(
                url.replace("postgresql", f"postgresql+{sort.scheme}", 1), poolclass=NullPool
            )
            with sort.cls(engine) as session:
                yield session
        else:
            connection = psycopg.Connection.connect(url)
            try:
                yield connection
            finally:
                connection.close()

    return get_session


def _async_committer(sort: Sort, url: str) -> Callable[[], Any]:
    async def get_session() -> AsyncIterator[Any]:
        opened = _async_opener(sort, url)()
        uniform = Uniform(await anext(opened), sort)
        try:
            await uniform.begin()
            try:
                yield uniform.raw
            except BaseException:
                await uniform.rollback()
                raise
            await uniform.commit()
        finally:
            await opened.aclose()

    return get_session


def _committer(sort: Sort, url: str) -> Callable[[], Any]:
    def get_session() -> Iterator[Any]:
        opened = _opener(sort, url)()
        session = next(opened)
        try:
            try:
                yield session
            except BaseException:
                session.rollback()
                raise
            session.commit()
        finally:
            opened.close()

    return get_session
