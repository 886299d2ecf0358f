"""CPU time of one request, without a server: the app is called directly, 32 requests at once.

    python -m benchmarks.cpu [app stock-async middleware container async stock-def def] [--requests N] [--rounds N]
        [--profile [SORT]]

All of the process counts: threads too, and for afterward the storing, running and finishing of the jobs. Each round is
a process of its own; the rounds of all variants alternate. `driver` is the caller's own cost, taken off the others.
`middleware`: with afterward installed, and no task; `container`: with a task in memory, added to ours.
"""

import argparse
import asyncio
import cProfile
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import uvloop

from afterward import Status

ASGI = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]

VARIANTS = {  # name: (what adds the tasks, path)
    "driver": ("", ""),
    "app": ("stock", "/none"),
    "stock-async": ("stock", "/async"),
    "middleware": ("afterward", "/none"),
    "container": ("afterward", "/memory"),
    "async": ("afterward", "/async"),
    "stock-def": ("stock", "/def"),
    "def": ("afterward", "/def"),
}
CONCURRENT = 32
WARM_UP = 500


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", description="CPU µs per request, in process.")
    parser.add_argument("variants", nargs="*", default=list(VARIANTS)[1:], help=f"some of: {' '.join(VARIANTS)}")
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--profile", nargs="?", const="tottime", help="cProfile of the event loop's thread, by this column"
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.variants[0], options.requests, options.profile)))
    elif options.profile:
        for variant in options.variants:
            print(f"== {variant}")
            run_child(variant, options.requests, options.profile)
    else:
        compare(options.variants, options.requests, options.rounds)


def compare(variants: list[str], requests: int, rounds: int) -> None:
    order = ["driver", *(v for v in variants if v != "driver")]
    measured: dict[str, list[dict[str, float]]] = {variant: [] for variant in order}
    for _ in range(rounds):
        for variant in order:
            measured[variant].append(run_child(variant, requests, None))
    driver = statistics.median(each["total"] for each in measured["driver"])
    print(
        f"CPU µs per request: median of {rounds} rounds of {requests} requests, without the driver's own {driver:.1f}"
    )
    for variant in order[1:]:
        totals = sorted(each["total"] - driver for each in measured[variant])
        threads = {
            name: statistics.median(each.get(name, 0.0) for each in measured[variant]) for name in measured[variant][0]
        }
        threads["loop"] -= driver
        parts = "  ".join(f"{name} {cost:.1f}" for name, cost in threads.items() if name != "total" and cost >= 0.05)
        print(f"{variant:12} {statistics.median(totals):7.1f}   ({totals[0]:.1f} to {totals[-1]:.1f})   {parts}")


def run_child(variant: str, requests: int, profile: str | None) -> dict[str, float]:
    folder = Path("build")
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=folder.resolve()) as place:
        command = [sys.executable, "-m", "benchmarks.cpu", "--child", variant, "--requests", str(requests)]
        environment = {
            **os.environ,
            "BENCH_TASKS": VARIANTS[variant][0],
            "AFTERWARD_URL": f"sqlite:///{place}/cpu.db",
        }
        said = subprocess.run(
            [*command, *(["--profile", profile] if profile else [])],
            env=environment, stdout=subprocess.PIPE, check=True, text=True,
        ).stdout  # fmt: skip
    *text, last = said.splitlines()
    if text:
        print("\n".join(text))
    cost: dict[str, float] = json.loads(last)
    return cost


def measure(variant: str, requests: int, profile: str | None) -> dict[str, float]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(variant, requests, profile))


async def _measure(variant: str, requests: int, profile: str | None) -> dict[str, float]:
    if variant == "driver":
        return await _cost(_null_app, "/", requests, None)
    from benchmarks.app import app

    async with app.router.lifespan_context(app):
        await asyncio.sleep(0.2)
        return await _cost(app, VARIANTS[variant][1], requests, profile)


async def _cost(app: ASGI, path: str, requests: int, profile: str | None) -> dict[str, float]:
    others = len(asyncio.all_tasks())
    await _drive(app, path, WARM_UP, others)
    profiler = cProfile.Profile()
    before = _cpu_by_thread()
    total = time.process_time()
    if profile:
        profiler.enable()
    await _drive(app, path, requests, others)
    if profile:
        profiler.disable()
    total = time.process_time() - total
    after = _cpu_by_thread()
    if profile:
        pstats.Stats(profiler).sort_stats(profile).print_stats(45)
    await _check(requests + WARM_UP)
    spent = {name: after[name] - before.get(name, 0.0) for name in after}
    spent["other"] = total - sum(spent.values())
    return {name: seconds / requests * 1e6 for name, seconds in {"total": total, **spent}.items()}


async def _drive(app: ASGI, path: str, requests: int, others: int) -> None:
    """Call the app so often, and wait until all that it began is done."""
    left = iter(range(requests))

    async def one_after_the_other() -> None:
        for _ in left:
            await _request(app, path)

    await asyncio.gather(*(one_after_the_other() for _ in range(CONCURRENT)))
    while len(asyncio.all_tasks()) > others:  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(0.002)
    while await _unfinished():  # noqa: ASYNC110 - nor of this
        await asyncio.sleep(0.02)


async def _request(app: ASGI, path: str) -> None:
    statuses: list[int] = []
    received = False

    async def receive() -> dict[str, Any]:
        nonlocal received
        if received:
            return {"type": "http.disconnect"}
        received = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": "POST",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:8000"), (b"content-length", b"0")],
        "state": {},
    }
    await app(scope, receive, send)
    if statuses != [202]:
        raise RuntimeError(f"{path} answered {statuses}")


async def _null_app(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 202, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def _unfinished() -> bool:
    tasks = _tasks()
    return tasks is not None and any(
        [await tasks.list(status=status, limit=1) for status in (Status.running, Status.queued)]
    )


async def _check(jobs: int) -> None:
    """Every job has run: what is not done is not cheap."""
    tasks = _tasks()
    if tasks is not None:
        done = len(await tasks.list(status=Status.succeeded, limit=jobs + 1))
        if done not in (0, jobs):
            raise RuntimeError(f"{jobs} jobs were accepted, {done} are done")


def _tasks() -> Any:
    return getattr(sys.modules.get("benchmarks.app"), "tasks", None)


def _cpu_by_thread() -> dict[str, float]:
    spent: dict[str, float] = {}
    for thread in threading.enumerate():
        assert thread.ident is not None
        name = "loop" if thread is threading.main_thread() else thread.name.rstrip("-0123456789")
        spent[name] = spent.get(name, 0.0) + time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return spent


if __name__ == "__main__":
    main()
