"""Does anything in the application look on while a response leaves, or do something after it?

A dependency with `yield`, a middleware, a task in memory: each may learn that a response could not be sent, or counts
on its having left. Where there is nothing of that kind, as at most endpoints, a response can be withheld until the
application has returned, and its tasks be stored then. A server answers about a sixth more requests for it: one that
waits inside of the application keeps all of its frames and containers alive meanwhile, and Python's garbage collector
goes through them again and again.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Sequence
from types import CodeType
from typing import Any, NamedTuple

import fastapi
import starlette.background
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Host, Mount

_INDIFFERENT_MODULES = (
    "afterward.middleware",
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
)
"""Modules whose code passes a response on, and neither knows nor does anything about it afterwards."""

_INDIFFERENT_CLASSES = (("fastapi.telemetry._asgi", "ExceptionTelemetryMiddleware"),)
"""The same, of modules that hold other code as well."""

_STACKS = ("fastapi_inner_astack", "fastapi_function_astack", "fastapi_middleware_astack")
"""Where FastAPI keeps what is to exit after the response: dependencies with `yield`, uploaded files."""

_STOCK = (fastapi.BackgroundTasks, starlette.background.BackgroundTasks)
_RESPOND = getattr(Response.__call__, "__code__", None)
_frame = sys._getframe  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - the only one that leaves out those between
_DETOURS = tuple(getattr(cls.handle, "__code__", None) for cls in (Mount, Host))
"""What leads from the application to another one."""


class Participant:
    """What of ours stands in an application's way without looking on."""

    def runs_in_memory(self) -> bool:
        """Is there anything in it that runs in memory, after the response?"""
        return True


def are_indifferent(middleware: Sequence[Middleware]) -> bool:
    """Do all of an application's own middleware just pass a response on?"""
    return all(getattr(each.cls, "__module__", None) in _INDIFFERENT_MODULES for each in middleware)


class _Way(NamedTuple):
    """A way on which nobody looks on: how many calls up the response is sent, and where our own middleware stands."""

    route: object
    response: int
    middleware: int

    def leads_to(self, route: object, response: int, middleware: CodeType) -> bool:
        """Is it the way that the calling code was reached on? Raises `ValueError` when there are not so many calls."""
        one_more = 1  # this one
        return (
            self.route is route
            and self.response == response
            and _frame(self.middleware + one_more).f_code is middleware
        )


class Onlookers:
    """Looks for onlookers between the calling code and the frame of `middleware` that serves a call.

    Each function on the way is looked at, which costs as much as storing a job. So the way to a route is remembered if
    it leads there from the application itself: no way to the same route is shorter, and each onlooker makes it longer.
    """

    def __init__(self, middleware: CodeType) -> None:
        self._middleware = middleware
        self._indifferent = _indifferent_code(but_for=middleware)
        self._ways: dict[int, _Way] = {}
        self._response = 0

    def look_on(self, call: object) -> bool:
        """Might anything look on while this call's response leaves?"""
        try:
            frame: Any = _frame(self._response)  # where it was sent the last time
            if frame.f_code is _RESPOND:
                response, scope = _sent(frame)
                route = scope.get("route")
                way = self._ways.get(id(route))
                if way is not None and way.leads_to(route, self._response, self._middleware):
                    return _has_sequel(response, scope)
        except ValueError:  # there are not so many calls
            return True
        return self._walk(call)

    def _walk(self, call: object) -> bool:
        frame: Any = _frame(2)  # each await shows in these, whoever wrapped whom
        response, response_at, depth = None, 0, 1
        is_direct = True
        while True:
            code = frame.f_code
            if code is _RESPOND and response is None:
                response, response_at = frame, depth
            elif code is self._middleware:
                if frame.f_locals.get("call") is call:
                    break
                is_direct = False
            elif id(code) not in self._indifferent:
                return True
            is_direct = is_direct and code not in _DETOURS
            frame = frame.f_back
            depth += 1
        if response is None:
            return True  # what is sent by hand may be followed by anything
        sent, scope = _sent(response)
        self._response = response_at
        if is_direct and (route := scope.get("route")) is not None:
            self._ways[id(route)] = _Way(route, response_at, depth)
        return _has_sequel(sent, scope)


def _sent(frame: Any) -> tuple[Any, Any]:
    """The response that this frame of `Response.__call__` sends, and the scope that it sends it in."""
    inside = frame.f_locals
    return inside.get("self"), inside.get("scope") or {}


def _indifferent_code(*, but_for: CodeType) -> dict[int, CodeType]:
    """All code that is indifferent, by its id."""
    found: dict[int, CodeType] = {}
    for name in _INDIFFERENT_MODULES:
        with contextlib.suppress(ModuleNotFoundError):  # not of this version
            for thing in vars(importlib.import_module(name)).values():
                if getattr(thing, "__module__", None) == name:
                    _add_code(thing, found)
    for name, cls in _INDIFFERENT_CLASSES:
        with contextlib.suppress(ModuleNotFoundError):
            _add_code(getattr(importlib.import_module(name), cls, None), found)
    del found[id(but_for)]
    return found


def _add_code(thing: Any, found: dict[int, CodeType]) -> None:
    """The code of a function, of what is defined inside of it, and of a class's functions."""
    if isinstance(thing, type):
        for inside in vars(thing).values():
            _add_code(inside, found)
        return
    code = thing if isinstance(thing, CodeType) else getattr(thing, "__code__", None)
    if code is not None:
        found[id(code)] = code
        for inside in code.co_consts:
            if isinstance(inside, CodeType):
                _add_code(inside, found)


def _has_sequel(response: Any, scope: Any) -> bool:
    background = getattr(response, "background", response)  # one that has no such thing is none that we know
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
