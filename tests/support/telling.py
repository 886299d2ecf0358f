"""Jobs that say what a test has them say, and clients that read it as browsers do."""

import asyncio
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, cast

from afterward.errors import StoreUnavailable
from afterward.job import Event, EventKind, Status
from afterward.stores.base import Store
from afterward.stores.seen import Stream
from afterward.stores.watchers import Watchers

MORNING = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


class Told(NamedTuple):
    """An event as a browser gives it to a page: its type, its data, and the last id by then."""

    event: str
    data: Any
    id: str


class Browser:
    """Reads a stream as the standard says: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

    def __init__(self, id_: str = "") -> None:
        self.id = id_
        self.retry: int | None = None
        self.comments = 0
        self._text = ""

    def read(self, data: bytes) -> Iterator[Told]:
        """The events that are complete with these bytes."""
        self._text += data.decode()
        *blocks, self._text = self._text.split("\n\n")
        for block in blocks:
            yield from self._read_block(block)

    def _read_block(self, block: str) -> Iterator[Told]:
        event, data = "message", list[str]()
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                event = value
            elif name == "data":
                data.append(value)
            elif name == "id":
                self.id = value
            elif name == "retry":
                self.retry = int(value)
            else:
                assert not name, f"a line of no meaning: {line!r}"
                self.comments += 1
        if data:
            yield Told(event, json.loads("\n".join(data)), self.id)


@dataclass
class Saying:
    """A job of a `TellingStore`."""

    status: Status = Status.running
    attempt: int = 1
    events: list[Event] = field(default_factory=list[Event])
    last: int = 0

    def say(self, *items: Any, kind: EventKind = EventKind.item) -> None:
        for item in items:
            self.last += 1
            at = MORNING + timedelta(seconds=self.last)
            self.events.append(Event(self.last, self.attempt, kind, json.dumps(item), at))

    def trim(self, kept: int) -> None:
        """Only so many are kept."""
        self.events = self.events[-kept:]

    def stream(self, job: str, after: int, limit: int) -> Stream:
        events = [event for event in self.events if event.number > after][:limit]
        first = self.events[0].number if self.events else 0
        return Stream(job, self.status, self.attempt, events, first, self.last)


class TellingStore:
    """Only as much of a store as streams need. `asked`: what each look at it asked for; `pauses`: how long each watch was to last."""

    def __init__(self) -> None:
        self.jobs: dict[str, Saying] = {}
        self.asked: list[list[tuple[str, int]]] = []
        self.pauses: list[float] = []
        self.is_down = False
        self.tells = True
        self.watchers = Watchers()

    @property
    def as_store(self) -> Store:
        return cast("Store", self)

    def new(self, job: str) -> Saying:
        self.jobs[job] = Saying()
        return self.jobs[job]

    def say(self, job: str, *items: Any) -> None:
        """Say something, and tell of it, as where a job runs in this process."""
        self.jobs[job].say(*items)
        self.tell(job)

    def tell(self, *jobs: str) -> None:
        if self.tells:
            self.watchers.tell(jobs)

    def events(self, asked: Sequence[tuple[str, int]], limit: int) -> "asyncio.Future[list[Stream | None]]":
        self.asked.append(list(asked))
        if self.is_down:
            raise StoreUnavailable("it is down")
        answer: asyncio.Future[list[Stream | None]] = asyncio.get_running_loop().create_future()
        found = [self.jobs[job].stream(job, after, limit) if job in self.jobs else None for job, after in asked]
        asyncio.get_running_loop().call_soon(answer.set_result, found)
        return answer

    async def watch(self, jobs: Iterable[str], seconds: float) -> None:
        self.pauses.append(seconds)
        await self.watchers.wait(list(jobs), seconds)
