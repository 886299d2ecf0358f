"""`GET …/{id}/events`: what a job says, as server-sent events, as it says it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Response
from fastapi.responses import StreamingResponse

from afterward.errors import StoreUnavailable
from afterward.job import TERMINAL, EventKind, Job
from afterward.life import Life
from afterward.stores.base import Store
from afterward.stores.seen import Stream
from afterward.web.delivery import ID, Position, deliver, end, has_had_all, is_news, position_of
from afterward.web.frames import HEARTBEAT, chunks, retry
from afterward.web.tail import PAGE, Tail, Tails

HEARTBEAT_SECONDS = 15.0
"""How often a client that is told nothing gets a comment: so that proxies keep the connection, and its end shows."""

LIFE_SECONDS = 900.0
"""How long one connection lasts, or a little less: a client that connects again is asked again who it is."""

RETRY_SECONDS = 1.0
"""How long a client waits before it connects again, at least; three times as long at most: many may have to at once."""

_AFTER_A_BREAK_SECONDS = 1.0

_KINDS = "|".join(EventKind)
_TEXT = {"type": "string"}
_ITEM = {"type": "object", "properties": {"event": _TEXT, "data": _TEXT, "id": _TEXT, "retry": {"type": "integer"}}}
"""One event of a stream, as FastAPI describes those of its own."""
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "What the job says", "content": {"text/event-stream": {"itemSchema": _ITEM}}},
    204: {"description": "The client was told the end, and it still is"},
    403: {"description": "The lines of a job's log are shown to admins alone"},
    404: {"description": "There is no such job, or it is another's"},
    503: {"description": "The store cannot be reached; try again after `Retry-After`"},
}
_HEADERS = {"Cache-Control": "no-cache, no-store, no-transform", "X-Accel-Buffering": "no"}


class Sight(Protocol):
    """What a caller sees of the job in the path: given by a dependency, which answers 404 where that is nothing.

    `is_admin`: the lines of its log, too.
    """

    @property
    def job(self) -> Job: ...

    @property
    def is_admin(self) -> bool: ...

    def document(self, job: Job) -> str:
        """The status document as JSON, of this job as it stands by now."""
        ...


class EventStreamResponse(StreamingResponse):
    """A stream of server-sent events."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[bytes]) -> None:
        super().__init__(content, headers=_HEADERS)


def add_events(router: APIRouter, tails: Tails, life: Callable[[], Life], sight: Callable[..., Any]) -> None:
    """Add the route. `sight`: the dependency that gives a `Sight` of the job whose id is in the path."""
    its_sight = Depends(sight)

    async def events(
        after: Annotated[
            str, Query(pattern=ID, description="The id of the last event seen: what follows is sent.")
        ] = "",
        last_event_id: Annotated[
            str, Header(alias="Last-Event-ID", pattern=ID, description="The same, and counts more.")
        ] = "",
        kinds: Annotated[
            str | None, Query(pattern=f"^({_KINDS})(,({_KINDS}))*$", description="Only these, separated by commas.")
        ] = None,
        seen: Sight = its_sight,
    ) -> Response:
        """What the job says, as it says it, from the first event that the client has not seen; at its end `done`."""
        position = position_of(last_event_id or after)
        store = life().store
        if position.is_done and await _is_over(store, seen.job.id, position):
            return Response(status_code=204, headers=_HEADERS)
        follower = _Follower(tails.at(store), store, seen, position, _wanted(kinds, seen))
        return EventStreamResponse(follower.frames(waits=life().conductor is None))

    async def events_head(seen: Sight = its_sight) -> Response:  # noqa: ARG001 - it answers 404 where there is nothing to see
        return Response(headers=_HEADERS, media_type=EventStreamResponse.media_type)

    path = "/{id}/events"
    router.add_api_route(
        path,
        events,
        methods=["GET"],
        name="afterward:events",
        status_code=200,
        response_class=Response,  # as OpenAPI is to know it: the stream is described by its items
        responses=_ANSWERS,
    )
    router.add_api_route(path, events_head, methods=["HEAD"], include_in_schema=False)


async def _is_over(store: Store, job: str, position: Position) -> bool:
    [found] = await store.events([(job, position.asks_after)], 1)
    if found is None:
        raise HTTPException(404, "No such job.")
    return has_had_all(position, found)


def _wanted(kinds: str | None, seen: Sight) -> Collection[EventKind]:
    """The lines of its log are for those alone who are shown tracebacks."""
    allowed = frozenset(EventKind) if seen.is_admin else frozenset({EventKind.progress, EventKind.item})
    if kinds is None:
        return allowed
    wanted = frozenset(map(EventKind, kinds.split(",")))
    if not wanted <= allowed:
        raise HTTPException(403, "The lines of a job's log are shown to admins alone.")
    return wanted


class _Follower:
    """One client: where it is, and what it is sent next. Nothing is held for it but what is being sent."""

    def __init__(self, tail: Tail, store: Store, seen: Sight, position: Position, kinds: Collection[EventKind]) -> None:
        self._tail = tail
        self._store = store
        self._seen = seen
        self._position = position
        self._kinds = kinds

    async def frames(self, *, waits: bool) -> AsyncIterator[bytes]:
        """All that is sent. `waits`: also what is yet to come."""
        until = asyncio.get_running_loop().time() + LIFE_SECONDS * random.uniform(0.8, 1)  # noqa: S311
        yield retry(RETRY_SECONDS * random.uniform(1, 3))  # noqa: S311
        while asyncio.get_running_loop().time() < until:
            try:
                found = await (self._more() if waits else self._rest())
            except TimeoutError:
                yield HEARTBEAT
                continue
            if found is None:
                return
            delivery, attempt = deliver(self._position, found, self._kinds), found.attempt
            del found  # it may be large, and the client slow
            self._position = delivery.position
            for chunk in chunks(delivery.frames):
                yield chunk
            if delivery.is_all and (last := await self._end(attempt)) is not None:
                yield last
                return

    async def _more(self) -> Stream | None:
        async with asyncio.timeout(HEARTBEAT_SECONDS):
            return await self._tail.more(self._seen.job.id, self._position.asks_after, self._is_news)

    async def _rest(self) -> Stream | None:
        [found] = await self._store.events([(self._seen.job.id, self._position.asks_after)], PAGE)
        return found if found is not None and self._is_news(found) else None

    def _is_news(self, found: Stream) -> bool:
        return is_news(self._position, found)

    async def _end(self, attempt: int) -> bytes | None:
        """The last to be sent, after this attempt; None when it is not over, for a person has retried the job."""
        try:
            [job] = await self._store.get([self._seen.job.id])
        except StoreUnavailable:
            await asyncio.sleep(_AFTER_A_BREAK_SECONDS)
            return None
        if job is None:
            return b""  # forgotten: who connects again is told so
        if job.status not in TERMINAL or job.attempt != attempt:
            return None
        return end(self._position, self._seen.document(job))
