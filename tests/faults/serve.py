"""Runs the application under test: `server`, behind the socket whose number is APP_LISTENS_ON, or `worker`."""

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
import time
from contextlib import ExitStack

import uvicorn

from afterward.engine.worker import WorkerOptions
from afterward.faults import armed
from tests.faults.app_under_test import app, tasks


def stand_still_at(point: str) -> None:
    """When it is passed for the first time, as if somebody had sent SIGSTOP at that moment."""

    def stand_still() -> None:
        passed.close()
        os.kill(os.getpid(), signal.SIGSTOP)

    passed = ExitStack()
    passed.enter_context(armed(point, stand_still))


def set_clock(seconds: float) -> None:
    """This process believes that it is so much later than it is."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + int(seconds * 1e9)


def serve() -> None:
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", ws="none", lifespan="on", log_config=None, access_log=False
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(os.environ["APP_LISTENS_ON"]))])


async def work() -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    options = WorkerOptions(
        concurrency=int(os.environ.get("APP_CONCURRENCY", "100")),
        threads=int(os.environ.get("APP_THREADS", "16")),
        grace=float(os.environ.get("APP_GRACE", "10")),
        children=int(os.environ.get("APP_CHILDREN", "2")),
    )
    async with tasks.running(options):
        await ended.wait()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limit := int(os.environ.get("APP_FILE_SIZE", "0")):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    if point := os.environ.get("APP_STOP"):
        stand_still_at(point)
    set_clock(float(os.environ.get("APP_CLOCK", "0")))
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("afterward").setLevel(os.environ.get("APP_LOG", "INFO"))
    if sys.argv[1] == "server":
        serve()
    else:
        asyncio.run(work())
