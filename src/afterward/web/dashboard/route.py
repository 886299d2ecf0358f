"""How every page is answered: with its headers, and in words also when there is nothing to show."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute

from afterward.errors import StoreError
from afterward.observe import emit
from afterward.web.dashboard.assets import assets
from afterward.web.dashboard.guard import Refused
from afterward.web.dashboard.headers import headers
from afterward.web.dashboard.rendering import render
from afterward.web.dashboard.visit import home_of

_RETRY_AFTER_SECONDS = 5


class Page(APIRoute):
    """A page of the dashboard, or an action."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own, and what is to be said of its refusals."""
        answer = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                response = await answer(request)
            except Refused as refused:
                return refusal(refused, home_of(request))
            except StoreError as error:
                emit(logging.WARNING, "dashboard.unavailable", reason=str(error))
                response = refusal(Refused("The store does not answer", str(error), 503), None)
                response.headers["Retry-After"] = str(_RETRY_AFTER_SECONDS)
                return response
            response.headers.update(headers())
            return response

        return answered


def refusal(refused: Refused, home: str | None) -> Response:
    """A page of its own, which needs nothing else: who sees it may be nobody who may see more. `home`: for who may."""
    nonce = secrets.token_urlsafe(16)
    style = assets()["refused.css"].content.decode()
    content = render("refused.html", refused=refused, home=home, nonce=nonce, style=style)
    said = headers(style_src=f"'nonce-{nonce}'", script_src="'none'")
    return HTMLResponse(content, refused.status_code, {**said, "Cache-Control": "no-store"})
