"""One worker process."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack

from afterward.app import Afterward
from afterward.cli import logs
from afterward.cli.control import Control
from afterward.cli.target import Program, load
from afterward.engine.worker import WorkerOptions
from afterward.lifespans import begin
from afterward.loops import loop_factory
from afterward.observe import emit


def work(target: str, options: WorkerOptions, *, supervised: bool) -> int:
    """Run the jobs of what `target` names until this process is told to end; the exit code."""
    control = Control(options.grace, supervised=supervised)
    control.listen()
    code = 1
    try:
        program = load(target)
        logs.configure()
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_work(program, options, control))
        code = 0
    finally:
        control.done(code)
    return code


async def _work(program: Program, options: WorkerOptions, control: Control) -> None:
    with control.attached() as stopping:
        await _work_until(stopping, program, options, control)
    emit(logging.INFO, "worker.stopped")
    control.done(0)  # here, for the end of the loop waits for tasks and threads that heed nothing


async def _work_until(stopping: asyncio.Event, program: Program, options: WorkerOptions, control: Control) -> None:
    for afterward in program.afterwards:
        afterward.check()
    async with AsyncExitStack() as lifespans:
        try:
            for app in program.apps:
                await begin(app, lifespans)
            await _serve_all(program.afterwards, options, stopping)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if not control.hurried or current is None:
                raise
            current.uncancel()  # it has been heeded; the lifespans end as they are written


async def _serve_all(afterwards: list[Afterward], options: WorkerOptions, stopping: asyncio.Event) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for afterward in afterwards:
                group.create_task(_serve(afterward, options, stopping))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _serve(afterward: Afterward, options: WorkerOptions, stopping: asyncio.Event) -> None:
    async with afterward.running(options):
        queues = None if options.queues is None else ",".join(options.queues)
        emit(logging.INFO, "worker.started", tasks=len(afterward.tasks), queues=queues)
        await stopping.wait()
