"""Disks under SQLite that fail at one moment, or that tell what would be on them had the power been cut at one.

Each takes the place of the default file system of all databases opened while its block lasts.
"""

import random
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

_NAME = "faulty-disk-of-a-test"


class _Files(apsw.VFS):
    """Opens every file as a `kind`, told of by `disk`."""

    def __init__(self, disk: "FailingDisk | RecordingDisk") -> None:
        self._disk = disk
        self._below = apsw.vfs_names()[0]
        super().__init__(_NAME, base=self._below, makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name, as below
        return _File(self._disk, self._below, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        self._disk.deletes(filename)
        super().xDelete(filename, syncdir)


class _File(apsw.VFSFile):
    def __init__(self, disk: "FailingDisk | RecordingDisk", below: str, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        super().__init__(below, name, flags)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        self._disk.writes(self._path, bytes(data), offset)
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._disk.truncates(self._path, newsize)
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.syncs(self._path)
        super().xSync(flags)


class FailingDisk:
    """The n-th write or sync after it was armed fails, once."""

    def __init__(self) -> None:
        self._left: dict[str, int] = {}
        self.has_failed = False

    def arm(self, operation: str, nth: int) -> None:
        self._left, self.has_failed = {operation: nth}, False

    def disarm(self) -> None:
        self._left = {}

    def _count(self, operation: str) -> None:
        self._left[operation] = self._left.get(operation, 0) - 1
        if self._left[operation] == 0:
            self.has_failed = True
            raise apsw.IOError(f"this {operation} fails")

    def writes(self, path: str, data: bytes, offset: int) -> None:
        self._count("write")

    def syncs(self, path: str) -> None:
        self._count("sync")

    def truncates(self, path: str, size: int) -> None:
        self._count("truncate")

    def deletes(self, path: str) -> None:
        self._count("delete")


class RecordingDisk:
    """Remembers, in order, what was written and what was synced, and what its user was told."""

    def __init__(self) -> None:
        self._moments: list[tuple[str, str, Any]] = []

    def writes(self, path: str, data: bytes, offset: int) -> None:
        self._moments.append(("write", Path(path).name, (offset, data)))

    def truncates(self, path: str, size: int) -> None:
        self._moments.append(("truncate", Path(path).name, size))

    def syncs(self, path: str) -> None:
        self._moments.append(("sync", Path(path).name, None))

    def deletes(self, path: str) -> None:
        self._moments.append(("delete", Path(path).name, None))

    def promise(self, *what: str) -> None:
        """The user was told this, at this moment."""
        self._moments.append(("promise", "", what))

    def moments(self) -> range:
        """All moments at which the power can be cut."""
        return range(len(self._moments) + 1)

    def promises(self) -> list[int]:
        """The moments right after a promise."""
        return [at + 1 for at, (kind, _, _) in enumerate(self._moments) if kind == "promise"]

    def promised(self, moment: int) -> set[str]:
        """What had been promised by then."""
        return {one for kind, _, what in self._moments[:moment] if kind == "promise" for one in what}

    def cut(self, moment: int, folder: Path, chance: random.Random, luck: float) -> None:
        """Put into `folder` what is on the disk after a cut: what was synced, and of the rest what luck let through."""
        folder.mkdir()
        files: defaultdict[str, bytearray] = defaultdict(bytearray)
        waiting: defaultdict[str, list[tuple[str, Any]]] = defaultdict(list)
        for kind, name, what in self._moments[:moment]:
            if kind in ("write", "truncate"):
                waiting[name].append((kind, what))
            elif kind == "sync":
                for change in waiting.pop(name, []):
                    _apply(files[name], *change)
            elif kind == "delete":
                files.pop(name, None)
                waiting.pop(name, None)
        for name, changes in waiting.items():
            for change in changes:
                if chance.random() < luck:
                    _apply(files[name], *change)
        for name, content in files.items():
            (folder / name).write_bytes(content)


def _apply(content: bytearray, kind: str, what: Any) -> None:
    if kind == "truncate":
        del content[what:]
        return
    offset, data = what
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


@contextmanager
def failing_disk() -> Generator[FailingDisk]:
    disk = FailingDisk()
    files = _Files(disk)
    try:
        yield disk
    finally:
        files.unregister()


@contextmanager
def recording_disk() -> Generator[RecordingDisk]:
    disk = RecordingDisk()
    files = _Files(disk)
    try:
        yield disk
    finally:
        files.unregister()
