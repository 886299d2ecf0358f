"""Paths as the client knows them: also of an application that is mounted, or behind a proxy that strips a prefix."""

from __future__ import annotations

import re
from urllib.parse import quote

from starlette.types import Scope

from afterward.errors import ConfigurationError
from afterward.routes import routes_of

_CONVERTOR = re.compile(r"(\{\w+):\w+\}")


def path_of(scope: Scope) -> str:
    """The path of the request."""
    root = _root_of(scope)
    path: str = scope["path"]
    is_within = path == root or path.startswith(f"{root}/")
    return _quoted(path if is_within else root + path)


def base_of(scope: Scope, segments: int) -> str:
    """The path of the request without its last segments."""
    path = path_of(scope)
    for _ in range(segments):
        path = path.rpartition("/")[0]
    return path


def base_elsewhere(scope: Scope, endpoint: object) -> str | None:
    """Where the route of this endpoint, which ends in an id, is to be found by a client of any other route.

    None where the application has no such route. Raises `ConfigurationError` for one whose path cannot be known.
    """
    template = _template_of(scope, endpoint)
    if template is None:
        return None
    template = _CONVERTOR.sub(r"\1}", template.rpartition("/")[0])
    try:
        return _quoted(_root_of(scope) + template.format(**scope.get("path_params", {})))
    except KeyError as error:
        raise ConfigurationError(
            f"the router of jobs is at {template}, and the path of this request has no {error}; "
            f"include tasks.router(…) at a path without parameters, or with those of the routes that add tasks"
        ) from error


def _quoted(path: str) -> str:
    """As it stands in a URL; one that begins with two slashes would lead to another host (RFC 3986, 4.2)."""
    return quote(f"/.{path}" if path.startswith("//") else path)


def _root_of(scope: Scope) -> str:
    root: str = scope.get("app_root_path", scope.get("root_path", ""))
    return root.rstrip("/")


def _template_of(scope: Scope, endpoint: object) -> str | None:
    for router in (scope.get("router"), scope.get("app")):
        for path, route in routes_of(getattr(router, "routes", ())):
            if getattr(route, "endpoint", None) is endpoint:
                return path
    return None
