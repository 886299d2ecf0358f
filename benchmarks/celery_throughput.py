"""Jobs that wait in a broker, run by one Celery worker: ours, from begun to finished in the store ÷ Celery's own tasks.

python -m benchmarks.celery_throughput JOBS SECONDS      # fills the broker, for BENCH_TASKS
"""

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import fleet
from benchmarks.fleet import Fleet
from benchmarks.report import Figure, say
from benchmarks.server import wait_until

PROCESSORS = os.cpu_count() or 1


@dataclass(frozen=True)
class Setting:
    """A worker's pool, and what it is given: `jobs` of so many seconds each."""

    name: str
    pool: str
    slots: int
    jobs: int
    seconds: float
    broker: str = "RabbitMQ"


SETTINGS = [
    Setting("no-ops, one process for each processor", "prefork", PROCESSORS, 1000, 0.0),
    Setting("no-ops, one process for each processor, on Redis", "prefork", PROCESSORS, 1000, 0.0, "Redis"),
    Setting("no-ops, 16 threads", "threads", 16, 2000, 0.0),
    Setting("jobs of 20 ms, one process for each processor", "prefork", PROCESSORS, 300, 0.02),
    Setting("jobs of 20 ms, one process for each processor, on Redis", "prefork", PROCESSORS, 300, 0.02, "Redis"),
]

_WARM_JOBS = 50
"""Where it is counted from: each process of the pool has run some by then."""


@dataclass(frozen=True)
class Rate:
    """Jobs in a second, and the worker's processor time for one, in ms."""

    jobs: float
    processor: float


def measure(folder: Path, rounds: int) -> list[Figure]:
    ratios: dict[str, list[float]] = {setting.name: [] for setting in SETTINGS}
    costs: dict[str, list[float]] = {setting.name: [] for setting in SETTINGS}
    with fleet.brokers(folder) as brokers:
        for number in range(rounds):
            for setting in SETTINGS:
                rates: dict[str, Rate] = {}
                for side in ("plain", "afterward") if number % 2 else ("afterward", "plain"):
                    with brokers.fleet(setting.broker) as one:
                        rates[side] = _round(one, side, setting, folder / "worker.log")
                ours, theirs = rates["afterward"], rates["plain"]
                ratios[setting.name].append(ours.jobs / theirs.jobs)
                costs[setting.name].append(theirs.processor / ours.processor)
                say(
                    f"{setting.name}: {ours.jobs:,.0f} jobs/s of ours, each {ours.processor:.2f} ms of a processor; "
                    f"{theirs.jobs:,.0f} tasks/s of Celery's own, each {theirs.processor:.2f} ms"
                )
    return [figure for setting in SETTINGS for figure in _figures(setting, ratios[setting.name], costs[setting.name])]


def _figures(setting: Setting, ratios: list[float], costs: list[float]) -> list[Figure]:
    return [
        Figure(f"Celery worker, {setting.name}: ours ÷ its own", ratios, "", 0.9, 1.0),
        Figure("  processor time of its own ÷ of ours", costs, "", None, None),
    ]


def _round(one: Fleet, side: str, setting: Setting, log: Path) -> Rate:
    """From when some have ended until all have, as whoever keeps their outcomes tells."""
    filling = [sys.executable, "-m", "benchmarks.celery_throughput", str(setting.jobs), str(setting.seconds)]
    subprocess.run(filling, env=one.environment(side), check=True, stdout=subprocess.DEVNULL)
    ended = one.succeeded if side == "afterward" else one.kept_results
    with one.worker(side, setting.pool, setting.slots, log) as worker:
        wait_until(lambda: ended() >= _WARM_JOBS, fleet.SETTLING_SECONDS, "the first jobs to end", 0.005)
        began, first, used = time.perf_counter(), ended(), fleet.processor_seconds(worker.pid)
        wait_until(lambda: ended() >= setting.jobs, fleet.SETTLING_SECONDS, "all jobs to end", 0.005)
        took, used = time.perf_counter() - began, fleet.processor_seconds(worker.pid) - used
    jobs = setting.jobs - first
    return Rate(jobs / took, used * 1e3 / jobs)


async def _hand_over(jobs: int, seconds: float) -> None:
    from afterward.engine.worker import WorkerOptions
    from benchmarks.fleet_app import nap, tasks

    one = Fleet("", "", Path(os.environ["AFTERWARD_URL"].removeprefix("sqlite:///")))
    async with tasks.running(WorkerOptions()):
        await tasks.enqueue_many([nap.prepare(seconds) for _ in range(jobs)])
        await asyncio.to_thread(fleet.wait_for, one.handed_over, jobs, "all jobs to be handed over")


def _delay(jobs: int, seconds: float) -> None:
    from benchmarks.fleet_app import celery_nap

    for _ in range(jobs):
        celery_nap.delay(seconds)


if __name__ == "__main__":
    if os.environ["BENCH_TASKS"] == "afterward":
        asyncio.run(_hand_over(int(sys.argv[1]), float(sys.argv[2])))
    else:
        _delay(int(sys.argv[1]), float(sys.argv[2]))
