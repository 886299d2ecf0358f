"""One connection to the server, and what its errors mean."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none of its own

from afterward.errors import StoreError, StoreUnavailable, StoreUnusable
from afterward.faults import Crash
from afterward.stores.postgres.address import Address

Row = Any
"""A row of an answer: by position, and by name."""


class Transaction(AbstractAsyncContextManager[None], Protocol):
    """One that begins and ends with its block, or step by step."""

    async def start(self) -> None: ...

    async def commit(self) -> None: ...

    async def rollback(self) -> None: ...


class Connection(Protocol):
    """What is asked of a connection, and no more. Parameters are `$1`, `$2`."""

    async def fetch(self, query: str, *args: Any) -> list[Row]: ...

    async def fetchrow(self, query: str, *args: Any) -> Row | None: ...

    async def fetchval(self, query: str, *args: Any) -> Any: ...

    async def execute(self, query: str, *args: Any) -> str: ...

    def transaction(self, *, isolation: Any = None, readonly: bool = False) -> Transaction: ...

    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None: ...

    def add_termination_listener(self, callback: Callable[..., None]) -> None: ...

    def get_server_pid(self) -> int: ...

    def get_settings(self) -> Any: ...

    def is_closed(self) -> bool: ...

    def is_in_transaction(self) -> bool: ...

    def terminate(self) -> None: ...

    async def close(self, *, timeout: float | None = None) -> None: ...


_PLANS = {
    # Each query is written for one index, and the statistics of tables that fill and empty in seconds mislead.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    # A prepared plan is good for every call.
    "plan_cache_mode": "force_generic_plan",
    # Whatever the server says: what is answered is on its disk.
    "synchronous_commit": "on",
}

SETTINGS = _PLANS | {
    "application_name": "afterward",
    # A process that is cut off or stands still in mid-transaction must not keep its rows locked for hours; and what is
    # left of its sessions at the server goes as well.
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    # What nobody waits for any more; how long that is, each connection says.
    "statement_timeout": "0",
}
"""Of each session, as it begins."""

SETTINGS_OF_ONE_TRANSACTION = "; ".join(f"SET LOCAL {name} = {value}" for name, value in _PLANS.items())
"""Where the session is not this process's own. One round trip."""

_connect = cast("Any", asyncpg).connect


class Demoted(Exception):
    """The server has become one that takes no writes."""


_LOST = (
    OSError,
    TimeoutError,
    asyncio.IncompleteReadError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.OperatorInterventionError,  # class 57: the server is shut down, or starts, or has cancelled the statement
    asyncpg.ReadOnlySQLTransactionError,  # a standby, or a primary that was
    Demoted,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
"""The connection is gone, or of no use any more."""

_PASSING = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InvalidCachedStatementError,  # a table has changed under a prepared statement
)
"""What is over soon, on the same connection or the next."""

_OF_THE_SERVER = (
    asyncpg.InsufficientResourcesError,  # class 53: disk, memory, connections
    asyncpg.PostgresSystemError,  # class 58: it cannot read or write its files
    asyncpg.LockNotAvailableError,
)
"""Trouble that is no single statement's own."""

_POOLED = (
    asyncpg.InvalidSQLStatementNameError,  # what was prepared is in another session
    asyncpg.DuplicatePreparedStatementError,  # another was prepared by that name
)
"""What happens to prepared statements behind a pooler that changes sessions between two transactions."""

NEEDS_SESSIONS = (
    "a pooler such as PgBouncer stands before it and keeps no session for this process; where jobs are only stored, "
    "add ?pgbouncer=true to its URL; a worker needs a URL that leads to the server itself"
)
"""What is wrong with a pooler that the URL says nothing of, and the mend."""


async def connect(address: Address, patience: float, *, limit: float | None = None) -> Connection:
    """A new connection, within so many seconds. Raises what the driver raises.

    `limit`: how many seconds the server lets one statement take: also one whose client is gone.
    """
    how: dict[str, Any] = {"statement_cache_size": 0}
    if not address.pooled:
        how = {"server_settings": SETTINGS | {"statement_timeout": str(int((limit or 0) * 1000))}}
    return cast("Connection", await _connect(address.dsn, timeout=patience, **how))


async def check_session(connection: Connection) -> None:
    """See that the session is this process's own, as a new one begins. Raises `StoreUnusable`."""
    pid = await connection.fetchval("SELECT pg_backend_pid()")
    plans = await connection.fetchval("SELECT current_setting('plan_cache_mode')")
    if pid != connection.get_server_pid() or plans != _PLANS["plan_cache_mode"]:
        raise StoreUnusable(NEEDS_SESSIONS)


def only_reads(connection: Connection) -> bool:
    """Did the server say, with its last answer, that it takes no writes? It does so unasked."""
    if connection.is_closed():
        return False
    said = connection.get_settings()
    return "on" in (getattr(said, name, None) for name in ("in_hot_standby", "default_transaction_read_only"))


def is_lost(error: BaseException) -> bool:
    """Is the connection gone, or of no use any more?"""
    return isinstance(error, _LOST) and not isinstance(error, ValueError)  # the driver's, for a wrong parameter


def is_passing(error: BaseException) -> bool:
    """May the same work when it is tried again?"""
    return (is_lost(error) or isinstance(error, _PASSING)) and not is_refused_by_pooler(error)


def is_of_all(error: BaseException) -> bool:
    """Would it have befallen any other statement as well?"""
    return is_passing(error) or isinstance(error, (StoreError, Crash, *_OF_THE_SERVER, *_POOLED))


def is_refused_by_pooler(error: BaseException) -> bool:
    """Is it what a pooler says to settings that a session of its own would have taken?"""
    return isinstance(error, asyncpg.ProtocolViolationError) and "startup parameter" in str(error)


def translated(error: BaseException, location: str) -> StoreError | Crash:
    """An error of the driver as ours."""
    if isinstance(error, StoreError | Crash):
        return error
    unavailable = StoreUnavailable(f"the store {location} could not be used: {_said_of(error)}")
    unavailable.__cause__ = error
    return unavailable


def _said_of(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, Demoted):
        return "its server takes no writes any more"
    if isinstance(error, asyncpg.LockNotAvailableError):
        return "another transaction has locked what it needs"
    if isinstance(error, asyncpg.DiskFullError):
        return "its disk is full"
    if isinstance(error, _POOLED) or is_refused_by_pooler(error):
        return NEEDS_SESSIONS
    return f"{type(error).__name__}: {error}"
