"""What a check has to say, and the one form in which it is said."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CANNOT_TELL = "cannot-tell"
"""The rule of what is not known to be wrong, nor to be right."""


@dataclass(frozen=True, order=True, slots=True)
class Finding:
    """One place, and what is wrong with it; lines and columns count from 1."""

    path: str
    line: int
    column: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.rule}: {self.message}"


@dataclass(frozen=True, slots=True)
class Report:
    """All findings in the order of files and lines, what could not be told, and how many files were read."""

    findings: list[Finding]
    untold: list[Finding]
    files: int


def shown(path: Path) -> str:
    """A path as the person knows it: from the current folder where it is below that."""
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix()
