"""asyncpg against psycopg 3, by what a queue asks of PostgreSQL: batch by batch, through one connection."""

import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from benchmarks.batches import LOOPS, Took
from benchmarks.connections import DRIVERS
from benchmarks.postgres import postgres
from benchmarks.report import Figure, say, spread

COMPARED = ("round trip", "insert 1", "insert 100", "claim 100", "finish 100")
# Of a thousand jobs, each stored, claimed and finished in a batch of a hundred.
BATCHES = ("insert 100", "claim 100", "finish 100")
Side = tuple[str, str]


def measure(folder: Path, rounds: int) -> list[Figure]:
    sides: list[Side] = list(product(DRIVERS, LOOPS))
    took: dict[Side, list[Took]] = {side: [] for side in sides}
    with postgres(folder) as server:
        for number in range(rounds):
            for side in sides if number % 2 else reversed(sides):
                with server.database() as url:
                    took[side].append(_measured(side, url))
                say(f"{_name(side)}: " + ", ".join(_briefly(took[side][-1])))
    _print_table(took)
    return _figures(took)


def _measured(side: Side, url: str) -> Took:
    command = [sys.executable, "-m", "benchmarks.batches", *side, url]
    took: Took = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    return took


def _name(side: Side) -> str:
    return " on ".join(side)


def _briefly(took: Took) -> list[str]:
    return [f"{name} {each['clock']:,.0f}/{each['processor']:,.0f}" for name, each in took.items()]


def _print_table(took: dict[Side, list[Took]]) -> None:
    for what, name in (("clock", "µs on the clock"), ("processor", "µs of the client's processor")):
        say("")
        say("".join(f"{text:30}" for text in (name, *map(_name, took))).rstrip())
        for operation in next(iter(took.values()))[0]:
            values = [spread([each[operation][what] for each in rounds], 0) for rounds in took.values()]
            say("".join(f"{text:30}" for text in (operation, *values)).rstrip())


def _figures(took: dict[Side, list[Took]]) -> list[Figure]:
    ours, theirs = took["asyncpg", "uvloop"], took["psycopg", "uvloop"]
    figures = [
        Figure(f"  {driver}: ms of the client's processor for 1,000 jobs", _for_a_thousand(rounds), "ms", None, None)
        for (driver, loop), rounds in took.items()
        if loop == "uvloop"
    ]
    for what in ("processor", "clock"):
        for operation in COMPARED:
            ratios = [one[operation][what] / other[operation][what] for one, other in zip(theirs, ours, strict=True)]
            figures.append(Figure(f"  {operation}, {what}: psycopg ÷ asyncpg", ratios, "", None, None))
    return figures


def _for_a_thousand(rounds: Sequence[Took]) -> list[float]:
    return [sum(took[name]["processor"] for name in BATCHES) * 10 / 1e3 for took in rounds]
