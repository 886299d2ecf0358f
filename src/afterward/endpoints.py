"""Finding the endpoints that still take FastAPI's own BackgroundTasks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import fastapi.routing

from afterward.background import BackgroundTasks
from afterward.observe import emit


def warn_of_stock_endpoints(app: Any) -> None:
    """Tell of each path whose endpoint, or a dependency of it, takes the stock class: it would run tasks in memory."""
    for path in stock_endpoints(app):
        emit(
            logging.WARNING,
            "endpoint.takes_stock_background_tasks",
            path=path,
            reason="it takes fastapi.BackgroundTasks: a durable task added there would run in memory only; "
            "import BackgroundTasks from afterward",
        )


def stock_endpoints(app: Any) -> list[str]:
    """The paths of those endpoints."""
    return sorted({path for path, dependant in _endpoints(app.routes, "") if _takes_stock(dependant)})


def _endpoints(routes: Iterable[Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """The full path and the dependencies of every endpoint, those of included routers and mounted apps too."""
    contexts = getattr(fastapi.routing, "iter_route_contexts", None)  # since 0.137, included routers are not copied
    for context in routes if contexts is None else contexts(list(routes)):
        route = getattr(context, "_effective_route", context)
        path = f"{prefix}{getattr(route, 'path', '')}"
        if (dependant := getattr(route, "dependant", None)) is not None:
            yield path, dependant
        elif (inner := getattr(route, "app", None)) is not None and hasattr(inner, "routes"):
            yield from _endpoints(inner.routes, path)


def _takes_stock(dependant: Any) -> bool:
    ours = getattr(dependant.call, "__module__", None) == BackgroundTasks.__module__
    if dependant.background_tasks_param_name is not None and not ours:
        return True
    return any(_takes_stock(dependency) for dependency in dependant.dependencies)
