"""RabbitMQ's word about messages: confirmed, refused, or returned for want of a queue."""

from __future__ import annotations

import time
from typing import Any

_PIECE_SECONDS = 1.0


class Confirms:
    """What the broker says of what is published on one channel.

    It numbers what is published, from 1; each word is about one number, or about all up to it. What is returned comes
    back before that word, which says then that it was confirmed all the same.
    """

    def __init__(self, channel: Any) -> None:
        self._last_tag = 0
        self._expected: tuple[int, str] = 0, ""
        self._open: dict[int, tuple[int, str]] = {}
        self.confirmed: set[int] = set()
        """The numbers of the messages that were accepted, or returned, of those that are sent together now."""
        self.refused: dict[int, str] = {}
        """Why those were refused that were, or came back."""
        channel.confirm_select()
        channel.events["basic_ack"].add(self._hear_ack)
        channel.events["basic_nack"].add(self._hear_nack)
        channel.events["basic_return"].add(self._hear_return)

    def begin(self) -> None:
        """Others are to be sent together; whatever is still said of those before is not heard."""
        self._open.clear()
        self.confirmed, self.refused = set(), {}

    def expect(self, number: int, task_id: str) -> None:
        """The next that is counted as expected is this message."""
        self._expected = number, task_id

    def count(self, *, is_expected: bool) -> None:
        """Something was published."""
        self._last_tag += 1
        if is_expected:
            self._open[self._last_tag] = self._expected

    def wait(self, connection: Any, deadline: float) -> None:
        """Until there is a word about each, or until then. Raises what the connection does."""
        while self._open and (left := deadline - time.monotonic()) > 0:
            try:
                connection.drain_events(timeout=min(left, _PIECE_SECONDS))
            except TimeoutError:
                continue

    def _hear_ack(self, tag: int, multiple: bool) -> None:
        self.confirmed.update(self._settle(tag, multiple))

    def _hear_nack(self, tag: int, multiple: bool) -> None:
        for number in self._settle(tag, multiple):
            self.refused[number] = "the broker has refused it: its queue may be full"

    def _hear_return(self, _: Any, exchange: str, routing_key: str, message: Any) -> None:
        task_id = message.properties.get("correlation_id")
        where = f"at exchange {exchange!r}, for the key {routing_key!r}" if exchange else f"{routing_key!r}"
        for number, expected in self._open.values():
            if expected == task_id:
                self.refused[number] = f"the broker has no queue for it: {where}"

    def _settle(self, tag: int, multiple: bool) -> list[int]:
        tags = [one for one in self._open if one <= tag] if multiple else [tag]
        return [self._open.pop(one)[0] for one in tags if one in self._open]
