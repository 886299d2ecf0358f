"""Calling an app as a server does, on the event loop of the test."""

import asyncio

from starlette.types import ASGIApp, Message, Scope


async def call(app: ASGIApp) -> list[Message]:
    """One request, without a server: what the app sends."""
    sent: list[Message] = []
    body = asyncio.Event()

    async def receive() -> Message:
        if body.is_set():
            await asyncio.sleep(3600)
        body.set()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/",
        "raw_path": b"/", "query_string": b"", "headers": [], "scheme": "http", "server": None, "client": None,
        "root_path": "", "extensions": {}, "state": {},
    }  # fmt: skip
    await app(scope, receive, send)
    return sent
