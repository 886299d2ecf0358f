"""The file itself: whose it is, whether it is whole, and how fast it takes what is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from afterward.cli.doctor.finding import Finding, ok, problem, refusal, warning
from afterward.cli.progress import progress
from afterward.errors import StoreError
from afterward.sizes import size
from afterward.stores.base import Schema
from afterward.stores.sqlite.checkup import Checkup, Trial, trial
from afterward.stores.sqlite.looks import Space

_LARGE_WAL = 64 * 1024**2
_MUCH_ROOM = 256 * 1024**2
_SLOW_COMMIT_SECONDS = 0.05
_FULL = 2


def examine_database(checkup: Checkup, seconds: float) -> Iterator[Finding]:
    """What can be said of a file that is ours. `seconds`: how long to look for damage."""
    yield schema(checkup.schema)
    with progress("looking for damage", None) as advance:
        found = checkup.damage(seconds, lambda: advance(1))
    yield damage(found, checkup.path, seconds)
    yield journal(checkup.journal_mode)
    yield lock(checkup.is_locked())
    yield log(checkup.wal_bytes)
    yield room(checkup.space())


def schema(there: Schema) -> Finding:
    """The tables that this version of the library works with."""
    version, newest = there.found, there.newest
    if there.is_beyond:
        said = f"the file has schema {version}, and this version of afterward knows {newest}"
        return problem("schema", said, "upgrade afterward here")
    if version < newest:
        said = f"the file has schema {version}, and this version of afterward works with {newest}"
        return warning("schema", said, "restart the app, or: afterward migrate")
    if version > newest:
        return ok("schema", f"{version}, of a later version of afterward; this one knows {newest}, and works with it")
    return ok("schema", f"{version}, the newest")


def damage(found: list[str] | None, path: Path, seconds: float) -> Finding:
    """What `PRAGMA quick_check` has found."""
    if found is None:
        said = f"the file could not be checked for damage to its end in {seconds:g} s"
        return warning("integrity", said, "give it more time: --time-limit 10m")
    if found:
        return problem("integrity", f"{path} is damaged: {found[0]}", "stop the app, and restore it from a backup")
    return ok("integrity", "no damage was found")


def journal(mode: str) -> Finding:
    """Write-ahead log: who reads does not wait for who writes."""
    if mode == "wal":
        return ok("journal", "wal")
    return problem("journal", f"the file's journal mode is {mode}", "restart the app, which sets it to wal")


def lock(is_locked: bool) -> Finding:
    """Whoever writes waits for it."""
    if is_locked:
        said = "a process has kept the lock for writing for seconds: nothing can be stored"
        return problem("lock", said, "find what holds it (another program that has the file open? a stopped process?)")
    return ok("lock", "it is free")


def log(wal_bytes: int) -> Finding:
    """The write-ahead log starts over when nobody reads from it."""
    said = f"the write-ahead log has {size(wal_bytes)}"
    if wal_bytes > _LARGE_WAL:
        return warning("log", said, "close what reads the file for long; the log starts over when nobody reads from it")
    return ok("log", said)


def room(space: Space) -> Finding:
    """What is pruned leaves room in the file, which does not shrink."""
    said = f"{size(space.total)}, of which {size(space.free)} can be used again"
    if space.free > _MUCH_ROOM and space.free > space.total / 2:
        return warning("size", said, "to give it back to the disk, stop the app, and run VACUUM on the file")
    return ok("size", said)


def examine_commits(folder: Path) -> Iterator[Finding]:
    """How long a commit takes in this folder, by trying."""
    try:
        yield commits(trial(folder))
    except (StoreError, OSError) as error:
        yield refusal("commits", error, "see that the folder can be written, and that its disk is not full")


def commits(tried: Trial) -> Finding:
    """Each response with a durable task waits for one."""
    said = f"a commit takes {tried.commit_seconds * 1000:.1f} ms here (synchronous=FULL, {tried.journal_mode})"
    if tried.synchronous < _FULL or tried.journal_mode != "wal":
        said = f"a new store here has journal mode {tried.journal_mode}, synchronous={tried.synchronous}"
        return problem("commits", said, "put the file on a local disk that can share memory between processes")
    if tried.commit_seconds > _SLOW_COMMIT_SECONDS:
        return warning("commits", said, "put the file on a faster disk: each response with a task waits so long")
    return ok("commits", said)
