"""A server process for one measurement."""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

STARTING_SECONDS = 30.0
STOPPING_SECONDS = 30.0


@dataclass(frozen=True)
class Server:
    """A server that answers. `database`: where its afterward keeps jobs, if it has one."""

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
    with process("benchmarks.serve", app, tasks=tasks, database=database) as running:
        assert running.stdout is not None
        server = Server(running.pid, int(running.stdout.readline()), database)
        wait_until(lambda: _answers(server), STARTING_SECONDS, "the server to answer")
        yield server


@contextmanager
def process(
    module: str, *arguments: str, tasks: str, database: Path, log: Path | None = None
) -> Generator[subprocess.Popen[str]]:
    """`python -m module`, ended with the block: by SIGTERM, or SIGKILL when that takes too long.

    `log`: where its standard error goes.
    """
    environment = {**os.environ, "BENCH_TASKS": tasks, "AFTERWARD_URL": f"sqlite:///{database}"}
    command = [sys.executable, "-m", module, *arguments]
    with log.open("w") if log else nullcontext() as errors:
        running = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.communicate(timeout=STOPPING_SECONDS)
        except subprocess.TimeoutExpired:
            running.kill()
            running.communicate()


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
