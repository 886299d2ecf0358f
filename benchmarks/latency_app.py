"""The app whose idle latency is measured: it notes when each request's call ended, and when its function started."""

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import FastAPI

from afterward import Afterward, BackgroundTasks

inner = FastAPI()
tasks = Afterward()
tasks.install(inner)

ended: dict[int, int] = {}
started: dict[int, int] = {}


@tasks.task
async def async_note(number: int) -> None:
    started[number] = time.perf_counter_ns()


@tasks.task
def def_note(number: int) -> None:
    started[number] = time.perf_counter_ns()


@inner.post("/async/{number}", status_code=202)
async def add_async(number: int, background_tasks: BackgroundTasks):
    background_tasks.add_task(async_note, number)
    return {"message": "Notification sent in the background"}


@inner.post("/def/{number}", status_code=202)
async def add_def(number: int, background_tasks: BackgroundTasks):
    background_tasks.add_task(def_note, number)
    return {"message": "Notification sent in the background"}


@inner.get("/waits")
async def waits() -> dict[int, int]:
    """Nanoseconds from the end of each request to the start of its function."""
    return {number: started[number] - ended[number] for number in started if number in ended}


async def app(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    await inner(scope, receive, send)
    if scope["type"] == "http" and scope["method"] == "POST":
        ended[int(scope["path"].rpartition("/")[2])] = time.perf_counter_ns()
