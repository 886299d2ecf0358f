"""Tasks that a child process can import: they say what they do, and are there to be asked to end."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator

from afterward import Afterward, cancel_asked, current_job, emit, progress

tasks = Afterward("sqlite:///never-opened.db")


@tasks.task
def speak(words: int) -> int:
    """Says where it runs, and how far it is."""
    logging.getLogger("shop").warning("job %s", current_job().id)
    emit({"pid": os.getpid()})
    for number in range(words):
        progress(number + 1, words)
    return words


@tasks.task
async def count(to: int) -> AsyncIterator[int]:
    for number in range(to):
        yield number


@tasks.task
async def rest() -> None:
    """Until it is asked to end; then it cleans up."""
    emit("begun")
    try:
        await asyncio.sleep(60)
    finally:
        emit("cleaned up")


@tasks.task
def rest_in_thread() -> str:
    emit("begun")
    while not cancel_asked():
        time.sleep(0.005)
    return "done in time"


@tasks.task
def hear_nothing() -> None:
    emit("begun")
    time.sleep(60)
