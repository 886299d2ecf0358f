"""Call one function, in the loop or in a thread, and say how it ended."""

from __future__ import annotations

import asyncio
import os
import random
import traceback
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import Any, cast

from afterward.context import VOICE, Voice
from afterward.ending import ENDING
from afterward.engine.endings import AttemptEnding, Endings
from afterward.engine.files import Chunks, WhenReturned, given
from afterward.engine.provider import Deadline, Provider
from afterward.engine.threads import Threads
from afterward.errors import (
    ArgumentsDoNotFit,
    AttemptTimedOut,
    FileLost,
    NotCommitted,
    ResultError,
    StoreError,
    TaskCancelled,
    kind_of,
)
from afterward.job import Cancelled, Failed, Failure, Lease, Outcome, Released, Succeeded
from afterward.retry import after_failure
from afterward.signatures import Place, signature_of
from afterward.task import Task
from afterward.text import storable

_MAX_MESSAGE = 2_000
_MAX_TRACEBACK = 16_000
_LONGEST_UNFIT_DELAY = 60.0
_CANCEL_SECONDS = 0.5
_NOTHING = Succeeded(None)

CANCELLED = Cancelled("cancelled while running")
_OURS = f"{Path(__file__).parents[1]}{os.sep}"

Hear = Callable[[Lease, BaseException], None]
"""Called with the exception that an attempt ends in, before it becomes text."""


def _unfit_delay(attempt: int) -> float:
    """Soon at first, for another version may be there to take the job; two that it does not fit must not play ball."""
    return min(_LONGEST_UNFIT_DELAY, 0.1 * 2.0 ** min(attempt, 16))


class Executor:
    """Runs attempts. `restore` sets the context variables stored with a job, `chunks` has the content of its files.

    `hear` is told of errors. `endings`: for attempts that end themselves, where the store can be joined.
    """

    def __init__(
        self,
        threads: Threads,
        restore: Callable[[str], None],
        chunks: Chunks,
        hear: Hear | None = None,
        endings: Endings | None = None,
    ) -> None:
        self._threads = threads
        self._provider = Provider(threads)
        self._restore = restore
        self._chunks = chunks
        self._hear = hear
        self._endings = endings

    def run(self, task: Task[..., Any], lease: Lease, voice: Voice) -> Coroutine[Any, Any, Outcome]:
        """One attempt, which speaks by `voice`. Must be awaited in a context of its own.

        Raises only `CancelledError`, when it is cancelled and no person has asked it to end.
        """
        if self._endings is not None:
            return self._run_with_ending(task, lease, voice, AttemptEnding(self._endings, task, lease, voice))
        return self._run_with_files(task, lease, voice) if task.arguments.take_files else self._run(task, lease, voice)

    async def _run_with_ending(
        self, task: Task[..., Any], lease: Lease, voice: Voice, ending: AttemptEnding
    ) -> Outcome:
        ENDING.set(ending)
        run = self._run_with_files if task.arguments.take_files else self._run
        outcome = await run(task, lease, voice)
        try:
            return await ending.settled(outcome)
        except NotCommitted as error:
            return self._outcome_of(error, task, lease, voice)

    async def _run_with_files(self, task: Task[..., Any], lease: Lease, voice: Voice) -> Outcome:
        try:
            args, kwargs = task.arguments.load(lease.arguments)
            async with given(args, kwargs, self._chunks, self._when_returned(lease)) as (with_files, by_name, files):
                outcome = await self._run(task, lease, voice, (with_files, by_name))
        except ArgumentsDoNotFit as misfit:
            return _unfit(misfit, task, lease)
        except FileLost as lost:
            self._tell(lost, lease)
            return Failed(failure_of(lost, task.name))
        except (StoreError, OSError) as error:  # a disk is full, say: no doing of the job's
            return Released(f"its files could not be had: {error}", _unfit_delay(lease.attempt))
        return replace(outcome, files=files) if isinstance(outcome, Succeeded) else outcome

    async def _run(
        self,
        task: Task[..., Any],
        lease: Lease,
        voice: Voice,
        call: tuple[tuple[Any, ...], dict[str, Any]] | None = None,
    ) -> Outcome:
        try:
            args, kwargs = task.arguments.load(lease.arguments) if call is None else call
        except ArgumentsDoNotFit as misfit:
            return _unfit(misfit, task, lease)
        VOICE.set(voice)
        try:
            if lease.context is not None:
                self._restore(lease.context)
            timeout = task.task_options.timeout if lease.timeout is None else lease.timeout
            if timeout is None and task.is_async and not task.dependencies:
                result = await task.body(*args, **kwargs)
                stored = None if result is None else task.result.dump(result)
            elif timeout is None:
                stored = await self._call(task, args, kwargs)
            else:
                stored = await self._call_within(timeout, voice, task, args, kwargs)
            return _NOTHING if stored is None else Succeeded(stored)
        except ResultError as error:
            self._tell(error, lease)
            return Failed(failure_of(error, task.name))
        except asyncio.CancelledError as error:
            current = asyncio.current_task()
            if not voice.is_asked and current is not None and current.cancelling():
                raise  # from outside: who has cancelled it knows what that means
            return self._outcome_of(error, task, lease, voice)
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt too: a task never ends its worker
            return self._outcome_of(error, task, lease, voice)

    def _when_returned(self, lease: Lease) -> WhenReturned:
        return lambda callback: self._threads.when_returned((lease.id, lease.attempt), callback)

    def _outcome_of(self, error: BaseException, task: Task[..., Any], lease: Lease, voice: Voice) -> Outcome:
        if voice.is_asked and _is_cancellation(error):
            return CANCELLED
        self._tell(error, lease)
        return outcome_of(error, task, lease)

    def _tell(self, error: BaseException, lease: Lease) -> None:
        if self._hear is not None:
            self._hear(lease, error)

    async def _call(
        self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], deadline: Deadline | None = None
    ) -> str | None:
        """What the function returned, as it is to be stored."""
        if task.dependencies:
            return await self._provider.run(task, args, kwargs, deadline or Deadline())
        if task.is_async:
            return task.result.dump(await task.body(*args, **kwargs))
        job = VOICE.get().job
        result, error = await self._threads.call((job.id, job.attempt), copy_context(), task.body, args, kwargs)
        if error is not None:
            raise error
        return task.result.dump(result)

    async def _call_within(
        self, timeout: float, voice: Voice, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> str | None:
        """In a task of its own: one that does not heed its cancellation is left behind, and not heard any more."""
        deadline = Deadline()
        call = asyncio.ensure_future(self._call_caught(task, args, kwargs, deadline))
        try:
            await _wait_for(call, timeout, voice)
        except asyncio.CancelledError:
            deadline.has_passed = True
            await _cancel(call)
            raise
        if call.done():
            stored, error = call.result()
            if error is not None:
                raise error
            return stored
        deadline.has_passed = True
        await _cancel(call)
        raise AttemptTimedOut(f"the attempt took longer than its timeout of {timeout:g} s")

    async def _call_caught(
        self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], deadline: Deadline
    ) -> tuple[str | None, BaseException | None]:
        """What it returned, and what it raised: a `SystemExit` that leaves an asyncio task ends the loop."""
        try:
            return await self._call(task, args, kwargs, deadline), None
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - who waits for it raises it; of one left behind nobody hears
            return None, error


