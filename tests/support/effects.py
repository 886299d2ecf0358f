"""What tasks did, told by the tasks themselves: one file, one line for each start and each end, on the disk at once."""

import json
import os
import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from afterward import current_job


@contextmanager
def recorded(key: str) -> Generator[None]:
    """The body of a run. Its end is told only when it ends by itself."""
    job = current_job()
    with recorded_as(job.id, job.attempt, key):
        yield


@contextmanager
def recorded_as(job: str, attempt: int, key: str) -> Generator[None]:
    """The same of one whose code knows nothing of its job."""
    _tell("start", job, attempt, key)
    yield
    _tell("end", job, attempt, key)


def _tell(what: str, job: str, attempt: int, key: str) -> None:
    line = {
        "at": time.monotonic(),
        "what": what,
        "key": key,
        "job": job,
        "attempt": attempt,
        "pid": os.getpid(),
        "parent": os.getppid(),
    }
    file = os.open(os.environ["APP_EFFECTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, b"\n" + json.dumps(line).encode() + b"\n")
        os.fsync(file)
    finally:
        os.close(file)


@dataclass(frozen=True)
class Run:
    """One run of a job, in `time.monotonic()`; `ended` is None when its end was not told."""

    key: str
    job: str
    attempt: int
    pid: int
    parent: int
    started: float
    ended: float | None = None


class Effects:
    """Reads the file, as far as it has grown since the last look."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self._lines: list[dict[str, Any]] = []

    def count(self) -> int:
        """How many starts and ends there are."""
        self._read_on()
        return len(self._lines)

    def started(self) -> int:
        """How many starts there are."""
        self._read_on()
        return sum(line["what"] == "start" for line in self._lines)

    def runs(self) -> list[Run]:
        """All runs, in the order of their starts."""
        self._read_on()
        runs: dict[tuple[str, int, int], Run] = {}
        for line in self._lines:
            at, key, job, attempt, pid = (line[name] for name in ("at", "key", "job", "attempt", "pid"))
            which = (job, attempt, pid)
            if line["what"] == "start":
                runs[which] = Run(key, job, attempt, pid, line["parent"], at)
            elif which in runs:
                runs[which] = replace(runs[which], ended=at)
        return sorted(runs.values(), key=lambda run: run.started)

    def of(self, key: str) -> list[Run]:
        """The runs of one job, by the key it was given."""
        return [run for run in self.runs() if run.key == key]

    def by_key(self) -> dict[str, list[Run]]:
        found: defaultdict[str, list[Run]] = defaultdict(list)
        for run in self.runs():
            found[run.key].append(run)
        return dict(found)

    def _read_on(self) -> None:
        """A line that a kill cut short, at the end of a page in memory, is none; the next begins anew."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for text in whole.splitlines():
            with suppress(json.JSONDecodeError, UnicodeDecodeError):
                if text:
                    self._lines.append(json.loads(text))
