"""Finding the endpoints that still take FastAPI's own BackgroundTasks."""

from __future__ import annotations

import logging
from typing import Any

from afterward.background import BackgroundTasks
from afterward.observe import emit
from afterward.routes import routes_of


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
    found: set[str] = set()
    for path, route in routes_of(app.routes):
        dependant = getattr(route, "dependant", None)
        if dependant is not None and _takes_stock(dependant):
            found.add(path)
    return sorted(found)


def _takes_stock(dependant: Any) -> bool:
    ours = getattr(dependant.call, "__module__", None) == BackgroundTasks.__module__
    if dependant.background_tasks_param_name is not None and not ours:
        return True
    return any(_takes_stock(dependency) for dependency in dependant.dependencies)