def _unfit(misfit: ArgumentsDoNotFit, task: Task[..., Any], lease: Lease) -> Released:
    return Released(str(misfit), _unfit_delay(lease.attempt), task.arguments.fingerprint)


async def _wait_for(call: asyncio.Future[Any], timeout: float, voice: Voice) -> None:
    """Until it has ended, or its time is up. That a person asks it to end is passed on: how it ends is still heard."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + timeout
    while not call.done() and (left := ends - loop.time()) > 0:
        try:
            await asyncio.wait({call}, timeout=left)
        except asyncio.CancelledError:
            if not voice.is_asked:
                raise
            call.cancel()


async def _cancel(call: asyncio.Future[Any]) -> None:
    call.cancel()
    await asyncio.wait({call}, timeout=_CANCEL_SECONDS)


def _is_cancellation(error: BaseException) -> bool:
    """Did it end for it was asked to? A group of errors did, when all of them did."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return all(_is_cancellation(one) for one in group.exceptions)
    return isinstance(error, TaskCancelled | asyncio.CancelledError)


def outcome_of(error: BaseException, task: Task[..., Any], lease: Lease) -> Outcome:
    """What becomes of an attempt that raised `error`."""
    policy = task.task_options.retry
    return after_failure(error, failure_of(error, task.name), lease.failures, policy, jitter, lease.max_attempts)


def jitter() -> float:
    """A number from 0 to 1, for back-off."""
    return random.random()  # noqa: S311 - it spreads load, it hides nothing


def failure_of(error: BaseException, task: str = "") -> Failure:
    """An exception as text: bounded, and without the frames of this library that led to it. `task`: that raised it."""
    message = _text_of(error)
    try:
        lines = "".join(traceback.format_exception(type(error), error, _without_ours(error.__traceback__)))
    except Exception:  # noqa: BLE001 - as above, from within the formatting
        lines = ""
    message = storable(message)[:_MAX_MESSAGE]
    return Failure(kind_of(type(error)), message, storable(lines)[-_MAX_TRACEBACK:], _signature(error, message, task))


def _signature(error: BaseException, message: str, task: str) -> str:
    """Of a group, that of the first error in it: the group's own message counts them, and says nothing of why."""
    frames = list(walk_tb(error.__traceback__))
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseException", error.exceptions[0])
        frames += walk_tb(error.__traceback__)
        message = _text_of(error)
    places = [Place(frame.f_code.co_filename, frame.f_code.co_qualname) for frame, _ in frames]
    return signature_of(kind_of(type(error)), message, places, task)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as unprintable:  # noqa: BLE001 - a user's __str__ may raise anything
        return f"<its text could not be had: {type(unprintable).__name__}>"


def _without_ours(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OURS):
        frames = frames.tb_next
    return frames
