"""From the call that enqueues one job to the start of its function, on an idle worker in another process."""

import json
import statistics
from pathlib import Path

from benchmarks import contestants
from benchmarks.contestants import Contestant
from benchmarks.postgres import postgres
from benchmarks.report import Figure, say
from benchmarks.server import wait_until

JOBS = 300
ENDING_SECONDS = 30.0


def measure(folder: Path, rounds: int) -> list[Figure]:
    chosen = contestants.chosen()
    p50s: dict[str, list[float]] = {contestant.name: [] for contestant in chosen}
    p99s: dict[str, list[float]] = {contestant.name: [] for contestant in chosen}
    with postgres(folder) as server:
        for contestant in chosen:
            contestants.make_template(server, contestant)
        for number in range(rounds):
            for contestant in contestants.by_turns(chosen, number):
                with contestants.database(server, contestant) as url:
                    took = _round(contestant, url, folder / f"{contestant.name}-{number}")
                percentiles = statistics.quantiles(took, n=100)
                p50s[contestant.name].append(percentiles[49])
                p99s[contestant.name].append(percentiles[98])
                say(
                    f"{contestant.name:13} {JOBS} jobs: p50 {percentiles[49]:.2f} ms, p99 {percentiles[98]:.2f} ms, "
                    f"longest {max(took):.2f} ms"
                )
    title = "enqueue → start, PostgreSQL"
    return [
        Figure(f"{title}: {name}, {percentile}", each, "ms", None, None, smaller_is_better=True)
        for percentile, waits in (("p50", p50s), ("p99", p99s))
        for name, each in waits.items()
    ]


def _round(contestant: Contestant, url: str, file: Path) -> list[float]:
    """Milliseconds, of each job."""
    started, enqueued = file.with_suffix(".started.json"), file.with_suffix(".enqueued.json")
    with contestants.working(contestant, url, [started]):
        contestants.run(contestant, url, "enqueue", str(enqueued), str(JOBS))
        wait_until(
            lambda: not contestants.count(url, contestant.unended), ENDING_SECONDS, f"the jobs of {contestant.name}"
        )
    starts = dict(json.loads(started.read_text()))
    return [(starts[email] - moment) / 1e6 for email, moment in json.loads(enqueued.read_text())]
