"""A look at the jobs in a database, from outside of the process that runs them."""

from pathlib import Path
from typing import Any

import apsw

from benchmarks.server import wait_until

DRAINING_SECONDS = 120.0


def counts(database: Path) -> dict[str, int]:
    """How many jobs there are of each status."""
    return dict(_ask(database, "SELECT status, count(*) FROM jobs GROUP BY status"))


def wait_until_all_ran(database: Path, pause: float = 0.05) -> None:
    """Raises `TimeoutError`."""
    wait_until(lambda: not _any_left(database), DRAINING_SECONDS, f"the jobs in {database} to end", pause)


def _any_left(database: Path) -> bool:
    """Newest first: as long as there is one to find, it is found without a walk over those that have ended."""
    return bool(_ask(database, "SELECT 1 FROM jobs WHERE status IN ('queued', 'running') ORDER BY seq DESC LIMIT 1"))


def _ask(database: Path, query: str) -> list[Any]:
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        connection.set_busy_timeout(5000)
        return connection.execute(query).fetchall()
    finally:
        connection.close()
