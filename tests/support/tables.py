"""A PostgreSQL store's tables, looked at from outside: by a connection of the test's own."""

import json
from typing import Any

import psycopg

from tests.support.database import Row


class Tables:
    """As `Database`, for a store in a PostgreSQL database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked = 0
        """How many statements it has carried out."""
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of one statement. The connection is kept, and made anew where the server has ended it."""
        try:
            return self._answer_to(sql, parameters)
        except psycopg.OperationalError:
            if self._connection is None or not self._connection.closed:
                raise
            return self._answer_to(sql, parameters)

    def _answer_to(self, sql: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self.url, autocommit=True, application_name="test")
        self.asked += 1
        cursor = self._connection.execute(sql.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def is_there(self) -> bool:
        """Has a store been made here?"""
        return self.query("SELECT to_regclass('afterward.jobs')") != [(None,)]

    def jobs(self) -> dict[str, Row]:
        """All jobs, by the `key` that each was given as an argument; what follows one, by `after` its key."""
        rows: dict[str, Row] = {}
        for arguments, attempts, id_, *rest in self.query(_JOBS):
            given: dict[str, Any] = json.loads(arguments)
            ended: dict[str, str] = attempts or {}
            key = given["key"] if "key" in given else f"after {given['ended']['arguments']['key']}"
            assert key not in rows
            rows[key] = Row(id_, key, *rest, ended={int(number): outcome for number, outcome in ended.items()})
        return rows

    def job(self, key: str) -> Row:
        return self.jobs()[key]

    def statuses(self) -> dict[str, int]:
        """How many jobs there are of each status."""
        return dict(self.query(f"SELECT status, count(*) FROM ({_BOTH}) AS both_tables GROUP BY status"))

    def unfinished(self) -> int:
        return self.query("SELECT count(*) FROM afterward.jobs")[0][0]

    def taken(self) -> int:
        """How many jobs stand in some process's name."""
        return self.query("SELECT count(*) FROM afterward.jobs WHERE process IS NOT NULL")[0][0]

    def processes(self) -> dict[str, int]:
        """The pids of the processes that have a row, by their ids."""
        if not self.is_there():
            return {}
        return dict(self.query("SELECT id, pid FROM afterward.processes"))

    def beats(self) -> dict[str, int]:
        """The counters of those processes."""
        return dict(self.query("SELECT id, beat FROM afterward.processes"))

    def check(self) -> None:
        """Fails when an index does not agree with its table, or a job is in both tables."""
        self.query("CREATE EXTENSION IF NOT EXISTS amcheck")
        self.query(_CHECK_INDEXES)
        assert self.query("SELECT id FROM afterward.jobs JOIN afterward.finished USING (id)") == []


_BOTH = "SELECT id, status FROM afterward.jobs UNION ALL SELECT id, status FROM afterward.finished"

_JOBS = """
SELECT arguments, (SELECT json_object_agg(number, outcome) FROM afterward.attempts a WHERE a.job = j.id),
    id, status, attempt, failures, deaths, process, result, failure, note
FROM (
    SELECT arguments, id, status, attempt, failures, deaths, process, NULL AS result, failure, note FROM afterward.jobs
    UNION ALL
    SELECT arguments, id, status, attempt, failures, deaths, NULL, result, failure, note FROM afterward.finished
) j
"""

_CHECK_INDEXES = """
SELECT bt_index_check(i.indexrelid, true) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace = 'afterward'::regnamespace AND i.indisvalid
"""
