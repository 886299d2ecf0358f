"""The files beside a database: permissions, network file systems, and one lock file for each living process.

A lock shows a death at once: the operating system drops it with the process. `flock` and not `lockf`: a POSIX record
lock belongs to the process, and goes when any of its descriptors of the file is closed.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from pathlib import Path

from afterward.errors import StoreUnusable
from afterward.forks import call_in_child

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


_OCTAL = re.compile(r"\\([0-7]{3})")
_NETWORK = frozenset(
    "nfs nfs4 cifs smb3 smbfs 9p afs ceph glusterfs lustre gpfs beegfs ocfs2 gfs2".split()  # noqa: SIM905 - read as a list
)
_NETWORK_FUSE = (
    "fuse.sshfs",
    "fuse.s3fs",
    "fuse.glusterfs",
    "fuse.ceph",
    "fuse.gcsfuse",
    "fuse.rclone",
    "fuse.juicefs",
)


def refuse_network_file_system(path: Path, mounts: str | None = None) -> None:
    """Raise `StoreUnusable` when `path` lies where file locks do not hold between hosts.

    `mounts`: the text of /proc/self/mountinfo (proc(5)); read from there when not given.
    """
    if str(path).startswith(("\\\\", "//")):
        kind: str | None = "a network share"
    else:
        kind = file_system_of(path, mounts)
        if kind not in _NETWORK and not (kind or "").startswith(_NETWORK_FUSE):
            return
    raise StoreUnusable(
        f"{path} is on a network file system ({kind}), where SQLite's locks do not hold and jobs would be lost; "
        f"put the file on a local disk, or use a store made for several servers (postgresql://…)"
    )


def file_system_of(path: Path, mounts: str | None = None) -> str | None:
    """The kind of file system that `path` lies on, where that can be known. `mounts`: as above."""
    path = path.resolve()
    if mounts is None:
        source = Path("/proc/self/mountinfo")
        mounts = source.read_text(encoding="utf-8", errors="replace") if source.exists() else ""
    best, kind = "", None
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 5 or not right:
            continue
        point = _OCTAL.sub(lambda escaped: chr(int(escaped[1], 8)), fields[4])
        if len(point) >= len(best) and (path == Path(point) or Path(point) in path.parents):
            best, kind = point, right.split()[0]
    return kind


def create_private(path: Path) -> None:
    """Create an empty file that only its owner can read, unless it is there.

    Never opens one that is there: closing it would drop the POSIX locks that SQLite holds in this process.
    """
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except FileExistsError:
        return
    os.close(descriptor)


_LEFT_BEHIND_SECONDS = 3600.0
"""Whoever has not taken its lock by then has died of it, or stands so still that it will have to begin again."""


class LivenessLocks:
    """The folder of lock files beside a database, one file for each process: held means alive."""

    def __init__(self, database: Path) -> None:
        self._folder = database.with_name(database.name + ".processes")
        self._held: dict[str, int] = {}
        self.reliable = True
        call_in_child(self._close_inherited)

    @property
    def held(self) -> list[str]:
        """The processes of ours."""
        return list(self._held)

    def take(self, process: str) -> None:
        """Hold the lock of a process of ours. It is taken under another name first, so that no one finds it free."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        new = self._folder / f"{process}.new"
        descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        self.reliable = _try_lock(descriptor) and not self._seems_free(new)
        new.rename(self._folder / f"{process}.lock")
        self._held[process] = descriptor
        self._remove_what_was_left_behind()

    def drop(self, process: str) -> None:
        """Let go of the lock of a process of ours."""
        descriptor = self._held.pop(process, None)
        if descriptor is not None:
            self.remove(process)
            os.close(descriptor)

    def abandon(self, process: str) -> None:
        """Let go of the lock of a process of ours, and leave its file: whoever looks finds it dead."""
        descriptor = self._held.pop(process, None)
        if descriptor is not None:
            os.close(descriptor)

    def close(self) -> None:
        """Abandon all processes of ours."""
        for process in self.held:
            self.abandon(process)

    def remove(self, process: str) -> None:
        """Remove the file of a process that is dead, or that leaves."""
        (self._folder / f"{process}.lock").unlink(missing_ok=True)

    def _remove_what_was_left_behind(self) -> None:
        """By processes that died while they took their locks; told by age, for a look at a lock disturbs its taking."""
        for path in self._folder.glob("*.new"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _LEFT_BEHIND_SECONDS:
                    path.unlink()

    def dead(self) -> list[str]:
        """The processes whose lock nobody holds."""
        if not self.reliable:
            return []
        try:
            locks = [path for path in self._folder.iterdir() if path.suffix == ".lock"]
        except OSError:  # not there, or no descriptor is left to look with: nobody's death is certain
            return []
        return [path.stem for path in locks if path.stem not in self._held and self._seems_free(path)]

    @staticmethod
    def _seems_free(path: Path) -> bool:
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError:
            return False
        try:
            return _try_lock(descriptor)
        finally:
            os.close(descriptor)

    def _close_inherited(self) -> None:
        """In a forked child: a descriptor kept open there would show a dead parent as alive."""
        self.close()
