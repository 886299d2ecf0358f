"""What storing, claiming and finishing a job takes on PostgreSQL, by how many go in one statement.

Microseconds of the server's processor, for that is what is short when many workers share one server; of the client's;
and bytes of WAL, with no page written in full for a checkpoint. By one process, with nothing else in the store, on
Linux.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from afterward.identity import new_id
from afterward.job import NewJob, Placement, Process, Succeeded
from afterward.stores.base import Claimed, Wanted
from afterward.stores.postgres import PostgresStore
from benchmarks.postgres import postgres
from benchmarks.report import Figure, say

TIMES = {1: 300, 10: 150, 100: 60, 1000: 8}
"""How often each number of jobs is stored, claimed and finished in a round."""

TASK = "benchmarks.app:async_noop"


class Cost(NamedTuple):
    """Of one job."""

    server: float
    client: float
    wal: float


class Meter:
    """What the server's processes for one store have used."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._pids: Sequence[int] = ()
        self.costs: dict[tuple[int, str], list[Cost]] = {}

    def find(self) -> None:
        """Once all connections are there."""
        rows = self._connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'afterward'")
        self._pids = [int(row[0]) for row in rows]

    async def of(self, name: str, jobs: int, operation: Callable[[], Awaitable[Any]]) -> Any:
        wal, server, client = self._wal(), self._server(), time.process_time()
        answer = await operation()
        client, server = time.process_time() - client, self._server() - server
        cost = Cost(server / jobs, client * 1e6 / jobs, (self._wal() - wal) / jobs)
        self.costs.setdefault((jobs, name), []).append(cost)
        return answer

    def _wal(self) -> int:
        row = self._connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").fetchone()
        assert row is not None
        return int(row[0])

    def _server(self) -> float:
        """Microseconds on a processor."""
        return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in self._pids) / 1e3


def measure(folder: Path, rounds: int) -> list[Figure]:
    with postgres(folder, checkpoint_timeout="1h", max_wal_size="4GB") as server, server.database() as url:
        return asyncio.run(_measure(url, rounds))


async def _measure(url: str, rounds: int) -> list[Figure]:
    store, process = PostgresStore(url), new_id()
    await store.open()
    await store.join(Process(process, 0, "benchmark"))
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            meter = Meter(connection)
            for _ in range(10):
                await _work(Meter(connection), store, process, 100)
            meter.find()
            found = [await _round(meter, store, process) for _ in range(rounds)]
    finally:
        await store.leave(process)
        await store.close()
    return [
        Figure(
            f"PostgreSQL: processor of the server for a job, {jobs:,} in a statement", [each[jobs] for each in found],
            "µs", None, None, smaller_is_better=True,
        )
        for jobs in TIMES
    ]  # fmt: skip


async def _round(meter: Meter, store: PostgresStore, process: str) -> dict[int, float]:
    meter.costs.clear()
    for jobs, times in TIMES.items():
        for _ in range(times):
            await _work(meter, store, process, jobs)
    total = dict.fromkeys(TIMES, 0.0)
    for (jobs, name), costs in meter.costs.items():
        server, client, wal = (statistics.median(each) for each in zip(*costs, strict=True))
        say(f"{name:7} {jobs:5,}: server {server:6.1f} µs, client {client:6.1f} µs, {wal:4.0f} bytes of WAL")
        total[jobs] += server
    return total


async def _work(meter: Meter, store: PostgresStore, process: str, jobs: int) -> None:
    arguments = '{"email":"someone@example.org"}'
    new = [(NewJob(new_id(), TASK, "default", 0, arguments), Placement.free) for _ in range(jobs)]
    await meter.of("enqueue", jobs, lambda: store.enqueue(new, None))
    wanted = [Wanted({TASK}, jobs)]
    claimed: Claimed = await meter.of("claim", jobs, lambda: store.claim(process, wanted, new_id()))
    ends = [(lease, Succeeded()) for lease in claimed.leases]
    ended = await meter.of("finish", jobs, lambda: store.finish(ends))
    if len(ended) != jobs or not all(ended):
        raise AssertionError(f"finished {sum(ended)} of {jobs} jobs")
