"""One library, in a process of its own, on the database PEERS_URL.

    python -m benchmarks.peers NAME create
    python -m benchmarks.peers NAME fill JOBS
    python -m benchmarks.peers NAME work FILE
    python -m benchmarks.peers NAME enqueue FILE JOBS

`work` connects, says that it is ready, waits for a line and runs jobs until SIGTERM; then it writes as JSON which jobs
started when. `enqueue` enqueues so many, 20 to 50 ms apart, and writes when it began with each.
"""

import asyncio
import importlib
import json
import logging
import random
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.peers import starts

WARM_UP = 20


def main() -> None:
    name, role, *rest = sys.argv[1:]
    logging.basicConfig(level=logging.WARNING)
    peer: Any = importlib.import_module(f"benchmarks.peers.{name}")
    if role == "work":
        run = uvloop.run if peer.WORKS_ON_UVLOOP else asyncio.run
        run(peer.work(_told_to_go))
        _write(rest[0], starts.noted)
    elif role == "create":
        asyncio.run(peer.create())
    elif role == "fill":
        asyncio.run(peer.fill([f"someone-{number}@example.org" for number in range(int(rest[0]))]))
    elif role == "enqueue":
        _write(rest[0], uvloop.run(_enqueue(peer, int(rest[1]))))


def _write(file: str, moments: list[tuple[str, int]]) -> None:
    Path(file).write_text(json.dumps(moments))


async def _told_to_go() -> None:
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


async def _enqueue(peer: Any, jobs: int) -> list[tuple[str, int]]:
    began: list[tuple[str, int]] = []
    async with peer.enqueueing() as enqueue:
        for number in range(WARM_UP):
            await enqueue(f"warm-up-{number}@example.org")
        for number in range(jobs):
            await asyncio.sleep(random.uniform(0.02, 0.05))
            email = f"someone-{number}@example.org"
            began.append((email, time.monotonic_ns()))
            await enqueue(email)
    return began


if __name__ == "__main__":
    main()
