"""Jobs that say what a test has them say, and clients that read it as browsers do."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar, cast

from afterward import Afterward
from afterward.errors import StoreUnavailable
from afterward.identity import new_id
from afterward.job import (
    Event,
    EventKind,
    Lease,
    NewEvent,
    Outcome,
    Placement,
    Process,
    Report,
    Ruling,
    Status,
    Succeeded,
)
from afterward.stores.base import Store, Wanted
from afterward.stores.seen import Stream
from afterward.stores.watchers import Watchers
from tests.support.stores import new_job

T = TypeVar("T")

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
        self._parts: list[str] = []

    def read(self, data: bytes) -> Iterator[Told]:
        """The events that are complete with these bytes."""
        self._parts.append(data.decode())
        if "\n\n" not in "".join(self._parts[-2:]):
            return  # nothing is complete: what there is of it may be long
        *blocks, rest = "".join(self._parts).split("\n\n")
        self._parts = [rest]
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
    """Only as much of a store as streams need.

    `asked`: what each look at it asked for; `pauses`: how long each watch was to last.
    """

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


class Speaker:
    """A process of its own, as the store sees it, that runs jobs and says for them what a test has it say."""

    def __init__(self, tasks: Afterward, process: str = "speaker", *, owner: str | None = None) -> None:
        self._tasks = tasks
        self._owner = owner
        self._process = process
        self._leases: dict[str, Lease] = {}
        self._said: dict[str, int] = {}
        self._do(lambda store: store.join(Process(process, 4711, "example")))

    def new_job(self, **changes: Any) -> str:
        """A job that waits."""
        job = new_job(**{"task": "app:answer", "owner": self._owner} | changes)
        self._do(lambda store: store.enqueue([(job, Placement.free)], None))
        return job.id

    def begin(self, job: str) -> None:
        """The next attempt of a job that waits."""
        wanted = [Wanted({"app:answer"}, 1, only=[job])]
        [self._leases[job]] = self._do(lambda store: store.claim(self._process, wanted, new_id())).leases
        self._said[job] = 0

    def begin_new(self, *items: Any, **changes: Any) -> str:
        """A job that runs, and has said these."""
        job = self.new_job(**changes)
        self.begin(job)
        self.say(job, *items)
        return job

    def say(self, job: str, *items: Any, kind: EventKind = EventKind.item) -> None:
        if report := self._report(job, items, kind):
            assert self._do(lambda store: store.report([(self._leases[job], report)])) == [True]

    def end(self, job: str, *items: Any, outcome: Outcome | None = None) -> None:
        """The attempt ends, and says these with its end."""
        outcome = replace(outcome or Succeeded('"ok"'), report=self._report(job, items, EventKind.item))
        assert self._do(lambda store: store.finish([(self._leases[job], outcome)])) == [True]

    def lose(self, job: str) -> None:
        """The attempt is given back: the job waits for the next."""
        lease = self._leases[job]
        assert self._do(lambda store: store.give_back(self._process, [(job, lease.attempt)], [])) == [True]

    def retry(self, job: str) -> None:
        """A person has it tried again."""
        assert self._do(lambda store: store.retry([job])) == [Ruling.done]

    def forget(self, ages: dict[Status, float]) -> None:
        """Jobs that ended so long ago are pruned."""
        self._do(lambda store: store.tidy(ages, 100, 100))

    def leave(self) -> None:
        """It ends in good order."""
        self._do(lambda store: store.leave(self._process))

    def _report(self, job: str, items: Sequence[Any], kind: EventKind) -> Report | None:
        first = self._said[job] + 1
        self._said[job] += len(items)
        return Report(first, tuple(NewEvent(kind, json.dumps(item)) for item in items)) if items else None

    def _do(self, work: Callable[[Store], Awaitable[T]]) -> T:
        async def done() -> T:
            return await work(self._tasks.store)

        return self._tasks.run_sync(done())
