"""Where the function of a task runs: in the event loop, in a thread, in a child process, or on a Celery worker."""

from __future__ import annotations

import importlib.util
from typing import Any, Literal, TypeAlias, cast, get_args

from pydantic import ByteSize, TypeAdapter, ValidationError

from afterward.errors import TaskError

Executor: TypeAlias = Literal["loop", "thread", "process", "celery"]

FOREIGN = "celery:"
"""What the name of a task begins with that is Celery's own: what runs there knows nothing of jobs."""

_BYTES: TypeAdapter[int] = TypeAdapter(ByteSize)


def executor_of(said: Executor | None, name: str, *, is_async: bool) -> Executor:
    """Where a task runs of which this was said. Raises `TaskError` for what its function cannot do."""
    if said is None:
        return "loop" if is_async else "thread"
    if said not in get_args(Executor):
        raise TaskError(f"task {name}: executor={said!r} must be one of 'loop', 'thread', 'process' and 'celery'")
    if said == "loop" and not is_async:
        raise TaskError(
            f"task {name}: executor='loop' is for an `async def`, and a `def` would block the event loop; leave "
            f"executor= out, and it runs in a thread, or make it an `async def`"
        )
    if said == "thread" and is_async:
        raise TaskError(
            f"task {name}: executor='thread' is for a `def`, and an `async def` needs an event loop; leave executor= "
            f"out, and it runs in the loop, or make it a `def`"
        )
    return said


def check_importable(name_in_code: str, name: str) -> None:
    """Raise `TaskError` for a function that another process could not import."""
    _, _, path = name_in_code.partition(":")
    if "<locals>" in path:
        raise TaskError(
            f"task {name}: executor='process' runs it in another process, which imports its module and finds no "
            f"function there that is defined inside another, or in __main__; define it at the top of a module"
        )


def memory_of(cap: int | str | None, executor: Executor, name: str) -> int | None:
    """What an attempt may take, in bytes. Raises `TaskError` for what is no size, or could not be kept to."""
    if cap is None:
        return None
    if executor != "process":
        raise TaskError(
            f"task {name}: memory= is kept to by ending the process that runs it; say executor='process' with it"
        )
    if importlib.util.find_spec("psutil") is None:
        raise TaskError(f'task {name}: memory= needs psutil, to look at processes: pip install "afterward[process]"')
    size = _bytes_of(cap)
    if size <= 0:
        raise TaskError(f"task {name}: memory={cap!r:.100} is no size; give bytes, or a text like '512MB' or '2GiB'")
    return size


def _bytes_of(cap: Any) -> int:
    if isinstance(cap, bool) or not isinstance(cap, int | str):
        return 0
    try:
        return int(_BYTES.validate_python(cast("Any", cap)))
    except ValidationError:
        return 0
