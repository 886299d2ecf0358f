"""How long the pages of the dashboard take with 100,000 jobs, all of the last day: in ms of processor time.

Each page is asked for as a browser does, but within the process; what is remembered for other pages is not used.
"""

import os
import statistics
import time
from pathlib import Path

from fastapi import FastAPI

from afterward import Afterward
from afterward.web.dashboard import remembered
from benchmarks.report import Figure, say
from tests.support.gallery import Gallery, gallery, multiply
from tests.support.visiting import Visitor

JOBS = 100_000
TIMES = 15
PAGES = [
    "", "?range=24h", "/jobs", "/jobs?status=failed", "/jobs?q=4711", "/jobs?q=nothing-like-it", "/jobs?task=unknown",
    "/jobs?owner=ana%40example.com&status=failed", "/failures", "/queues", "/workers", "/jobs/@running",
    "/jobs/@failed", "/jobs/@queued", "/bulk?action=retry&status=failed", "/bulk?action=cancel&queue=mail",
]  # fmt: skip


def measure(folder: Path, rounds: int) -> list[Figure]:
    os.environ["AFTERWARD_ENV"] = "development"
    before, remembered.TIMES = remembered.TIMES, 0
    try:
        with gallery(folder / "jobs.db", day=300) as painted:
            began = time.perf_counter()
            multiply(painted, JOBS)
            say(f"filled with {JOBS:,} jobs in {time.perf_counter() - began:.0f} s")
            return _compare(painted, rounds)
    finally:
        remembered.TIMES = before


def _compare(painted: Gallery, rounds: int) -> list[Figure]:
    tasks, app = Afterward(painted.url), FastAPI()
    tasks.install(app, worker=False)
    app.include_router(tasks.dashboard())
    visitor = Visitor(app)
    slowest: list[float] = []
    with visitor.client:
        for _ in range(rounds):
            took = {page: _median(visitor, _path(painted, page)) for page in PAGES}
            for page, (worked, waited) in sorted(took.items(), key=lambda item: -item[1][0])[:5]:
                say(f"{worked:6.1f} ms of the processor's, {waited:6.1f} ms by the clock  {page or '/'}")
            slowest.append(max(worked for worked, _ in took.values()))
    return [Figure(f"slowest page of the dashboard with {JOBS:,} jobs", slowest, " ms", 200, 100, True)]


def _median(visitor: Visitor, path: str) -> tuple[float, float]:
    """By the processor's clock, and by that on the wall."""
    took: list[tuple[float, float]] = []
    for _ in range(TIMES):
        worked, began = time.process_time(), time.perf_counter()
        visitor.get(path)
        took.append((time.process_time() - worked, time.perf_counter() - began))
    works, waits = zip(*took, strict=True)
    return statistics.median(works) * 1e3, statistics.median(waits) * 1e3


def _path(painted: Gallery, page: str) -> str:
    where, _, name = page.partition("@")
    return where + painted.jobs[name] if name else page
