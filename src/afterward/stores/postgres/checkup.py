"""Looking at a store's server from outside, for somebody who wants to know what is wrong. Nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from afterward.stores.base import Schema
from afterward.stores.counts import Joined, Waits
from afterward.stores.postgres import stats
from afterward.stores.postgres.address import Address
from afterward.stores.postgres.connection import Row, connect
from afterward.stores.postgres.desk import desk_for
from afterward.stores.postgres.schema import schema_of

T = TypeVar("T")

_PATIENCE = 5.0

# What holds back the horizon of vacuum: the oldest of the transactions, prepared ones, and slots of replication.
_HORIZON = """
SELECT 'transaction of process ' || pid || coalesce(' (' || nullif(application_name, '') || ')', '') AS who,
    extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds
FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
UNION ALL
SELECT 'prepared transaction ' || gid, extract(epoch FROM clock_timestamp() - prepared)::float8 FROM pg_prepared_xacts
ORDER BY seconds DESC LIMIT 1
"""

_ROWS = """
SELECT n_live_tup AS live, n_dead_tup AS dead, 'autovacuum_enabled=false' = ANY (coalesce(c.reloptions, '{}')) AS is_off
FROM pg_stat_user_tables t JOIN pg_class c ON c.oid = t.relid WHERE t.schemaname = $1 AND t.relname = 'jobs'
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the server says of itself. `clock`: its seconds since 1970, as of the answer."""

    version: str
    is_standby: bool
    fsync: bool
    full_page_writes: bool
    autovacuum: bool
    connections: int
    max_connections: int
    clock: float


class Checkup:
    """A connection to a server that answers. Raises what the driver raises."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._desk = desk_for(self.address.schema, None)
        self._runner = asyncio.Runner()
        try:
            self._connection = self._run(connect(self.address, _PATIENCE))
        except BaseException:
            self._runner.close()
            raise

    def close(self) -> None:
        """Let go of it."""
        try:
            self._run(self._connection.close(timeout=_PATIENCE))
        finally:
            self._runner.close()

    @property
    def schema(self) -> Schema:
        """Which schema is there, and which is the newest."""
        return self._run(schema_of(self._connection, self.address.schema))

    def settings(self) -> Settings:
        """How the server is set up."""
        row = self._row(
            "SELECT current_setting('server_version'), pg_is_in_recovery(), current_setting('fsync')::bool, "
            "current_setting('full_page_writes')::bool, current_setting('autovacuum')::bool, "
            "(SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend'), "
            "current_setting('max_connections')::int, extract(epoch FROM clock_timestamp())::float8"
        )
        return Settings(*(row or ()))

    def horizon(self) -> tuple[str, float] | None:
        """Who keeps dead rows from being removed, and for how many seconds already."""
        row = self._row(_HORIZON)
        return None if row is None else (row["who"], row["seconds"])

    def rows(self) -> tuple[int, int, bool]:
        """Of the jobs that wait or run: how many rows live, how many are dead, and is autovacuum off for them?"""
        row = self._row(_ROWS, self.address.schema)
        return (0, 0, False) if row is None else (row["live"], row["dead"], row["is_off"])

    def joined(self) -> list[Joined]:
        """Who has a liveness row."""
        return self._run(stats.joined(self._desk, self._connection))

    def dead(self) -> set[str]:
        """Nobody: no death is certain here."""
        return set()

    def waits(self, now: float) -> list[Waits]:  # noqa: ARG002 - the server knows
        """What is due, by lane."""
        return self._run(stats.waiting(self._desk, self._connection))

    def now(self) -> float:
        """The store's clock."""
        return self._run(self._connection.fetchval(self._desk["now"], None))

    def _row(self, query: str, *values: Any) -> Row | None:
        return self._run(self._connection.fetchrow(query, *values))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)
