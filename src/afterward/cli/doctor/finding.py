"""One thing that was looked at, and how it stands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    ok = "ok"
    warning = "warning"
    """It works, and may not go on so."""
    problem = "problem"
    """Jobs are lost, or do not run, until it is mended."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`subject` in a word, what is `said` of it, and the `mend`, if it needs one."""

    level: Level
    subject: str
    said: str
    mend: str = ""


def ok(subject: str, said: str) -> Finding:
    """It is as it should be."""
    return Finding(Level.ok, subject, said)


def warning(subject: str, said: str, mend: str) -> Finding:
    """It is a risk."""
    return Finding(Level.warning, subject, said, mend)


def problem(subject: str, said: str, mend: str) -> Finding:
    """It is wrong."""
    return Finding(Level.problem, subject, said, mend)


def refusal(subject: str, error: BaseException, otherwise: str) -> Finding:
    """What an error says. Ours name the mend after the first semicolon; `otherwise`: the mend if this one does not."""
    said, _, mend = str(error).partition("; ")
    return problem(subject, said, mend or otherwise)
