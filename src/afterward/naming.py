"""The name that a function is stored under, by which other processes find it again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from afterward.errors import TaskError


def name_of(function: Callable[..., Any]) -> str:
    """The name a function is stored under: `module:qualified.name`. Raises `TaskError` when there is none.

    A function of `__main__` gets the name under which other processes can import its module.
    """
    qualname = getattr(function, "__qualname__", None)
    module = getattr(function, "__module__", None)
    if not qualname or not module:
        raise TaskError(f"{function!r} has no name of its own; decorate a `def` or `async def`, or give name=…")
    if "<lambda>" in qualname:
        raise TaskError("a lambda cannot be found again by another process; decorate a `def` or `async def`")
    if module in {"__main__", "__mp_main__"}:  # the second is the same in a child that `multiprocessing` spawned
        module = _real_name(sys.modules[module])
        if module is None:
            raise TaskError(
                f"{qualname} is defined in __main__, where no other process can import it; "
                f"move it into a module, or give @tasks.task(name=…) a name"
            )
    return f"{module}:{qualname}"


def importable_name(function: Callable[..., Any]) -> str:
    try:
        return name_of(function)
    except TaskError:
        return "__main__:<locals>"  # it has a name of its own; a child process could not find it


def _real_name(main: ModuleType) -> str | None:
    if main.__spec__ is not None:
        name = main.__spec__.name
        return None if name in {"__main__", "__mp_main__"} else name
    file = getattr(main, "__file__", None)
    if file is None:
        return None
    path = Path(file).resolve()
    importable = path.suffix == ".py" and path.stem.isidentifier() and path.parent == Path(sys.path[0]).resolve()
    return path.stem if importable else None
