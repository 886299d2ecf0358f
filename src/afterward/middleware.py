"""Where requests pass: the middleware around an application that gives each of them its `Call`, and those inside."""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, Sequence

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterward.errors import AfterwardError, ArgumentError, DuplicateJob, FileTooLarge
from afterward.life import Life
from afterward.observe import emit
from afterward.onlookers import Onlookers, are_indifferent
from afterward.request import CALLS, SCOPE_KEY, Call, calls_in
from afterward.task import Owner

RETRY_AFTER_SECONDS = 5


class DurableTasksMiddleware:
    """Wraps a whole ASGI application, outside of all its other middleware."""

    def __init__(self, app: ASGIApp, owner: Owner, life: Callable[[], Life], served: Callable[[], None]) -> None:
        self._app = app
        self._owner = owner
        self._life = life
        self._served = served
        self._onlookers = Onlookers(DurableTasksMiddleware._serve.__code__)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] not in ("http", "websocket"):
            return self._app(scope, receive, send)
        if self._owner in calls_in(scope):
            return self._app(scope, receive, send)
        self._served()
        conductor = self._life().conductor
        if conductor is None:
            return self._serve(scope, receive, send)
        return conductor.conduct(self._serve, scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(self._life().intake, self._onlookers, scope, send)
        scope[SCOPE_KEY] = calls = {**calls_in(scope), self._owner: call}
        token = CALLS.set(calls)
        try:
            try:
                await self._app(scope, receive, call.send)
            finally:
                CALLS.reset(token)
            await call.conclude()
        except Exception:
            if not call.answer_is_due:
                raise
            await _answer_refused(call.refusal, send)
        finally:
            await call.end()


class FailureMiddleware:
    """Between all middleware: where an exception passes, what was added for its request is dropped."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except BaseException:
            for call in calls_in(scope).values():
                call.fail()
            raise


class InnermostMiddleware(FailureMiddleware):
    """Inside of all other middleware, where the exception that a response answers can still be seen.

    One that is being handled around all of this, by a middleware or by who started the server, is not of this request.
    `onlookers`: may one of the others do something once the response is sent?
    """

    def __init__(self, app: ASGIApp, onlookers: bool) -> None:
        super().__init__(app)
        self._onlookers = onlookers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        calls = calls_in(scope)
        around = sys.exception()
        for call in calls.values():
            call.is_seen_inside = True
            call.is_looked_at = call.is_looked_at or self._onlookers

        async def send_sifted(message: Message) -> None:
            if message["type"] == "http.response.start":
                for call in calls.values():
                    call.sift(around)
            await send(message)

        await super().__call__(scope, receive, send_sifted if calls else send)


def with_failures_seen(middleware: Sequence[Middleware]) -> list[Middleware]:
    """An application's own middleware, with ours between that sees how each ends; none where there is none."""
    if not middleware:
        return []
    around = [one for theirs in middleware for one in (Middleware(FailureMiddleware), theirs)]
    return [*around, Middleware(InnermostMiddleware, onlookers=not are_indifferent(middleware))]


async def _answer_refused(refusal: AfterwardError | None, send: Send) -> None:
    """409 where the request asks for what is there already, 413 for too large a file, 500 for one that cannot be read;
    else 503: it may be tried again."""
    if isinstance(refusal, DuplicateJob):
        emit(logging.INFO, "request.duplicate", reason=str(refusal))
        status, body = 409, b'{"detail":"The same is being done already."}'
    elif isinstance(refusal, FileTooLarge):
        emit(logging.WARNING, "request.too_large", reason=str(refusal))
        status, body = 413, b'{"detail":"The file is too large."}'
    elif isinstance(refusal, ArgumentError):
        emit(logging.ERROR, "request.refused", refusal, reason=str(refusal))
        status, body = 500, b'{"detail":"Internal Server Error"}'
    else:
        emit(logging.ERROR, "request.refused", refusal, reason=str(refusal))
        status, body = 503, b'{"detail":"The request could not be accepted now; try again later."}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", str(RETRY_AFTER_SECONDS).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
