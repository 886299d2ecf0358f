"""The inside of a child process: orders on standard input, what attempts say and how they end on standard output."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import FrameType
from typing import Any, BinaryIO, NamedTuple, cast

from starlette.applications import Starlette

from afterward.apps import lifespan_of
from afterward.context import RunningJob
from afterward.engine.childvoice import ChildVoice
from afterward.engine.endings import Endings
from afterward.engine.executor import CANCELLED, Executor, failure_of
from afterward.engine.files import receive, received
from afterward.engine.lifeline import end_all, end_with
from afterward.engine.lines import captured
from afterward.engine.orders import END, LEAVES, READY, Answer, Order, line_of, order_in
from afterward.engine.threads import Threads
from afterward.errors import AttemptTimedOut, ConfigurationError, StoreError, TaskError, kind_of
from afterward.job import Failed, Outcome, Released, Retry
from afterward.life import Life
from afterward.task import Owner, Task

_SHUTDOWN_SECONDS = 1.0
"""What the lifespans that tasks asked for get to end in; its parent waits a little longer."""

_TIMED_OUT = kind_of(AttemptTimedOut)


def main() -> None:
    """Run what is ordered, until it is told to end. What functions print goes to standard error."""
    orders, answers = _take_standard_streams()
    for number in (signal.SIGINT, signal.SIGTERM):
        # A terminal and a service manager signal all processes: whether this one ends is for its parent to say.
        # A handler, not SIG_IGN, which what the function starts would inherit.
        signal.signal(number, _leave_it_to_the_parent)
    with captured():
        asyncio.run(_serve(orders, answers))
    sys.stderr.flush()
    os._exit(0)  # at once: threads that functions left behind must not keep it


def _take_standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """The parent's ends of standard input and output, for us alone: functions, and what they start, find others."""
    orders = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return orders, answers


def _leave_it_to_the_parent(_number: int, _frame: FrameType | None) -> None:
    """What a signal does here: nothing."""


class _Ordered(NamedTuple):
    """An order, with what came with it."""

    order: Order
    voice: ChildVoice
    files: Mapping[str, BinaryIO | None]


async def _serve(stream: BinaryIO, answers: BinaryIO) -> None:
    orders = _Orders(stream, answers)
    threading.Thread(target=orders.listen, daemon=True).start()
    async with AsyncExitStack() as exits:
        child = _Child(answers)
        exits.push_async_callback(child.leave)
        while (ordered := await orders.next()) is not None:
            await child.run(ordered)


class _Orders:
    """What the parent says, heard in a thread. When it is gone, so is this process."""

    def __init__(self, stream: BinaryIO, answers: BinaryIO) -> None:
        self._stream = stream
        self._answers = answers
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[_Ordered | None] = asyncio.Queue()
        self.next = self._queue.get

    def listen(self) -> None:
        """Until the parent is gone."""
        voice: ChildVoice | None = None
        try:
            while line := self._stream.readline().rstrip():
                if line == END:
                    self._put(None)
                elif line.startswith(b"{"):
                    order = order_in(line)
                    voice = ChildVoice(self._answers, _job_of(order), order.log_level)  # what comes next, it hears
                    files = {file: receive(self._stream) for file in order.files}
                    self._put(_Ordered(order, voice, files))
                elif voice is not None:
                    voice.hear(line)
        finally:
            end_all()

    def _put(self, ordered: _Ordered | None) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, ordered)


def _job_of(order: Order) -> RunningJob:
    return RunningJob(order.lease.id, order.lease.task, order.lease.attempt)


class _Child:
    """Runs one attempt after the other. Lifespans that their tasks ask for begin once, and last as long as it does."""

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._lifespans = AsyncExitStack()
        self._living: set[str] = set()
        self._sys_path: list[str] = []

    async def run(self, ordered: _Ordered) -> None:
        """One attempt, to its answer."""
        voice = ordered.voice
        try:
            task = await self._load(ordered.order)
        except Exception as error:  # noqa: BLE001 - whatever the import of a user's module, or a lifespan, raises
            voice.tell(READY)
            answer = Answer(
                Released(f"no child process could load it: {failure_of(error).message}", 60.0), is_spent=True
            )
        else:
            voice.tell(READY)
            answer = await _answered(task, ordered)
        voice.close(line_of(answer))
        for file in ordered.files.values():
            if file is not None:
                file.close()

    async def _load(self, order: Order) -> Task[..., Any]:
        if order.sys_path != self._sys_path:
            self._sys_path = [*order.sys_path]
            sys.path[:] = order.sys_path
        task = _find(order.module, order.path)
        for place in order.apps:
            if place not in self._living:
                await self._lifespans.enter_async_context(lifespan_of(_app(place)))
                self._living.add(place)
        return task

    async def leave(self) -> None:
        """Answers stand: a shutdown that fails, or does not end, changes nothing in them."""
        try:
            async with asyncio.timeout(_SHUTDOWN_SECONDS):
                await self._lifespans.aclose()
        except Exception:  # noqa: BLE001 - whatever a lifespan raises
            traceback.print_exc()


async def _answered(task: Task[..., Any], ordered: _Ordered) -> Answer:
    lease, voice = ordered.order.lease, ordered.voice
    try:
        endings = await _endings(task.owner, voice)
    except StoreError as error:
        return Answer(Released(f"the store could not be opened in a child process: {error}", 10.0))
    threads = Threads()
    executor = Executor(threads, task.owner.restore_context, received(ordered.files), endings=endings)
    attempt = asyncio.create_task(executor.run(task, lease, voice))
    if task.is_async:
        loop = asyncio.get_running_loop()
        voice.stop_by(lambda: loop.call_soon_threadsafe(attempt.cancel))
    try:
        outcome = await attempt
    except asyncio.CancelledError:  # before its first step
        outcome = CANCELLED
    is_busy = threads.when_returned((lease.id, lease.attempt), lambda: None)
    threads.stop()  # what is left behind waits for no thread of this process
    return Answer(outcome, is_busy or voice.is_asked or _has_timed_out(outcome), is_busy)


def _has_timed_out(outcome: Outcome) -> bool:
    return isinstance(outcome, Failed | Retry) and outcome.failure.kind == _TIMED_OUT


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
    for inherited in sys.argv[1:]:
        end_with(int(inherited))
    main()
