"""Tasks that run on Celery workers, and an app whose lifespan some of them ask for.

A worker imports this module: `celery -A tests.support.hosted:celery worker`. Tests add jobs of these tasks by `front`.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from starlette.datastructures import State

import afterward.engine.voice
from afterward import Afterward, cancel_asked, check_cancelled, current_job, emit, lifespan_state, progress

language: ContextVar[str] = ContextVar("language", default="none")

tasks = Afterward(
    os.environ.get("AFTERWARD_URL", "sqlite:///never-opened.db"),
    celery=os.environ.get("AFTERWARD_CELERY_URL", "amqp://never-reached"),
    context_variables=[language],
)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, Any]]:
    yield {"begun_in": os.getpid()}


app = FastAPI(lifespan=lifespan)
tasks.install(app)


def front(url: str, broker: str) -> Afterward:
    """What adds jobs of these tasks to another store, and passes them on by another broker."""
    other = Afterward(url, celery=broker)
    other.tasks.update(tasks.tasks)
    return other


def session() -> Generator[str]:
    yield "open"
    emit("closed")


Session = Annotated[str, Depends(session)]


@tasks.task(executor="celery")
async def surroundings(name: str, session: Session, state: Annotated[State, Depends(lifespan_state)]) -> list[Any]:
    """What a function finds around it."""
    return [name, session, state.begun_in, os.getpid(), language.get()]


@tasks.task(executor="celery")
def surroundings_in_thread(name: str, session: Session, state: Annotated[State, Depends(lifespan_state)]) -> list[Any]:
    return [name, session, state.begun_in, os.getpid(), language.get()]


@tasks.task(executor="celery")
def tell_all() -> None:
    progress(1, 2, "half")
    logging.getLogger("shop").warning("a line")
    emit({"made": 1})


@tasks.task(executor="celery", backoff=0)
def fail_at_first() -> int:
    if current_job().attempt == 1:
        raise RuntimeError("at first")
    return current_job().attempt


@tasks.task(executor="celery", max_attempts=1)
async def fail() -> None:
    raise LookupError("for good")


@tasks.task(executor="celery", max_attempts=1, timeout=0.2)
async def sleep_too_long() -> None:
    await asyncio.sleep(60)


@tasks.task(executor="celery", max_attempts=1, timeout=0.2)
def block_too_long() -> None:
    while not cancel_asked():
        time.sleep(0.01)


@tasks.task(executor="celery")
async def sleep_on() -> None:
    emit(os.getpid())
    await asyncio.sleep(60)


@tasks.task(executor="celery")
def block_on() -> None:
    emit(os.getpid())
    while True:
        check_cancelled()
        time.sleep(0.01)


@tasks.task(executor="celery")
def heed_nothing() -> None:
    emit(os.getpid())
    time.sleep(60)


@tasks.task(executor="celery")
async def heed_nothing_in_loop() -> None:
    emit(os.getpid())
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            emit("asked")


@tasks.task(executor="celery")
def work_while(file: str) -> None:
    """Until a file is there."""
    emit(os.getpid())
    while not os.path.exists(file):  # noqa: PTH110 - it is shorter
        time.sleep(0.01)


@tasks.task(executor="celery", name="early")
def work_while_acked_early(file: str) -> None:
    emit(os.getpid())
    while not os.path.exists(file):  # noqa: PTH110 - as above
        time.sleep(0.01)


@tasks.task(executor="celery")
def kill_its_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if "AFTERWARD_CELERY_URL" in os.environ:  # in a worker
    afterward.engine.voice.CLEAN_UP_SECONDS = 0.5
    celery = tasks.celery
    celery.conf.update(task_annotations={"early": {"acks_late": False}})
