"""Load on a server, from a process of its own: wrk where there is one, else the client beside this file."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CONNECTIONS = 32
_WRK = shutil.which("wrk")
GENERATOR = (
    "wrk, 1 thread" if _WRK else "the bundled Python client (install wrk for more load from less processor time)"
)


@dataclass(frozen=True)
class Load:
    """What was answered: `accepted` with 202, `refused` with another status, `broken` not at all. Latencies in ms."""

    accepted: int
    refused: int
    broken: int
    seconds: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        """Accepted requests a second."""
        return self.accepted / self.seconds


def for_seconds(url: str, seconds: float) -> Load:
    """Load `url` for so long over 32 connections."""
    if _WRK is None:
        return _by_client(url, "--seconds", str(seconds), seconds=seconds)
    script = str(Path(__file__).with_name("post.lua"))
    # wrk knows whole seconds only.
    return _run(_WRK, "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "-s", script, url, seconds=seconds)


def so_many(url: str, requests: int) -> Load:
    """Make exactly so many requests over 32 connections; wrk cannot."""
    return _by_client(url, "--requests", str(requests))


def _by_client(url: str, *options: str, seconds: float = 0.0) -> Load:
    client = (sys.executable, "-m", "benchmarks.client", url, "--connections", str(CONNECTIONS))
    return _run(*client, *options, seconds=seconds)


def _run(*command: str, seconds: float = 0.0) -> Load:
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=seconds + 60).stdout
    found = json.loads(said.splitlines()[-1])
    # The endpoints answer 202 or an error, and wrk counts every status above 399 as refused.
    accepted = int(found["answered"]) - int(found["refused"])
    return Load(accepted, int(found["refused"]), int(found["broken"]), found["seconds"], found["p50"], found["p99"])
