"""What a person revokes by Celery's own means: its job is cancelled.

Celery tells of it in the main process of its worker. Where that forks others, nothing of ours may begin in it, neither
a connection nor a thread that works: then a process is started for this alone.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import subprocess
import sys
import threading
from typing import Any, cast

from afterward.celery.host import Hosted
from afterward.celery.pools import host, is_run_here
from afterward.errors import StoreError
from afterward.job import TERMINAL
from afterward.observe import emit
from afterward.stores.handing import Start
from afterward.task import Task

_TRIES = 10
_PAUSE_SECONDS = 3.0


def cancel_revoked(hosted: Hosted, task: str, start: Start, *, has_begun: bool) -> None:
    """Have the job cancelled whose message was revoked, and wait for nothing."""
    if is_run_here():
        host().spawn(_cancel(hosted, start, has_begun=has_begun))
    else:
        order = (hosted.tasks[task].name_in_code, start, has_begun)
        threading.Thread(target=_cancel_aside, args=order, daemon=True).start()


async def _cancel(hosted: Hosted, start: Start, *, has_begun: bool) -> None:
    """One whose attempt had begun may be at the next by now: its process was ended, and has been found dead.

    Of one that had not, a message of an attempt that is over means nothing.
    """
    for _ in range(_TRIES):
        try:
            job = await hosted.get(start.id)
            if job is not None and job.status not in TERMINAL and (has_begun or job.attempt == start.attempt):
                ruling = await hosted.cancel(start.id)
                emit(logging.INFO, "job.revoked", job_id=start.id, attempt=start.attempt, ruling=ruling)
        except StoreError as error:
            emit(logging.WARNING, "job.not_revoked", job_id=start.id, reason=str(error), retry_in=_PAUSE_SECONDS)
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            return


def _cancel_aside(place: str, start: Start, has_begun: bool) -> None:
    """In a thread that only waits: what is forked meanwhile misses nothing by it."""
    order = json.dumps([sys.path, place, start, has_begun])
    done = subprocess.run([sys.executable, "-m", __name__], input=order, text=True, check=False)  # noqa: S603 - ourselves
    if done.returncode:
        reason = f"the process that was to cancel it ended with {done.returncode}"
        emit(logging.ERROR, "job.not_revoked", job_id=start.id, reason=reason)


async def _cancel_here(place: str, start: Start, *, has_begun: bool) -> None:
    module, _, path = place.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    hosted = cast("Hosted", cast("Task[..., Any]", found).owner)
    try:
        await _cancel(hosted, start, has_begun=has_begun)
    finally:
        await hosted.life.liveness.stop()


def _main() -> None:
    paths, place, start, has_begun = json.load(sys.stdin)
    sys.path[:] = paths
    logging.basicConfig(level=logging.INFO)
    asyncio.run(_cancel_here(place, Start(*start), has_begun=has_begun))


if __name__ == "__main__":
    _main()
