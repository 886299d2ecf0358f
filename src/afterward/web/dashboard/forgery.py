"""Actions only by who sees the dashboard: not by another site that has a person's browser send a form.

A form carries a token made from a cookie that other sites' requests do not bring along (SameSite=Strict); and browsers
say where a request comes from: https://owasp.org/www-community/attacks/csrf
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

from fastapi import Request, Response

from afterward.web.dashboard.guard import Refused

COOKIE = "afterward_dashboard"
FIELD = "token"

_KEY = re.compile(r"[A-Za-z0-9_-]{43}")


def key_of(request: Request) -> str | None:
    """What the browser brought along, if it is one of ours."""
    key = request.cookies.get(COOKIE, "")
    return key if _KEY.fullmatch(key) else None


def new_key() -> str:
    """What a browser is given at its first visit."""
    return secrets.token_urlsafe(32)


def token_of(key: str, who: str) -> str:
    """What the forms carry that are shown to who has this key."""
    return hmac.new(key.encode(), f"dashboard\0{who}".encode(), hashlib.sha256).hexdigest()


def give(response: Response, key: str, request: Request, path: str) -> None:
    """Have the browser keep a key."""
    response.set_cookie(
        COOKIE, key, path=path or "/", secure=request.url.scheme == "https", httponly=True, samesite="strict"
    )


def check(request: Request, form: Mapping[str, str], who: str) -> None:
    """Raise `Refused` for a form that may not come from one of our pages."""
    if not _is_from_here(request):
        raise Refused("This came from elsewhere", "Actions are accepted from the dashboard's own pages only.")
    key = key_of(request)
    if key is None or not hmac.compare_digest(token_of(key, who).encode(), form.get(FIELD, "").encode()):
        raise Refused("This page is out of date", "Go back, load the page again, and repeat what you wanted.")


def _is_from_here(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    # Browsers leave it out where the connection is not secure. The scheme may be a proxy's affair; the host is not.
    try:
        return urlsplit(request.headers.get("origin", "")).netloc == request.headers.get("host", "")
    except ValueError:
        return False
