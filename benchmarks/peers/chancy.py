"""chancy, on psycopg 3.

- `Chancy.Executor.Async` is its way to run `async def` jobs on the worker's loop. It claims as many as it may run at
  once: a hundred by default, but a thousand was the fastest of 100, 500, 1,000 and 3,000 that does not claim a third.
- `eager_polling`: without it a worker whose queue is not pushed to looks for more only every five seconds.
- Its pool has up to ten connections, as it has by default.
- How jobs ended is written once a second, as it is by default; so the last ones are late.
- Ended jobs stay in the table for a day, as they do by default.
"""

import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from chancy import Chancy, Queue, Worker, job
from fastapi import FastAPI

from benchmarks.peers import starts

WORKS_ON_UVLOOP = False
CONCURRENCY = 1_000

chancy = Chancy(os.environ["PEERS_URL"], log=logging.getLogger("chancy"))


@job(queue="jobs")
async def noop(*, email: str) -> None:
    starts.note(email)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
    async with chancy:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/jobs", status_code=202)
async def add() -> dict[str, str]:
    await chancy.push(noop.job.with_kwargs(email="someone@example.org"))
    return {"message": "Notification sent in the background"}


async def create() -> None:
    async with chancy:
        await chancy.migrate()
        await chancy.declare(Queue("jobs", concurrency=CONCURRENCY, executor=Chancy.Executor.Async, eager_polling=True))


async def fill(emails: Sequence[str]) -> None:
    async with chancy:
        async for _ in chancy.push_many([noop.job.with_kwargs(email=email) for email in emails]):
            pass


@asynccontextmanager
async def enqueueing() -> AsyncGenerator[Callable[[str], Awaitable[Any]]]:
    async with chancy:
        yield lambda email: chancy.push(noop.job.with_kwargs(email=email))


async def work(told_to_go: Callable[[], Awaitable[None]]) -> None:
    async with chancy:
        await told_to_go()
        async with Worker(chancy) as worker:
            await worker.wait_for_shutdown()
