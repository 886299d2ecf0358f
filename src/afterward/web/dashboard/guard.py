"""Who may see the dashboard: closed unless somebody said whom to let in, but for a developer at their own machine."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from typing import Any

from fastapi import Depends, HTTPException, Request

ENVIRONMENT = "AFTERWARD_ENV"

_WHO = "afterward.dashboard.who"
_FORWARDED = (
    "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "cf-connecting-ip",
    "true-client-ip", "via",
)  # fmt: skip
_HOST = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]*)?|([A-Za-z0-9.-]+)(?::[0-9]*)?")
_LET_IN = (
    "Say who may come in: tasks.dashboard(admin=…), a dependency that answers who is asking, as a str, or raises; "
    "or tasks.dashboard(dependencies=[…])."
)


class Refused(HTTPException):
    """Somebody may not come in, or not do this; why, and the mend."""

    def __init__(self, title: str, reason: str, status: int = 403) -> None:
        super().__init__(status, f"{title}. {reason}")
        self.title = title
        self.reason = reason


def guard(admin: Callable[..., Any] | None, *, is_guarded: bool) -> Callable[..., Any]:
    """The dependency that lets people in, or raises `Refused`.

    `admin`: a dependency that answers who is asking. `is_guarded`: other dependencies have a say.
    """
    if admin is not None:
        return _named_by(admin)
    return _already_let_in if is_guarded else _only_developers


def _named_by(admin: Callable[..., Any]) -> Callable[..., Any]:
    async def let_in(request: Request, who: Any = Depends(admin)) -> None:
        if not isinstance(who, str) or not who:
            raise Refused("You are nobody", "The dependency given as admin= did not answer who you are, as a str.")
        request.scope[_WHO] = who

    return let_in


async def _already_let_in(request: Request) -> None:
    request.scope[_WHO] = ""


async def _only_developers(request: Request) -> None:
    reason = why_closed(request)
    if reason is not None:
        raise Refused("The dashboard is closed", reason)
    request.scope[_WHO] = "development"


def who_of(request: Request) -> str:
    """Who was let in; "" for somebody who has no name."""
    return str(request.scope[_WHO])


def why_closed(request: Request) -> str | None:
    """Why nobody may come in where nobody said who may; None for a developer at their own machine."""
    if not (request.app.debug or os.environ.get(ENVIRONMENT) == "development"):
        return f"{_LET_IN} In development, {ENVIRONMENT}=development opens it to your own machine; so does debug=True."
    forwarded = next((name for name in _FORWARDED if name in request.headers), None)
    if forwarded is not None:
        return f"The request came by a proxy ({forwarded}), so nobody knows from where. {_LET_IN}"
    if request.scope.get("http_version") == "1.0":  # no browser says so; proxies do that add no header by themselves
        return f"The request came by HTTP/1.0, as by a proxy, so nobody knows from where. {_LET_IN}"
    if request.client is None or not _is_loopback(request.client.host):
        return f"In development it is open to clients on the same machine only, by a loopback address. {_LET_IN}"
    if not all(map(_names_loopback, request.headers.getlist("host") or [""])):
        # A page of somebody else's may have its own name lead to this machine (DNS rebinding).
        return f"In development it answers to localhost and 127.0.0.1 only. {_LET_IN}"
    return None


def _names_loopback(host: str) -> bool:
    """Is this a `Host` that only this machine has? Not by `request.url`: that is the server's own for what is none."""
    found = _HOST.fullmatch(host)
    name = (found[1] or found[2]).lower() if found else ""
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
