"""Which files are read, and which of them can have anything to do with background tasks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_NOT_WALKED = frozenset(("__pycache__", "build", "node_modules", "site-packages"))
_OF_INTEREST = re.compile(
    rb"add_task|BackgroundTask|Afterward|\bimport afterward\b|\bfrom afterward\b|@[\w.]*\btask\b|\.(?:task|install)\("
    rb"|\b(?:FastAPI|Starlette)\("
)


def python_files(paths: Iterable[Path]) -> list[Path]:
    """The files named, and the `*.py` below the folders named, each once, by absolute path and in order."""
    found = {Path(os.path.abspath(file)) for path in paths for file in _below(path)}  # noqa: PTH100 - keeps symlinks
    return sorted(found)


def _below(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _NOT_WALKED]
        yield from (Path(folder, name) for name in names if name.endswith(".py"))


def project_of(folder: Path) -> Path:
    """The folder of the project that a folder is a part of: the nearest one that says so."""
    marks = (".git", "pyproject.toml", "setup.py")
    around = (path for path in (folder, *folder.parents) if any((path / mark).exists() for mark in marks))
    return next(around, folder)


def is_of_interest(source: bytes) -> bool:
    """Does it name anything that the rules look at? What does not is read only to follow a name."""
    return _OF_INTEREST.search(source) is not None
