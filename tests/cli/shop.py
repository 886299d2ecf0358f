"""The program that the workers of these tests serve, from a folder of its own."""

import asyncio
import ctypes
import hashlib
import os
import signal
import sys
import time
from pathlib import Path

from fastapi import FastAPI

from afterward import Afterward, current_job, progress

app = FastAPI()
tasks = Afterward()
tasks.install(app)


def write(file: str, line: object) -> None:
    with Path(file).open("a") as out:
        out.write(f"{line}\n")


@tasks.task
def add(n: int) -> int:
    """Ends at once."""
    write("added", n)
    return n


@tasks.task
async def nothing(n: int) -> None:
    """Leaves no trace."""


@tasks.task
async def rest(seconds: float) -> None:
    """Takes its time, in the loop."""
    write("rested", f"began {os.getpid()}")
    await asyncio.sleep(seconds)
    write("rested", f"ended {os.getpid()}")


@tasks.task
def rest_in_thread(seconds: float) -> None:
    """Takes its time, in a thread."""
    write("rested", f"began {os.getpid()}")
    time.sleep(seconds)
    write("rested", f"ended {os.getpid()}")


@tasks.task(executor="process")
def rest_in_child(seconds: float) -> None:
    """Takes its time, in a child process."""
    write("rested", f"began {os.getpid()}")
    time.sleep(seconds)
    write("rested", f"ended {os.getpid()}")


@tasks.task
def count_on_in_thread() -> None:
    """Says how far it is, and goes on though it is asked to end."""
    progress(40, 1000, "resizing")
    time.sleep(60)


@tasks.task
async def rest_on_first_attempt(seconds: float) -> None:
    """Takes its time once; tried again, it ends at once."""
    write("rested", f"began {os.getpid()}")
    if current_job().attempt == 1:
        await asyncio.sleep(seconds)
    write("rested", f"ended {os.getpid()}")


@tasks.task
async def block(seconds: float) -> None:
    """Blocks the loop."""
    write("rested", f"began {os.getpid()}")
    time.sleep(seconds)  # noqa: ASYNC251 - as users do by mistake


@tasks.task
async def crunch(seconds: float) -> None:
    """Blocks the main thread in a library's code, where no signal interrupts it."""
    write("rested", f"began {os.getpid()}")
    hashlib.pbkdf2_hmac("sha256", b"", b"", int(seconds * 5_000_000))  # more than is done in a second


@tasks.task
def fork() -> None:
    """Makes processes of its own, and ends each at once by a signal."""
    for _ in range(20):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        os.kill(child, signal.SIGTERM)
        write("forked", os.WTERMSIG(os.waitpid(child, 0)[1]))


@tasks.task
async def cling(seconds: float) -> None:
    """Does not let itself be cancelled."""
    write("rested", f"began {os.getpid()}")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            continue


@tasks.task
def crash_twice(seconds: float) -> None:
    """Takes its worker with it, twice; then takes its time."""
    if current_job().attempt <= 2:
        os._exit(9)
    write("rested", f"began {os.getpid()}")
    time.sleep(seconds)
    write("rested", f"ended {os.getpid()}")


@tasks.task
def crash() -> None:
    """Segfaults."""
    ctypes.string_at(0)


@tasks.task(retry_on=lambda _failures, _error: 600.0)
def charge(card: str, api_token: str) -> None:
    """Fails, with a message that would steer a terminal."""
    raise ValueError(f"card refused: \x1b[31m{card}\nsecond line")


@tasks.task
def fail(why: str, times: int = 1) -> None:
    """Fails, at once."""
    secret = f"local {why}"
    raise RuntimeError(f"{why} {times} {len(secret)}")


@tasks.task
async def note(text: str, n: int | None = None, *, tags: list[str] | None = None) -> str:
    """Says what it was given."""
    print(f"noted {text!r} {n!r} {tags!r}", flush=True)
    return f"{text} {n} {tags}"


@tasks.task
def settings(values: dict[str, object]) -> dict[str, object]:
    """Gives back what it got."""
    return values


@tasks.task
async def name_loop() -> str:
    """The module that the event loop here is of."""
    return type(asyncio.get_running_loop()).__module__


@tasks.task
def read_standard_input() -> str:
    """What a task finds there."""
    return sys.stdin.read()
