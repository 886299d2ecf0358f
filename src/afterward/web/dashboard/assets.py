"""The files that pages need: read once, named by what they contain, so that browsers may keep them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import PurePath

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file. `version`: another, when it contains something else."""

    content: bytes
    media_type: str
    version: str


@cache
def assets() -> dict[str, Asset]:
    """All of them, by name."""
    folder = resources.files(__package__).joinpath("static")
    return {file.name: _asset(file.name, file.read_bytes()) for file in folder.iterdir()}


def _asset(name: str, content: bytes) -> Asset:
    return Asset(content, _TYPES[PurePath(name).suffix], hashlib.sha256(content).hexdigest()[:12])
