"""Requests a second of an endpoint that adds one no-op: durable ÷ stock."""

import time
from pathlib import Path

from benchmarks import jobs, load
from benchmarks.report import Figure, say
from benchmarks.server import serving

LIMITS = {"async": (0.55, 0.7), "def": (1.2, 2.0)}
WARM_UP_SECONDS = 1.0


def measure(kind: str, folder: Path, rounds: int, seconds: float) -> list[Figure]:
    """Rounds of both, one after the other, the order changing from round to round; a new server for each."""
    rates: dict[str, list[float]] = {"stock": [], "afterward": []}
    sustained: list[float] = []
    for number in range(rounds):
        for tasks in ("stock", "afterward") if number % 2 else ("afterward", "stock"):
            loaded, draining = _round(tasks, kind, folder, seconds)
            rates[tasks].append(loaded.rate)
            note = ""
            if tasks == "afterward":
                sustained.append(loaded.accepted / (loaded.seconds + draining))
                note = f"; the last job had ended {draining:.2f} s after the last answer"
            say(
                f"{tasks:9} {kind:5} {loaded.rate:8,.0f} requests/s, p50 {loaded.p50:.2f} ms, p99 {loaded.p99:.2f} ms; "
                f"{loaded.refused} refused, {loaded.broken} broken{note}"
            )
    least, aim = LIMITS[kind]
    ratios = [ours / stock for ours, stock in zip(rates["afterward"], rates["stock"], strict=True)]
    until_run = [ours / stock for ours, stock in zip(sustained, rates["stock"], strict=True)]
    return [
        Figure(f"requests/s, {kind} no-op: durable ÷ stock", ratios, "", least, aim),
        Figure(f"  the same until the last job has ended ÷ stock ({kind})", until_run, "", None, None),
    ]


def _round(tasks: str, kind: str, folder: Path, seconds: float) -> tuple[load.Load, float]:
    """One server under load; and, in seconds, how long its jobs took after it."""
    with serving(folder, tasks) as server:
        url = server.url(f"/{kind}")
        warm = load.for_seconds(url, WARM_UP_SECONDS)
        if tasks == "afterward":
            jobs.wait_until_all_ran(server.database)
        loaded = load.for_seconds(url, seconds)
        ended = time.perf_counter()
        if tasks == "stock":
            return loaded, 0.0
        jobs.wait_until_all_ran(server.database)
        draining = time.perf_counter() - ended
        _check(server.database, warm, loaded)
        return loaded, draining


def _check(database: Path, *loads: load.Load) -> None:
    """Each acknowledged job is in the store and succeeded; else there is only what a load's end cut off."""
    accepted = sum(each.accepted for each in loads)
    cut_off = load.CONNECTIONS * len(loads) + sum(each.refused + each.broken for each in loads)
    found = jobs.counts(database)
    succeeded = found.pop("succeeded", 0)
    if found or not accepted <= succeeded <= accepted + cut_off:
        raise AssertionError(f"{accepted} jobs were accepted; the store has {succeeded} that succeeded, and {found}")
