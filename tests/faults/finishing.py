"""A worker whose task ends itself, in the transaction of its effect: `FINISHING_WITH` names the sort of session.

It dies where a test says so: `before_own_end`, `before_commit`, `before_return`, or at a crash point of the engine.
"""

import asyncio
import logging
import os
import signal
import sys
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import sqlalchemy

from afterward import Afterward, current_job, finish, finish_sync
from afterward.engine.worker import WorkerOptions
from afterward.faults import crash_point
from tests.support.sessions import SORTS, Uniform

SORT = SORTS[os.environ.get("FINISHING_WITH", "AsyncSession on asyncpg")]
URL = os.environ["AFTERWARD_URL"]

LINGERS_SECONDS = float(os.environ.get("FINISHING_LINGERS", "0"))
"""What the function goes on for after its end is committed."""

tasks = Afterward(URL, lease=1)


@tasks.task(max_attempts=1, name="deposit")
async def deposit(cents: int) -> int:
    async with asynccontextmanager(SORT.opener(URL))() as raw:
        session = Uniform(raw, SORT)
        await session.begin()
        await session.order(f"{cents} by attempt {current_job().attempt}")
        crash_point("before_own_end")
        await finish(raw, result=cents)
        crash_point("before_commit")
        await session.commit()
        crash_point("before_return")
        await asyncio.sleep(LINGERS_SECONDS)
    return cents


deposit_apart = tasks.task(max_attempts=1, name="deposit_apart", executor="process")(deposit.function)


@tasks.task(max_attempts=1, name="deposit_in_a_thread")
def deposit_in_a_thread(cents: int) -> int:
    with contextmanager(SORT.opener(URL))() as session:
        statement: Any = f"INSERT INTO orders VALUES ('{cents} by attempt {current_job().attempt}')"
        getattr(session, "exec", session.execute)(sqlalchemy.text(statement) if SORT.tells else statement)
        crash_point("before_own_end")
        finish_sync(session, result=cents)
        crash_point("before_commit")
        session.commit()
        crash_point("before_return")
    return cents


async def work() -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with tasks.running(WorkerOptions(children=1)):
        await ended.wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    asyncio.run(work())
