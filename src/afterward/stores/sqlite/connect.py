"""Opening the file: ours, of a schema we know, on a disk that keeps locks; or an error that says what to do."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import apsw

from afterward.errors import StoreError, StoreUnavailable, StoreUnusable
from afterward.faults import crash_point
from afterward.stores.base import Schema
from afterward.stores.sql import load_migrations
from afterward.stores.sqlite.files import create_private, refuse_network_file_system

APPLICATION_ID = 0x61667477
"""Marks a file as ours (https://www.sqlite.org/pragma.html#pragma_application_id): "aftw"."""


def schema_of(path: Path, patience: float) -> Schema:
    """The schema of a file, which is not made where there is none. Raises `StoreUnusable`, `StoreUnavailable`."""
    refuse_network_file_system(path)
    newest = load_migrations("afterward.stores.sqlite")[-1][0]
    if not _is_there(path):
        return Schema(0, newest)
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.set_busy_timeout(int(patience * 1000))
            return Schema(_version_of_ours(connection, path), newest)
        finally:
            connection.close()
    except apsw.Error as error:
        raise what_is_wrong(error, path) from error


def connect(path: Path, patience: float, *, migrate: bool = True) -> apsw.Connection:
    """A connection to an up-to-date store in WAL mode, whose commits are on the disk when they return.

    `patience`: seconds to wait for other processes that open or migrate it. `migrate`: make what is not there, and
    bring an older schema up to date, in place of refusing it. Raises `StoreUnusable`, `StoreUnavailable`.
    """
    refuse_network_file_system(path)
    if migrate:
        _create(path)
    elif not _is_there(path):
        raise _too_old(path, schema_of(path, patience))
    deadline = time.monotonic() + patience
    while True:
        try:
            connection = apsw.Connection(str(path))
            connection.set_busy_timeout(int(patience * 1000))
            _set_up(connection, path, migrate=migrate)
        except apsw.BusyError as error:  # several processes switch to WAL, or migrate, at the same moment
            if time.monotonic() > deadline:
                raise StoreUnavailable(f"the store {path} is locked by another process") from error
            time.sleep(random.uniform(0.005, 0.05))  # noqa: S311 - it spreads tries, it hides nothing
        except apsw.Error as error:
            raise what_is_wrong(error, path) from error
        else:
            return connection


def _set_up(connection: apsw.Connection, path: Path, *, migrate: bool) -> None:
    if connection.readonly("main"):
        raise StoreUnusable(
            f"the store {path} cannot be written; give this user the right to write the file and its folder"
        )
    version = _version_of_ours(connection, path)
    migrations = load_migrations("afterward.stores.sqlite")
    newest = migrations[-1][0]
    if Schema(version, newest).is_beyond:
        raise StoreUnusable(
            f"the store {path} has schema {version}, and this version of afterward knows {newest}; upgrade afterward"
        )
    if version < newest and not migrate:
        raise _too_old(path, Schema(version, newest))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.pragma("foreign_keys", True)
    if version < newest:
        _migrate(connection, migrations)


def _is_there(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises where a name is too long


def _create(path: Path) -> None:
    try:
        create_private(path)
    except OSError as error:
        raise StoreUnusable(
            f"the store {path} cannot be created: {error.strerror}; "
            f"create its folder, or point AFTERWARD_URL=sqlite:////absolute/path.db to one that can be written"
        ) from error


def _version_of_ours(connection: apsw.Connection, path: Path) -> int:
    """The schema of a file, if it is ours, or may be ours."""
    ours, version, has_tables = what_it_is(connection)
    if ours not in (0, APPLICATION_ID) or (ours == 0 and has_tables):
        raise StoreUnusable(
            f"the store {path} is a database of another program; afterward's file is its own: name another one"
        )
    return version


def _too_old(path: Path, schema: Schema) -> StoreUnusable:
    if not schema.found:
        return StoreUnusable(f"there is no store at {path}; make it: afterward migrate")
    return StoreUnusable(
        f"the store {path} has schema {schema.found}, and this version of afterward works with {schema.newest}; "
        f"bring it up to date (afterward migrate, or an app of this version that is not told migrate=False), "
        f"or use the version that the app has"
    )


def what_it_is(connection: apsw.Connection) -> tuple[int, int, bool]:
    """Whose file, of what schema, with tables or without: as it is at one moment, for another may be migrating."""
    return cast(
        "tuple[int, int, bool]",
        connection.execute(
            "SELECT (SELECT application_id FROM pragma_application_id), "
            "(SELECT user_version FROM pragma_user_version), EXISTS (SELECT 1 FROM sqlite_schema)"
        ).fetchone(),
    )


def _migrate(connection: apsw.Connection, migrations: Sequence[tuple[int, str]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.pragma("user_version")  # as it is now that nobody else can change it
        for number, statements in migrations:
            if number > version:
                connection.execute(statements)
                connection.pragma("user_version", number)
                crash_point("in_migration")
        connection.pragma("application_id", APPLICATION_ID)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def what_is_wrong(error: apsw.Error, path: Path) -> StoreError:
    """An error of the driver as ours, with the mend."""
    if isinstance(error, apsw.NotADBError):
        return StoreUnusable(f"the store {path} is not a SQLite database; name another file")
    if isinstance(error, apsw.ReadOnlyError | apsw.CantOpenError | apsw.PermissionsError):
        return StoreUnusable(
            f"the store {path} cannot be written ({error}); give this user the right to write the file and its folder"
        )
    if isinstance(error, apsw.CorruptError):
        return StoreUnusable(f"the store {path} is damaged ({error}); restore it from a backup")
    if isinstance(error, apsw.FullError):
        return StoreUnavailable(f"the store {path} cannot be set up: its disk is full")
    return StoreUnavailable(f"the store {path} cannot be opened: {type(error).__name__}: {error}")
