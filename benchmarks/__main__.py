"""The figures, all or some: `python -m benchmarks [NAME …] [--seconds S] [--rounds N]`."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import psycopg

from benchmarks import (
    backlog,
    celery_requests,
    celery_throughput,
    dashboard,
    drain,
    drivers,
    latency,
    memory,
    pg_backlog,
    pg_cost,
    pg_drain,
    pg_idle,
    pg_latency,
    pg_requests,
    processes,
    report,
    throughput,
)

Measure = Callable[[Path, int, float], list[report.Figure]]

MEASURES: dict[str, Measure] = {
    "requests-async": lambda folder, rounds, seconds: throughput.measure("async", folder, rounds, seconds),
    "requests-def": lambda folder, rounds, seconds: throughput.measure("def", folder, rounds, seconds),
    "drain": lambda folder, rounds, _: drain.measure(folder, rounds),
    "latency": lambda folder, rounds, _: latency.measure(folder, rounds),
    "backlog": lambda folder, rounds, _: backlog.measure(folder, rounds),
    "dashboard": lambda folder, rounds, _: dashboard.measure(folder, rounds),
    "memory": lambda folder, rounds, _: memory.measure(folder, rounds),
    "processes": lambda folder, rounds, _: processes.measure(folder, rounds),
    "celery-requests": celery_requests.measure,
    "celery-throughput": lambda folder, rounds, _: celery_throughput.measure(folder, rounds),
    "drivers": lambda folder, rounds, _: drivers.measure(folder, rounds),
    "pg-backlog": lambda folder, rounds, _: pg_backlog.measure(folder, rounds),
    "pg-cost": lambda folder, rounds, _: pg_cost.measure(folder, rounds),
    "pg-drain": lambda folder, rounds, _: pg_drain.measure(folder, rounds),
    "pg-requests": pg_requests.measure,
    "pg-latency": lambda folder, rounds, _: pg_latency.measure(folder, rounds),
    "pg-idle": lambda folder, rounds, _: pg_idle.measure(folder, rounds),
}

# The others need what scripts/install --peers installs, or a RabbitMQ.
BY_DEFAULT = [name for name in MEASURES if not name.startswith(("pg-", "celery-"))]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What afterward costs, as ratios.")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"some of: {' '.join(MEASURES)}; by default those without pg- or celery-",
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each load on a server lasts (default: 4)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default: 3)")
    parser.add_argument("--folder", type=Path, default=Path("build"), help="where databases are made (default: build)")
    options = parser.parse_args()
    for name in options.names:
        if name not in MEASURES:
            parser.error(f"{name!r} is none of {' '.join(MEASURES)}")
    options.folder.mkdir(parents=True, exist_ok=True)
    figures: list[report.Figure] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder.resolve()) as place:
        Path(place).chmod(0o711)  # as that below: where we are root, a database server is somebody else
        report.describe(Path(place))
        for name in options.names or BY_DEFAULT:
            print(f"\n{name}", flush=True)
            began = time.monotonic()
            try:
                with tempfile.TemporaryDirectory(dir=place) as folder:
                    Path(folder).chmod(0o711)
                    figures += MEASURES[name](Path(folder), options.rounds, options.seconds)
            except (AssertionError, OSError, RuntimeError, psycopg.Error, subprocess.SubprocessError) as error:
                failed.append(name)
                report.say(f"FAILED: {error}")
            report.say(f"took {time.monotonic() - began:.0f} s")
    report.print_figures(figures)
    if failed:
        print(f"\nfailed: {' '.join(failed)}")
    return 1 if failed else 0


def end(number: int, _frame: FrameType | None) -> None:
    """Through every `finally`: servers end, and files go."""
    sys.exit(128 + number)


if __name__ == "__main__":
    os.environ.pop("AFTERWARD_CRASH", None)
    signal.signal(signal.SIGTERM, end)
    sys.exit(main())
