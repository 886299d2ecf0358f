"""A load generator for where wrk is not: POST requests over kept connections, counted by status.

    python -m benchmarks.client URL [--connections N] [--seconds S | --requests N]

It answers in the same words as post.lua. It takes more processor time than wrk, which on a small machine the server
lacks: compare only figures taken with the same generator.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import cast
from urllib.parse import urlsplit

import uvloop


class Connection(asyncio.Protocol):
    """Sends the next request when the answer to the last is complete, until `turns` are used up."""

    def __init__(self, request: bytes, turns: Iterator[int], statuses: Counter[int], latencies: list[float]) -> None:
        self._request = request
        self._turns = turns
        self._statuses = statuses
        self._latencies = latencies
        self._buffer = b""
        self._sent_at = 0.0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the name is asyncio's
        if not self.closed.done():
            if self._sent_at:
                self._statuses[0] += 1
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        self._statuses[int(head[9:12])] += 1
        self._latencies.append(time.perf_counter() - self._sent_at)
        self._buffer = b""
        self._next()

    def _next(self) -> None:
        self._sent_at = 0.0
        if next(self._turns, None) is None:
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)


async def load(url: str, connections: int, turns: Iterator[int]) -> dict[str, float]:
    parts = urlsplit(url)
    request = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: 0\r\n\r\n".encode()
    statuses: Counter[int] = Counter()
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    assert parts.hostname is not None
    assert parts.port is not None
    began = time.perf_counter()
    opened = [
        (
            await loop.create_connection(
                lambda: Connection(request, turns, statuses, latencies), parts.hostname, parts.port
            )
        )[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(connection.closed for connection in opened))
    percentiles = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else [0.0] * 99
    broken = statuses.pop(0, 0)
    return {
        "answered": statuses.total(),
        "seconds": time.perf_counter() - began,
        "refused": statuses.total() - statuses[202],
        "broken": broken,
        "p50": percentiles[49] * 1e3,
        "p99": percentiles[98] * 1e3,
    }


def until(seconds: float) -> Iterator[int]:
    end = time.perf_counter() + seconds
    for turn in count():
        if time.perf_counter() >= end:
            return
        yield turn


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client")
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--requests", type=int)
    options = parser.parse_args()
    turns = iter(range(options.requests)) if options.requests else until(options.seconds)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(load(options.url, options.connections, turns))))


if __name__ == "__main__":
    main()
