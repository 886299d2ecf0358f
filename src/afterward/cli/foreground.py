"""`afterward run`: one job in this process, with its output on the terminal."""

from __future__ import annotations

import asyncio
import json
import os
import pdb  # noqa: T100 - it is what --pdb asks for
import signal
import sys
import time
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from starlette.applications import Starlette

from afterward.app import Afterward
from afterward.cli.control import SAME_SIGNAL_SECONDS
from afterward.cli.exits import DONE, FAILURE
from afterward.cli.lifespans import begin
from afterward.cli.output import printable
from afterward.cli.reading import found_in
from afterward.cli.redaction import shown
from afterward.cli.states import span, summary
from afterward.cli.target import apps_of, load
from afterward.engine.foreground import Foreground
from afterward.errors import AfterwardError
from afterward.job import Died, Failed, Job, Lease, Outcome, Released, Retry, Status, Succeeded


def run_here(target: str, id: str, *, early: bool, debug: bool) -> int:  # noqa: A002 - it is the job's
    """Run the job of this id, of what `target` names; the exit code. `early`: also before it is due."""
    return asyncio.run(_run(load(target), apps_of(target), id, early=early, debug=debug))


async def _run(
    afterwards: list[Afterward],
    apps: list[Starlette],
    id: str,  # noqa: A002 - as above
    *,
    early: bool,
    debug: bool,
) -> int:
    unknown: AfterwardError | None = None
    for afterward in afterwards:
        afterward.check()
        async with AsyncExitStack() as living:
            await living.enter_async_context(afterward.running(None))
            try:
                await afterward.get(id)  # it opens the store, or says why that cannot be
                job = await found_in(afterward.store, id)
            except AfterwardError as error:
                unknown = unknown or error
                continue
            _refuse(job, afterward, early=early)
            for app in apps:
                await begin(app, living)
            code, left_behind = await _attempt(afterward, job, debug=debug)
        if left_behind:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # what does not heed its cancellation must not keep the process
        return code
    raise unknown or AfterwardError(f"there is no job {id}")


def _refuse(job: Job, afterward: Afterward, *, early: bool) -> None:
    reason = why_not(job, datetime.now(UTC), early=early)
    if reason is None and job.task not in afterward.tasks:
        reason = f"its task {job.task} is not known here; known are {', '.join(sorted(afterward.tasks))}"
    if reason is not None:
        raise AfterwardError(f"job {job.id} cannot be run here: {reason}")


async def _attempt(afterward: Afterward, job: Job, *, debug: bool) -> tuple[int, bool]:
    foreground = afterward.foreground()
    with _interruptions(foreground):
        lease = await foreground.claim(job)
        if lease is None:
            raise AfterwardError(
                f"job {job.id} cannot be run here: somebody else has just taken it; stop the workers, or add one that "
                f"is due later (afterward enqueue --delay 1h) and run it with --now"
            )
        _say(f"running job {lease.id} of {lease.task}, attempt {lease.attempt}; Ctrl-C releases it")
        try:
            outcome = await foreground.run(lease)
        except asyncio.CancelledError:  # an interruption has broken the event loop: all that is left to do is this
            await foreground.finish(lease, _in_its_time(Released("interrupted in the foreground"), job))
            raise
        return await _end(foreground, lease, outcome, job, debug=debug)


async def _end(
    foreground: Foreground, lease: Lease, outcome: Outcome | None, job: Job, *, debug: bool
) -> tuple[int, bool]:
    if outcome is None:
        _say("the job was lost: this process stood still for so long that another has the job by now")
        return FAILURE, True
    _tell(outcome)
    if debug and isinstance(outcome, Failed | Retry):
        _debug(foreground.error)
    if not await foreground.finish(lease, _in_its_time(outcome, job)):
        _say("this was not written: another process has the job by now")
        return FAILURE, foreground.is_left_behind
    return (DONE if isinstance(outcome, Succeeded) else FAILURE), foreground.is_left_behind


def why_not(job: Job, now: datetime, *, early: bool) -> str | None:
    """Why this job cannot be run by hand now, and the mend; None when it can."""
    match job.status:
        case Status.queued:
            return _why_not_yet(job, now, early=early)
        case Status.running:
            return "it is running already; wait for its end"
        case Status.succeeded:
            return "it has succeeded; to do it once more, add another: afterward enqueue"
        case _:
            return f"it is {job.status.value}; queue it again first: afterward retry {job.id}"


def _why_not_yet(job: Job, now: datetime, *, early: bool) -> str | None:
    if job.process is not None:
        return "it is held by the request that added it; wait for the end of that"
    if job.expires_at is not None and job.expires_at <= now:
        return "it has expired"
    if job.run_at > now and not early:
        return f"it is due in {span(job.run_at - now)}; run it before that with --now"
    return None


def _in_its_time(outcome: Outcome, job: Job) -> Outcome:
    """One that is released is due again when it was due, also when it was run before that."""
    if isinstance(outcome, Released) and not outcome.delay:
        wait = (job.run_at - datetime.now(UTC)).total_seconds()
        return Released(outcome.note, max(0.0, wait), outcome.unfit_for)
    return outcome


def _tell(outcome: Outcome) -> None:
    match outcome:
        case Succeeded():
            _say("succeeded")
            if outcome.result is not None:
                print(json.dumps(shown(outcome.result), indent=2, ensure_ascii=False))
        case Failed() | Died():
            _say(f"{outcome.failure.traceback}failed for good: {summary(outcome.failure)}")
        case Retry():
            _say(f"{outcome.failure.traceback}failed: {summary(outcome.failure)}; tried again in {outcome.delay:.0f} s")
        case Released():
            _say(f"released at no cost: {outcome.note}")


def _debug(error: BaseException | None) -> None:
    if error is None or error.__traceback__ is None:
        return
    ours, hears = signal.getsignal(signal.SIGINT), signal.default_int_handler
    signal.signal(signal.SIGINT, hears)
    try:
        pdb.post_mortem(error.__traceback__)
    finally:
        signal.signal(signal.SIGINT, ours)


@contextmanager
def _interruptions(foreground: Foreground) -> Generator[None]:
    """Ctrl-C and SIGTERM release the job; a second one breaks into what blocks the event loop."""
    loop = asyncio.get_running_loop()
    asked_at: float | None = None

    def hear(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked_at
        now = time.monotonic()
        if asked_at is None:
            asked_at = now
            loop.call_soon_threadsafe(foreground.interrupt)
        elif foreground.is_running and now > asked_at + SAME_SIGNAL_SECONDS:
            asked_at = now
            raise KeyboardInterrupt

    before: dict[int, Any] = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            # Once it was heeded, nothing is left to be interrupted: this process is about to end.
            signal.signal(number, handler if asked_at is None else signal.SIG_IGN)


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)
