"""A real PostgreSQL server."""

import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from servers import account
from servers.errors import ServerError
from servers.keeper import Keeper
from servers.ports import free_port
from servers.programs import program

Setting = str | int | bool

_MEMORY = Path("/dev/shm")
_MEMORY_NEEDED = 2 * 1024**3
_PORTS_TRIED = 10
_STARTING_SECONDS = 60.0
_STOPPING_SECONDS = 60.0
# None of the variables that PostgreSQL takes its defaults from.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


class Server:
    """A server on TCP, at 127.0.0.1 and nowhere else, that trusts whoever comes as `postgres`.

    `folder`: where it makes a folder of its own for its data, removed in the end; by default in memory, or among the
    temporary files where memory is short. `settings` are PostgreSQL's; what is not said is as PostgreSQL has it: so
    `fsync` is on. Its processes end with this one, however that ends.
    """

    def __init__(self, folder: Path | None = None, **settings: Setting) -> None:
        self._place = folder or _place()
        self._settings = settings
        self._folder: Path | None = None
        self._keeper: Keeper | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process that all its others are children of; None when it does not run."""
        return self._process.pid if self._process else None

    def url(self, database: str = "postgres") -> str:
        """Where to connect to. The port stays the same through every restart."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, with all that was in it, and wait until it answers. Lawful when it runs."""
        if self._process:
            return
        try:
            if self._folder is None:
                self._make_folder()
            self._run()
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """Shut it down in good order, without waiting for its clients. Lawful when it does not run."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """`kill -9` of all its processes at once. Lawful when it does not run."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGSTOP)  # so that no child is born unseen
        children = _children(self._process.pid)
        segment = self._shared_memory()
        for pid in [self._process.pid, *children]:
            os.kill(pid, signal.SIGKILL)
        self._ended()
        _wait_until_gone(children)
        if segment is not None:
            ctypes.CDLL(None).shmctl(segment, 0, None)  # 0: remove it, as nobody else will who does not start again

    def restart(self, **settings: Setting) -> None:
        """Stop it if it runs, and start it, from now on with these settings changed."""
        self.stop()
        self._settings |= settings
        self.start()

    def close(self) -> None:
        """End it, and remove its data. Lawful twice."""
        self._end(signal.SIGQUIT)
        if self._keeper:
            self._keeper.close()
        self._folder = self._keeper = None

    def log(self) -> str:
        """All that it has said."""
        return (self._own_folder / "log").read_text(errors="replace")

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
            if self._process:
                self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @property
    def _own_folder(self) -> Path:
        assert self._folder is not None, "the server was never started, or is closed"
        return self._folder

    def _make_folder(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="afterward-postgres-", dir=self._place))
        self._keeper = Keeper(folder, "QUIT")
        account.give(folder)
        account.check_reach(folder, "let the server make its folder in one that is open to all")
        self._folder = folder
        # Nothing here outlives a crash of the machine, so nothing needs to be synced.
        command = [program("initdb"), "--pgdata=data", "--username=postgres", "--auth=trust", "--no-sync"]
        command += ["--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8", "--no-instructions"]
        with (folder / "log").open("ab") as log:
            made = subprocess.run(
                command, check=False, cwd=folder, env=_ENVIRONMENT, stdout=log, stderr=log, **account.options()
            )
        if made.returncode:
            raise ServerError(f"initdb failed:\n{self.log()}")

    def _run(self) -> None:
        """On the port it has; the first time, on whichever it gets."""
        for _ in range(1 if self.port else _PORTS_TRIED):
            port = self.port or free_port()
            self._spawn(port)
            if self._answers():
                self.port = port
                return
            if "could not bind" not in self.log():
                break
        raise ServerError(f"PostgreSQL does not start:\n{self.log()[-4000:]}")

    def _spawn(self, port: int) -> None:
        assert self._keeper is not None
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
        with (self._own_folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._own_folder,
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **account.options(),
            )
        self._keeper.guard(self._process.pid)

    def _answers(self) -> bool:
        """Wait until it takes connections; False when it has ended instead."""
        assert self._process is not None
        deadline = time.monotonic() + _STARTING_SECONDS
        while self._process.poll() is None:
            # The file may be that of the process before, which was killed.
            lines = self._status()
            if lines[:1] == [str(self._process.pid)] and lines[7:8] == ["ready"]:
                return True
            if time.monotonic() > deadline:
                raise ServerError(f"PostgreSQL is not ready after {_STARTING_SECONDS:g} s:\n{self.log()[-4000:]}")
            time.sleep(0.005)
        self._ended()
        return False

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.send_signal(signal.SIGCONT)
        try:
            self._ended(_STOPPING_SECONDS)
        except subprocess.TimeoutExpired:
            said = self.log()
            self.kill()
            raise ServerError(f"PostgreSQL did not end within {_STOPPING_SECONDS:g} s:\n{said[-4000:]}") from None

    def _ended(self, seconds: float | None = None) -> None:
        """Wait until it has."""
        assert self._process is not None
        assert self._keeper is not None
        self._process.wait(seconds)
        self._keeper.release()
        self._process = None

    def _shared_memory(self) -> int | None:
        """The number of the segment that it has besides its files."""
        numbers = "".join(self._status()[6:7]).split()
        return int(numbers[1]) if len(numbers) == 2 else None

    def _status(self) -> list[str]:
        """The lines of its `postmaster.pid`, as far as it has written them."""
        try:
            return [line.strip() for line in (self._own_folder / "data" / "postmaster.pid").read_text().splitlines()]
        except FileNotFoundError:
            return []


def _place() -> Path:
    """In memory, where there is enough."""
    if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _MEMORY_NEEDED:
        return _MEMORY
    return Path(tempfile.gettempdir())


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + _STOPPING_SECONDS
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
