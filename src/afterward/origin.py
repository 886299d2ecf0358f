"""What is kept of a request with the jobs that it makes: nothing of its body, of its query, or of most headers."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from starlette.types import Scope

_LONGEST_TEXT = 500


def origin_of(scope: Scope) -> str:
    """JSON text: its method, the path of its route, what it calls itself by `X-Request-ID`, and where it came from."""
    request_id: bytes | None = None
    for name, value in scope.get("headers", ()):
        if name == b"x-request-id":
            request_id = value
            break
    client = scope.get("client")
    return _written(
        scope.get("method", "WEBSOCKET")[:_LONGEST_TEXT],
        _template_of(scope)[:_LONGEST_TEXT],
        request_id and request_id[:_LONGEST_TEXT],  # before it is remembered
        None if client is None else client[0],
    )


@lru_cache(maxsize=1024)
def _written(method: str, path: str, request_id: bytes | None, client: str | None) -> str:
    origin = {
        "method": method,
        "path": path,
        "request_id": None if request_id is None else request_id.decode("latin-1"),
        "client": client,
    }
    return json.dumps({name: value and value.replace("\0", "")[:_LONGEST_TEXT] for name, value in origin.items()})


def _template_of(scope: Scope) -> str:
    """The path with the names of its parameters, where it is known: their values may be anybody's secrets."""
    # Where routers are not copied when they are included, the route of the scope is without their prefixes.
    included: Any = scope.get("fastapi", {}).get("effective_route_context")
    route = included or scope.get("route")
    path: str | None = getattr(route, "path_format", None)
    if path is None:
        return scope.get("path", "")
    root: str = scope.get("root_path", "")
    return root.removeprefix(scope.get("app_root_path", root)) + path
