"""What is stored of one durable call, and the moves it may make."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum
from typing import NamedTuple, Protocol, TypeAlias


class Status(StrEnum):
    """Where a job stands. "Later" and "retrying" are `queued` with a `run_at` to come."""

    queued = "queued"
    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"


ALLOWED: dict[Status, frozenset[Status]] = {
    Status.queued: frozenset({Status.running, Status.cancelled}),
    Status.running: frozenset({Status.queued, Status.succeeded, Status.failed, Status.cancelled}),
    Status.succeeded: frozenset(),
    Status.failed: frozenset({Status.queued}),
    Status.cancelled: frozenset({Status.queued}),
}
"""The moves allowed; `failed` and `cancelled` become `queued` again only when a person says so."""

TERMINAL = frozenset({Status.succeeded, Status.failed, Status.cancelled})


class Placement(StrEnum):
    """How a job enters the store."""

    free = "free"
    """Any worker may claim it as soon as it is due."""
    held = "held"
    """Nobody may claim it until the process that stored it releases it, or is dead."""
    leased = "leased"
    """It is the first attempt of the process that stored it: no claim is needed."""


class OnDuplicate(Enum):
    """What to do with a call whose unique key an unfinished job of the same task has."""

    keep = "keep"
    """Store nothing: the id of the call leads to the job that is there."""
    replace = "replace"
    """Cancel the job that waits. One that runs gives up the key, and is not tried again."""
    refuse = "refuse"
    """Store nothing, also not what is enqueued with it."""


class Stored(StrEnum):
    """The store's answer to one job of an `enqueue`."""

    stored = "stored"
    """The job is on stable storage."""
    exists = "exists"
    """An unfinished job with the same task and unique key was there; the new id now leads to that one."""
    refused = "refused"
    """The same, but the call does not want to be stored then: nothing of this `enqueue` was stored."""
    dropped = "dropped"
    """Another job of the same `enqueue` was refused, incomplete, or unreserved."""
    stranger = "stranger"
    """The process that wanted to hold or lease it has no liveness row; nothing was stored."""
    incomplete = "incomplete"
    """The content of one of its files is not there, or not all of it; nothing of this `enqueue` was stored."""
    unreserved = "unreserved"
    """The reservation that it completes is there no more: another request has taken its place, or it was dropped;
    nothing of this `enqueue` was stored."""


class Ruling(StrEnum):
    """The store's answer to what a person wants of one job."""

    done = "done"
    """It was moved."""
    unknown = "unknown"
    """There is no such job."""
    forbidden = "forbidden"
    """Its status does not allow the move."""
    taken = "taken"
    """Another unfinished job has its unique key by now."""
    asked = "asked"
    """It runs, or is in the hands of another system: it has been asked to end, and shows as cancelled once it has."""


class Content(Protocol):
    """What a file contains, where it is before it is stored."""

    def read(self, offset: int, size: int) -> bytes:
        """So many bytes from there, fewer only where it ends. It blocks; may be called from any thread."""
        ...


class NewFile(NamedTuple):
    """A file of a job about to be stored. A store knows it by its id; who stores the job stores the content before."""

    id: str
    content: Content


class EventKind(StrEnum):
    """What an attempt can say while it runs."""

    progress = "progress"
    """How far it is: `{"current": …, "total": …, "message": …}`."""
    log = "log"
    """A line of its log: `{"level": …, "logger": …, "message": …}`."""
    item = "item"
    """What the task yielded or emitted: any JSON."""


class NewEvent(NamedTuple):
    """An event about to be stored. `data` is JSON text; `age`: seconds since it happened, when it is reported."""

    kind: EventKind
    data: str
    age: float = 0.0


class Report(NamedTuple):
    """Events of one attempt, in order. `first`: which of all that the attempt has said the first of them is, from 1.

    So a report may be repeated: what the store has by then is not stored again.
    """

    first: int
    events: tuple[NewEvent, ...]


class Event(NamedTuple):
    """An event as the store holds it. `number`: from 1, one more for each event of its job, whatever the attempt."""

    number: int
    attempt: int
    kind: EventKind
    data: str
    at: datetime


class Completion(NamedTuple):
    """A reservation that is completed by the storing of a job: `answer` is what was answered to the request, as text.

    `reservation`: the id by which it was reserved. It is the fence: where it is there no more, the job is not stored.
    Completed again by the same: the answer is replaced.
    """

    reservation: str
    answer: str


