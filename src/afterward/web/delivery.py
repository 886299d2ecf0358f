"""What a client of a job's stream is sent next: decided by what it has seen, and by what the store holds."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from afterward.job import TERMINAL, Event, EventKind, Status
from afterward.stores.seen import Stream
from afterward.web.frames import frame

ID = r"^([0-9]{1,15}(\.done)?)?$"
"""What a client can say that it has seen last: nothing, the number of an event; with `.done`, that this was the end."""


@dataclass(frozen=True, slots=True)
class Position:
    """What a client has seen: all up to the event of this `number`, which was of this `attempt`.

    `attempt`: None while that is not known. `is_done`: it was told that this is the end.
    """

    number: int = 0
    attempt: int | None = None
    is_done: bool = False

    @property
    def asks_after(self) -> int:
        """The number after which to look on: where the attempt is not known, the last event seen tells it."""
        return self.number - 1 if self.number and self.attempt is None else self.number


@dataclass(frozen=True, slots=True)
class Delivery:
    """What to send next, and where the client is then. `is_all`: only the end is left to be told."""

    frames: Sequence[bytes]
    position: Position
    is_all: bool


def position_of(id_: str) -> Position:
    """What the client has seen whose last id was this one, as `ID` allows it."""
    number, _, end = id_.partition(".")
    return Position(int(number or 0), is_done=bool(end))


def deliver(position: Position, found: Stream, kinds: Collection[EventKind]) -> Delivery:
    """What a client that is there gets of what was found; events of other kinds are passed over.

    - One that has seen more than there is, as after the loss of a store's last commits, gets what comes from now on.
    - What is not kept any more is told of, by how much it is.
    - Where it has seen events of one attempt, and what follows is of another, that is told first. One that connects
      anew may be told so again.
    """
    if position.number > found.last:
        return Delivery((), Position(found.last), is_all=False)
    frames: list[bytes] = []
    for event in found.events:
        if event.number > position.number:
            frames += _before(position, event)
            frames += [_event(event)] if event.kind in kinds else []
        position = Position(event.number, event.attempt)
    has_all = position.number == found.last
    if has_all and _has_begun_again(position, found):
        frames.append(_attempt(found.attempt))
        position = Position(position.number, found.attempt)
    return Delivery(frames, position, is_all=has_all and found.status in TERMINAL)


def is_news(position: Position, found: Stream) -> bool:
    """Would a client that is there be elsewhere after it, or at the end?"""
    last = found.events[-1] if found.events else None
    return (
        found.status in TERMINAL
        or position.number > found.last
        or (last is not None and (last.number, last.attempt) != (position.number, position.attempt))
        or _has_begun_again(position, found)
    )


def has_had_all(position: Position, found: Stream) -> bool:
    """Was the client told the end, and is it still the end?"""
    return position.is_done and found.status in TERMINAL and position.number >= found.last


def end(position: Position, document: str) -> bytes:
    """That it is the end: with the job's status document, for a client that has had all before."""
    return frame("done", document, f"{position.number}.done")


def _has_begun_again(position: Position, found: Stream) -> bool:
    """Has an attempt begun that has said nothing yet, after one that did?"""
    return found.status is Status.running and 0 < (position.attempt or 0) < found.attempt


def _before(position: Position, event: Event) -> Iterator[bytes]:
    if (lost := event.number - position.number - 1) > 0:
        yield frame("skipped", json.dumps({"events": lost}))
    if position.number and position.attempt != event.attempt:
        yield _attempt(event.attempt)


def _attempt(number: int) -> bytes:
    return frame("attempt", json.dumps({"attempt": number}))


def _event(event: Event) -> bytes:
    at = event.at.isoformat().replace("+00:00", "Z")
    # What is JSON already is not read for that.
    return frame(event.kind, f'{{"attempt":{event.attempt},"at":"{at}","data":{event.data}}}', str(event.number))
