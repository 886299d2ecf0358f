"""Memory of the app after 2,000 requests: with afterward - without."""

import subprocess
from pathlib import Path

from benchmarks import jobs, load
from benchmarks.report import Figure, say
from benchmarks.server import Server, serving

REQUESTS = 2_000


def measure(folder: Path, rounds: int) -> list[Figure]:
    differences: list[float] = []
    for number in range(rounds):
        found = {
            tasks: _round(tasks, folder) for tasks in (("stock", "afterward") if number % 2 else ("afterward", "stock"))
        }
        differences.append(found["afterward"] - found["stock"])
        say(f"with afterward {found['afterward']:.1f} MB, without {found['stock']:.1f} MB")
    return [Figure("memory with afterward - without", differences, "MB", 25, 10, True)]


def _round(tasks: str, folder: Path) -> float:
    with serving(folder, tasks) as server:
        loaded = load.so_many(server.url("/async"), REQUESTS)
        if loaded.accepted != REQUESTS:
            raise AssertionError(f"only {loaded.accepted} of {REQUESTS} requests were accepted")
        if tasks == "afterward":
            jobs.wait_until_all_ran(server.database)
        return _resident(server)


def _resident(server: Server) -> float:
    """Resident memory in MB; `ps` says KiB."""
    said = subprocess.run(["ps", "-o", "rss=", "-p", str(server.pid)], stdout=subprocess.PIPE, check=True, text=True)
    return int(said.stdout) * 1024 / 1e6
