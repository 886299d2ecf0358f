"""The app that is measured. BENCH_TASKS chooses what adds its tasks: `stock`, or `afterward` (at AFTERWARD_URL).

The two differ in one import, one decorator and two lines of set-up: what a user changes, and nothing else.
"""

import os
from typing import Any

from fastapi import FastAPI

app = FastAPI()


def in_memory(function: Any) -> Any:
    return function


if os.environ["BENCH_TASKS"] == "afterward":
    from afterward import Afterward, BackgroundTasks

    tasks = Afterward()
    tasks.install(app)
    task: Any = tasks.task
else:
    from fastapi import BackgroundTasks

    task: Any = in_memory


@task
async def async_noop(email: str) -> None:
    """Nothing, on the event loop."""


@task
def def_noop(email: str) -> None:
    """Nothing, in a thread."""


async def noop_in_memory(email: str) -> None:
    """Nothing, and never durable."""


@app.post("/memory", status_code=202)
async def add_in_memory(background_tasks: BackgroundTasks):
    background_tasks.add_task(noop_in_memory, "someone@example.org")
    return {"message": "Notification sent in the background"}


@app.post("/none", status_code=202)
async def add_nothing():
    return {"message": "Nothing was added"}


@app.post("/async", status_code=202)
async def add_async(background_tasks: BackgroundTasks):
    background_tasks.add_task(async_noop, "someone@example.org")
    return {"message": "Notification sent in the background"}


@app.post("/def", status_code=202)
async def add_def(background_tasks: BackgroundTasks):
    background_tasks.add_task(def_noop, "someone@example.org")
    return {"message": "Notification sent in the background"}
