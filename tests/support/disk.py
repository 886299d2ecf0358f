"""What is on the disk, seen by a connection of its own.

Always by apsw: a second copy of SQLite in this process would cancel the locks of the first.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw


@dataclass(frozen=True)
class Row:
    """A committed job."""

    id: str
    task: str
    status: str
    queue: str
    priority: int
    attempt: int
    held: bool
    arguments: str


def jobs_on_disk(database: Path) -> list[Row]:
    """All committed jobs, oldest first; none when there is no database yet."""
    if not database.exists():
        return []
    connection = apsw.Connection(str(database))
    try:
        connection.set_busy_timeout(5000)
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'jobs'").get:
            return []
        rows: Any = connection.execute(
            "SELECT id, task, status, queue, priority, attempt, status = 'queued' AND process IS NOT NULL, arguments "
            "FROM jobs ORDER BY seq"
        )
        return [Row(*values, held=bool(held), arguments=arguments) for *values, held, arguments in rows]
    finally:
        connection.close()


def heartbeats(database: Path) -> dict[str, int]:
    """How often the heart of each process that shows its life has beaten, by its id."""
    connection = apsw.Connection(str(database))
    try:
        connection.set_busy_timeout(5000)
        rows: Any = connection.execute("SELECT id, beat FROM processes").fetchall()
        return dict(rows)
    finally:
        connection.close()
