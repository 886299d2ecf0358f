"""The messages of a response, as ASGI has them, and from where they are sent."""

from __future__ import annotations

import inspect
from typing import Any

from starlette.responses import Response
from starlette.types import Message


async def send_nothing() -> None:
    """In place of what is withheld, or is not wanted any more."""


async def send_nowhere(_message: Message) -> None:
    raise RuntimeError("the call is over: nothing can be sent any more")


def background_being_sent() -> list[Any]:
    """The tasks of the response that the calling code is sending: found in the frames that lead here."""
    frame = inspect.currentframe()
    while frame is not None:
        sender = frame.f_locals.get("self")
        if isinstance(sender, Response) and sender.background is not None:
            return [sender.background, *getattr(sender.background, "tasks", ())]
        frame = frame.f_back
    return []


def has_length(message: Message) -> bool:
    """Is this the start of a response whose length is known: one that does not stream?"""
    for name, _ in message.get("headers", ()):  # noqa: SIM110 - any() of a generator takes twice as long
        if name == b"content-length" or name.lower() == b"content-length":
            return True
    return False
