"""The same as `app.py`, for those who must validate tokens before FastAPI sees a request: in a pure ASGI middleware.

It answers 401 by itself, whatever the path; it leaves the user in the scope, and tells afterward whose the jobs are.
"""

import os
from collections.abc import Container

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from afterward import Afterward, BackgroundTasks, JobHandle

from .tokens import User, secret_from, user_of
from .work import Report, write_report


class BearerMiddleware:
    """Lets through who brings a valid token, or asks for an open path; `scope["user"]` is who that is."""

    def __init__(self, app: ASGIApp, tasks: Afterward, secret: str, open_paths: Container[str] = ()) -> None:
        self._app = app
        self._tasks = tasks
        self._secret = secret
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"} and scope["path"] not in self._open_paths:
            kind, _, token = Headers(scope=scope).get("Authorization", "").partition(" ")
            user = user_of(token, self._secret) if kind.lower() == "bearer" else None
            if user is None:
                refusal = JSONResponse({"detail": "Bring a valid token."}, 401, {"WWW-Authenticate": "Bearer"})
                await refusal(scope, receive, send)
                return
            scope["user"] = user
            self._tasks.set_owner(scope, user.id)
        await self._app(scope, receive, send)


app = FastAPI(title="Reports, behind a middleware")
tasks = Afterward()
tasks.install(app)
app.add_middleware(
    BearerMiddleware,
    tasks=tasks,
    secret=secret_from(dict(os.environ)),
    open_paths=frozenset({"/docs", "/openapi.json"}),
)

make_report = tasks.task(max_attempts=3)(write_report)


def get_user(request: Request) -> User:
    """Whoever the middleware let through."""
    user: User = request.scope["user"]
    return user


def get_user_id(request: Request) -> str:
    return get_user(request).id


def get_is_admin(request: Request) -> bool:
    return get_user(request).is_admin


app.include_router(tasks.router(owner=get_user_id, admin=get_is_admin))


@app.post("/reports/{year}", status_code=202)
async def create_report(year: int, background_tasks: BackgroundTasks) -> JobHandle[Report]:
    """As in `app.py`; the owner is known by now."""
    return background_tasks.add_task(make_report, year)
