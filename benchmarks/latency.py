"""From the end of a request to the start of its function, on an idle server: seen from inside its process.

The end is when the call of the whole ASGI application returns, outside of everything that is installed on it.
"""

import json
import statistics
import time
from pathlib import Path

from benchmarks import jobs
from benchmarks.report import Figure, say
from benchmarks.server import serving

REQUESTS = 2_000
PAUSE_SECONDS = 0.001


def measure(folder: Path, rounds: int) -> list[Figure]:
    p50s: dict[str, list[float]] = {"async": [], "def": []}
    p99s: dict[str, list[float]] = {"async": [], "def": []}
    for number in range(rounds):
        for kind in ("async", "def") if number % 2 else ("def", "async"):
            waits = _round(kind, folder, REQUESTS)
            percentiles = statistics.quantiles(waits, n=100)
            p50s[kind].append(percentiles[49])
            p99s[kind].append(percentiles[98])
            say(
                f"{kind:5} {len(waits):,} requests: p50 {percentiles[49]:.3f} ms, p99 {percentiles[98]:.3f} ms, "
                f"longest {max(waits):.3f} ms"
            )
    figures: list[Figure] = []
    for kind in ("async", "def"):
        figures.append(Figure(f"end of request → start of function, {kind}, p50", p50s[kind], "ms", 0.5, 0.1, True))
        figures.append(Figure(f"end of request → start of function, {kind}, p99", p99s[kind], "ms", 5.0, None, True))
    return figures


def _round(kind: str, folder: Path, requests: int) -> list[float]:
    with serving(folder, "afterward", "benchmarks.latency_app:app") as server:
        connection = server.connect()
        for number in range(requests):
            connection.request("POST", f"/{kind}/{number}")
            answer = connection.getresponse()
            answer.read()
            if answer.status != 202:
                raise AssertionError(f"answered {answer.status}")
            time.sleep(PAUSE_SECONDS)  # so that the next finds the server idle
        jobs.wait_until_all_ran(server.database)
        connection.request("GET", "/waits")
        waits: dict[str, int] = json.load(connection.getresponse())
        connection.close()
    if len(waits) != requests:
        raise AssertionError(f"{requests} jobs were accepted, {len(waits)} started")
    return [nanoseconds / 1e6 for nanoseconds in waits.values()]
