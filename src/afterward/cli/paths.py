"""Paths as people type them: also such as no file can have."""

from __future__ import annotations

import os
from pathlib import Path


def is_there(path: Path) -> bool:
    """Is there a file or folder? `Path.exists` raises where a name is too long for the file system."""
    return os.path.exists(path)  # noqa: PTH110 - as said


def has_content(path: Path) -> bool:
    """Is there a file, with something in it?"""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
