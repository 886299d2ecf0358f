"""What a claim and an enqueue cost on PostgreSQL with 1,000,000 waiting and 10,000,000 finished jobs ÷ with none; and
what becomes of them, and of a finish, under an old transaction that stays open.

Through the store's own operations, in one process. Both stores are databases of one server, asked in turn: store one
job; store a hundred; claim a hundred. Of the waiting jobs of the full store, one in twenty is of one of 20 tasks that
this worker does not know, and as many wait for their time.

Under the old transaction no dead row can be removed, on the whole server. 200,000 jobs are stored, claimed and finished
by hundreds, with it and without it, and timed for every 20,000.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from afterward.identity import new_id
from afterward.job import NewJob, Placement, Process, Succeeded
from afterward.stores.base import Claimed, Wanted
from afterward.stores.postgres import PostgresStore
from benchmarks.postgres import postgres
from benchmarks.report import Figure, say
from servers.postgres import Server

WAITING = 1_000_000
FINISHED = 10_000_000
AT_ONCE = 100
TIMES = 100
WARM_UP = 30
TASK = "benchmarks.app:async_noop"
OTHER_TASKS = 20

ENDED_UNDER = 200_000
STEP = 20_000


@dataclass
class Asked:
    """One store, and what its operations took, in ms."""

    store: PostgresStore
    process: str = field(default_factory=new_id)
    took: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    async def open(self) -> None:
        await self.store.open()
        await self.store.join(Process(self.process, 0, "benchmark"))

    async def close(self) -> None:
        await self.store.leave(self.process)
        await self.store.close()

    async def timed(self, name: str, operation: Awaitable[Any]) -> Any:
        began = time.perf_counter()
        answer = await operation
        self.took.setdefault(name, []).append((time.perf_counter() - began) * 1e3)
        return answer

    async def enqueue(self, jobs: int) -> None:
        new = [(_job(), Placement.free) for _ in range(jobs)]
        await self.timed(f"enqueue of {jobs}", self.store.enqueue(new, None))

    async def claim(self) -> Claimed:
        wanted = [Wanted({TASK}, AT_ONCE)]
        claimed: Claimed = await self.timed("claim of 100", self.store.claim(self.process, wanted, new_id()))
        if len(claimed.leases) != AT_ONCE:
            raise AssertionError(f"claimed {len(claimed.leases)} jobs, not {AT_ONCE}")
        return claimed

    async def finish(self, claimed: Claimed) -> None:
        ends = [(lease, Succeeded()) for lease in claimed.leases]
        if not all(await self.timed("finish of 100", self.store.finish(ends))):
            raise AssertionError("an end was refused")

    def medians(self) -> dict[str, float]:
        """Of what it took since the last look."""
        medians = {name: statistics.median(each) for name, each in self.took.items()}
        self.took.clear()
        return medians


def measure(folder: Path, rounds: int) -> list[Figure]:
    with postgres(folder, max_wal_size="4GB") as server:
        return asyncio.run(_compare(server, rounds)) + asyncio.run(_age(server))


async def _compare(server: Server, rounds: int) -> list[Figure]:
    with server.database() as full, server.database() as empty:
        began = time.perf_counter()
        await _fill(full)
        [(size,)] = server.execute("SELECT pg_database_size(%s)", full.rpartition("/")[2])
        say(f"filled with {WAITING + FINISHED:,} jobs, {size / 1e6:,.0f} MB, in {time.perf_counter() - began:.0f} s")
        both = {"full": Asked(PostgresStore(full)), "empty": Asked(PostgresStore(empty))}
        for asked in both.values():
            await asked.open()
        try:
            return await _ask_in_turn(both, rounds)
        finally:
            for asked in both.values():
                await asked.close()


async def _ask_in_turn(both: Mapping[str, Asked], rounds: int) -> list[Figure]:
    for _ in range(WARM_UP):
        for asked in both.values():
            await _ask(asked)
    ratios: dict[str, list[float]] = {}
    for _ in range(rounds):
        for asked in both.values():
            asked.took.clear()
        for _ in range(TIMES):
            for asked in both.values():
                await _ask(asked)
        full, empty = (both[name].medians() for name in ("full", "empty"))
        for operation, each in full.items():
            ratios.setdefault(operation, []).append(each / empty[operation])
            say(f"{operation:14} full p50 {each:7.3f} ms; empty p50 {empty[operation]:7.3f} ms")
    return [
        Figure(f"PostgreSQL: {operation} with 11,000,000 jobs ÷ with none", each, "", 1.5, 1.1, smaller_is_better=True)
        for operation, each in ratios.items()
    ]


async def _ask(asked: Asked) -> None:
    """As many are stored as are claimed."""
    await asked.enqueue(1)
    await asked.enqueue(AT_ONCE)
    await asked.finish(await asked.claim())


async def _age(server: Server) -> list[Figure]:
    """The same work, with and without a transaction that began before it and stays open."""
    curves: dict[str, list[dict[str, float]]] = {}
    for name in ("without", "with"):
        with server.database() as url, _old_transaction(url, is_open=name == "with"):
            asked = Asked(PostgresStore(url))
            await asked.open()
            curves[name] = [await _work(asked, (number + 1) * STEP, name) for number in range(ENDED_UNDER // STEP)]
            await asked.close()
    limits: dict[str, tuple[float | None, float | None]] = {
        "claim of 100": (10, 2), "finish of 100": (10, 2), "a beat": (None, None),
    }  # fmt: skip
    return [
        Figure(
            f"{'' if least else '  '}PostgreSQL: {operation} after 200,000 jobs under an old transaction ÷ without it",
            [curves["with"][-1][operation] / curves["without"][-1][operation]],
            "", least, aim, smaller_is_better=True,
        )
        for operation, (least, aim) in limits.items()
    ]  # fmt: skip


async def _work(asked: Asked, until: int, name: str) -> dict[str, float]:
    for number in range(STEP // AT_ONCE):
        await asked.enqueue(AT_ONCE)
        await asked.finish(await asked.claim())
        if number % 10 == 0:
            await asked.timed("a beat", asked.store.beat(asked.process))
    medians = asked.medians()
    said = ", ".join(f"{operation} {each:.2f} ms" for operation, each in medians.items())
    say(f"{name:>7} an old transaction, {until:7,} jobs: {said}")
    return medians


@contextmanager
def _old_transaction(url: str, is_open: bool) -> Generator[None]:
    """Somebody else's, that has seen the database once and does nothing any more."""
    with psycopg.connect(url) as connection:
        if is_open:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.execute("SELECT count(*) FROM pg_class")
        yield
        connection.rollback()


