"""The routes of an application, those of included routers and mounted applications too, with their full paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import fastapi.routing


def routes_of(routes: Iterable[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each route that leads to an endpoint, by the path that a request takes to it."""
    contexts = getattr(fastapi.routing, "iter_route_contexts", None)  # since 0.137, included routers are not copied
    for context in routes if contexts is None else contexts(list(routes)):
        route = getattr(context, "_effective_route", context)
        path = f"{prefix}{getattr(route, 'path', '')}"
        if (inner := getattr(route, "app", None)) is not None and hasattr(inner, "routes"):
            yield from routes_of(inner.routes, path)
        else:
            yield path, route
