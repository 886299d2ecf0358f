"""The schema: made and brought up to date by numbered migrations, one process at a time."""

from __future__ import annotations

import asyncio
import random

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none of its own

from afterward.errors import StoreUnusable
from afterward.faults import crash_point
from afterward.stores.base import Schema
from afterward.stores.postgres.connection import Connection
from afterward.stores.postgres.desk import in_schema
from afterward.stores.sql import load_migrations

_PACKAGE = "afterward.stores.postgres"

_LOCK_MILLISECONDS = 300
"""How long a change waits for those who use a table."""


_MIGRATIONS = """
CREATE SCHEMA IF NOT EXISTS "{schema}";
CREATE TABLE IF NOT EXISTS afterward.migrations (
    number integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);
"""


async def schema_of(connection: Connection, schema: str) -> Schema:
    """What is there, and what there would be."""
    return Schema(await version_of(connection, schema), load_migrations(_PACKAGE)[-1][0])


async def is_current(connection: Connection, schema: str, location: str, *, migrate: bool) -> bool:
    """Is the schema the one that this version works with? If not, it is to be migrated.

    Raises `StoreUnusable` when it cannot be, or is not to be (`migrate`).
    """
    there = await schema_of(connection, schema)
    found, newest = there.found, there.newest
    if there.is_beyond:
        raise StoreUnusable(
            f"the store {location} has schema {found}, and this version of afterward knows {newest}; upgrade afterward"
        )
    if not found and not migrate:
        raise StoreUnusable(f"there is no store at {location}; make it: afterward migrate")
    if found < newest and not migrate:
        raise StoreUnusable(
            f"the store {location} has schema {found}, and this version of afterward works with {newest}; "
            f"bring it up to date with `afterward migrate`, or use the version that the app has"
        )
    return found >= newest


async def version_of(connection: Connection, schema: str) -> int:
    """The number of the last migration that was applied; 0 when nothing is there."""
    if await connection.fetchval("SELECT to_regclass($1)", f'"{schema}".migrations') is None:
        return 0
    return (
        await connection.fetchval(in_schema("SELECT coalesce(max(number), 0) FROM afterward.migrations", schema)) or 0
    )


async def migrate(connection: Connection, schema: str) -> None:
    """Bring it up to date, while others use it.

    Who changes a table waits for those who use it, and whoever comes then waits behind him: so he does not wait long,
    but comes again. A deadlock with those who have locked the tables in another order is over in this way, too.
    """
    while True:
        try:
            for number, statements in load_migrations(_PACKAGE):
                await _apply(connection, schema, number, statements)
            return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - it spreads tries


async def _apply(connection: Connection, schema: str, number: int, statements: str) -> None:
    """One migration, unless it is there. Each is a transaction, and lets go of what it had to lock.

    Under a lock that lasts as long: who waited for it finds it done.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 7))", f"afterward.{schema}")
        await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_MILLISECONDS}")
        await connection.execute(in_schema(_MIGRATIONS.format(schema=schema), schema))
        if number > await version_of(connection, schema):
            await connection.execute(in_schema(statements, schema))
            await connection.execute(in_schema("INSERT INTO afterward.migrations (number) VALUES ($1)", schema), number)
            crash_point("in_migration")
