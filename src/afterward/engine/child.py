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
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import FrameType
from typing import Any, BinaryIO, cast

from starlette.applications import Starlette

from afterward.apps import lifespan_of
from afterward.context import RunningJob
from afterward.engine.endings import Endings
from afterward.engine.executor import CANCELLED, Executor, failure_of
from afterward.engine.files import receive, received
from afterward.engine.lines import captured
from afterward.engine.process import ASKED, LEAVES, SETTLED, SETTLES, UNSETTLED
from afterward.engine.threads import Threads
from afterward.errors import ConfigurationError, StoreError, StoreUnavailable, TaskError
from afterward.job import EventKind, Lease, Outcome, Released
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
    job = RunningJob(order["id"], order["task"], order["attempt"])
    voice = ChildVoice(answer, job, order["log_level"])
    threading.Thread(target=_listen, args=(voice,), daemon=True).start()
    sys.path[:] = order["sys_path"]
    with captured():
        outcome = asyncio.run(_run(order, answer, files, voice))
    answer.write(json.dumps({"outcome": type(outcome).__name__, "values": dataclasses.asdict(outcome)}).encode())
    answer.flush()
    sys.stderr.flush()
    os._exit(0)  # at once: threads that the function left behind must not keep the attempt open


def _leave_it_to_the_parent(_number: int, _frame: FrameType | None) -> None:
    """What a signal does here: nothing."""


def _listen(voice: ChildVoice) -> None:
    """To its parent, and die with it."""
    for line in sys.stdin.buffer:
        voice.hear(line.rstrip())
    os._exit(1)


class ChildVoice:
    """Tells the parent what the attempt says; held back while that has no room for more."""

    def __init__(self, answer: BinaryIO, job: RunningJob, log_level: int | None) -> None:
        self.job = job
        self._answer = answer
        self._log_level = log_level
        self._mutex = threading.RLock()
        self._settled = threading.Event()
        self._unsettled = ""
        self._stop: Callable[[], object] | None = None
        self.is_asked = False

    @property
    def is_to_end(self) -> bool:
        return self.is_asked

    def takes_line(self, level: int) -> bool:
        return self._log_level is not None and level >= self._log_level

    def say(self, kind: EventKind, data: str) -> None:
        self.tell(json.dumps([kind, data]).encode())

    async def give(self, kind: EventKind, data: str) -> None:
        self.say(kind, data)
        await asyncio.sleep(0)

    async def settle(self) -> None:
        await asyncio.to_thread(self.settle_sync)

    def settle_sync(self) -> None:
        self.tell(SETTLES)
        self._settled.wait()
        self._settled.clear()
        if self._unsettled:
            raise StoreUnavailable(self._unsettled)

    def tell(self, line: bytes) -> None:
        """One line, for the parent."""
        with self._mutex:
            self._answer.write(line + b"\n")
            self._answer.flush()

    def hear(self, line: bytes) -> None:
        """One line of the parent's; not in the loop."""
        if line == SETTLED or line.startswith(UNSETTLED):
            self._unsettled = line.removeprefix(SETTLED).removeprefix(UNSETTLED).decode()
            self._settled.set()
        elif line == ASKED:
            with self._mutex:
                self.is_asked = True
                stop = self._stop
            if stop is not None:
                stop()

    def stop_by(self, stop: Callable[[], object]) -> None:
        """When it is asked to end, this is called; from any thread."""
        with self._mutex:
            self._stop = stop
        if self.is_asked:
            stop()


async def _run(
    order: dict[str, Any], answer: BinaryIO, files: dict[str, BinaryIO | None], voice: ChildVoice
) -> Outcome:
    lifespans = AsyncExitStack()
    try:
        task = _find(order["module"], order["path"])
        for place in order["apps"]:
            await lifespans.enter_async_context(lifespan_of(_app(place)))
    except Exception as error:  # noqa: BLE001 - whatever the import of a user's module, or a lifespan, raises
        answer.write(b"ready\n")
        outcome: Outcome = Released(f"no child process could load it: {failure_of(error).message}", 60.0)
    else:
        outcome = await _attempt(task, order, answer, files, voice)
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
    task: Task[..., Any],
    order: dict[str, Any],
    answer: BinaryIO,
    files: dict[str, BinaryIO | None],
    voice: ChildVoice,
) -> Outcome:
    lease = Lease(
        order["id"], order["attempt"], order["process"], order["task"], order["arguments"], order["context"],
        order["failures"], order["deaths"], order["max_attempts"], order["timeout"],
    )  # fmt: skip
    answer.write(b"ready\n")
    answer.flush()
    try:
        endings = await _endings(task.owner, voice)
    except StoreError as error:
        return Released(f"the store could not be opened in a child process: {error}", 10.0)
    threads = Threads()
    try:
        executor = Executor(threads, task.owner.restore_context, received(files), endings=endings)
        attempt = asyncio.create_task(executor.run(task, lease, voice))
        if task.is_async:
            loop = asyncio.get_running_loop()
            voice.stop_by(lambda: loop.call_soon_threadsafe(attempt.cancel))
        return await attempt
    except asyncio.CancelledError:  # before its first step
        return CANCELLED
    finally:
        threads.stop()  # what is left behind waits for no thread of this process


async def _endings(owner: Owner, voice: ChildVoice) -> Endings | None:
    """For a function that ends its attempt by itself: its parent, who holds that, is told before."""
    life: Life = cast("Any", owner).life

    if life.store.joins is None:
        return None
    await life.store.open(migrate=False)
    return Endings(life.intake.host, life.store, lambda _: voice.tell(LEAVES))


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
