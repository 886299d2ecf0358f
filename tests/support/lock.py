"""The lock of a store's file, in the hands of another process."""

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import run_aside

_HOLD = """
import sys, apsw
connection = apsw.Connection(sys.argv[1])
connection.set_busy_timeout(20_000)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
connection.close()
"""

_TRY = """
import sys, apsw
connection = apsw.Connection(sys.argv[1])
for _ in sys.stdin:
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except apsw.BusyError:
        print("busy", flush=True)
    else:
        print("free", flush=True)
connection.close()
"""


class HeldLock:
    """Nobody can write while this is held."""

    def __init__(self, database: Path) -> None:
        self._process = run_aside(_HOLD, database)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "held\n"

    def let_go(self) -> None:
        """Lawful twice."""
        if self._process.poll() is None:
            self._process.communicate(timeout=30)


@contextmanager
def held(database: Path) -> Generator[HeldLock]:
    """Hold the lock until it is let go, or the block ends."""
    lock = HeldLock(database)
    try:
        yield lock
    finally:
        lock.let_go()


class Trier:
    """Tries whether the lock is free."""

    def __init__(self, database: Path) -> None:
        self._process: subprocess.Popen[str] = run_aside(_TRY, database)

    def is_free(self) -> bool:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print("try", file=self._process.stdin, flush=True)
        return self._process.stdout.readline() == "free\n"

    def close(self) -> None:
        self._process.communicate(timeout=30)
