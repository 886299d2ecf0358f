"""Does anything in the application look on while a response leaves, or do something after it?

A dependency with `yield`, a middleware, a task in memory: each may learn that a response could not be sent, or counts
on its having left. Where there is nothing of that kind, as at most endpoints, a response can be withheld until the
application has returned, and its tasks be stored then. A server answers about a sixth more requests for it: one that
waits inside of the application keeps all of its frames and containers alive meanwhile, and Python's garbage collector
goes through them again and again.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from types import CodeType
from typing import Any

import fastapi
import starlette.background
from starlette.middleware import Middleware
from starlette.responses import Response

_INDIFFERENT = frozenset((
    "afterward.onlookers",
    "afterward.request",
    "fastapi._body_limit",
    "fastapi.applications",
    "fastapi.middleware.asyncexitstack",
    "fastapi.routing",
    "starlette._exception_handler",
    "starlette.applications",
    "starlette.middleware.cors",
    "starlette.middleware.errors",
    "starlette.middleware.exceptions",
    "starlette.middleware.gzip",
    "starlette.middleware.httpsredirect",
    "starlette.middleware.sessions",
    "starlette.middleware.trustedhost",
    "starlette.routing",
))  # fmt: skip
"""Modules whose code passes a response on, and neither knows nor does anything about it afterwards."""

_INDIFFERENT_AMONG_OTHERS = frozenset((("fastapi.telemetry._asgi", "ExceptionTelemetryMiddleware.__call__"),))
"""Such code of modules that hold other code as well."""

_STACKS = ("fastapi_inner_astack", "fastapi_function_astack", "fastapi_middleware_astack")
"""Where FastAPI keeps what is to exit after the response: dependencies with `yield`, uploaded files."""

_STOCK = (fastapi.BackgroundTasks, starlette.background.BackgroundTasks)
_RESPOND = Response.__call__.__code__


class Participant:
    """What of ours stands in an application's way without looking on."""

    def runs_in_memory(self) -> bool:
        """Is there anything in it that runs in memory, after the response?"""
        return True


def are_indifferent(middleware: Sequence[Middleware]) -> bool:
    """Do all of an application's own middleware just pass a response on?"""
    return all(getattr(each.cls, "__module__", None) in _INDIFFERENT for each in middleware)


def looks_on(outermost: CodeType, call: object) -> bool:
    """Might anything between the calling code and the frame of `outermost` that serves `call` look on?

    Answered by what can be seen of it: each function on the way from there to here is one that is known not to.
    """
    frame = inspect.currentframe()  # each await shows in these, whoever wrapped whom
    responds = False
    while frame is not None:
        code = frame.f_code
        if code is _RESPOND:
            if responds or _has_sequel(frame.f_locals["self"], frame.f_locals["scope"]):
                return True
            responds = True
        elif (module := frame.f_globals.get("__name__")) not in _INDIFFERENT:
            if (module, code.co_qualname) not in _INDIFFERENT_AMONG_OTHERS:
                return True
        elif code is outermost and frame.f_locals.get("call") is call:
            return not responds  # one that was sent by hand may be followed by anything
        frame = frame.f_back
    return True  # another task is in between


def _has_sequel(response: Any, scope: Any) -> bool:
    background = response.background
    if background is not None:
        if type(background) in _STOCK:
            if background.tasks:
                return True
        elif not isinstance(background, Participant) or background.runs_in_memory():
            return True
    for name in _STACKS:
        stack = scope.get(name)
        if stack is not None:
            for _, leave in getattr(stack, "_exit_callbacks", _UNKNOWN):
                if not isinstance(getattr(leave, "__self__", None), Participant):
                    return True
    return False


_UNKNOWN = ((True, None),)
"""A stack that cannot be looked into holds something."""
