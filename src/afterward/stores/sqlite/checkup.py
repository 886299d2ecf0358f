"""Looking at a store's file from outside, for somebody who wants to know what is wrong with it.

Nothing is written: no file is created, no schema is brought up to date, no log is moved into the file.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from afterward.stores.base import Schema
from afterward.stores.counts import Joined, Waits
from afterward.stores.sql import load_migrations, load_queries
from afterward.stores.sqlite import looks
from afterward.stores.sqlite.connect import APPLICATION_ID, connect, what_it_is
from afterward.stores.sqlite.files import LivenessLocks
from afterward.stores.sqlite.looks import Space
from afterward.stores.sqlite.stats import waiting

_Q = load_queries("afterward.stores.sqlite")
_STEPS = 20_000
_TRIALS = 15
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Trial:
    """Some commits to a new store in the same folder: seconds that one takes, and the settings they were made with."""

    commit_seconds: float
    journal_mode: str
    synchronous: int


class Checkup:
    """A connection to a file that is there. Raises `apsw.Error` wherever SQLite finds something wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._wal = path.with_name(path.name + "-wal")
        try:
            self._connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        except apsw.CantOpenError:
            self._connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        self._connection.set_busy_timeout(int(_PATIENCE * 1000))
        if self.wal_bytes:
            # What a process that died has left there is for the next one that works; where there was nothing, closing
            # as usual leaves nothing.
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @property
    def is_ours(self) -> bool:
        """Is it a store of afterward, and not a database of another program?"""
        return what_it_is(self._connection)[0] == APPLICATION_ID

    @property
    def schema(self) -> Schema:
        """The file's schema, and the newest that is known here."""
        return Schema(what_it_is(self._connection)[1], load_migrations("afterward.stores.sqlite")[-1][0])

    @property
    def journal_mode(self) -> str:
        """`wal`, if all is well."""
        return str(self._connection.pragma("journal_mode"))

    @property
    def wal_bytes(self) -> int:
        """The size of the write-ahead log."""
        try:
            return self._wal.stat().st_size
        except OSError:
            return 0

    def space(self) -> Space:
        """How large the file is, and how much of it holds nothing."""
        return looks.space(self._connection)

    def damage(self, seconds: float, go_on: Callable[[], None]) -> list[str] | None:
        """What `PRAGMA quick_check` finds, nothing if the file is whole; None when that took longer than allowed."""
        deadline = time.monotonic() + seconds

        def step() -> bool:
            go_on()
            return time.monotonic() > deadline

        self._connection.set_progress_handler(step, _STEPS)
        try:
            found = [str(line) for (line,) in self._connection.execute("PRAGMA quick_check(10)")]
        except apsw.InterruptError:
            return None
        finally:
            self._connection.set_progress_handler(None)
        return [] if found == ["ok"] else found

    def is_locked(self) -> bool:
        """Does some process keep the lock for writing, for seconds on end?"""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except apsw.BusyError:
            return True
        except apsw.ReadOnlyError:
            return False  # not to be known by somebody who may not write
        self._connection.execute("ROLLBACK")
        return False

    def joined(self) -> list[Joined]:
        """The processes that have a liveness row."""
        return [Joined(id_, pid, host, beat, bool(s)) for id_, pid, host, beat, s in self._rows("living")]

    def dead(self) -> set[str]:
        """The processes whose lock nobody holds any more."""
        return set(LivenessLocks(self.path).dead())

    def waits(self, now: float) -> list[Waits]:
        """What is due, by lane."""
        return waiting(self._connection, now)

    def newest_time(self) -> float | None:
        """The latest time that any process has written."""
        [(at,)] = self._rows("newest_time")
        return at

    def _rows(self, query: str, *values: Any) -> list[Any]:
        return self._connection.execute(_Q[query], values).fetchall()


def trial(folder: Path) -> Trial:
    """Commit to a store that is made in this folder for it, and removed again. Raises `StoreError`, `OSError`."""
    with tempfile.TemporaryDirectory(prefix=".afterward-doctor-", dir=folder) as scratch:
        connection = connect(Path(scratch) / "trial.db", _PATIENCE)
        try:
            spans: list[float] = []
            for number in range(_TRIALS):
                began = time.perf_counter()
                connection.execute("INSERT INTO aliases (id, job) VALUES (?1, 'trial')", (str(number),))
                spans.append(time.perf_counter() - began)
            modes = connection.pragma("journal_mode"), connection.pragma("synchronous")
        finally:
            connection.close()
    return Trial(statistics.median(spans), str(modes[0]), int(modes[1]))
