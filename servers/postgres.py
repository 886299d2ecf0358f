"""A real PostgreSQL server."""

import ctypes
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from servers import account
from servers.daemon import Daemon
from servers.errors import ServerError
from servers.places import fast_place
from servers.ports import free_port
from servers.programs import program

Setting = str | int | bool

_PORTS_TRIED = 10
_DYING_SECONDS = 60.0
# None of the variables that PostgreSQL takes its defaults from.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


class Server:
    """A server on TCP, at 127.0.0.1 and nowhere else, that trusts whoever comes as `postgres`.

    `folder`: where it makes a folder of its own for its data, removed in the end; by default in memory, or among the
    temporary files where memory is short. `settings` are PostgreSQL's; what is not said is as PostgreSQL has it: so
    `fsync` is on. Its processes end with this one, however that ends.
    """

    def __init__(self, folder: Path | None = None, **settings: Setting) -> None:
        self._place = folder or fast_place()
        self._settings = settings
        self._daemon: Daemon | None = None
        self._primary: Server | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process that all its others are children of; None when it does not run."""
        return self._daemon.pid if self._daemon else None

    def url(self, database: str = "postgres") -> str:
        """Where to connect to. The port stays the same through every restart."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, with all that was in it, and wait until it answers. Lawful when it runs."""
        if self.pid:
            return
        try:
            if self._daemon is None:
                self._daemon = Daemon("PostgreSQL", self._place, "QUIT")
                _make_data(self._daemon, self._primary)
            self._run(self._daemon)
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """Shut it down in good order, without waiting for its clients. Lawful when it does not run."""
        if self._daemon:
            self._daemon.end(signal.SIGINT)

    def abort(self) -> None:
        """Shut it down at once, as `pg_ctl stop -m immediate` does: it recovers when it starts. Lawful as above."""
        if self._daemon:
            self._daemon.end(signal.SIGQUIT)

    def kill(self) -> None:
        """`kill -9` of all its processes at once. Lawful when it does not run."""
        pid = self.pid
        if self._daemon is None or pid is None:
            return
        os.kill(pid, signal.SIGSTOP)  # so that no child is born unseen
        children = _children(pid)
        segment = _shared_memory(self._daemon)
        for each in [pid, *children]:
            os.kill(each, signal.SIGKILL)
        self._daemon.wait()
        _wait_until_gone(children)
        if segment is not None:
            ctypes.CDLL(None).shmctl(segment, 0, None)  # 0: remove it, as nobody else will who does not start again

    def restart(self, **settings: Setting) -> None:
        """Stop it if it runs, and start it, from now on with these settings changed."""
        self.stop()
        self._settings |= settings
        self.start()

    def standby(self, **settings: Setting) -> "Server":
        """Another that follows this one, which runs, from its start on; with the same settings, but for these."""
        other = Server(self._place, **self._settings | settings)
        other._primary = self
        return other

    def has_all_of(self, primary: "Server") -> bool:
        """Does this standby show all that is committed there by now?"""
        [(said,)] = primary.execute("SELECT pg_current_wal_flush_lsn()::text")
        return self.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", said) == [(True,)]

    def stop_following(self) -> None:
        """What its primary says from here on never gets here."""
        self.execute("ALTER SYSTEM SET primary_conninfo = ''")
        self.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + _DYING_SECONDS
        while self.execute("SELECT 1 FROM pg_stat_wal_receiver"):
            if time.monotonic() > deadline:
                raise ServerError(f"the standby still follows:\n{self.log()[-4000:]}")
            time.sleep(0.005)

    def promote(self) -> None:
        """Make a standby a primary, with all that got here. It takes writes when this returns."""
        if self.execute("SELECT pg_promote()") != [(True,)]:
            raise ServerError(f"the standby is not promoted:\n{self.log()[-4000:]}")

    def demote(self) -> None:
        """Start it anew as a standby that follows nobody: it shows what it has, and takes no writes."""
        self.stop()
        assert self._daemon is not None
        (self._daemon.folder / "data" / "standby.signal").touch()
        self.start()

    def close(self) -> None:
        """End it, and remove its data. Lawful twice."""
        if self._daemon:
            self._daemon.end(signal.SIGQUIT)
            self._daemon.close()
            self._daemon = None

    def log(self) -> str:
        """All that it has said."""
        return self._daemon.log() if self._daemon else ""

    def execute(self, statement: str, *parameters: object, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Carry out one statement in a transaction of its own, where it can be in one; its rows, if it gives any."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def database(self, template: str = "template0") -> Generator[str]:
        """The URL of a new database, dropped with the block. Nobody may be connected to its template."""
        name = f"made_{secrets.token_hex(6)}"
        # Files are copied: the other strategy writes each page into the WAL, and takes much longer.
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        try:
            yield self.url(name)
        finally:
            if self.pid:
                self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _run(self, daemon: Daemon) -> None:
        """On the port it has; the first time, on whichever it gets."""
        for _ in range(1 if self.port else _PORTS_TRIED):
            port = self.port or free_port()
            daemon.start(self._command(port), _ENVIRONMENT)
            if daemon.becomes(lambda: _is_ready(daemon)):
                self.port = port
                return
            if "could not bind" not in daemon.log():
                break
        raise ServerError(f"PostgreSQL does not start:\n{daemon.said()}")

    def _command(self, port: int) -> list[str]:
        settings: dict[str, Setting] = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            # Kept among its own files: who is killed leaves behind what it has elsewhere.
            "dynamic_shared_memory_type": "mmap",
            **self._settings,
        }
        command = [str(program("postgres")), "-D", "data"]
        for name, value in settings.items():
            command += ["-c", f"{name}={('off', 'on')[value] if isinstance(value, bool) else value}"]
        return command


def _make_data(daemon: Daemon, primary: Server | None) -> None:
    """New; or a copy of a primary's, that follows it from there on."""
    name = "pg_basebackup" if primary else "initdb"
    # Nothing here outlives a crash of the machine, so nothing needs to be synced.
    command: list[str | Path] = [program(name), "--pgdata=data", "--no-sync"]
    if primary:
        command += [f"--dbname={primary.url()}", "--checkpoint=fast", "--write-recovery-conf"]
    else:
        command += ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale-provider=builtin"]
        command += ["--locale=C.UTF-8", "--no-instructions"]
    with (daemon.folder / "log").open("ab") as log:
        made = subprocess.run(
            command, check=False, cwd=daemon.folder, env=_ENVIRONMENT, stdout=log, stderr=log, **account.options()
        )
    if made.returncode:
        raise ServerError(f"{name} failed:\n{daemon.said()}")


def _is_ready(daemon: Daemon) -> bool:
    """The file may be that of the process before, which was killed."""
    lines = _status(daemon)
    return lines[:1] == [str(daemon.pid)] and lines[7:8] == ["ready"]


def _shared_memory(daemon: Daemon) -> int | None:
    """The number of the segment that it has besides its files."""
    numbers = "".join(_status(daemon)[6:7]).split()
    return int(numbers[1]) if len(numbers) == 2 else None


def _status(daemon: Daemon) -> list[str]:
    """The lines of its `postmaster.pid`, as far as it has written them."""
    try:
        return [line.strip() for line in (daemon.folder / "data" / "postmaster.pid").read_text().splitlines()]
    except FileNotFoundError:
        return []


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + _DYING_SECONDS
    while any(_lives(pid) for pid in pids):
        if time.monotonic() > deadline:
            raise ServerError(f"of {pids}, some live on after SIGKILL")
        time.sleep(0.002)


def _lives(pid: int) -> bool:
    """A dead process whose end nobody has taken note of does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
