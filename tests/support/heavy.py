"""Tasks for child processes, which import them from here, and an app whose lifespan some of them ask for."""

import asyncio
import ctypes
import itertools
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from starlette.datastructures import State

from afterward import Afterward, cancel_asked, emit, lifespan_state

tasks = Afterward("sqlite:///never-opened.db")
lifespans = itertools.count(1)
left: ContextVar[str] = ContextVar("left", default="nothing")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, Any]]:
    yield {"number": next(lifespans)}


app = FastAPI(lifespan=lifespan)
tasks.install(app)


@tasks.task(executor="process")
def where() -> int:
    """The process that it runs in."""
    return os.getpid()


@tasks.task(executor="process")
async def where_async() -> int:
    await asyncio.sleep(0)
    return os.getpid()


@tasks.task(executor="process")
def leave(what: str) -> str:
    """What the one before has left in the context."""
    found = left.get()
    left.set(what)
    return found


@tasks.task(executor="process")
def read_input() -> str:
    """What whoever reads standard input finds there: orders of the worker's are not for it."""
    print("what a function prints is no answer")
    return subprocess.run(["cat"], stdout=subprocess.PIPE, check=True, text=True).stdout + sys.stdin.read()


@tasks.task(executor="process")
async def in_lifespan(state: Annotated[State, Depends(lifespan_state)]) -> tuple[int, int]:
    """The process, and how many lifespans have begun in it."""
    return os.getpid(), state.number


@tasks.task(executor="process")
async def rest() -> None:
    """Until it is asked to end; then it cleans up."""
    emit(os.getpid())
    try:
        await asyncio.sleep(60)
    finally:
        emit("cleaned up")


@tasks.task(executor="process")
def rest_in_thread() -> str:
    emit(os.getpid())
    while not cancel_asked():
        time.sleep(0.005)
    return "done in time"


@tasks.task(executor="process")
def is_asked(seconds: float) -> bool:
    """Within so long."""
    emit(os.getpid())
    until = time.monotonic() + seconds
    while time.monotonic() < until and not cancel_asked():
        time.sleep(0.005)
    return cancel_asked()


@tasks.task(executor="process", timeout=0.3, max_attempts=1)
def compute_for_ever() -> None:
    """In C, without letting go of the interpreter: nothing in its process can do anything."""
    emit(os.getpid())
    ctypes.PyDLL(None).sleep(60)


@tasks.task(executor="process")
def hear_nothing() -> None:
    emit(os.getpid())
    while True:
        time.sleep(60)


@tasks.task(executor="process", memory="200MB", max_attempts=1)
def collect(megabytes: int) -> None:
    emit(os.getpid())
    rows = bytearray(megabytes * 1_000_000)
    time.sleep(60 if rows else 0)


_COLLECTS = "rows = bytearray(300_000_000); import time; time.sleep(60)"


@tasks.task(executor="process", memory="200MB", max_attempts=1)
def have_collected() -> None:
    """Not by itself: by a program that it starts."""
    with subprocess.Popen([sys.executable, "-c", _COLLECTS]) as program:
        emit(program.pid)


@tasks.task(executor="process", memory="200MB")
def keep(megabytes: int) -> int:
    """It leaves something behind in its process."""
    kept.append(bytearray(megabytes * 1_000_000))
    return os.getpid()


kept: list[bytearray] = []


@tasks.task(executor="process")
def die(how: str) -> None:
    emit(os.getpid())
    if how == "exits":
        os._exit(0)
    ctypes.string_at(0)
