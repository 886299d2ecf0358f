"""Requests a second of an endpoint that gives work to a Celery fleet: durable, by `add_task` ÷ by `.delay()`."""

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import fleet, load
from benchmarks.fleet import Fleet
from benchmarks.report import Figure, say
from benchmarks.server import listening, started

WARM_UP_SECONDS = 1.0

KINDS = ("RabbitMQ", "Redis")

SIDES = ("afterward", "beside", "plain", "confirmed")
"""`beside`: a worker process publishes what requests have stored, and not that of the server."""


@dataclass(frozen=True)
class Round:
    """Requests a second; ms of a processor that the server took for each; and as many by the time all are published."""

    rate: float
    processor: float
    published: float


def measure(folder: Path, rounds: int, seconds: float) -> list[Figure]:
    sides = [(kind, side) for kind in KINDS for side in SIDES if (kind, side) != ("Redis", "confirmed")]
    found: dict[tuple[str, str], list[Round]] = {each: [] for each in sides}
    with fleet.brokers(folder) as brokers:
        for number in range(rounds):
            for kind, side in sides if number % 2 else reversed(sides):
                with brokers.fleet(kind) as one:
                    found[kind, side].append(_round(one, kind, side, seconds, folder / "worker.log"))
    return [figure for kind in KINDS for figure in _figures(kind, found)]


def _figures(kind: str, found: dict[tuple[str, str], list[Round]]) -> list[Figure]:
    ours, beside, plain = (found[kind, side] for side in ("afterward", "beside", "plain"))
    figures = [
        Figure(f"requests/s, {kind}: durable ÷ .delay()", _rates(ours, plain), "", 2.0, 4.0),
        Figure("  published by a worker process beside the server ÷ .delay()", _rates(beside, plain), "", None, None),
        Figure("  until the last is published ÷ .delay()", _published(ours, plain), "", None, None),
        Figure("  the server's processor time: .delay() ÷ durable", _processor(plain, ours), "", None, None),
        Figure("  the same, published beside the server", _processor(plain, beside), "", None, None),
    ]
    if (kind, "confirmed") in found:
        confirmed = _rates(ours, found[kind, "confirmed"])
        figures.append(Figure("  durable ÷ .delay() with confirm_publish", confirmed, "", None, None))
    return figures


def _rates(these: list[Round], others: list[Round]) -> list[float]:
    return [one.rate / other.rate for one, other in zip(these, others, strict=True)]


def _published(these: list[Round], others: list[Round]) -> list[float]:
    return [one.published / other.rate for one, other in zip(these, others, strict=True)]


def _processor(these: list[Round], others: list[Round]) -> list[float]:
    return [one.processor / other.processor for one, other in zip(these, others, strict=True)]


def _round(one: Fleet, kind: str, side: str, seconds: float, log: Path) -> Round:
    """One server under load, on an empty broker."""
    command = [sys.executable, "-m", "benchmarks.serve", "benchmarks.fleet_app:app"]
    with listening(command, one.environment(side)) as server, _beside(one, side, log):
        warm = load.for_seconds(server.url("/add"), WARM_UP_SECONDS)
        fleet.wait_for(one.waiting, warm.accepted, "the first messages to be published")
        used = fleet.processor_seconds(server.pid)
        loaded = load.for_seconds(server.url("/add"), seconds)
        ended = time.perf_counter()
        accepted = warm.accepted + loaded.accepted
        fleet.wait_for(one.waiting, accepted, "all messages to be published")
        publishing = time.perf_counter() - ended
        used = fleet.processor_seconds(server.pid) - used
        if side in {"afterward", "beside"}:
            fleet.wait_for(one.handed_over, accepted, "all jobs to be handed over")
    cut_off = 2 * load.CONNECTIONS + sum(each.refused + each.broken for each in (warm, loaded))
    if one.waiting() > accepted + cut_off:
        raise AssertionError(f"{side}: {accepted} were accepted, and {one.waiting()} messages wait")
    processor = used * 1e3 / loaded.accepted
    say(
        f"{kind:8} {side:9} {loaded.rate:8,.0f} requests/s, p50 {loaded.p50:.2f} ms, p99 {loaded.p99:.2f} ms, each "
        f"{processor:.2f} ms of a processor; {loaded.refused} refused, {loaded.broken} broken; "
        f"the last was published {publishing:.2f} s after the last answer"
    )
    return Round(loaded.rate, processor, loaded.accepted / (loaded.seconds + publishing))


def _beside(one: Fleet, side: str, log: Path) -> AbstractContextManager[Any]:
    if side != "beside":
        return nullcontext()
    command = [sys.executable, "-m", "afterward", "worker", "benchmarks.fleet_app:tasks"]
    return started(command, one.environment(side), log)
