"""Server-sent events as bytes: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

HEARTBEAT = b":\n\n"
"""A comment, which clients pass over: that it can be sent shows that the client is there, and keeps proxies patient."""

CHUNK_BYTES = 16 * 1024

_LINE_END = re.compile(r"\r\n|\r|\n")


def frame(event: str, data: str, id_: str | None = None) -> bytes:
    """One event. A client that connects again says the last `id_` that it has seen; `data` may have several lines."""
    lines = [f"event: {event}", *(f"data: {line}" for line in _LINE_END.split(data))]
    if id_ is not None:
        lines.append(f"id: {id_}")
    return ("\n".join(lines) + "\n\n").encode()


def chunks(frames: Iterable[bytes]) -> Iterator[bytes]:
    """The same in larger pieces: what a server has to keep of them at once for a client that is slow stays small."""
    chunk = b""
    for one in frames:
        if chunk and len(chunk) + len(one) > CHUNK_BYTES:
            yield chunk
            chunk = b""
        chunk += one
    if chunk:
        yield chunk


def retry(seconds: float) -> bytes:
    """Have the client connect again so long after the connection has ended."""
    return f"retry: {seconds * 1000:.0f}\n\n".encode()
