"""The dashboard as a router: which page is where."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from afterward.web.dashboard import actions, bulk, forgery, requeue
from afterward.web.dashboard.assets import assets
from afterward.web.dashboard.forms import form_of
from afterward.web.dashboard.guard import Refused, guard
from afterward.web.dashboard.pages import failures, job, jobs, overview, queues, workers
from afterward.web.dashboard.pulse import pulse
from afterward.web.dashboard.remembered import Remembered
from afterward.web.dashboard.rendering import environment
from afterward.web.dashboard.route import Page
from afterward.web.dashboard.visit import Host, Visit, visit
from afterward.web.events import EventStreamResponse

_Begin = Callable[[Request, str], Awaitable[Visit]]
_Show = Callable[[Visit], Awaitable[Response]]
_Act = Callable[[Visit, Mapping[str, str]], Awaitable[Response]]

PAGES: Mapping[str, _Show] = {
    "": overview.overview,
    "/jobs": jobs.jobs,
    "/jobs/{id}": job.job,
    "/jobs/{id}/requeue": requeue.edit,
    "/failures": failures.failures,
    "/workers": workers.workers,
    "/queues": queues.queues,
    "/bulk": bulk.confirm,
}

ACTIONS: Mapping[str, _Act] = {
    "/jobs/{id}/requeue": requeue.requeue,
    "/jobs/{id}/{action}": actions.move,
    "/queues/pause": actions.pause,
    "/queues/resume": actions.resume,
    "/bulk": bulk.act,
}


def dashboard(host: Host, admin: Callable[..., Any] | None, prefix: str, options: Mapping[str, Any]) -> APIRouter:
    """A router with all pages. `options`: of `APIRouter`. Raises `ConfigurationError` when Jinja2 is not installed."""
    environment()
    given: dict[str, Any] = {"route_class": Page, "include_in_schema": False} | dict(options)
    own = list(given.pop("dependencies", None) or ())
    guarded = [Depends(guard(admin, is_guarded=bool(own))), *own]
    router = APIRouter(prefix=prefix, dependencies=guarded, **given)
    remembered: Remembered[Any] = Remembered()

    async def begin(request: Request, path: str) -> Visit:
        return await visit(request, host, path, remembered)

    for path, show in PAGES.items():
        path = path or _root(prefix)  # noqa: PLW2901 - FastAPI's rule: never both of them empty
        router.add_api_route(path, _shown(begin, path, show), methods=["GET"])
    for path, act in ACTIONS.items():
        router.add_api_route(path, _acted(begin, path, act), methods=["POST"])
    router.add_api_route("/changes", _changes(host, begin), methods=["GET"])
    router.add_api_route("/static/{name}", _static, methods=["GET"])
    return router


def _root(prefix: str) -> str:
    return "" if prefix else "/"


def _shown(begin: _Begin, path: str, show: _Show) -> Callable[..., Any]:
    async def endpoint(request: Request) -> Response:
        return await show(await begin(request, path))

    return endpoint


def _acted(begin: _Begin, path: str, act: _Act) -> Callable[..., Any]:
    async def endpoint(request: Request) -> Response:
        here = await begin(request, path)
        form = await form_of(request)
        forgery.check(request, form, here.who)
        return await act(here, form)

    return endpoint


def _changes(host: Host, begin: _Begin) -> Callable[..., Any]:
    async def endpoint(request: Request) -> Response:
        here = await begin(request, "/changes")
        stream = pulse(here.store, host.tails.at(here.store), here.query.get("job"))
        return EventStreamResponse(stream)

    return endpoint


async def _static(request: Request) -> Response:
    asset = assets().get(request.path_params["name"])
    if asset is None:
        raise Refused("There is no such file", "It is not one of the dashboard's.", 404)
    is_named = request.query_params.get("v") == asset.version
    kept = "private, max-age=31536000, immutable" if is_named else "no-cache"
    return Response(asset.content, media_type=asset.media_type, headers={"Cache-Control": kept})
