"""The app whose endpoint gives work to a Celery fleet at BENCH_BROKER. BENCH_TASKS chooses how.

`plain`: by `.delay()`, with results at BENCH_RESULTS; `confirmed`: the same, with the broker's confirmation;
`afterward`: by `add_task`, stored at AFTERWARD_URL; `beside`: the same, published by another process.
"""

import os
import time
from typing import Any

from fastapi import FastAPI

app = FastAPI()


def rest(seconds: float) -> None:
    if seconds:
        time.sleep(seconds)


BROKER = os.environ["BENCH_BROKER"]

if os.environ["BENCH_TASKS"] in {"afterward", "beside"}:
    from afterward import Afterward, BackgroundTasks

    tasks = Afterward(celery=BROKER)
    tasks.install(app, worker=os.environ["BENCH_TASKS"] == "afterward")
    celery_app: Any = tasks.celery

    @tasks.task(executor="celery")
    def noop(email: str) -> None:
        """Nothing, in a process of the fleet."""

    @tasks.task(executor="celery")
    def nap(seconds: float) -> None:
        rest(seconds)

    @app.post("/add", status_code=202)
    async def add(background_tasks: BackgroundTasks):
        background_tasks.add_task(noop, "someone@example.org")
        return {"message": "Notification sent in the background"}

else:
    from celery import Celery

    celery_app = Celery("bench", broker=BROKER, backend=os.environ["BENCH_RESULTS"])
    if os.environ["BENCH_TASKS"] == "confirmed":
        celery_app.conf.broker_transport_options = {"confirm_publish": True}

    @celery_app.task(name="noop")
    def celery_noop(email: str) -> None:
        """Nothing, in a process of the fleet."""

    @celery_app.task(name="nap")
    def celery_nap(seconds: float) -> None:
        rest(seconds)

    @app.post("/add", status_code=202)
    def add_plain():
        celery_noop.delay("someone@example.org")
        return {"message": "Notification sent in the background"}