class NewJob(NamedTuple):
    """A job about to be stored. `delay` (seconds) and `run_at` exclude each other; neither means at once.

    `expires`: no attempt begins after so many seconds, or after this time. `max_attempts`, `timeout`: None means what
    the task says. `owner`: whose it is, where somebody else's is not to be seen. `origin`: JSON text, the request that
    made it. `completes`: a reservation that is completed in the same transaction, though the job be there already.
    """

    id: str
    task: str
    queue: str
    priority: int
    arguments: str
    context: str | None = None
    delay: float | None = None
    run_at: datetime | None = None
    unique: str | None = None
    on_duplicate: OnDuplicate = OnDuplicate.keep
    expires: float | datetime | None = None
    max_attempts: int | None = None
    timeout: float | None = None
    files: tuple[NewFile, ...] = ()
    owner: str | None = None
    origin: str | None = None
    completes: Completion | None = None


class Lease(NamedTuple):
    """One process's right to one numbered attempt of a job. `id` and `attempt` together are the fence.

    `max_attempts`, `timeout`: what was said of the call in place of what the task says, or None.
    """

    id: str
    attempt: int
    process: str
    task: str
    arguments: str
    context: str | None = None
    failures: int = 0
    deaths: int = 0
    max_attempts: int | None = None
    timeout: float | None = None
    queue: str = "default"
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong in an attempt, as text. `kind` is the exception's qualified name.

    `signature`: the same for failures that are most likely of the same cause.
    """

    kind: str
    message: str
    traceback: str = ""
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """running → succeeded. `result` is JSON text, None when the function returned None.

    `then`: a job that is stored with it, if the attempt still holds its own. `files`: ids of those that
    the job had, and that nobody needs any more.
    """

    result: str | None = None
    then: NewJob | None = None
    files: tuple[str, ...] = ()
    report: Report | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """running → failed, for good. `then`: as for `Succeeded`."""

    failure: Failure
    then: NewJob | None = None
    report: Report | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """running → cancelled: it was asked to end, and did. `note` says more to who looks."""

    note: str
    report: Report | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """running → queued after a failure, due in `delay` seconds."""

    failure: Failure
    delay: float
    report: Report | None = None


@dataclass(frozen=True, slots=True)
class Released:
    """running → queued at no cost: a shutdown, or a process that cannot run it. `note` says why to who looks.

    `unfit_for`: the fingerprint of a signature that its arguments do not fit; who has that one passes the job over.
    """

    note: str
    delay: float = 0.0
    unfit_for: str = ""
    report: Report | None = None


@dataclass(frozen=True, slots=True)
class Died:
    """running → queued, or failed: the child process that ran the attempt died. One more death is counted.

    `then`: as for `Succeeded`; only with a final one.
    """

    failure: Failure
    delay: float
    final: bool
    then: NewJob | None = None
    report: Report | None = None


Outcome: TypeAlias = Succeeded | Failed | Cancelled | Retry | Released | Died
"""How an attempt ended. `report`: the last that it said, stored in the same transaction.

Where it would be queued again and has been asked to end, it is cancelled instead.
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that did not succeed, as the store remembers it."""

    number: int
    outcome: str
    started_at: datetime | None
    ended_at: datetime
    failure: Failure | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the store holds it at one moment. Times are UTC; `arguments` and `result` are JSON text."""

    id: str
    task: str
    queue: str
    priority: int
    status: Status
    attempt: int
    failures: int
    deaths: int
    arguments: str
    result: str | None
    failure: Failure | None
    note: str | None
    unique: str | None
    process: str | None
    created_at: datetime
    run_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    unfit_for: str = ""
    max_attempts: int | None = None
    timeout: float | None = None
    expires_at: datetime | None = None
    attempts: tuple[Attempt, ...] = field(default=())
    owner: str | None = None
    origin: str | None = None
    cancel_asked_at: datetime | None = None
    handed_at: datetime | None = None
    """When its message to another system was confirmed last, as long as it is in those hands; `run_at` is as before."""
    progress: str | None = None
    """The data of the last progress event of the latest attempt that reported some."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process that stores or runs jobs. `id` is fresh at every start."""

    id: str
    pid: int
    host: str
