"""What a claim and an enqueue cost with 1,000,000 waiting and 1,000,000 finished jobs ÷ with none.

Both stores are asked in turn, in one process, through the store's own operations: store one job; claim a hundred. Most
of the waiting jobs of the full store are such that this worker could claim them; one in twenty is of one of 20 tasks
that it does not know, and as many wait for their time.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from afterward.identity import new_id
from afterward.job import NewJob, Placement, Process, Succeeded
from afterward.stores.base import Claimed, Wanted
from afterward.stores.sqlite import SQLiteStore
from benchmarks.report import Figure, say

JOBS = 1_000_000
CLAIMED = 100
TIMES = 200
WARM_UP = 50
TASK = "benchmarks.app:async_noop"
OTHER_TASKS = 20


@dataclass
class Asked:
    """One store, and what its operations took, in ms: by the clock, and of processor time."""

    store: SQLiteStore
    process: str = field(default_factory=new_id)
    took: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    worked: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    async def timed(self, name: str, operation: Awaitable[Any]) -> Any:
        worked, began = time.process_time(), time.perf_counter()
        answer = await operation
        self.took.setdefault(name, []).append((time.perf_counter() - began) * 1e3)
        self.worked.setdefault(name, []).append((time.process_time() - worked) * 1e3)
        return answer

    def forget(self) -> None:
        self.took.clear()
        self.worked.clear()


def measure(folder: Path, rounds: int) -> list[Figure]:
    return asyncio.run(_measure(folder, rounds))


async def _measure(folder: Path, rounds: int) -> list[Figure]:
    began = time.perf_counter()
    database = folder / "backlog.db"
    await _store_templates(database)
    await asyncio.to_thread(_multiply, database)
    took, size = time.perf_counter() - began, database.stat().st_size / 1e6
    say(f"filled with {2 * JOBS:,} jobs, {size:,.0f} MB, in {took:.0f} s")
    both = {"full": Asked(SQLiteStore(database)), "empty": Asked(SQLiteStore(folder / "empty.db"))}
    for asked in both.values():
        await asked.store.open()
        await asked.store.join(Process(asked.process, 0, "benchmark"))
    try:
        return await _compare(both, rounds)
    finally:
        for asked in both.values():
            await asked.store.leave(asked.process)
            await asked.store.close()


async def _compare(both: dict[str, Asked], rounds: int) -> list[Figure]:
    for _ in range(WARM_UP):
        for asked in both.values():
            await _ask(asked)
    ratios: dict[str, list[float]] = {"enqueue": [], "claim": []}
    for _ in range(rounds):
        for asked in both.values():
            asked.forget()
        for _ in range(TIMES):
            for asked in both.values():
                await _ask(asked)
        for operation, values in ratios.items():
            full, empty = both["full"], both["empty"]
            values.append(statistics.median(full.took[operation]) / statistics.median(empty.took[operation]))
            say(f"{operation:7} full {_shown(full, operation)}; empty {_shown(empty, operation)}")
    return [
        Figure("enqueue of 1 with 2,000,000 jobs ÷ with none", ratios["enqueue"], "", 1.5, 1.1, True),
        Figure("claim of 100 with 2,000,000 jobs ÷ with none", ratios["claim"], "", 1.5, 1.1, True),
    ]


def _shown(asked: Asked, operation: str) -> str:
    percentiles = statistics.quantiles(asked.took[operation], n=20)
    worked = statistics.median(asked.worked[operation])
    return f"p50 {percentiles[9]:.3f} ms (of which processor {worked:.3f}), p95 {percentiles[18]:.3f} ms"


async def _ask(asked: Asked) -> None:
    """Store one job, and claim a hundred; untimed, what makes them a hundred, and their end."""
    await asked.timed("enqueue", asked.store.enqueue([(_job(), Placement.free)], None))
    await asked.store.enqueue([(_job(), Placement.free) for _ in range(CLAIMED - 1)], None)
    wanted = [Wanted({TASK}, CLAIMED)]
    claimed: Claimed = await asked.timed("claim", asked.store.claim(asked.process, wanted, new_id()))
    if len(claimed.leases) != CLAIMED:
        raise AssertionError(f"claimed {len(claimed.leases)} jobs, not {CLAIMED}")
    await asked.store.finish([(lease, Succeeded()) for lease in claimed.leases])


def _job(task: str = TASK, delay: float | None = None) -> NewJob:
    return NewJob(new_id(), task, "default", 0, '{"email":"someone@example.org"}', delay=delay)


async def _store_templates(database: Path) -> None:
    """One job of each sort, made by the store itself: row 1 has succeeded, the others wait."""
    asked = Asked(SQLiteStore(database))
    await asked.store.open()
    await asked.store.join(Process(asked.process, 0, "benchmark"))
    await asked.store.enqueue([(_job(), Placement.free)], None)
    claimed: Claimed = await asked.store.claim(asked.process, [Wanted({TASK}, 1)], new_id())
    await asked.store.finish([(lease, Succeeded()) for lease in claimed.leases])
    waiting = [_job(), _job(delay=1e6), *(_job(f"elsewhere:task_{number}") for number in range(OTHER_TASKS))]
    await asked.store.enqueue([(job, Placement.free) for job in waiting], None)
    await asked.store.leave(asked.process)
    await asked.store.close()


def _multiply(database: Path) -> None:
    """Copy the templates, with ids and times of their own, until there are enough."""
    connection = apsw.Connection(str(database))
    connection.pragma("synchronous", "off")
    twentieth = JOBS // 20
    _copy(connection, 1, JOBS)
    _copy(connection, 2, JOBS - 2 * twentieth)
    _copy(connection, 3, twentieth)
    for number in range(OTHER_TASKS):
        _copy(connection, 4 + number, twentieth // OTHER_TASKS)
    connection.close()


def _copy(connection: apsw.Connection, seq: int, times: int) -> None:
    columns = [str(row[1]) for row in connection.execute("PRAGMA table_info(jobs)")]
    made = {
        "seq": "NULL",
        # A UUIDv7 as a later one would be: the same beginning, and an end that grows.
        "id": "substr(id, 1, 14) || printf('7%03x-8%03x-%012x', n >> 20 & 0xfff, seq & 0xfff, n)",
        "run_at": "run_at + n * 1e-6",
        "created_at": "created_at + n * 1e-6",
    }
    values = ", ".join(made.get(column, column) for column in columns)
    connection.execute(
        f"WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?2) "
        f"INSERT INTO jobs ({', '.join(columns)}) SELECT {values} FROM numbers CROSS JOIN jobs WHERE seq = ?1",
        (seq, times),
    )