def _job(task: str = TASK, delay: float | None = None) -> NewJob:
    return NewJob(new_id(), task, "default", 0, '{"email":"someone@example.org"}', delay=delay)


async def _fill(url: str) -> None:
    """Copies of jobs that the store itself has made: one that has succeeded, and one of each sort that waits."""
    asked = Asked(PostgresStore(url))
    await asked.open()
    await asked.store.enqueue([(_job(), Placement.free)], None)
    [lease] = (await asked.store.claim(asked.process, [Wanted({TASK}, 1)], new_id())).leases
    await asked.store.finish([(lease, Succeeded())])
    waiting = [_job(), _job(delay=1e6), *(_job(f"elsewhere:task_{number}") for number in range(OTHER_TASKS))]
    await asked.store.enqueue([(job, Placement.free) for job in waiting], None)
    await asked.close()
    await asyncio.to_thread(_multiply, url)


def _multiply(url: str) -> None:
    """Without the disk's confirmation, and with the indexes of what is finished made afterwards."""
    twentieth = WAITING // 20
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET maintenance_work_mem = '512MB'")
        indexes = [
            str(row[0])
            for row in connection.execute(
                "SELECT indexdef FROM pg_indexes WHERE schemaname = 'afterward' AND indexname = 'finished_ended'"
            )
        ]
        connection.execute("DROP INDEX afterward.finished_ended")
        connection.execute("ALTER TABLE afterward.finished DROP CONSTRAINT finished_pkey")
        _copy(connection, "finished", "true", FINISHED)
        for index in indexes:
            connection.execute(index.encode())
        connection.execute("ALTER TABLE afterward.finished ADD PRIMARY KEY (id)")
        _copy(connection, "jobs", f"task = '{TASK}' AND due", WAITING - 2 * twentieth)
        _copy(connection, "jobs", "NOT due", twentieth)
        _copy(connection, "jobs", "task LIKE 'elsewhere:%'", twentieth // OTHER_TASKS)
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def _copy(connection: psycopg.Connection, table: str, which: str, times: int) -> None:
    """Each with an id and times of its own: the id is as a later UUIDv7 would be, with the same beginning."""
    columns = [
        str(row[0])
        for row in connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 ORDER BY attnum",
            [f"afterward.{table}"],
        )
    ]
    made = {
        "seq": "nextval(pg_get_serial_sequence('afterward.jobs', 'seq'))",
        "id": "left(id, 14) || '7' || to_char(seq % 1000, 'FM000') || '-8000-' || lpad(to_hex(n), 12, '0')",
        "run_at": "run_at + n * 1e-6",
        "created_at": "created_at + n * 1e-6",
        "finished_at": "finished_at + n * 1e-6",
    }
    values = ", ".join(made.get(column, column) for column in columns)
    overriding = "OVERRIDING SYSTEM VALUE" if table == "jobs" else ""
    connection.execute(
        f"INSERT INTO afterward.{table} ({', '.join(columns)}) {overriding} "
        f"SELECT {values} FROM (SELECT * FROM afterward.{table} WHERE {which}) it "
        f"CROSS JOIN generate_series(1, {times}) AS n".encode()
    )
