"""Tasks for child processes, which import them from here."""

import asyncio
import os

from afterward import Afterward

tasks = Afterward("sqlite:///never-opened.db")


@tasks.task(executor="process")
def where() -> int:
    """The process that it runs in."""
    return os.getpid()


@tasks.task(executor="process")
async def where_async() -> int:
    await asyncio.sleep(0)
    return os.getpid()
