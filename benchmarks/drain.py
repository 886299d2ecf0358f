"""10,000 waiting async no-ops, run by one worker process ÷ a bare loop over the same file.

The bare loop does with the same rows, on the same schema, what no job queue can leave out: in one transaction, synced,
it finishes the hundred jobs it has and claims the next hundred. It calls nothing and reads no arguments.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import apsw

from benchmarks import jobs
from benchmarks.report import Figure, say
from benchmarks.server import process

JOBS = 10_000
PAGE = 100
WORKERS = {  # name: (what waits, what the worker is started with)
    "async": ("async_noop", "benchmarks.quiet:tasks"),
    "log": ("async_noop", "benchmarks.app:tasks"),
    "def": ("def_noop", "benchmarks.quiet:tasks"),
}

_FINISH = """
UPDATE jobs SET status = 'succeeded', process = NULL, finished_at = ?3
WHERE seq = ?1 AND attempt = ?2 AND status = 'running'
"""
_CLAIM = """
UPDATE jobs SET status = 'running', process = 'bare', attempt = attempt + 1, started_at = ?1
WHERE seq IN (
    SELECT seq FROM jobs WHERE status = 'queued' AND due = 1 AND process IS NULL AND queue = 'default' AND task = ?2
    ORDER BY priority DESC, run_at, seq LIMIT ?3
)
RETURNING seq, attempt
"""


def measure(folder: Path, rounds: int) -> list[Figure]:
    filled = {task: _filled(folder / f"{task}.db", task) for task in ("async_noop", "def_noop")}
    rates: dict[str, list[float]] = {"bare": [], **{name: [] for name in WORKERS}}
    for number in range(rounds):
        for name in rates if number % 2 else reversed(rates):
            task, target = WORKERS.get(name, ("async_noop", ""))
            database = folder / f"{name}-{number}.db"
            shutil.copyfile(filled[task], database)
            took = _by_worker(database, target) if target else _by_bare_loop(database)
            if jobs.counts(database) != {"succeeded": JOBS}:
                raise AssertionError(f"{name}: not all {JOBS} jobs succeeded: {jobs.counts(database)}")
            rates[name].append(JOBS / took)
        say(
            f"worker {rates['async'][-1]:8,.0f} jobs/s, with its log {rates['log'][-1]:8,.0f}, of `def` no-ops "
            f"{rates['def'][-1]:8,.0f}; bare loop {rates['bare'][-1]:8,.0f} jobs/s"
        )
    ratios = {name: [ours / bare for ours, bare in zip(rates[name], rates["bare"], strict=True)] for name in WORKERS}
    return [
        Figure("drain of 10,000 waiting jobs: one worker ÷ a bare loop", ratios["async"], "", 0.3, 0.5),
        Figure("  the same, with two lines of log for each job", ratios["log"], "", None, None),
        Figure("  the same of `def` no-ops, without the log", ratios["def"], "", None, None),
    ]


def _filled(database: Path, task: str) -> Path:
    environment = {**os.environ, "BENCH_TASKS": "afterward", "AFTERWARD_URL": f"sqlite:///{database}"}
    subprocess.run([sys.executable, "-m", "benchmarks.drain", task], env=environment, check=True)
    return database


def _by_worker(database: Path, target: str) -> float:
    """Seconds from the first claim, by the store's own record, until all are seen to have succeeded."""
    log = database.with_suffix(".log")
    with process("afterward", "worker", target, tasks="afterward", database=database, log=log):
        jobs.wait_until_all_ran(database, pause=0.01)
        ended = time.time()
    connection = apsw.Connection(str(database))
    try:
        return ended - float(connection.execute("SELECT min(started_at) FROM jobs").get)
    finally:
        connection.close()


def _by_bare_loop(database: Path) -> float:
    connection = apsw.Connection(str(database))
    connection.pragma("synchronous", "full")
    began = time.perf_counter()
    mine: list[Any] = []
    while True:
        connection.execute("BEGIN IMMEDIATE")
        now = time.time()
        connection.executemany(_FINISH, [(*job, now) for job in mine])
        mine = connection.execute(_CLAIM, (now, "benchmarks.app:async_noop", PAGE)).fetchall()
        connection.execute("COMMIT")
        if not mine:
            break
    took = time.perf_counter() - began
    connection.close()
    return took


async def _enqueue(name: str) -> None:
    from benchmarks import app

    task = getattr(app, name)
    async with app.tasks.running(None):
        await app.tasks.enqueue_many(task.prepare(f"someone-{number}@example.org") for number in range(JOBS))


if __name__ == "__main__":
    asyncio.run(_enqueue(sys.argv[1]))
