"""The body of a request that has a key, as it comes in: its fingerprint is taken on the way."""

from __future__ import annotations

from collections import deque

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from afterward.idempotency import HEADER, Fingerprint

MAX_AHEAD_BYTES = 1_048_576
"""So much of a body is kept in memory where its endpoint reads it by itself, and so after the key is reserved."""

_NAME = HEADER.lower().encode()


class TooMuchAhead(Exception):
    """The endpoint would read a body by itself that is too large to be read before."""


class Received:
    """Stands in for the application's `receive`. What was read of the body is hashed, and kept nowhere."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self._receive = receive
        content_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        self._fingerprint = Fingerprint(self.method, self.path, scope["query_string"], content_type.decode("latin-1"))
        self._ahead: deque[Message] = deque()
        self._is_whole = False

    async def __call__(self) -> Message:
        return self._ahead.popleft() if self._ahead else await self._next()

    async def fingerprint(self) -> str:
        """Of the whole request: what nobody has read yet is read now, and kept for who will.

        Raises `TooMuchAhead`, and `ClientDisconnect` when the rest does not come.
        """
        size = 0
        while not self._is_whole:
            message = await self._next()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            self._ahead.append(message)
            size += len(message.get("body", b""))
            if size > MAX_AHEAD_BYTES:
                raise TooMuchAhead
        return self._fingerprint.text()

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._fingerprint.take(message.get("body", b""))
            self._is_whole = not message.get("more_body", False)
        return message


def has_key(scope: Scope) -> bool:
    """Does this request have an `Idempotency-Key`?"""
    for name, _ in scope["headers"]:  # noqa: SIM110 - any() of a generator takes twice as long
        if name == _NAME:
            return True
    return False
