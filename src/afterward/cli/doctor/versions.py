"""What the library stands on, against what it is tested with."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import metadata

import apsw

from afterward.cli.doctor.finding import Finding, ok, problem

OLDEST_PYTHON = (3, 11)
OLDEST_SQLITE = (3, 51, 3)
"""Those from 3.7.0 up to it can corrupt a write-ahead log that several connections move into the file."""

_FLOOR = re.compile(r"([\w.-]+?)\s*>=\s*([\d.]+)")


def examine_versions() -> Iterator[Finding]:
    """Python, SQLite, and each library that ours needs."""
    yield version("Python", ".".join(map(str, sys.version_info[:3])), OLDEST_PYTHON)
    yield version("SQLite", apsw.sqlite_lib_version(), OLDEST_SQLITE)
    for requirement in metadata.requires("afterward") or ():
        named = _FLOOR.match(requirement)
        if named is None or "extra ==" in requirement:
            continue
        try:
            yield version(named[1], metadata.version(named[1]), numbers(named[2]))
        except metadata.PackageNotFoundError:
            yield problem(named[1], "it is not installed", f"pip install '{requirement}'")


def version(name: str, found: str, oldest: tuple[int, ...]) -> Finding:
    """One of them."""
    if numbers(found) >= oldest:
        return ok(name, found)
    floor = ".".join(map(str, oldest))
    return problem(
        name, f"{found} is older than {floor}, the oldest that is supported", f"upgrade it to {floor} or newer"
    )


def numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: `2.11.0rc1` → (2, 11, 0)."""
    found: list[int] = []
    for part in text.split("."):
        digits = re.match(r"\d+", part)
        if digits is None:
            break
        found.append(int(digits[0]))
    return tuple(found)
