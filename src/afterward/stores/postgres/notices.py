"""Ringing in other processes, through the server's notifications: a hint, sent from one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from afterward.stores.batch import Operation

_PAUSE_SECONDS = 0.003
"""How long after one notification the next may follow: each costs the server a lock that all of them share."""


class Notices:
    """Sends notifications by `submit`, not again and again: what is rung soon after one is rung once, a little later.

    To be used on its loop.
    """

    def __init__(self, channel: str, submit: Callable[[Operation], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel = channel
        self._submit = submit
        self._is_under_way = self._rang_meanwhile = False

    def send(self) -> None:
        """Wake who waits for jobs in other processes."""
        if self._is_under_way:
            self._rang_meanwhile = True
            return
        self._is_under_way = True
        operation = Operation("notify", (self._channel,), self._loop)
        operation.add_done_callback(self._has_sent)
        self._submit(operation)

    @property
    def may_be_rung(self) -> bool:
        """Was there none just now?"""
        return not self._is_under_way

    @contextmanager
    def rung_by_another(self) -> Generator[None]:
        """For a statement that rings by itself, when it may be rung."""
        self._is_under_way = True
        try:
            yield
        finally:
            self._loop.call_later(_PAUSE_SECONDS, self._may_send)

    def _has_sent(self, answer: asyncio.Future[Any]) -> None:
        answer.exception()  # a hint only: who was not reached looks by himself soon
        self._loop.call_later(_PAUSE_SECONDS, self._may_send)

    def _may_send(self) -> None:
        self._is_under_way = False
        if self._rang_meanwhile:
            self._rang_meanwhile = False
            self.send()
