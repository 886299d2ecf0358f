"""A store's file, looked at from outside: by a connection of the test's own, for reading."""

import json
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw


@dataclass(frozen=True)
class Row:
    """A job as its row has it; `ended` are the outcomes of the attempts that did not succeed, by number."""

    id: str
    key: str
    status: str
    attempt: int
    failures: int
    deaths: int
    process: str | None
    result: str | None
    failure: str | None
    note: str | None
    ended: dict[int, str]


class Database:
    def __init__(self, path: Path) -> None:
        self.path = path

    def query(self, sql: str, *bindings: Any) -> list[tuple[Any, ...]]:
        with self._connected() as connection:
            return connection.execute(sql, bindings).fetchall()

    def jobs(self) -> dict[str, Row]:
        """All jobs, by the `key` that each was given as an argument; what follows one, by `after` its key."""
        ended: dict[int, dict[int, str]] = {}
        rows: dict[str, Row] = {}
        with self._connected() as connection, connection:
            for job, number, outcome in connection.execute("SELECT job, number, outcome FROM attempts"):
                ended.setdefault(job, {})[number] = outcome
            for seq, arguments, *rest in connection.execute(
                "SELECT seq, arguments, id, status, attempt, failures, deaths, process, result, failure, note FROM jobs"
            ):
                id_, *more = rest
                given = json.loads(arguments)
                given = given.get("kwargs", given)  # of a task of Celery's own
                key = given["key"] if "key" in given else f"after {given['ended']['arguments']['key']}"
                assert key not in rows
                rows[key] = Row(id_, key, *more, ended=ended.get(seq, {}))
        return rows

    def job(self, key: str) -> Row:
        return self.jobs()[key]

    def statuses(self) -> dict[str, int]:
        """How many jobs there are of each status."""
        return dict(self.query("SELECT status, count(*) FROM jobs GROUP BY status"))

    def unfinished(self) -> int:
        return self.query("SELECT count(*) FROM jobs WHERE status IN ('queued', 'running')")[0][0]

    def taken(self) -> int:
        """How many jobs stand in some process's name."""
        return self.query("SELECT count(*) FROM jobs WHERE process IS NOT NULL")[0][0]

    def processes(self) -> dict[str, int]:
        """The pids of the processes that have a row, by their ids."""
        return dict(self.query("SELECT id, pid FROM processes"))

    def check(self) -> None:
        """Fails when the file is not sound."""
        with self._connected() as connection:
            assert connection.pragma("integrity_check") == "ok"
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []

    def copy_to(self, folder: Path) -> "Database":
        """As a power cut would leave it: the file and its log, without the index that is kept in memory."""
        folder.mkdir()
        for suffix in ("", "-wal"):
            source = self.path.with_name(self.path.name + suffix)
            if source.exists():
                shutil.copy(source, folder / source.name)
        return Database(folder / self.path.name)

    @contextmanager
    def _connected(self) -> Generator[apsw.Connection]:
        connection = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(10_000)
            yield connection
        finally:
            connection.close()
