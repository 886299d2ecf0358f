"""procrastinate, on psycopg 3.

- `concurrency=30` is the number of its page "Execute multiple jobs at the same time". One job is fetched at a time, so
  that more does not help.
- The pool has ten connections, as its page "Limit the number of opened connections" says of its other connector, and as
  those of pgqueuer and chancy have; on psycopg its default are four.
- Ended jobs stay in the table, as they do by default.
"""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from procrastinate import App, PsycopgConnector

from benchmarks.peers import starts

WORKS_ON_UVLOOP = False
CONCURRENCY = 30

queue = App(connector=PsycopgConnector(conninfo=os.environ["PEERS_URL"], max_size=10))


@queue.task
async def noop(email: str) -> None:
    starts.note(email)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
    async with queue.open_async():
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/jobs", status_code=202)
async def add() -> dict[str, str]:
    await noop.defer_async(email="someone@example.org")
    return {"message": "Notification sent in the background"}


async def create() -> None:
    async with queue.open_async():
        await queue.schema_manager.apply_schema_async()


async def fill(emails: Sequence[str]) -> None:
    async with queue.open_async():
        await noop.batch_defer_async(*({"email": email} for email in emails))


@asynccontextmanager
async def enqueueing() -> AsyncGenerator[Callable[[str], Awaitable[Any]]]:
    async with queue.open_async():
        yield lambda email: noop.defer_async(email=email)


async def work(told_to_go: Callable[[], Awaitable[None]]) -> None:
    async with queue.open_async():
        await told_to_go()
        await queue.run_worker_async(concurrency=CONCURRENCY)
