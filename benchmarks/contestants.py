"""Who is compared on PostgreSQL, and how each of them is run: in processes of its own, on databases of its own."""

import os
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from benchmarks.report import Figure
from benchmarks.server import Server, listening, started
from servers import postgres

_PYTHON_OF_PEERS = Path(".venv-peers/bin/python")


@dataclass(frozen=True)
class Contestant:
    """`unended` and `succeeded`: what counts those jobs in its database, in SQL."""

    name: str
    unended: str
    succeeded: str

    @property
    def python(self) -> str:
        """The interpreter that has it."""
        if self.name == "afterward":
            return sys.executable
        if not _PYTHON_OF_PEERS.exists():
            raise RuntimeError("the peers are not installed: scripts/install --peers")
        return str(_PYTHON_OF_PEERS)


CONTESTANTS = (
    Contestant(
        "afterward",
        "SELECT count(*) FROM afterward.jobs",
        "SELECT count(*) FROM afterward.finished WHERE status = 'succeeded'",
    ),
    Contestant(
        "pgqueuer",
        "SELECT count(*) FROM pgqueuer",
        "SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'",
    ),
    Contestant(
        "chancy",
        "SELECT count(*) FROM chancy_jobs WHERE state IN ('pending', 'running', 'retrying')",
        "SELECT count(*) FROM chancy_jobs WHERE state = 'succeeded'",
    ),
    Contestant(
        "procrastinate",
        "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')",
        "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'",
    ),
    Contestant(
        "saq",
        "SELECT count(*) FROM saq_jobs WHERE status IN ('new', 'queued', 'active')",
        "SELECT count(*) FROM saq_jobs WHERE status = 'complete'",
    ),
)


def chosen() -> list[Contestant]:
    """Those that the variable PEERS names, or all. Raises `RuntimeError` when one of them cannot be run."""
    names = os.environ.get("PEERS", "").split() or [contestant.name for contestant in CONTESTANTS]
    found = [contestant for contestant in CONTESTANTS if contestant.name in names and contestant.python]
    if len(found) != len(names):
        raise RuntimeError(f"PEERS names others than {' '.join(contestant.name for contestant in CONTESTANTS)}")
    return found


def by_turns(contestants: Sequence[Contestant], number: int) -> list[Contestant]:
    """Their order in that round: to and fro."""
    return list(contestants if number % 2 else reversed(contestants))


def against_the_best(name: str, rates: Mapping[str, Sequence[float]]) -> list[Figure]:
    """Afterward ÷ the fastest of the others in the same round."""
    if "afterward" not in rates or len(rates) == 1:
        return []
    best = [max(round_) for round_ in zip(*(rates[each] for each in rates if each != "afterward"), strict=True)]
    ratios = [ours / theirs for ours, theirs in zip(rates["afterward"], best, strict=True)]
    return [Figure(f"{name}: afterward ÷ the fastest other", ratios, "", None, None)]


def make_template(server: postgres.Server, contestant: Contestant, jobs: int = 0) -> None:
    """A database of its name with its tables, and so many jobs that wait, which others can be copied from."""
    server.execute(f"CREATE DATABASE {contestant.name}")
    url = server.url(contestant.name)
    run(contestant, url, "create")
    if jobs:
        run(contestant, url, "fill", str(jobs))
    server.execute("VACUUM ANALYZE", database=contestant.name)


@contextmanager
def database(server: postgres.Server, contestant: Contestant) -> Generator[str]:
    """The URL of a copy of its template, on a server that owes the disk nothing."""
    with server.database(contestant.name) as url:
        server.execute("CHECKPOINT")
        yield url


def run(contestant: Contestant, url: str, *arguments: str) -> None:
    """One role of it, to its end."""
    subprocess.run(_command(contestant, *arguments), env=_environment(url), check=True)


@contextmanager
def working(contestant: Contestant, url: str, starts: Sequence[Path]) -> Generator[None]:
    """Workers, one for each file of starts; they have connected before the first of them is told to go."""
    with ExitStack() as workers:
        running = [
            workers.enter_context(
                started(
                    _command(contestant, "work", str(file)),
                    _environment(url),
                    log=file.with_suffix(".log"),
                    stdin=subprocess.PIPE,
                )
            )
            for file in starts
        ]
        for worker in running:
            if worker.stdout is None or worker.stdout.readline() != "ready\n":
                raise RuntimeError(f"a worker of {contestant.name} does not get ready: {_said(starts)}")
        for worker in running:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        yield
    if not all(file.exists() for file in starts):
        raise RuntimeError(f"a worker of {contestant.name} did not end well: {_said(starts)}")


def serving(contestant: Contestant, url: str) -> AbstractContextManager[Server]:
    """Its app, in uvicorn."""
    command = [contestant.python, "-m", "benchmarks.serve", f"benchmarks.peers.{contestant.name}:app"]
    return listening(command, _environment(url))


def count(url: str, what: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(what.encode()).fetchone()
        assert row is not None
        return int(row[0])


def _command(contestant: Contestant, *arguments: str) -> list[str]:
    return [contestant.python, "-m", "benchmarks.peers", contestant.name, *arguments]


def _environment(url: str) -> dict[str, str]:
    return {**os.environ, "PEERS_URL": url}


def _said(starts: Sequence[Path]) -> str:
    return "".join(file.with_suffix(".log").read_text()[-2000:] for file in starts)
