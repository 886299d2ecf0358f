"""Runs the application under test: `server`, behind the socket whose number is APP_LISTENS_ON, or `worker`."""

import asyncio
import logging
import os
import resource
import signal
import socket
import sys

import uvicorn

from afterward.engine.worker import WorkerOptions
from tests.faults.app_under_test import app, tasks


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
    )
    async with tasks.running(options):
        await ended.wait()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limit := int(os.environ.get("APP_FILE_SIZE", "0")):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("afterward").setLevel(os.environ.get("APP_LOG", "INFO"))
    if sys.argv[1] == "server":
        serve()
    else:
        asyncio.run(work())
