"""The answer that a request gets when its tasks could not be stored."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from starlette.types import Message, Send

from afterward.errors import (
    AfterwardError,
    ArgumentError,
    ConfigurationError,
    DuplicateJob,
    FileTooLarge,
    NotCommitted,
    ReservationLost,
    StoreError,
)
from afterward.observe import emit

RETRY_AFTER_SECONDS = 5

_Headers = list[tuple[bytes, bytes]]


async def answer(refusal: AfterwardError, start: Message | None, send: Send) -> None:
    """409 where the request asks for what is there already, or another has its key by now; 413 for too large a file;
    500 for one that cannot be read, an answer that cannot be kept, or where the promise would be a lie; else 503: it
    may be tried again.

    `start`: what the application's own response would have begun with. What it says of who may read it is said of the
    answer, too.
    """
    status, body = _answer_to(refusal)
    headers: _Headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", str(RETRY_AFTER_SECONDS).encode()))
    headers += _for_browsers(() if start is None else start.get("headers", ()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _answer_to(refusal: AfterwardError) -> tuple[int, bytes]:
    """Tell of it, as loudly as it deserves; status and body."""
    if isinstance(refusal, DuplicateJob):
        emit(logging.INFO, "request.duplicate", reason=str(refusal))
        return 409, b'{"detail":"The same is being done already."}'
    if isinstance(refusal, ReservationLost):
        emit(logging.WARNING, "request.overtaken", reason=str(refusal))
        return 409, b'{"detail":"The same request is under way, or was answered; send it again to learn which."}'
    if isinstance(refusal, FileTooLarge):
        emit(logging.WARNING, "request.too_large", reason=str(refusal))
        return 413, b'{"detail":"The file is too large."}'
    emit(logging.ERROR, "request.refused", refusal, reason=str(refusal))
    if isinstance(refusal, ArgumentError | ConfigurationError | NotCommitted) and not isinstance(refusal, StoreError):
        return 500, b'{"detail":"Internal Server Error"}'
    return 503, b'{"detail":"The request could not be accepted now; try again later."}'


def _for_browsers(headers: Iterable[tuple[bytes, bytes]]) -> _Headers:
    """Those of cross-origin sharing (https://fetch.spec.whatwg.org/#http-cors-protocol): without them, a page of
    another origin could not read the answer."""
    return [
        (name, value)
        for name, value in headers
        if name.lower().startswith(b"access-control-") or name.lower() == b"vary"
    ]
