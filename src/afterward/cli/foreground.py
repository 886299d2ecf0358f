"""`afterward run`: one job in this process, with its output on the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pdb  # noqa: T100 - it is what --pdb asks for
import signal
import sys
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from afterward.app import Afterward
from afterward.cli.exits import DONE, FAILURE
from afterward.cli.output import data_of
from afterward.cli.reading import found_in
from afterward.cli.target import Program, load
from afterward.cli.telling import say
from afterward.cli.wishes import Wishes, ctrl_c_breaks_in
from afterward.engine.foreground import Foreground
from afterward.errors import AfterwardError, StoreUnavailable
from afterward.job import Cancelled, Died, Failed, Job, Lease, Outcome, Released, Retry, Succeeded
from afterward.lifespans import begin
from afterward.states import span, summary, why_not


def run_here(target: str, id: str, *, early: bool, debug: bool) -> int:  # noqa: A002 - it is the job's
    """Run the job of this id, of what `target` names; the exit code. `early`: also before it is due."""
    return asyncio.run(_run(load(target), id, early=early, debug=debug))


async def _run(program: Program, id: str, *, early: bool, debug: bool) -> int:  # noqa: A002 - as above
    foreign: AfterwardError | None = None
    unknown: AfterwardError | None = None
    for afterward in program.afterwards:
        afterward.check()
        async with AsyncExitStack() as living:
            await living.enter_async_context(afterward.running(None))
            try:
                await afterward.get(id)  # it opens the store, or says why that cannot be
                job = await found_in(afterward.store, id)
            except AfterwardError as error:
                unknown = unknown or error
                continue
            if job.task not in afterward.tasks:  # another Afterward of the program may live in the same store
                foreign = _refusal(job, f"its task {job.task} is not known here; known are {_known(program)}")
                continue
            reason = why_not_now(job, datetime.now(UTC), early=early)
            if reason is not None:
                raise _refusal(job, reason)
            for app in program.apps:
                await begin(app, living)
            code, left_behind = await _attempt(afterward, job, debug=debug)
        if left_behind:
            _exit(code)
        return code
    raise foreign or unknown or AfterwardError(f"there is no job {id}")


def _known(program: Program) -> str:
    return ", ".join(sorted(name for afterward in program.afterwards for name in afterward.tasks))


def _refusal(job: Job, reason: str) -> AfterwardError:
    return AfterwardError(f"job {job.id} cannot be run here: {reason}")


def _exit(code: int) -> None:
    """At once: what does not heed its cancellation must not keep the process."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


async def _attempt(afterward: Afterward, job: Job, *, debug: bool) -> tuple[int, bool]:
    """One attempt; the exit code, and whether something of it is still running."""
    foreground = afterward.foreground()
    with _interruptions(foreground):
        lease = await foreground.claim(job)
        if lease is None:
            raise _refusal(
                job,
                "somebody else has just taken it; stop the workers, or add one that is due later "
                "(afterward enqueue --delay 1h) and run it with --now",
            )
        outcome: Outcome | None = Released("interrupted in the foreground")
        is_told = False
        try:
            say(f"running job {lease.id} of {lease.task}, attempt {lease.attempt}; Ctrl-C releases it")
            outcome = await foreground.run(lease)
            if debug and isinstance(outcome, Failed | Retry):
                is_told = True
                _tell(outcome)
                _debug(foreground.error)
        finally:  # whatever breaks in here: how the attempt has ended is written before anything else is done
            written = outcome is not None and await _finish(foreground, lease, _in_its_time(outcome, job))
        if outcome is not None and not is_told:
            _tell(outcome)
        return _code_of(outcome, written=written), foreground.is_left_behind or outcome is None


async def _finish(foreground: Foreground, lease: Lease, outcome: Outcome) -> bool:
    def unavailable(error: StoreUnavailable) -> None:
        say(f"how it ended is not stored yet: {error}; tried again until it is, or Ctrl-C leaves the job to others")

    return await foreground.finish(lease, outcome, unavailable)


def _code_of(outcome: Outcome | None, *, written: bool) -> int:
    if outcome is None:
        say("the job was lost: this process stood still for so long that another has the job by now")
    elif not written:
        say("this was not written: another process has the job by now")
    return DONE if written and isinstance(outcome, Succeeded) else FAILURE


def why_not_now(job: Job, now: datetime, *, early: bool) -> str | None:
    """Why this job cannot be run by hand now, and the mend; None when it can."""
    return why_not("run", job) or _why_not_yet(job, now, early=early)


def _why_not_yet(job: Job, now: datetime, *, early: bool) -> str | None:
    if job.process is not None:
        return "it is held by the request that added it; wait for the end of that"
    if job.handed_at is not None:
        return f"it is with Celery; to have it back, as another attempt: afterward hasten {job.id}"
    if job.expires_at is not None and job.expires_at <= now:
        return "it has expired"
    if job.run_at > now and not early:
        return f"it is due in {span(job.run_at - now)}; run it before that with --now"
    return None


def _in_its_time(outcome: Outcome, job: Job) -> Outcome:
    """One that is released is due again when it was due, also when it was run before that."""
    if isinstance(outcome, Released) and not outcome.delay:
        wait = (job.run_at - datetime.now(UTC)).total_seconds()
        return replace(outcome, delay=max(0.0, wait))
    return outcome


def _tell(outcome: Outcome) -> None:
    match outcome:
        case Succeeded():
            say("succeeded")
            if outcome.result is not None:
                with contextlib.suppress(OSError, ValueError):  # as with what is said
                    print(data_of(outcome.result), flush=True)
        case Failed() | Died():
            say(f"{outcome.failure.traceback}failed for good: {summary(outcome.failure)}")
        case Retry():
            say(f"{outcome.failure.traceback}failed: {summary(outcome.failure)}; tried again in {outcome.delay:.0f} s")
        case Cancelled():
            say(outcome.note)
        case Released():
            say(f"released at no cost: {outcome.note}")


def _debug(error: BaseException | None) -> None:
    if error is not None and error.__traceback__ is not None:
        with ctrl_c_breaks_in():
            pdb.post_mortem(error.__traceback__)


@contextmanager
def _interruptions(foreground: Foreground) -> Generator[None]:
    """Ctrl-C and SIGTERM release the job; a second one breaks into what blocks the event loop."""
    loop = asyncio.get_running_loop()
    wishes = Wishes()
    is_heard = False

    def hear(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_heard
        if not wishes.is_another():
            return
        loop.call_soon_threadsafe(foreground.interrupt)
        if is_heard and foreground.is_running:
            raise KeyboardInterrupt
        is_heard = True

    before: dict[int, Any] = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            # Once it was heeded, nothing is left to be interrupted: this process is about to end.
            signal.signal(number, signal.SIG_IGN if is_heard else handler)
