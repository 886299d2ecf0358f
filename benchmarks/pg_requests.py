"""Requests a second of an endpoint that enqueues one no-op, which is on the disk before it answers; no worker runs."""

from pathlib import Path

from benchmarks import contestants, load
from benchmarks.contestants import Contestant
from benchmarks.postgres import postgres
from benchmarks.report import Figure, say

WARM_UP_SECONDS = 1.0


def measure(folder: Path, rounds: int, seconds: float) -> list[Figure]:
    chosen = contestants.chosen()
    rates: dict[str, list[float]] = {contestant.name: [] for contestant in chosen}
    with postgres(folder) as server:
        for contestant in chosen:
            contestants.make_template(server, contestant)
        for number in range(rounds):
            for contestant in contestants.by_turns(chosen, number):
                with contestants.database(server, contestant) as url:
                    loaded = _round(contestant, url, seconds)
                rates[contestant.name].append(loaded.rate)
                say(
                    f"{contestant.name:13} {loaded.rate:8,.0f} requests/s, p50 {loaded.p50:.2f} ms, "
                    f"p99 {loaded.p99:.2f} ms; {loaded.refused} refused, {loaded.broken} broken"
                )
    figures = [Figure(f"requests/s, PostgreSQL: {name}", each, "", None, None) for name, each in rates.items()]
    return figures + contestants.against_the_best("requests/s, PostgreSQL", rates)


def _round(contestant: Contestant, url: str, seconds: float) -> load.Load:
    with contestants.serving(contestant, url) as server:
        warm = load.for_seconds(server.url("/jobs"), WARM_UP_SECONDS)
        loaded = load.for_seconds(server.url("/jobs"), seconds)
    stored = contestants.count(url, contestant.unended)
    accepted = warm.accepted + loaded.accepted
    cut_off = 2 * load.CONNECTIONS + sum(each.refused + each.broken for each in (warm, loaded))
    if not accepted <= stored <= accepted + cut_off:
        raise AssertionError(f"{contestant.name}: {accepted} jobs were accepted, and {stored} are stored")
    return loaded
