"""Statements a second that an idle worker makes, as the server counts them."""

import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import contestants
from benchmarks.postgres import postgres
from benchmarks.report import Figure, say
from servers.postgres import Server

# The longest of their timers are of half a minute, or seldom.
WATCHED_SECONDS = 60.0
SETTLING_SECONDS = 10.0

_STATEMENTS = """
SELECT datname, sum(calls)::bigint FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid GROUP BY datname
"""


def measure(folder: Path, rounds: int) -> list[Figure]:
    """All of them at once, each in its database: who is idle is in nobody's way."""
    chosen = contestants.chosen()
    rates: dict[str, list[float]] = {contestant.name: [] for contestant in chosen}
    with postgres(folder, shared_preload_libraries="pg_stat_statements") as server, ExitStack() as workers:
        server.execute("CREATE EXTENSION pg_stat_statements")
        for contestant in chosen:
            contestants.make_template(server, contestant)
            url = server.url(contestant.name)
            workers.enter_context(contestants.working(contestant, url, [folder / f"{contestant.name}.json"]))
            contestants.run(contestant, url, "enqueue", str(folder / "enqueued.json"), "10")
        time.sleep(SETTLING_SECONDS)
        for _ in range(rounds):
            seen = _watch(server)
            for name, each in rates.items():
                each.append(seen.get(name, 0.0))
            say(", ".join(f"{name} {each[-1]:.2f}" for name, each in rates.items()) + " statements/s")
    return [
        Figure(f"statements/s of an idle worker: {name}", each, "", None, None, smaller_is_better=True)
        for name, each in rates.items()
    ]


def _watch(server: Server) -> dict[str, float]:
    server.execute("SELECT pg_stat_statements_reset()")
    time.sleep(WATCHED_SECONDS)
    return {name: int(calls) / WATCHED_SECONDS for name, calls in server.execute(_STATEMENTS)}
