"""Publishing to Celery's broker, from a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from afterward.celery.app import place_of, without_password
from afterward.celery.backend import silence_of
from afterward.celery.link import NOT_IN_TIME, BrokerLost, BrokerRefused, Link
from afterward.celery.messages import Message
from afterward.engine.patience import pause_after
from afterward.observe import emit

T = TypeVar("T")

LONGEST_SECONDS = 10.0
"""In so much time there is an answer, whatever the broker does."""

_LOOK_SECONDS = 2.5
"""How often an idle connection is looked after."""

_UNREACHABLE = "the broker cannot be reached"
_BLOCKED = "the broker takes nothing for now, for want of memory or disk"

_MARGIN_SECONDS = 1.0
"""So much of the time is left to say what was not confirmed."""


class _Request:
    """What is asked of the thread: `work`, on the link that there is; or `otherwise`, told why there is no answer."""

    def __init__(self, work: Callable[[float], Any], otherwise: Callable[[str], Any]) -> None:
        self.work = work
        self.otherwise = otherwise
        self.deadline = time.monotonic() + LONGEST_SECONDS - _MARGIN_SECONDS
        self.answer: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def tell(self, answer: Any) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


class Publisher:
    """Publishes messages of one Celery app, over a connection of its own, in the order in which it is asked.

    `hear`: called, from any thread, when `trouble` or `is_reachable` has changed. From its start on it is connected, or
    tries to be.
    """

    def __init__(self, app: Any, hear: Callable[[], None]) -> None:
        self._app = app
        self._hear = hear
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._link: Link | None = None
        self._failures = 0
        self.trouble: str | None = None
        """Why the broker cannot be reached, while it cannot; without its password."""

    @property
    def is_reachable(self) -> bool:
        """Is it connected, as far as is known?"""
        return self._link is not None and self.trouble is None

    def start(self) -> None:
        """Connect, in a thread of its own. Lawful twice; in a process that was forked, it starts anew."""
        if self._thread is not None and self._pid == os.getpid():
            return
        self._requests = queue.SimpleQueue()
        self._link, self.trouble, self._failures, self._pid = None, None, 0, os.getpid()
        self._thread = threading.Thread(target=self._run, name="afterward-publisher", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Leave, once all is answered that was asked. Lawful without a start, and twice."""
        thread, self._thread = self._thread, None
        if thread is not None and self._pid == os.getpid():
            self._requests.put(None)
            await asyncio.to_thread(thread.join, LONGEST_SECONDS)

    async def publish(self, messages: Sequence[Message]) -> list[str | None]:
        """Have them confirmed by the broker: None for each that is, else why it is not.

        There is an answer in ten seconds. One that is not confirmed may have arrived all the same.
        """
        return await self._ask(lambda deadline: self._publish(messages, deadline), lambda why: [why] * len(messages))

    async def backlog(self, messages: Sequence[Message]) -> list[int | None]:
        """How many messages wait in the queue that each would go to; None where that is not known."""
        return await self._ask(lambda _: self._lengths(messages), lambda _: [None] * len(messages))

    async def revoke(self, task_ids: Sequence[str]) -> bool:
        """Have all workers that hear of it end these tasks, or not begin them; False when nobody can be told."""
        return await self._ask(lambda _: self._revoke(task_ids), lambda _: False)

    async def _ask(self, work: Callable[[float], T], otherwise: Callable[[str], Any]) -> T:
        if self._thread is None or self._pid != os.getpid():
            return otherwise("nothing is published here any more")
        request = _Request(work, otherwise)
        self._requests.put(request)
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                return await asyncio.wrap_future(request.answer)
        except TimeoutError:
            if (link := self._link) is not None:
                link.abort()
            return otherwise(NOT_IN_TIME)

    # in the thread

    def _run(self) -> None:
        silence_of(self._app)  # before anything is published, for who hands it over asks for it in the event loop
        while True:
            if self._link is None:
                self._connect()
            pause = _LOOK_SECONDS if self._link is not None else pause_after(self._failures)
            try:
                request = self._requests.get(timeout=pause)
            except queue.Empty:
                self._look()
            else:
                if request is None:
                    break
                self._carry_out(request)
            self._see_block()
        if self._link is not None:
            self._link.close()

    def _carry_out(self, request: _Request) -> None:
        if request.answer.cancelled() or time.monotonic() >= request.deadline:
            return  # nobody waits for it any more: what it says has been told to be unconfirmed
        if self._link is None or self._link.is_blocked:
            request.tell(request.otherwise(_UNREACHABLE if self._link is None else _BLOCKED))
            return
        try:
            answer = request.work(request.deadline)
            self._see_block()  # before whoever asked goes on
            request.tell(answer)
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not end the thread
            emit(logging.ERROR, "celery.publisher_broken", error)
            self._lose(BrokerLost(f"{type(error).__name__}: {error}"))
            request.tell(request.otherwise(_UNREACHABLE))

    def _publish(self, messages: Sequence[Message], deadline: float) -> list[str | None]:
        """Of several of which one is refused, and nobody says which, one half after the other is sent again."""
        if self._link is None:
            self._connect()
        if self._link is None or time.monotonic() >= deadline:
            return [_UNREACHABLE if self._link is None else NOT_IN_TIME] * len(messages)
        reasons, broken_by = self._link.publish(messages, deadline)
        if isinstance(broken_by, BrokerLost):
            self._lose(broken_by)
        elif isinstance(broken_by, BrokerRefused):
            self._link.drop()
            self._link = None
            unconfirmed = [number for number, reason in enumerate(reasons) if reason is not None]
            if len(unconfirmed) > 1:
                for half in (unconfirmed[: len(unconfirmed) // 2], unconfirmed[len(unconfirmed) // 2 :]):
                    again = self._publish([messages[number] for number in half], deadline)
                    reasons = _with(reasons, half, again)
        return reasons

    def _lengths(self, messages: Sequence[Message]) -> list[int | None]:
        assert self._link is not None  # noqa: S101 - asked only where there is one
        try:
            return self._link.lengths(messages)
        except BrokerLost as error:
            self._lose(error)
            return [None] * len(messages)

    def _revoke(self, task_ids: Sequence[str]) -> bool:
        assert self._link is not None  # noqa: S101 - asked only where there is one
        try:
            self._link.revoke(task_ids)
        except BrokerLost as error:
            self._lose(error)
            return False
        return True

    def _look(self) -> None:
        try:
            if self._link is not None:
                self._link.look()
        except BrokerLost as error:
            self._lose(error)

    def _see_block(self) -> None:
        if self._link is not None and self._link.is_blocked != (self.trouble is not None):
            if self._link.is_blocked:
                self._tell(f"{place_of(self._app)}: {_BLOCKED}")
            else:
                self._tell(None)

    def _connect(self) -> None:
        try:
            self._link = Link(self._app)
        except BrokerLost as error:
            self._lose(error)
            return
        except Exception as error:  # noqa: BLE001 - as where the settings of the app are wrong: it is told, again and again
            self._lose(BrokerLost(f"{type(error).__name__}: {error}"))
            return
        self._failures = 0
        self._tell(None)

    def _lose(self, error: BrokerLost) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.drop()
        self._failures += 1
        self._tell(f"{place_of(self._app)}: {without_password(self._app, str(error))}")

    def _tell(self, trouble: str | None) -> None:
        """What the trouble is from now on; it is logged when it begins and when it ends."""
        before, self.trouble = self.trouble, trouble
        if trouble is None:
            emit(logging.INFO, "celery.broker_reached", broker=place_of(self._app))
        elif before is None:
            emit(logging.WARNING, "celery.broker_unreachable", reason=trouble)
        self._hear()


def _with(reasons: Sequence[str | None], numbers: Sequence[int], others: Sequence[str | None]) -> list[str | None]:
    replaced = dict(zip(numbers, others, strict=True))
    return [replaced.get(number, reason) for number, reason in enumerate(reasons)]
