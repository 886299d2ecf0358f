"""afterward itself, with the options that `afterward worker` and `tasks.install(app)` have by default, on
the loop that the command takes where it is installed.

Its app adds the job as the guide does, by `add_task`; the client enqueues without a request.
"""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from afterward import Afterward, BackgroundTasks
from afterward.engine.worker import WorkerOptions
from benchmarks.peers import starts

WORKS_ON_UVLOOP = True

app = FastAPI()
tasks = Afterward(os.environ["PEERS_URL"])
tasks.install(app, worker=False)


@tasks.task
async def noop(email: str) -> None:
    starts.note(email)


@app.post("/jobs", status_code=202)
async def add(background_tasks: BackgroundTasks) -> dict[str, str]:
    background_tasks.add_task(noop, "someone@example.org")
    return {"message": "Notification sent in the background"}


async def create() -> None:
    async with tasks.running(None):
        pass


async def fill(emails: Sequence[str]) -> None:
    async with tasks.running(None):
        await tasks.enqueue_many(noop.prepare(email) for email in emails)


@asynccontextmanager
async def enqueueing() -> AsyncGenerator[Callable[[str], Awaitable[Any]]]:
    async with tasks.running(None):
        yield noop.enqueue


async def work(told_to_go: Callable[[], Awaitable[None]]) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with tasks.running(None):
        await told_to_go()
        async with tasks.running(WorkerOptions()):
            await ended.wait()
