"""The servers that the documentation names serve its app, run its jobs, and end as it says."""

import json
import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from servers.ports import free_port
from tests.support.database import Database
from tests.support.pages import DOCS, environment, read, write_file
from tests.support.waiting import wait_until

PAGE = read(DOCS / "deployment.md")
LINES = [line for block in PAGE.of("sh") for line in block.code.splitlines()]
SERVERS = [line for line in LINES if not line.startswith("afterward ")]

Start = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the page's app in it."""
    for block in PAGE.of("python"):
        write_file(block, tmp_path)
    return tmp_path


@pytest.fixture
def port() -> int:
    """A free port."""
    return free_port()


@pytest.fixture
def start(folder: Path, port: int) -> Iterator[Start]:
    """Run a command of the page, on that port."""
    started: list[subprocess.Popen[bytes]] = []

    def start(command: str) -> "subprocess.Popen[bytes]":
        with (folder / "log.txt").open("ab") as log:
            server = subprocess.Popen(
                ["bash", "-c", f"exec {re.sub(r'8000$', str(port), command)}"],
                cwd=folder,
                env={**environment(folder), "HOME": str(folder)},  # gunicorn keeps a socket there
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append(server)
        return server

    yield start
    for server in started:
        if server.poll() is None:
            server.kill()
            server.wait(30)


@pytest.mark.parametrize("command", SERVERS)
def test_jobs_run_in_its_processes_and_it_ends_in_good_order(
    command: str, folder: Path, port: int, start: Start
) -> None:
    """SIGTERM, while a job runs: the job is let end within its grace, and no process is left in the store."""
    server = start(command)
    database = Database(folder / "afterward.db")
    log = folder / "log.txt"
    wait_until(lambda: log.read_text().count("Application startup complete") == 2, "both processes serve", seconds=30)
    assert [_order(port, 0) for _ in range(5)] == [202] * 5
    wait_until(lambda: database.statuses().get("succeeded") == 5, "the jobs have run", seconds=20)
    wait_until(lambda: len(database.processes()) == 2, "both are in the store")

    assert _order(port, 3) == 202
    wait_until(lambda: database.statuses().get("running") == 1, "a job runs")
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) in {0, -signal.SIGTERM}, log.read_text()
    assert database.statuses() == {"succeeded": 6}
    assert database.processes() == {}


def _order(port: int, seconds: float) -> int:
    url = f"http://127.0.0.1:{port}/work?seconds={seconds}"
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=20) as response:
        assert json.load(response)["job"]
        return int(response.status)
