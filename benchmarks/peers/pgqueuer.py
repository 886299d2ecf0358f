"""pgqueuer, on asyncpg, which its page of benchmarks measures as 1.7 times as fast as psycopg.

- Its page "Performance tuning" wants one connection for the worker, a pool for what enqueues, and `pgq autovac`. The
  pool is asyncpg's own, of ten connections, as in its example for FastAPI.
- `batch_size`: that page says to raise it for short jobs. Of 10, 25, 100, 250, 500 and 1,000, this was the fastest on
  two processors, and one connection faster than the five of its own benchmark.
- Its tables are durable, as they are by default.
- An ended job leaves the table of jobs for the table of its log.
- `pgqueuer.run` does what its command `pgq run` does, which runs on uvloop.
"""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from fastapi import FastAPI, Request
from pgqueuer import Job, PgQueuer
from pgqueuer.adapters.cli.supervisor import run
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.queries import Queries

from benchmarks.peers import starts

WORKS_ON_UVLOOP = True
BATCH_SIZE = 500
_URL = os.environ["PEERS_URL"]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with asyncpg.create_pool(_URL) as pool:
        app.state.queries = Queries(AsyncpgPoolDriver(pool))
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/jobs", status_code=202)
async def add(request: Request) -> dict[str, str]:
    await request.app.state.queries.enqueue("noop", b"someone@example.org")
    return {"message": "Notification sent in the background"}


async def create() -> None:
    async with _connected() as connection:
        made = Queries(AsyncpgDriver(connection))
        await made.install()
        await made.optimize_autovacuum()


async def fill(emails: Sequence[str]) -> None:
    async with _connected() as connection:
        jobs = [email.encode() for email in emails]
        await Queries(AsyncpgDriver(connection)).enqueue(["noop"] * len(jobs), jobs, [0] * len(jobs))


@asynccontextmanager
async def enqueueing() -> AsyncGenerator[Callable[[str], Awaitable[Any]]]:
    async with asyncpg.create_pool(_URL) as pool:
        client = Queries(AsyncpgPoolDriver(pool))
        yield lambda email: client.enqueue("noop", email.encode())


async def work(told_to_go: Callable[[], Awaitable[None]]) -> None:
    async with _connected() as connection:
        await told_to_go()
        await run(lambda: _worker(connection), batch_size=BATCH_SIZE)


@asynccontextmanager
async def _worker(connection: "asyncpg.Connection[Any]") -> AsyncGenerator[PgQueuer]:
    worker = PgQueuer(AsyncpgDriver(connection))

    @worker.entrypoint("noop")
    async def noop(job: Job) -> None:
        starts.note((job.payload or b"").decode())

    yield worker


@asynccontextmanager
async def _connected() -> "AsyncGenerator[asyncpg.Connection[Any]]":
    connection = await asyncpg.connect(_URL)
    try:
        yield connection
    finally:
        await connection.close()
