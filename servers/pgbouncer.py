"""A real PgBouncer."""

import os
import shutil
import signal
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from servers.daemon import Daemon
from servers.errors import ServerError
from servers.ports import free_port
from servers.postgres import Server, Setting

_PORTS_TRIED = 10


def find() -> Path | None:
    """The program, where it is installed: there is no wheel of it."""
    found = shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
    return Path(found) if found else None


class PgBouncer:
    """A PgBouncer in transaction mode before a server, on TCP, that trusts whoever comes as `postgres`.

    `settings` are PgBouncer's. `url("pgbouncer")` leads to its console. It ends with this process, however that ends.
    """

    def __init__(self, server: Server, **settings: Setting) -> None:
        self._server = server
        self._settings = settings
        self._daemon: Daemon | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Its one process; None when it does not run."""
        return self._daemon.pid if self._daemon else None

    def url(self, database: str = "postgres") -> str:
        """Where to connect to. The port stays the same through every restart."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it listens. Lawful when it runs."""
        if self.pid:
            return
        program = find()
        if program is None:
            raise ServerError("there is no PgBouncer: install your system's package, pgbouncer")
        try:
            if self._daemon is None:
                self._daemon = Daemon("PgBouncer", Path(tempfile.gettempdir()), "KILL")
            self._run(self._daemon, program)
        except BaseException:
            self.close()
            raise

    def kill(self) -> None:
        """`kill -9`. Lawful when it does not run."""
        if self._daemon:
            self._daemon.end(signal.SIGKILL)

    def close(self) -> None:
        """End it, and remove its files. Lawful twice."""
        if self._daemon:
            self._daemon.close()
            self._daemon = None

    def log(self) -> str:
        """All that it has said."""
        return self._daemon.log() if self._daemon else ""

    def _run(self, daemon: Daemon, program: Path) -> None:
        """On the port it has; the first time, on whichever it gets."""
        for _ in range(1 if self.port else _PORTS_TRIED):
            port = self.port or free_port()
            (daemon.folder / "users").write_text('"postgres" ""\n')
            (daemon.folder / "settings").write_text(self._written(port))
            daemon.start([program, "settings"], {})
            if daemon.becomes(lambda: f"[{daemon.pid}] LOG process up" in daemon.log()):
                self.port = port
                return
            if "cannot listen" not in daemon.log() and "nowhere to listen" not in daemon.log():
                break
        raise ServerError(f"PgBouncer does not start:\n{daemon.said()}")

    def _written(self, port: int) -> str:
        settings: dict[str, Setting] = {
            "pool_mode": "transaction",
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": "users",
            "admin_users": "postgres",
            **self._settings,
        }
        lines = ["[databases]", f"* = host=127.0.0.1 port={self._server.port}", "[pgbouncer]"]
        return "\n".join([*lines, *(f"{name} = {value}" for name, value in settings.items()), ""])
