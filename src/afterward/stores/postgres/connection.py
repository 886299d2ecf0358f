"""One connection to the server, and what its errors mean."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none of its own

from afterward.errors import StoreError, StoreUnavailable
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

    def is_closed(self) -> bool: ...

    def is_in_transaction(self) -> bool: ...

    def terminate(self) -> None: ...

    async def close(self, *, timeout: float | None = None) -> None: ...


_SETTINGS = {
    "application_name": "afterward",
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

_connect = cast("Any", asyncpg).connect

_PASSING = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.OperatorInterventionError,  # class 57: the server is shut down, or starts
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby, or a primary that was
    asyncpg.IdleInTransactionSessionTimeoutError,
)
"""What is over soon, or on another connection."""


async def connect(address: Address, patience: float) -> Connection:
    """A new connection, within so many seconds. Raises what the driver raises."""
    how: dict[str, Any] = {"statement_cache_size": 0} if address.pooled else {"server_settings": _SETTINGS}
    return cast("Connection", await _connect(address.dsn, timeout=patience, **how))


def is_lost(error: BaseException) -> bool:
    """Is the connection gone, or of no use any more?"""
    return isinstance(
        error,
        OSError | TimeoutError | asyncio.IncompleteReadError | asyncpg.InterfaceError | asyncpg.InternalClientError
        | asyncpg.PostgresConnectionError | asyncpg.OperatorInterventionError | asyncpg.ReadOnlySQLTransactionError
        | asyncpg.IdleInTransactionSessionTimeoutError,
    )  # fmt: skip


def is_passing(error: BaseException) -> bool:
    """May the same work when it is tried again?"""
    return is_lost(error) or isinstance(error, _PASSING)


def translated(error: BaseException, location: str) -> StoreError | Crash:
    """An error of the driver as ours."""
    if isinstance(error, StoreError | Crash):
        return error
    if isinstance(error, TimeoutError):
        said = "it did not answer in time"
    elif isinstance(error, asyncpg.LockNotAvailableError):
        said = "another transaction has locked what it needs"
    elif isinstance(error, asyncpg.DiskFullError):
        said = "its disk is full"
    else:
        said = f"{type(error).__name__}: {error}"
    unavailable = StoreUnavailable(f"the store {location} could not be used: {said}")
    unavailable.__cause__ = error
    return unavailable
