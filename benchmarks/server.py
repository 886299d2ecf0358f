"""A server process for one measurement."""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

STARTING_SECONDS = 30.0
STOPPING_SECONDS = 30.0


@dataclass(frozen=True)
class Server:
    """A server that answers. `database`: where its afterward keeps jobs, if that is a file."""

    pid: int
    port: int
    database: Path

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)


@contextmanager
def serving(folder: Path, tasks: str, app: str = "benchmarks.app:app") -> Generator[Server]:
    """The app with `tasks` ("stock" or "afterward") in a server of its own, on a new database."""
    database = folder / f"{time.monotonic_ns()}.db"
    command = [sys.executable, "-m", "benchmarks.serve", app]
    with listening(command, _environment(tasks, database), database) as server:
        yield server


@contextmanager
def listening(command: Sequence[str], environment: Mapping[str, str], database: Path = Path()) -> Generator[Server]:
    """A server whose first line is its port."""
    with started(command, environment) as running:
        assert running.stdout is not None
        server = Server(running.pid, int(running.stdout.readline()), database)
        wait_until(lambda: _answers(server), STARTING_SECONDS, "the server to answer")
        yield server


def process(
    module: str, *arguments: str, tasks: str, database: Path, log: Path | None = None
) -> AbstractContextManager[subprocess.Popen[str]]:
    """`python -m module`, ended with the block."""
    return started([sys.executable, "-m", module, *arguments], _environment(tasks, database), log)


@contextmanager
def started(
    command: Sequence[str], environment: Mapping[str, str], log: Path | None = None, stdin: int | None = None
) -> Generator[subprocess.Popen[str]]:
    """A process, ended with the block: by SIGTERM, or SIGKILL when that takes too long.

    `log`: where its standard error goes.
    """
    with log.open("w") if log else nullcontext() as errors:
        running = subprocess.Popen(
            command, env=environment, stdin=stdin, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.communicate(timeout=STOPPING_SECONDS)
        except subprocess.TimeoutExpired:
            running.kill()
            running.communicate()


def _environment(tasks: str, database: Path) -> dict[str, str]:
    return {**os.environ, "BENCH_TASKS": tasks, "AFTERWARD_URL": f"sqlite:///{database}"}


def wait_until(condition: Callable[[], bool], seconds: float, what: str, pause: float = 0.02) -> None:
    """Poll until it holds. Raises `TimeoutError`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(pause)


def _answers(server: Server) -> bool:
    connection = server.connect()
    try:
        connection.request("GET", "/openapi.json")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
