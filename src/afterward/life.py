"""This process, as one store knows it: its sign of life there, and the way its jobs get in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from starlette.types import Receive, Scope, Send

from afterward.intake import Intake
from afterward.liveness import Liveness
from afterward.stores.base import Store


class Conductor(Protocol):
    """What has jobs run in place of a worker: a test, which wants them to have run when a call returns."""

    def conduct(
        self, serve: Callable[[Scope, Receive, Send], Awaitable[None]], scope: Scope, receive: Receive, send: Send
    ) -> Coroutine[Any, Any, None]:
        """Serve one request or websocket, and whatever is to happen when it is over."""
        ...

    async def hear_of_wait(self) -> None:
        """A request waits for the end of what it has enqueued: that has been started, and nothing else runs it."""
        ...

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """What lasts as long as an application lives."""
        ...


class Life:
    """One life of this process in one store. `apps`: how many applications live it now."""

    def __init__(self, store: Store, liveness: Liveness, intake: Intake, conductor: Conductor | None = None) -> None:
        self.store = store
        self.liveness = liveness
        self.intake = intake
        self.conductor = conductor
        self.apps = 0

    @classmethod
    def on(cls, store: Store, lease: float, *, migrate: bool = True) -> Life:
        """A life that begins when it is needed. `lease`: seconds after which it loses its jobs if it stands still.

        `migrate`: it brings the store up to date, in place of refusing an older one.
        """
        liveness = Liveness(store, lease, migrate=migrate)
        return cls(store, liveness, Intake(store, liveness))
