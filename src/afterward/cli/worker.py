"""One worker process."""

from __future__ import annotations

import asyncio
import logging

from afterward.app import Afterward
from afterward.cli import logs
from afterward.cli.control import Control
from afterward.cli.target import load
from afterward.engine.worker import WorkerOptions
from afterward.observe import emit


def work(target: str, options: WorkerOptions, *, supervised: bool) -> int:
    """Run the jobs of what `target` names until this process is told to end; the exit code."""
    control = Control(options.grace, supervised=supervised)
    control.listen()
    code = 1
    try:
        afterwards = load(target)
        logs.configure()
        asyncio.run(_work(afterwards, options, control))
        code = 0
    finally:
        control.done(code)
    return code


async def _work(afterwards: list[Afterward], options: WorkerOptions, control: Control) -> None:
    stopping = control.attach()
    try:
        async with asyncio.TaskGroup() as group:
            for afterward in afterwards:
                group.create_task(_serve(afterward, options, stopping))
    except asyncio.CancelledError:
        if not control.hurried:
            raise
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    emit(logging.INFO, "worker.stopped")
    control.done(0)  # here, for the end of the loop waits for tasks and threads that heed nothing


async def _serve(afterward: Afterward, options: WorkerOptions, stopping: asyncio.Event) -> None:
    async with afterward.running(options):
        queues = None if options.queues is None else ",".join(options.queues)
        emit(logging.INFO, "worker.started", tasks=len(afterward.tasks), queues=queues)
        await stopping.wait()
