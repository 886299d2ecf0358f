"""One websocket: its durable tasks, stored and started at once, and before whatever is sent after them."""

from __future__ import annotations

import asyncio
from typing import Any

from anyio import CancelScope
from starlette.background import BackgroundTask as StockBackgroundTask
from starlette.types import Message, Scope, Send

from afterward.handle import JobHandle
from afterward.intake import Intake
from afterward.onlookers import Onlookers
from afterward.request import Call
from afterward.task import Task


class WebSocketCall(Call):
    """A websocket, from its handshake to the end of the last dependency.

    What could not be stored is tried again with what is added or sent next, and when the websocket is over.
    """

    tries_again = True

    def __init__(self, intake: Intake, onlookers: Onlookers, send: Send, scope: Scope) -> None:
        super().__init__(intake, onlookers, send, scope)
        self._loop = asyncio.get_running_loop()
        self._storing: set[asyncio.Task[None]] = set()

    @property
    def answer_is_due(self) -> bool:
        """Never: a websocket has no response that could tell of a refusal; whoever sends meets it."""
        return False

    def add(
        self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], origin: StockBackgroundTask
    ) -> JobHandle[Any]:
        """Take one durable task, and store it soon. May be called from any thread."""
        handle = super().add(task, args, kwargs, origin)
        self._loop.call_soon_threadsafe(self._store_soon)
        return handle

    def discard(self, origin: StockBackgroundTask | None = None) -> None:
        """Nothing is dropped: what was added is on its way into the store."""

    async def send(self, message: Message) -> None:
        """The application's `send`: what was added before is stored before."""
        self._store_soon()
        await self._stored()
        await super().send(message)

    async def end(self) -> None:
        """The websocket is over: what is still being stored is waited for, whoever cancels."""
        self._admit_no_more()
        if self._storing:
            with CancelScope(shield=True):
                await asyncio.wait(self._storing)  # what they could not store is still pending
        await super().end()

    def _store_soon(self) -> None:
        if self._pending and not self._over:
            storing = self._loop.create_task(self._store_and_start())
            self._storing.add(storing)
            storing.add_done_callback(self._forget_if_stored)

    def _forget_if_stored(self, storing: asyncio.Task[None]) -> None:
        if not storing.cancelled() and storing.exception() is None:
            self._storing.discard(storing)

    async def _store_and_start(self) -> None:
        if self._pending:  # another may have come before
            await self._store(direct=True)
        if self.leases or self.held:
            await self._intake.let_go(self)

    async def _stored(self) -> None:
        """Wait until all that has begun to be stored is. Raises what one of them raised."""
        storing = set(self._storing)
        if storing:
            await asyncio.wait(storing)  # when this is cancelled, they are still known
        self._storing -= storing
        for each in storing:
            each.result()
