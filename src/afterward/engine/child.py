"""The inside of a child process that runs one attempt: an order on standard input, its outcome on standard output."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import json
import os
import signal
import sys
import threading
import traceback
from contextlib import AsyncExitStack
from types import FrameType
from typing import Any, BinaryIO, cast

from starlette.applications import Starlette

from afterward.apps import lifespan_of
from afterward.engine.endings import Endings
from afterward.engine.executor import Executor, failure_of
from afterward.engine.files import receive, received
from afterward.engine.process import LEAVES
from afterward.engine.threads import Threads
from afterward.errors import ConfigurationError, StoreError, TaskError
from afterward.job import Lease, Outcome, Released
from afterward.life import Life
from afterward.task import Owner, Task

_SHUTDOWN_SECONDS = 1.0
"""What the lifespans that a task asked for get to end in; its parent waits a little longer than the task's timeout."""


def main() -> None:
    """Read one order, run it, write its outcome. What the function prints goes to standard error."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    order: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    for number in (signal.SIGINT, signal.SIGTERM):
        # A terminal and a service manager signal all processes: whether this one ends is for its parent to say.
        # A handler, not SIG_IGN, which what the function starts would inherit.
        signal.signal(number, _leave_it_to_the_parent)
    files = {file: receive(sys.stdin.buffer) for file in order["files"]}
    threading.Thread(target=_die_with_parent, daemon=True).start()
    sys.path[:] = order["sys_path"]
    outcome = asyncio.run(_run(order, answer, files))
    answer.write(json.dumps({"outcome": type(outcome).__name__, "values": dataclasses.asdict(outcome)}).encode())
    answer.flush()
    sys.stderr.flush()
    os._exit(0)  # at once: threads that the function left behind must not keep the attempt open


def _leave_it_to_the_parent(_number: int, _frame: FrameType | None) -> None:
    """What a signal does here: nothing."""


def _die_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


async def _run(order: dict[str, Any], answer: BinaryIO, files: dict[str, BinaryIO | None]) -> Outcome:
    lifespans = AsyncExitStack()
    try:
        task = _find(order["module"], order["path"])
        for place in order["apps"]:
            await lifespans.enter_async_context(lifespan_of(_app(place)))
    except Exception as error:  # noqa: BLE001 - whatever the import of a user's module, or a lifespan, raises
        answer.write(b"ready\n")
        outcome: Outcome = Released(f"no child process could load it: {failure_of(error).message}", 60.0)
    else:
        outcome = await _attempt(task, order, answer, files)
    await _leave(lifespans)
    return outcome


async def _leave(lifespans: AsyncExitStack) -> None:
    """The outcome stands: a shutdown that fails, or does not end, changes nothing in it."""
    try:
        async with asyncio.timeout(_SHUTDOWN_SECONDS):
            await lifespans.aclose()
    except Exception:  # noqa: BLE001 - whatever a lifespan raises
        traceback.print_exc()


async def _attempt(
    task: Task[..., Any], order: dict[str, Any], answer: BinaryIO, files: dict[str, BinaryIO | None]
) -> Outcome:
    lease = Lease(
        order["id"], order["attempt"], order["process"], order["task"], order["arguments"], order["context"],
        order["failures"], order["deaths"], order["max_attempts"], order["timeout"],
    )  # fmt: skip
    answer.write(b"ready\n")
    answer.flush()
    try:
        endings = await _endings(task.owner, answer)
    except StoreError as error:
        return Released(f"the store could not be opened in a child process: {error}", 10.0)
    threads = Threads()
    try:
        return await Executor(threads, task.owner.restore_context, received(files), endings=endings).run(task, lease)
    finally:
        threads.stop()  # what is left behind waits for no thread of this process


async def _endings(owner: Owner, answer: BinaryIO) -> Endings | None:
    """For a function that ends its attempt by itself: its parent, who holds that, is told before."""
    life: Life = cast("Any", owner).life

    def leave(_: Lease) -> None:
        answer.write(LEAVES)
        answer.flush()

    if life.store.joins is None:
        return None
    await life.store.open(migrate=False)
    return Endings(life.intake.host, life.store, leave)


def _find(module: str, path: str) -> Task[..., Any]:
    found = _named(module, path)
    if not isinstance(found, Task):
        raise TaskError(f"{module}:{path} is not a task there")
    return found  # pyright: ignore[reportUnknownVariableType]


def _app(place: str) -> Starlette:
    app = _named(*place.split(":"))
    if not isinstance(app, Starlette):
        raise ConfigurationError(f"{place} is not an application there")
    return app


def _named(module: str, path: str) -> Any:
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


if __name__ == "__main__":
    main()
