"""An application whose store is in a database of a PostgreSQL server."""

import socket
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Self

from servers.postgres import Server
from tests.support.processes import Starter
from tests.support.site import LOOPBACK, Door, Site
from tests.support.tables import Tables


class ServedSite(Site):
    """Servers and workers on one database of a server, which the test may kill, stop and reconfigure."""

    def __init__(self, folder: Path, starter: Starter, ending: ExitStack, server: Server) -> None:
        super().__init__(folder, starter, ending)
        self.server = server
        self._url = ending.enter_context(server.database())
        self.tables = Tables(self._url)
        ending.callback(self.tables.close)

    @property
    def url(self) -> str:
        return self._url

    @property
    def backends(self) -> dict[int, str]:
        """The server's processes that serve connections of this site's processes, with what each did last."""
        return dict(
            self.tables.query(
                "SELECT pid, query FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'afterward' ORDER BY pid"
            )
        )

    @property
    def waiting(self) -> int:
        """How many of those wait for a lock."""
        return self._count("wait_event_type = 'Lock'")

    @property
    def in_transaction(self) -> int:
        """How many of those have begun a transaction, and do nothing."""
        return self._count("state = 'idle in transaction'")

    def _count(self, condition: str) -> int:
        mine = "datname = current_database() AND application_name = 'afterward'"
        return self.tables.query(f"SELECT count(*) FROM pg_stat_activity WHERE {mine} AND {condition}")[0][0]

    def forget_statements(self) -> None:
        """Count them from here on."""
        self.server.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        self.server.execute(
            "SELECT pg_stat_statements_reset(0, oid, 0) FROM pg_database WHERE datname = %s", self._name
        )

    def statements(self) -> dict[str, int]:
        """The statements that were carried out in this database since, with the test's own; and how often."""
        counted = self.server.execute(
            "SELECT query, sum(calls)::int FROM pg_stat_statements JOIN pg_database d ON d.oid = dbid "
            "WHERE datname = %s AND toplevel GROUP BY query ORDER BY 2 DESC",
            self._name,
        )
        return dict(counted)

    @property
    def _name(self) -> str:
        return self._url.rpartition("/")[2]

    def end_backend(self, pid: int) -> bool:
        """End one of those connections from the server's side; False when it is gone already."""
        return self.tables.query("SELECT pg_terminate_backend(%s)", pid) == [(True,)]

    def backends_that_lock(self, process: str) -> list[int]:
        """Those that keep the lock which shows a process to live."""
        rows = self.tables.query(
            "SELECT pid FROM pg_locks, hashtextextended(%s, 0) AS key WHERE locktype = 'advisory' AND granted "
            "AND mode = 'ExclusiveLock' AND classid::bigint = (key >> 32) & 4294967295 "
            "AND objid::bigint = key & 4294967295",
            process,
        )
        return [pid for (pid,) in rows]

    @contextmanager
    def listening_instead(self) -> Generator[Callable[[], int]]:
        """While the server is away, its port refuses whoever comes, and counts them."""
        with socket.create_server((LOOPBACK, self.server.port), backlog=100) as listening:
            tries = 0

            def refuse() -> None:
                nonlocal tries
                with suppress(OSError):
                    while True:
                        accepted, _ = listening.accept()
                        accepted.close()
                        tries += 1

            refusing = threading.Thread(target=refuse, daemon=True)
            refusing.start()
            yield lambda: tries
            listening.shutdown(socket.SHUT_RDWR)
            refusing.join(5)


class Clients:
    """Some who ask for jobs, again and again while the block lasts; the keys of these, and of what was answered."""

    def __init__(self, door: Door, task: str = "quick", clients: int = 6, **options: Any) -> None:
        self._door, self._task, self._options = door, task, options
        self._numbers = count()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]
        self.asked: list[str] = []
        self.accepted: list[str] = []
        self.refused: list[str] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self) -> None:
        while not self._is_over.is_set():
            key = f"key~{next(self._numbers):05}"
            self.asked.append(key)
            answer = self._door.add(self._task, key, **self._options)
            if answer.status == 202:
                self.accepted.append(key)
            else:
                assert answer.status == 503, answer
                assert "retry-after" in answer.headers
                self.refused.append(key)
