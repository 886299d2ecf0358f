"""As whom servers run: they refuse to be root, so where we are, they are nobody."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import TypedDict

from servers.errors import ServerError

_NOBODY = "nobody"


class Options(TypedDict, total=False):
    """Arguments of `subprocess`."""

    user: str
    group: int
    extra_groups: list[int]


def is_root() -> bool:
    return os.geteuid() == 0


def options() -> Options:
    """What to give `subprocess` so that a program runs as that account."""
    if not is_root():
        return {}
    return {"user": _NOBODY, "group": pwd.getpwnam(_NOBODY).pw_gid, "extra_groups": []}


def give(path: Path) -> None:
    """Make it that account's own."""
    if is_root():
        shutil.chown(path, _NOBODY, pwd.getpwnam(_NOBODY).pw_gid)


def check_reach(path: Path, mend: str) -> None:
    """Raise `ServerError`, which ends with `mend`, where that account may not enter a folder or execute a file."""
    tried = subprocess.run(["/bin/sh", "-c", 'test -x "$0"', path], check=False, cwd="/", **options())
    if tried.returncode:
        raise ServerError(f"{path} is out of reach for {_NOBODY if is_root() else 'us'}: {mend}")
