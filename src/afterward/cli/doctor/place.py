"""Where the file is: its disk, its folder, and who may read it."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from afterward.cli.doctor.finding import Finding, ok, problem, refusal, warning
from afterward.cli.paths import is_there
from afterward.errors import StoreUnusable
from afterward.sizes import size
from afterward.stores.sqlite.files import file_system_of, refuse_network_file_system

_LITTLE_SPACE = 64 * 1024**2
_SOME_SPACE = 512 * 1024**2
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def examine_place(path: Path) -> Iterator[Finding]:
    """What can be said of the store's place without opening it."""
    yield file_system(path)
    if not path.parent.is_dir():
        yield problem("folder", f"there is no folder {path.parent}", "create it, or name another place")
        return
    yield folder(path)
    if sys.platform != "win32":
        yield permissions(path)
    yield disk(path.parent, shutil.disk_usage(path.parent).free)


def file_system(path: Path, mounts: str | None = None) -> Finding:
    """One that keeps locks, and keeps what was written. `mounts`: the text of /proc/self/mountinfo."""
    try:
        refuse_network_file_system(path, mounts)
    except StoreUnusable as error:
        return refusal("file system", error, "put the file on a local disk")
    kind = file_system_of(path, mounts)
    if kind in _IN_MEMORY:
        said = f"{path} is kept in memory ({kind}): all jobs are lost when the machine restarts"
        return warning("file system", said, "put the file on a disk")
    if kind == "overlay":
        said = f"{path} may be in a container's own layer ({kind}): all jobs are lost when that is replaced"
        return warning("file system", said, "put the file on a volume")
    return ok("file system", kind or "local")


def folder(path: Path) -> Finding:
    """SQLite writes a log beside the file, and processes their locks."""
    if not os.access(path.parent, os.W_OK | os.X_OK):
        said = f"{path.parent} cannot be written by this user"
        return problem("folder", said, "give this user the right to write the folder, or run this as the app's user")
    if is_there(path) and not os.access(path, os.R_OK | os.W_OK):
        said = f"{path} cannot be read and written by this user"
        return problem("folder", said, "give this user the right to write the file, or run this as the app's user")
    return ok("folder", f"{path.parent} can be written")


def permissions(path: Path) -> Finding:
    """The arguments of jobs are nobody else's business."""
    beside = (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", ".processes")))
    found = [one for one in beside if is_there(one)]
    open_ones = [one for one in found if stat.S_IMODE(one.stat().st_mode) & 0o077]
    if not open_ones:
        return ok("permissions", "only the owner may read the store" if found else "there are no files yet")
    names = " ".join(str(one) for one in open_ones)
    said = f"other users may read or write {', '.join(one.name for one in open_ones)}; jobs' arguments are in there"
    return warning("permissions", said, f"chmod go= {names}")


def disk(where: Path, free: int) -> Finding:
    """Without space, no job is stored: requests are answered with 503."""
    said = f"{size(free)} free on the disk of {where}"
    if free < _LITTLE_SPACE:
        return problem("disk", said, "make room: without it, no job can be stored, and requests are answered with 503")
    if free < _SOME_SPACE:
        return warning("disk", said, "make room: without it, no job can be stored, and requests are answered with 503")
    return ok("disk", said)
