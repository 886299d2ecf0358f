"""One request of somebody who was let in: what a page is made from, and how it is answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from afterward.handle import JobHandle
from afterward.job import NewJob
from afterward.life import Life
from afterward.stores.base import Store
from afterward.task import Task
from afterward.web.dashboard.assets import assets
from afterward.web.dashboard.forgery import give, key_of, new_key, token_of
from afterward.web.dashboard.guard import who_of
from afterward.web.dashboard.notices import notice
from afterward.web.dashboard.remembered import Remembered
from afterward.web.dashboard.rendering import render
from afterward.web.paths import base_of
from afterward.web.tail import Tails

_BASE = "afterward.dashboard.base"


def home_of(request: Request) -> str | None:
    """The first page, for somebody who was let in and is refused something else."""
    base: str | None = request.scope.get(_BASE)
    return None if base is None else base or "/"


class Host(Protocol):
    """What the dashboard needs of the `Afterward` that it shows."""

    life: Life
    tails: Tails
    tasks: dict[str, Task[..., Any]]

    async def enqueue_many(self, jobs: Iterable[NewJob], /) -> list[JobHandle[Any]]: ...


@dataclass(frozen=True, slots=True)
class Visit:
    """`base`: the path of the dashboard, as the browser knows it. `key`: what the tokens of forms are made from."""

    request: Request
    host: Host
    base: str
    who: str
    key: str
    is_new: bool
    now: datetime
    remembered: Remembered[Any]

    @property
    def store(self) -> Store:
        """Where jobs live."""
        return self.host.life.store

    @property
    def query(self) -> Mapping[str, str]:
        """What the URL asks for."""
        return self.request.query_params

    def url(self, path: str = "", /, **query: Any) -> str:
        """A page of the dashboard. What is None or empty is left out of the query."""
        said = [(name, value) for name, value in query.items() if value is not None and value not in ("", [], ())]
        return (f"{self.base}{path}" or "/") + (f"?{urlencode(said, doseq=True)}" if said else "")

    def page(self, template: str, *, status: int = 200, **facts: Any) -> Response:
        """A page, made from a template."""
        content = render(
            template, url=self.url, asset=self._asset, token=token_of(self.key, self.who), who=self.who, now=self.now,
            notice=notice(self.query), **facts
        )  # fmt: skip
        response = HTMLResponse(content, status, {"Cache-Control": "no-store"})
        if self.is_new:
            give(response, self.key, self.request, self.base)
        return response

    def go(self, path: str, /, **query: Any) -> Response:
        """On to another page, after an action."""
        return RedirectResponse(self.url(path, **query), 303)

    def _asset(self, name: str) -> str:
        return self.url(f"/static/{name}", v=assets()[name].version)


async def visit(request: Request, host: Host, path: str, remembered: Remembered[Any]) -> Visit:
    """Raises `StoreError` when the store does not open. `path`: of the page, within the dashboard."""
    await host.life.liveness.start()
    key = key_of(request)
    base = request.scope[_BASE] = base_of(request.scope, path.count("/"))
    return Visit(request, host, base, who_of(request), key or new_key(), key is None, datetime.now(UTC), remembered)
