"""SAQ, on psycopg 3.

- Its own benchmark and its examples run ten jobs at once, which is its default, on its default pool of 4 to 20
  connections. Neither 20 nor 100 at once were faster.
- An ended job stays in the table for ten minutes, as it does by default.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from saq import Queue, Worker

from benchmarks.peers import starts

WORKS_ON_UVLOOP = False
CONCURRENCY = 10

queue = Queue.from_url(os.environ["PEERS_URL"])


async def noop(_context: Any, *, email: str) -> None:
    starts.note(email)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
    async with _connected():
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/jobs", status_code=202)
async def add() -> dict[str, str]:
    await queue.enqueue("noop", email="someone@example.org")
    return {"message": "Notification sent in the background"}


async def create() -> None:
    async with _connected():
        pass


async def fill(emails: Sequence[str]) -> None:
    async with _connected():
        await asyncio.gather(*(queue.enqueue("noop", email=email) for email in emails))


@asynccontextmanager
async def enqueueing() -> AsyncGenerator[Callable[[str], Awaitable[Any]]]:
    async with _connected():
        yield lambda email: queue.enqueue("noop", email=email)


async def work(told_to_go: Callable[[], Awaitable[None]]) -> None:
    async with _connected():
        await told_to_go()
        await Worker(queue, [noop], concurrency=CONCURRENCY).start()


@asynccontextmanager
async def _connected() -> AsyncGenerator[None]:
    await queue.connect()
    try:
        yield
    finally:
        await queue.disconnect()
