"""Batches of a queue's statements, through one connection: `python -m benchmarks.batches DRIVER LOOP URL`.

Prints as JSON, for each operation, what it took on the clock, and of this process's processor: µs, the one as the
median, the other on average.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import uvloop

from benchmarks.connections import DRIVERS, Driver, Rows
from benchmarks.statements import CLAIM, CREATE, FINISH, FINISH_AND_CLAIM, INSERT, INSERT_JSON, ONE

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}
PAGE = 100
WARM_UP = 10
COLUMNS = (
    "id", "task", "queue", "priority", "status", "run_at", "process", "token", "attempt", "failures", "deaths",
    "unique_key", "arguments", "context", "created_at",
)  # fmt: skip
_WORKER = "process-1"
_numbers = count(1)

Operation = Callable[[], Awaitable[None]]
Took = dict[str, dict[str, float]]


async def measure(driver: Driver) -> Took:
    took: Took = {}

    async def take(name: str, times: int, operation: Operation) -> None:
        took[name] = await _times(times, operation)

    await driver.run(CREATE)
    await take("round trip", 1000, lambda: _round_trip(driver))
    for size, times in ((1, 300), (10, 200), (100, 100), (1000, 20)):
        await take(f"insert {size}", times, _inserting(driver, size, times))
    await take(f"insert {PAGE} as JSON", 100, _inserting_json(driver, 100))
    await _fill(driver)
    held: list[Rows] = []
    await take(f"claim {PAGE}", 50, lambda: _claim(driver, held))
    await take(f"finish {PAGE}", 50, lambda: _finish(driver, held))
    await _claim(driver, held)
    await take("finish and claim", 50, lambda: _finish_and_claim(driver, held))
    await take("the same, sent ahead", 50, lambda: _finish_and_claim_ahead(driver, held))
    await take("the same, one statement", 50, lambda: _finish_and_claim_at_once(driver, held))
    return took


async def _times(times: int, operation: Operation) -> dict[str, float]:
    for _ in range(WARM_UP):
        await operation()
    clock: list[float] = []
    processor = time.process_time()
    for _ in range(times):
        began = time.perf_counter()
        await operation()
        clock.append(time.perf_counter() - began)
    processor = time.process_time() - processor
    return {"clock": statistics.median(clock) * 1e6, "processor": processor / times * 1e6}


async def _round_trip(driver: Driver) -> None:
    await driver.fetch(ONE, 1)


def _inserting(driver: Driver, size: int, times: int) -> Operation:
    batches = iter([list(zip(*new_jobs(size), strict=True)) for _ in range(WARM_UP + times)])

    async def insert() -> None:
        await driver.fetch(INSERT, *map(list, next(batches)))

    return insert


def _inserting_json(driver: Driver, times: int) -> Operation:
    batches = iter([[dict(zip(COLUMNS, job, strict=True)) for job in new_jobs(PAGE)] for _ in range(WARM_UP + times)])

    async def insert() -> None:
        await driver.fetch(INSERT_JSON, json.dumps(next(batches)))

    return insert


async def _fill(driver: Driver) -> None:
    await driver.run(CREATE)
    for _ in range(25):
        await driver.fetch(INSERT, *map(list, zip(*new_jobs(1000), strict=True)))
    await driver.run("ANALYZE jobs")


async def _claim(driver: Driver, held: list[Rows]) -> None:
    held.append(_page(await driver.fetch(CLAIM, *_wanted())))


async def _finish(driver: Driver, held: list[Rows]) -> None:
    _page(await driver.fetch(FINISH, *_ended(held.pop())))


async def _finish_and_claim(driver: Driver, held: list[Rows]) -> None:
    async with driver.together():
        await _finish(driver, held)
        await _claim(driver, held)


async def _finish_and_claim_ahead(driver: Driver, held: list[Rows]) -> None:
    finished, claimed = await driver.ahead((FINISH, _ended(held.pop())), (CLAIM, _wanted()))
    _page(finished)
    held.append(_page(claimed))


async def _finish_and_claim_at_once(driver: Driver, held: list[Rows]) -> None:
    rows = await driver.fetch(FINISH_AND_CLAIM, *_ended(held.pop()), *_wanted())
    held.append(_page([row for row in rows if row[1] is not None]))


def _wanted() -> tuple[Any, ...]:
    return ("default", "benchmarks.app:async_noop", PAGE, _WORKER, f"token-{next(_numbers)}")


def _ended(rows: Rows) -> tuple[Any, ...]:
    return ([row[0] for row in rows], [row[4] for row in rows], _WORKER)


def _page(rows: Rows) -> Rows:
    if len(rows) != PAGE:
        raise RuntimeError(f"{len(rows)} rows, not {PAGE}")
    return rows


def new_jobs(size: int) -> list[tuple[Any, ...]]:
    """So many jobs, each as a value for each of `COLUMNS`."""
    return [_new_job(next(_numbers)) for _ in range(size)]


def _new_job(number: int) -> tuple[Any, ...]:
    id_, arguments = f"01890a5d-ac96-774b-bcce-{number:012x}", f'{{"email":"someone-{number}@example.org"}}'
    now = 1_700_000_000.0 + number
    return (
        id_, "benchmarks.app:async_noop", "default", 0, "queued", now, None, None, 0, 0, 0, None, arguments, None, now
    )  # fmt: skip


async def _main(driver: str, url: str) -> None:
    connection = await DRIVERS[driver](url)
    try:
        print(json.dumps(await measure(connection)))
    finally:
        await connection.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=LOOPS[sys.argv[2]]) as runner:
        runner.run(_main(sys.argv[1], sys.argv[3]))
