"""Where requests pass: the middleware around an application that gives each of them its `Call`, and those inside."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterward.calls import CALLS, SCOPE_KEY, calls_in
from afterward.intake import Intake
from afterward.keyed import KeyedCall
from afterward.life import Life
from afterward.onlookers import Onlookers, are_indifferent
from afterward.received import has_key
from afterward.refusal import answer
from afterward.request import Call
from afterward.task import Owner
from afterward.websocket import WebSocketCall


class DurableTasksMiddleware:
    """Wraps a whole ASGI application, outside of all its other middleware."""

    def __init__(self, app: ASGIApp, owner: Owner, life: Callable[[], Life]) -> None:
        """`life`: called for each request, gives what serves it."""
        self._app = app
        self._owner = owner
        self._life = life
        self._onlookers = Onlookers(DurableTasksMiddleware._serve.__code__)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] not in ("http", "websocket") or self._owner in calls_in(scope):
            return self._app(scope, receive, send)
        life = self._life()
        if life.conductor is None:
            return self._serve(life.intake, scope, receive, send)
        return life.conductor.conduct(partial(self._serve, life.intake), scope, receive, send)

    async def _serve(self, intake: Intake, scope: Scope, receive: Receive, send: Send) -> None:
        call = _kind_of(scope)(intake, self._onlookers, send, scope)
        receive = call.listen(receive)
        scope[SCOPE_KEY] = calls = {**calls_in(scope), self._owner: call}
        try:
            try:
                within = CALLS.set(calls)
                try:
                    await self._app(scope, receive, call.send)
                finally:
                    CALLS.reset(within)
                    del within  # what is not needed while this waits is not kept alive
                if call.is_withheld:
                    await call.store_withheld()
                    if call.is_waited_for:
                        await call.wait()
                    await call.send_withheld()
            except Exception:
                if not call.answer_is_due:
                    raise
            if call.refusal is not None and call.answer_is_due:
                await call.give_up_key()
                await answer(call.refusal, call.start, send)
        finally:
            await call.end()


def _kind_of(scope: Scope) -> type[Call]:
    if scope["type"] == "websocket":
        return WebSocketCall
    return KeyedCall if has_key(scope) else Call


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
            for call in calls.values():
                call.hear(message)
            await send(message)

        await super().__call__(scope, receive, send_sifted if calls else send)


def with_failures_seen(middleware: Sequence[Middleware]) -> list[Middleware]:
    """An application's own middleware, with ours between that sees how each ends; none where there is none."""
    if not middleware:
        return []
    around = [one for theirs in middleware for one in (Middleware(FailureMiddleware), theirs)]
    return [*around, Middleware(InnermostMiddleware, onlookers=not are_indifferent(middleware))]
