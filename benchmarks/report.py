"""Figures, and how they are shown."""

import os
import platform
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import apsw

from benchmarks import load

_PACKAGES = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "apsw", "pydantic")


@dataclass(frozen=True)
class Figure:
    """One figure, measured several times, and what is asked of it: limits from above when `smaller_is_better`."""

    name: str
    values: Sequence[float]
    unit: str
    least: float | None
    aim: float | None
    smaller_is_better: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def verdict(self) -> str:
        if self.least is None:
            return ""
        if self._reaches(self.aim):
            return "aim reached"
        return "enough" if self._reaches(self.least) else "NOT ENOUGH"

    def _reaches(self, limit: float | None) -> bool:
        if limit is None:
            return False
        return self.median <= limit if self.smaller_is_better else self.median >= limit


def say(text: str) -> None:
    """A line of raw numbers, as soon as they are known."""
    print(f"  {text}", flush=True)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, and the whole range that it comes from."""
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def print_figures(figures: Sequence[Figure]) -> None:
    rows: list[tuple[str, ...]] = [("figure", "median", "range", "at least", "aim", "")]
    for figure in figures:
        sign = "≤ " if figure.smaller_is_better else "≥ "
        limits = ["" if limit is None else f"{sign}{limit:g}" for limit in (figure.least, figure.aim)]
        reach = f"{min(figure.values):.2f} to {max(figure.values):.2f}"
        rows.append((figure.name, f"{figure.median:.2f} {figure.unit}".rstrip(), reach, *limits, figure.verdict()))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def describe(folder: Path) -> None:
    """What the figures depend on besides the code."""
    print(
        f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} {platform.release()}",
        end=", ",
    )
    print(f"{os.cpu_count()} processors, SQLite {apsw.sqlite_lib_version()}")
    print(", ".join(f"{package} {version(package)}" for package in _PACKAGES))
    print(f"load by {load.GENERATOR}")
    print(f"databases in {folder}; a write and fsync of 4 KiB there takes {spread(_sync_times(folder))} ms")
    with suppress(OSError, AttributeError):
        busy = os.getloadavg()[0]
        if busy > 0.3:
            print(
                f"NOTE: other programs use this machine (load average {busy:.1f}); compare ratios, and doubt the rest"
            )


def _sync_times(folder: Path, times: int = 50) -> list[float]:
    path = folder / "sync"
    took: list[float] = []
    with path.open("wb", buffering=0) as file:
        for _ in range(times):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
            took.append((time.perf_counter() - began) * 1e3)
    path.unlink()
    return took
