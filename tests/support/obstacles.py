"""What keeps a store from writing, for a while."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import apsw


@contextmanager
def locked(database: Path) -> Generator[None]:
    """Another program holds the write lock of the file."""
    connection = apsw.Connection(str(database))
    connection.set_busy_timeout(5000)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()


@contextmanager
def deleted(database: Path) -> Generator[None]:
    """The file is gone; at the end it is put back."""
    aside = database.with_name("aside")
    database.rename(aside)
    try:
        yield
    finally:
        aside.rename(database)


class Disk:
    """The disk under all databases that are opened while the block lasts; `is_full` can be set at any time."""

    def __init__(self) -> None:
        self.is_full = False

    def __enter__(self) -> Self:
        self._system = _FullDiskVFS(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._system.unregister()

    @contextmanager
    def full(self) -> Generator[None]:
        """No space is left."""
        self.is_full = True
        try:
            yield
        finally:
            self.is_full = False


class _FullDiskVFS(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._below = apsw.vfs_names()[0]
        super().__init__("disk-of-a-test", base=self._below, makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        return _FullDiskFile(self._disk, self._below, name, flags)


class _FullDiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, below: str, name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__(below, name, flags)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802 - SQLite's name
        if self._disk.is_full:
            raise apsw.FullError("no space left on device")
        super().xWrite(data, offset)
