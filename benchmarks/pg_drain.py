"""10,000 waiting async no-ops, run by one worker process and by two: jobs a second of each contestant."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from benchmarks import contestants
from benchmarks.contestants import Contestant
from benchmarks.postgres import postgres
from benchmarks.report import Figure, say
from servers.postgres import Server

JOBS = 10_000
DRAINING_SECONDS = 600.0


@dataclass(frozen=True)
class Drain:
    """Jobs a second from the first start of a function until all are stored as ended, and until the last start."""

    ended: float
    started: float


def measure(folder: Path, rounds: int) -> list[Figure]:
    chosen = contestants.chosen()
    figures: list[Figure] = []
    with postgres(folder) as server:
        for contestant in chosen:
            contestants.make_template(server, contestant, JOBS)
        for workers in (1, 2):
            figures += _by(workers, server, chosen, folder, rounds)
    return figures


def _by(workers: int, server: Server, chosen: Sequence[Contestant], folder: Path, rounds: int) -> list[Figure]:
    drains: dict[str, list[Drain]] = {contestant.name: [] for contestant in chosen}
    for number in range(rounds):
        for contestant in contestants.by_turns(chosen, number):
            starts = [folder / f"{contestant.name}-{workers}-{number}-{each}.json" for each in range(workers)]
            with contestants.database(server, contestant) as url:
                drain = _drain(contestant, url, starts)
            drains[contestant.name].append(drain)
            say(
                f"{contestant.name:13} {workers} x worker {drain.ended:8,.0f} jobs/s until all are stored as ended, "
                f"{drain.started:8,.0f} until the last has started"
            )
    title = "drain, one worker" if workers == 1 else f"drain, {workers} workers"
    ended = {name: [drain.ended for drain in each] for name, each in drains.items()}
    figures = [Figure(f"{title}: {name}", rates, "jobs/s", None, None) for name, rates in ended.items()]
    started = {name: [drain.started for drain in each] for name, each in drains.items()}
    figures += contestants.against_the_best(f"{title}, until all are stored as ended", ended)
    return figures + contestants.against_the_best(f"{title}, until the last has started", started)


def _drain(contestant: Contestant, url: str, starts: Sequence[Path]) -> Drain:
    with contestants.working(contestant, url, starts):
        ended = _wait_until_ended(contestant, url)
        succeeded = contestants.count(url, contestant.succeeded)
    noted = [start for file in starts for start in json.loads(file.read_text())]
    if not len(noted) == len({email for email, _ in noted}) == succeeded == JOBS:
        raise AssertionError(f"{contestant.name}: of {JOBS} jobs, {len(noted)} ran and {succeeded} succeeded")
    moments = [moment for _, moment in noted]
    first, last = min(moments), max(moments)
    return Drain(JOBS * 1e9 / (ended - first), JOBS * 1e9 / (last - first))


def _wait_until_ended(contestant: Contestant, url: str) -> int:
    """When, by `monotonic_ns`. Asked seldom at first, for each count costs the server time."""
    began = time.monotonic()
    with psycopg.connect(url, autocommit=True) as connection:
        while left := _left(connection, contestant):
            spent = time.monotonic() - began
            if spent > DRAINING_SECONDS:
                raise TimeoutError(f"{contestant.name}: {left} of {JOBS} jobs have not ended in {spent:.0f} s")
            time.sleep(_pause(spent, left))
        return time.monotonic_ns()


def _left(connection: "psycopg.Connection[tuple[int]]", contestant: Contestant) -> int:
    row = connection.execute(contestant.unended.encode()).fetchone()
    assert row is not None
    return row[0]


def _pause(spent: float, left: int) -> float:
    """Half of the time that the rest should take."""
    done = JOBS - left
    return min(max(spent * left / done / 2, 0.005), 0.2) if done else 0.05
