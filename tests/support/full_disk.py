"""Disks that run full, and have space again when a test says so."""

import os
import resource
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tests.support.processes import Process


class FullDisk(Protocol):
    """Where a store is, and how to let it run out of space under a process."""

    folder: Path

    def fill(self, process: Process) -> None: ...

    def free(self, process: Process) -> None: ...


class SmallDisk:
    """A small file system in memory, filled by a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, process: Process | None = None) -> None:
        with self._filler.open("wb", buffering=0) as file:
            for size in (65536, 4096, 1):
                try:
                    while True:
                        file.write(b"\0" * size)
                except OSError:
                    continue

    def free(self, process: Process | None = None) -> None:
        self._filler.unlink()


class FileSizeLimit:
    """The system's limit on the size of the files that one process writes, set where its log stands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, process: Process) -> None:
        log = self.folder / "jobs.db-wal"
        assert log.stat().st_size > 200_000, "longer than any other file that the process writes to"
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, hard))

    def free(self, process: Process) -> None:
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))


@contextmanager
def small_disk(folder: Path, megabytes: int = 8) -> Generator[SmallDisk]:
    """Mounted at `folder` while the block lasts. Needs the right to mount."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True, timeout=20)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, timeout=20)


@contextmanager
def file_size_limit(folder: Path) -> Generator[FileSizeLimit]:
    folder.mkdir()
    yield FileSizeLimit(folder)


def may_mount() -> bool:
    """Has this process the right to mount a file system?"""
    if os.geteuid() != 0:
        return False
    folder = Path("/proc/self/status").read_text()
    effective = next(int(line.split()[1], 16) for line in folder.splitlines() if line.startswith("CapEff"))
    return bool(effective >> 21 & 1)  # CAP_SYS_ADMIN, capabilities(7)
