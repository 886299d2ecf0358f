"""Child processes: two jobs that compute, on two processors ÷ one; and how long a job takes to begin in a child."""

import asyncio
import statistics
import subprocess
import sys
import time
from pathlib import Path

from afterward import Afterward
from afterward.engine.worker import WorkerOptions
from benchmarks.report import Figure, say, spread

STEPS = 40_000_000
"""So many make about a second."""

WARM_STARTS = 200

tasks = Afterward("sqlite:///never-opened.db")


@tasks.task(executor="process")
def compute(steps: int) -> int:
    total = 0
    for number in range(steps):
        total ^= number
    return total


@tasks.task(executor="process")
def begin() -> float:
    """When it begins, by a clock that all processes of the machine share."""
    return time.monotonic()


def measure(folder: Path, rounds: int) -> list[Figure]:
    ratios: list[float] = []
    bare: list[float] = []
    cold: list[float] = []
    warm: list[float] = []
    for number in range(rounds):
        bare.append(_bare(number))
        found = asyncio.run(_round(folder / f"{number}.db", number))
        ratios.append(found[0])
        cold.append(found[1] * 1e3)
        warm.append(found[2] * 1e3)
    return [
        Figure("two jobs that compute ÷ one", ratios, "", 1.15, 1.05, True),
        Figure("  the same in two bare processes ÷ one", bare, "", None, None, True),
        Figure("start of a job in a child that is kept", warm, "ms", 10, 2, True),
        Figure("  in a new child", cold, "ms", None, None, True),
    ]


async def _round(path: Path, number: int) -> tuple[float, float, float]:
    here = Afterward(f"sqlite:///{path}", log_level=None)
    computes = here.task(name=compute.name, executor="process")(compute.function)
    begins = here.task(name=begin.name, executor="process")(begin.function)

    async def run(jobs: int) -> float:
        began = time.monotonic()
        handles = await here.enqueue_many([computes.prepare(STEPS) for _ in range(jobs)])
        await here.results(handles, timeout=120)
        return time.monotonic() - began

    async def start() -> float:
        enqueued = time.monotonic()
        return await (await begins.enqueue()).result(timeout=60) - enqueued

    async with here.running(WorkerOptions(children=2, jobs_per_child=1_000_000)):
        cold = await start()
        warm = [await start() for _ in range(WARM_STARTS)]
        await run(2)  # now there are two children
        took = {jobs: await run(jobs) for jobs in ((1, 2) if number % 2 else (2, 1))}
    say(f"one job {took[1]:.3f} s, two at once {took[2]:.3f} s")
    say(f"begins after {cold * 1e3:.0f} ms in a new child, after {spread([one * 1e3 for one in warm])} ms in one kept")
    return took[2] / took[1], cold, statistics.median(warm)


def _bare(number: int) -> float:
    took = {processes: _compute_in(processes) for processes in ((1, 2) if number % 2 else (2, 1))}
    say(f"bare: one process {took[1]:.3f} s, two at once {took[2]:.3f} s")
    return took[2] / took[1]


def _compute_in(processes: int) -> float:
    """From when all are ready to compute until the last has done so."""
    program = f"input()\ndef compute():\n  total = 0\n  for n in range({STEPS}): total ^= n\ncompute()"
    started = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, text=True, start_new_session=True)
        for _ in range(processes)
    ]
    time.sleep(0.3)
    began = time.monotonic()
    for one in started:
        _go(one)
    for one in started:
        if one.wait() != 0:
            raise AssertionError("a bare process failed")
    return time.monotonic() - began


def _go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.close()
