"""What those need of a store who show jobs to people: the part of its contract that no job depends on."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

from afterward.job import Event, Failure, Ruling, Status

T = TypeVar("T")

Answer: TypeAlias = asyncio.Future[T]
"""The answer to an operation, to be awaited on the loop that asked. It cannot be cancelled: who awaits it and is
cancelled gets the answer first, and can read it from the future when the cancellation arrives."""


@dataclass(frozen=True, slots=True)
class Stream:
    """What a job has said after a number, and how it stood at that moment.

    `id`: the job's own, to which the asked one may only lead. `events`: in order, the next ones after that number.
    `first`, `last`: the numbers of the oldest event that is kept and of the newest; 0, 0 when there is none.
    When `status` is terminal and `events` reaches `last`, that is all that the job will ever say, unless a person
    retries it.
    """

    id: str
    status: Status
    attempt: int
    events: Sequence[Event]
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Jobs that fail with one signature.

    `count`: how many have failed for good. `retrying`: how many have failed and are tried again: they wait for their
    next attempt, or run. Of all these: when one failed first, each counted by its last failure, when one failed last,
    and which (`newest`), with its task and failure.
    """

    signature: str
    task: str
    failure: Failure
    count: int
    retrying: int
    first_at: datetime
    last_at: datetime
    newest: str


@dataclass(frozen=True, slots=True)
class Period:
    """What ended in one queue within one span of time: how many, and how long they took, in seconds.

    `waited`: from when a job was due to the start of its last attempt; `ran`: of that attempt. Each as the 50th and
    95th percentile, of all that succeeded or failed, or of a sample of them; None where none did.
    """

    queue: str
    began: datetime
    succeeded: int
    failed: int
    cancelled: int
    waited: tuple[float, float] | None
    ran: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Served:
    """What a process runs jobs of: by task the fingerprint of its arguments; queues (None: all); slots for each kind.

    `version`: of the application, as it says itself, or "". `threaded`, `apart`: those of the tasks that take a thread
    each, or one of so many `children`; the others take a place in the loop. `relays`: those of which it hands the jobs
    to Celery; `broker_trouble`: why it cannot reach the broker, while it cannot, or "". `results_trouble`: the same of
    what Celery tells of those that are followed. `hosted`: those that it runs as a Celery worker: it claims none of
    their jobs.
    """

    tasks: Mapping[str, str]
    queues: Sequence[str] | None
    concurrency: int
    threads: int
    version: str = ""
    threaded: Collection[str] = ()
    children: int = 0
    apart: Collection[str] = ()
    relays: Collection[str] = ()
    broker_trouble: str = ""
    hosted: Collection[str] = ()
    results_trouble: str = ""


@dataclass(frozen=True, slots=True)
class ProcessSeen:
    """A process with a liveness row. `served`: None for one that runs no jobs. `running`: the jobs that it runs."""

    id: str
    pid: int
    host: str
    joined_at: datetime
    served: Served | None
    running: Sequence[str]


@dataclass(frozen=True, slots=True)
class TaskSeen:
    """A task that some process served once: in which version of the application last, and when."""

    task: str
    version: str
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Pause:
    """A queue of which nothing is claimed: since when, and who said so."""

    queue: str
    since: datetime
    by: str


class Reserved(StrEnum):
    """The answer to who wants to reserve a key."""

    reserved = "reserved"
    """It is this request's, until it is completed or dropped."""
    in_flight = "in_flight"
    """Another request with the same key is under way."""
    other = "other"
    """It was used for something else: its fingerprint differs."""
    completed = "completed"
    """The same request was answered before."""
    stranger = "stranger"
    """The process in whose name it was to be has no liveness row; nothing was reserved."""


class Reservation(NamedTuple):
    """`answer`: of one that is completed, as `Completion` had it, or `amend` has left it."""

    state: Reserved
    answer: str | None = None


class Seen(Protocol):
    """What a store shows, and what a person can do by it. Each operation is one atomic transaction, as all others."""

    def events(self, asked: Sequence[tuple[str, int]], limit: int) -> Answer[list[Stream | None]]:
        """Of each job named, at most so many events after the number named with it; None for an unknown job."""
        ...

    def hasten(self, jobs: Sequence[str]) -> Answer[list[Ruling]]:
        """Make jobs that wait for their time due now, because a person says so. One answer for each, in order.

        `forbidden` for what is not queued, or due already, or was asked to end; a job that is held stays held. One that
        is handed over is so no more: it is claimed again, and its message of before is refused; but it is cancelled
        where another has taken its unique key. It rings.
        """
        ...

    def failures(self, limit: int) -> Answer[list[FailureGroup]]:
        """The jobs that have failed for good, and are kept, or fail and are tried again, by the signature of their last
        failure; those that failed last come first. They are those that `list` finds by a signature.

        Failures without a signature are one group for each task.
        """
        ...

    def history(self, since: datetime, seconds: float) -> Answer[list[Period]]:
        """What has ended since then, and is kept: by queue, and by spans of so many seconds counted from 1970.

        Ordered by time, then queue. A span in which nothing ended in a queue is left out.
        """
        ...

    def describe(self, process: str, served: Served) -> Answer[bool]:
        """Say what `process` runs jobs of; False when it has no liveness row. Replaces what was said before.

        That each of its tasks was seen, in its version, is kept when the process is gone.
        """
        ...

    def processes(self) -> Answer[list[ProcessSeen]]:
        """All that have a liveness row, but for those whose death is certain; the one that joined last comes first."""
        ...

    def tasks_seen(self) -> Answer[list[TaskSeen]]:
        """All tasks that some process has ever served, by name."""
        ...

    def ahead(self, job: str, tasks: Collection[str], queues: Collection[str], limit: int) -> Answer[int]:
        """How many jobs of these tasks and queues are ready, and stand before this one; at most so many are counted.

        Before it: more urgent by priority, or as urgent and due before, or added before. Those that are marked as unfit
        for somebody are not counted. 0 for a job that does not wait, or is not known. Its cost grows with `limit`, and
        with the tasks, queues and priorities of what waits; not with the rest.
        """
        ...

    def pause(self, queue: str, by: str) -> Answer[bool]:
        """Have nobody claim from this queue; what runs goes on. False when it is paused already, and stays as it is.

        A worker that starts jobs without a claim learns of it by its next claim; it rings all who wait.
        """
        ...

    def resume(self, queue: str) -> Answer[bool]:
        """Let its jobs be claimed again; False when it is not paused. It rings all who wait."""
        ...

    def paused(self) -> Answer[list[Pause]]:
        """The queues that are paused, by name."""
        ...

    def reserve(self, reservation: str, scope: str, key: str, fingerprint: str, process: str) -> Answer[Reservation]:
        """Reserve a key for one request, in the name of `process`, whose liveness row must be there.

        `reservation`: an id of the request's own, by which it is completed or dropped. `scope`: whose key it is, and
        for what: the same key in another scope is another. What is reserved by a process without a row is reserved by
        nobody, unless it is completed: another may take its place. It is completed by the job that names it
        (`completes`), in the transaction that stores that job; without a job it is never completed. What is completed
        is kept for a day at least, and left to `tidy` then. `stranger` when `process` has no row.
        Repeated: `reserved` again, for the same `reservation`. So one whose answer was lost can be dropped.
        """
        ...

    def amend(self, reservation: str, answer: str) -> Answer[bool]:
        """Replace the answer of a reservation that is completed; False for one that is not, and nothing changes."""
        ...

    def drop(self, reservations: Sequence[str]) -> Answer[None]:
        """Give up reservations that are not completed. Of one that is, or that nobody has, nothing changes."""
        ...
