"""The store: the one seam between those who make jobs, those who run them, and where they live."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from afterward.job import Job, Lease, NewJob, Outcome, Placement, Process, Report, Ruling, Status, Stored
from afterward.stores.handing import Handing
from afterward.stores.joining import Joins
from afterward.stores.seen import Answer, Seen

EVENTS_KEPT = 10_000
"""So many events of one job are kept; those before are forgotten."""

SEARCHED = 10_000
"""So many jobs are searched for a text at most."""


@dataclass(frozen=True, slots=True)
class Schema:
    """Schemas by their numbers: `found` in the store, 0 where there is none yet; `newest` that is known here.

    Within a hundred, each does what those before it do: who knows an earlier one works with a later, and so an app can
    be deployed host by host, and go back. One with which the versions before it cannot work begins the next hundred.
    """

    found: int
    newest: int

    @property
    def is_beyond(self) -> bool:
        """Is it one with which this version cannot work?"""
        return self.found // 100 > self.newest // 100


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a worker has room for: at most `limit` jobs of these tasks, from these queues (None: from all).

    `unfit_for`: fingerprints of signatures; jobs that are known not to fit one of them are passed over.
    `only`: none but the jobs of these ids, because a person says so: also before they are due.
    """

    tasks: Collection[str]
    limit: int
    queues: Collection[str] | None = None
    unfit_for: Collection[str] = ()
    only: Collection[str] | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """The leases given, and what is left to wait for.

    `more`: the limit cut the answer short. `next_due`: seconds until a job that waits for its time is due, or None.
    `for_others`: some are ready that were not wanted here, as far as the store has seen. `paused`: the queues of which
    nothing is given to anybody.
    """

    leases: list[Lease]
    more: bool
    next_due: float | None
    for_others: bool = field(default=False, compare=False)
    paused: frozenset[str] = frozenset()


class Held(NamedTuple):
    """What a process holds of a job: its attempt (0: held, not yet run), and the token of the claim that gave it."""

    attempt: int
    token: str | None


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heartbeat saw, in the transaction that made it.

    `others`: the counter of every other process. `signs`: those of them that show a sign of death which is no proof.
    `held`: what the store holds in this process's name, by job id. `files`: those in its name that are no job's.
    `reservations`: those in its name that are not completed.
    `has_orphans`: something belongs to processes without a row: there is work for `reap`.
    `has_looked`: False where the store had no time for more than the beat: then it tells nothing of these four.
    """

    others: dict[str, int]
    signs: frozenset[str]
    held: dict[str, Held]
    files: frozenset[str]
    has_orphans: bool
    has_looked: bool = True
    reservations: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Reaped:
    """What a reaping did: how many jobs were queued again, and whether it stopped at a full page."""

    jobs: int
    more: bool


@dataclass(frozen=True, slots=True)
class Tidied:
    """What a tidying did: jobs cancelled for they had expired, jobs forgotten, chunks freed.

    `more`: it stopped at a limit.
    """

    expired: int
    pruned: int
    freed: int
    more: bool


COUNTED = 10_000
"""So many jobs of a queue that are ready, or wait for their time, are counted: this means so many, or more."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """The unfinished jobs of one queue. Each is counted in one place.

    - `depth`: a worker that knows its task could claim it now. Up to `COUNTED`.
    - `later`: waits for its time. Up to `COUNTED`.
    - `held`: is held by the process that stored it, as by a request that is not over; whether it is due or not.
    - `running`: is leased.
    - `handed`: is in the hands of another system, and not begun there. Up to `COUNTED`.

    `oldest_age`: seconds since the first of the `depth` was due, whatever has been tried since; 0 when there is none.
    """

    queue: str
    depth: int
    oldest_age: float
    later: int
    held: int
    running: int
    handed: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """What there is to do, at one moment. `queues`: those that have unfinished jobs, by name.

    `processes`: how many have a liveness row, but for those whose death is certain.
    """

    queues: Sequence[QueueStats]
    processes: int


class Chunk(NamedTuple):
    """A part of a file's content; `is_last`: it ends with this one."""

    data: bytes
    is_last: bool


class Store(Seen, Handing, Protocol):
    """Where jobs live. What only those need who look at them is in `Seen`; who have others run them, in `Handing`.

    Every operation takes and answers batches, is one atomic transaction, and holds no policy.

    - Times are the store's: seconds by its own clock.
    - A write by a worker is accepted only from the process and the attempt that hold the job (the fence), and
      answers `False` for one that was refused; it never raises for that.
    - When an operation that writes has returned, what it wrote is on stable storage.
    - Operations may be asked for on any running event loop; who awaits one and is cancelled does not stop it.
    - Any operation raises `StoreUnavailable`, within a bounded time, when its answer cannot be had. A write may have
      been carried out or not, as a whole: a connection can be lost between a commit and its answer. Each is safe to
      repeat with the same arguments, and says what it answers when it had been carried out.
    """

    @property
    def location(self) -> str:
        """Where the store is, for people: an absolute path, or a URL without its password."""
        ...

    @property
    def joins(self) -> Joins | None:
        """How transactions of others write jobs; None where the store is in no database that could be theirs."""
        ...

    @property
    def proves_death(self) -> bool:
        """Is whoever `dead` names certainly dead? Else it names nobody, and `beat` tells signs."""
        ...

    @property
    def reconcile_seconds(self) -> float:
        """How often a worker looks for jobs though nothing called it, for whatever calls is a hint, and may be lost.

        And how often it is looked whether there is anything to tidy.
        """
        ...

    @property
    def refuses_workers(self) -> str | None:
        """Why nobody can run jobs from here, as the store is reached, with the mend; None where one can."""
        ...

    async def schema(self) -> Schema:
        """Which schema there is, and which one there would be after `open`. The store need not be open.

        Nothing is made, and nothing changed. Raises `StoreUnusable` for what is not ours.
        """
        ...

    async def open(self, *, migrate: bool = True) -> None:
        """Connect, and bring the schema up to date; safe when several processes do it at once. Idempotent.

        Raises `StoreUnusable` when this can never work: not our file, a newer schema, a network file system; or an
        older schema, or none, where it is not to be brought up to date (`migrate`): then nothing is made or changed.
        """
        ...

    async def close(self) -> None:
        """Let go of everything. Idempotent; a closed store may be opened again."""
        ...

    def at_home(self) -> AbstractAsyncContextManager[None]:
        """While the block lasts, much is asked for on this event loop: have ready there what makes that cheap.

        Whatever loop is not at home is served as well.
        """
        ...

    async def join(self, process: Process) -> None:
        """Write the liveness row of `process`, after taking whatever lock shows its death at once.

        Repeated: a row that is there stays as it is.
        """
        ...

    async def leave(self, process: str) -> None:
        """Remove the liveness row and the lock of `process`, for it ends in good order.

        In the same transaction, what it still holds or runs is queued again, at no cost: no death of its is counted.
        If there is something to claim then, it wakes all who `wait`, however short a time they have: of many that end
        at once, each may be the one that another would have woken.
        Repeated, or without a row: nothing is left to be done.
        """
        ...

    async def beat(self, process: str) -> Beat | None:
        """Advance the counter of `process`; None when its row is gone (it was taken for dead).

        The answer is as of that one transaction. Repeated: the counter advances once more.
        """
        ...

    async def give_back(
        self, process: str, attempts: Iterable[tuple[str, int]], files: Iterable[str], reservations: Iterable[str] = ()
    ) -> list[bool]:
        """held or running → queued, at no cost, for attempts (0: held) that `process` does not know of.

        Each by compare-and-swap on its id, attempt and process: what is not in that name any more stays as it is, and
        is answered with False. One answer for each attempt, in order. Files in the name of `process` that are no job's
        are left to `tidy`, and reservations in its name that are not completed are dropped; one that a transaction is
        about to complete stays. It waits for nobody's transaction for these. It rings.
        Repeated: False for what was given back before.
        """
        ...

    async def dead(self) -> list[str]:
        """Processes whose death is certain by their lock. Never one that lives, however slow it is.

        Where nothing proves a death (`proves_death`): nobody.
        """
        ...

    async def reap(self, buried: Iterable[tuple[str, int | None]], suspect_after: int, suspect_delay: float) -> Reaped:
        """Remove the rows of dead processes, then queue again what belongs to processes without a row.

        - A row is removed only while its counter is still the one given with it (None: whatever it is).
        - A held job just becomes claimable.
        - running → queued: one death more is counted, up to `suspect_after` (beyond that only `Died` counts), and
          from `suspect_after` on the job is due in `suspect_delay` seconds instead of at once.
        - One page is done in one call; two processes may reap at once, and each job is queued again exactly once.
        - Repeated: the next page.
        """
        ...

    def enqueue(self, jobs: Sequence[tuple[NewJob, Placement]], process: str | None) -> Answer[list[Stored]]:
        """Store jobs: all of them, or none when it raises, or one of them is refused, incomplete or unreserved.

        One answer for each, in order.

        A job whose id the store knows already is not stored again, and changes nothing: the answer is `stored`,
        whatever has become of it since, or `exists` where its id leads to another. So the same call may be repeated,
        and may name a job twice; but where it is to be `held` or `leased` and `process` has no row any more, the answer
        is `stranger` first, though it may be stored: it belongs to nobody.
        A job whose unique key an unfinished job of its task has is dealt with by its `on_duplicate`, atomically; one
        that waits and has expired is cancelled first, and has no key any more. One that runs and is replaced keeps its
        attempt, and is cancelled where it would be queued again; one that is followed does so also while it waits.
        `held` and `leased` name `process`, whose liveness row must exist, else the answer is `stranger`.
        From here on, a job's files are its own: they must be there, whole, and no other job's, else the answer is
        `incomplete`.
        A reservation that a job `completes` must be there, in whatever process's name, else the answer is `unreserved`,
        which comes before all others: a request whose process was taken for dead stores nothing once another has its
        key. It is completed though the job be there already, or its id leads to another.
        A leased job starts as attempt 1, running.
        """
        ...

    def put_chunk(self, file: str, number: int, data: bytes, process: str, *, is_last: bool) -> Answer[bool]:
        """Store a part of a file that is to be a job's, in the name of `process`; they come in order, from 0.

        False when `process` has no liveness row, or the file is a job's. To begin again with 0 begins anew. Repeated:
        the part is replaced by the same.
        """
        ...

    def release(self, process: str, jobs: Sequence[str]) -> Answer[list[bool]]:
        """Let go of jobs held by `process`: whoever claims may have them. False for those that it does not hold.

        Repeated: False for what was let go before.
        """
        ...

    def claim(self, process: str, wanted: Sequence[Wanted], token: str) -> Answer[Claimed]:
        """queued → running, with one attempt more, for jobs that

        - are due by the store's clock, or named by `only`; not expired, held by nobody, and not handed over;
        - are of a queue that is not paused, unless they are named by `only`;
        - are of a wanted task and queue, and not marked unfit for it (others are passed over by index, not read);
        - are the most urgent: by priority (largest first), then due time, then age; as the store saw them when it last
          looked at all, which it may do rarely where such a look takes long.

        queued → cancelled, for jobs that have expired.

        Nothing is given to a process without a liveness row. Repeating a call with the same token gives the same
        leases again, as long as they are running.
        """
        ...

    def finish(self, ends: Sequence[tuple[Lease, Outcome]]) -> Answer[list[bool]]:
        """End attempts: the one way out of `running`. False for an attempt that no longer holds its job.

        What is to follow an attempt (`then`) is stored in the same transaction, if the attempt is accepted; it is the
        job's owner's, unless it names another. So is the last that it says (`report`) stored; the `files` of one that
        succeeded are left to `tidy`.
        One that would be queued again, and that somebody has asked to end, is cancelled instead: so it is where `reap`
        or `give_back` would queue it, or `leave`.
        One that is released because its arguments do not fit is not remembered: its function never began. The job
        keeps the mark, as any note, until it is claimed again.
        Repeated: True again, and nothing is done, as long as the job shows that this attempt ended just so. It does
        until it is forgotten; one released because its arguments do not fit, until the job is claimed again. An attempt
        that the death of its process has ended, or that was given back, did not end so.
        """
        ...

    def cancel(self, jobs: Sequence[str]) -> Answer[list[Ruling]]:
        """queued → cancelled, held or not, because a person says so. One answer for each, in order.

        One that runs is asked to end: `asked`, every time. Its process learns of it by `asked_to_end`. So is one that
        is followed, whether it runs or is handed over; who follows it learns of that by `followed`.
        Repeated: `forbidden`, for it is cancelled by then.
        """
        ...

    async def asked_to_end(self, process: str) -> Mapping[str, int]:
        """Of the jobs that `process` runs, those that were asked to end, each with its attempt.

        Asked for several times a second, so at no cost: what the last beat saw, or a look that costs as little.
        """
        ...

    def report(self, reports: Sequence[tuple[Lease, Report]]) -> Answer[list[bool]]:
        """Append what attempts say to the logs of their jobs. False for an attempt that no longer holds its job.

        Events are numbered from 1 on in each job, without gaps, in the order in which they are said. Of those of one
        job, the newest `EVENTS_KEPT` are kept. Repeated: what is there already is not stored again; True.
        """
        ...

    def retry(self, jobs: Sequence[str]) -> Answer[list[Ruling]]:
        """failed or cancelled → queued, due at once, because a person says so. One answer for each, in order.

        Failures and deaths are counted anew, attempts go on; an expiry that has passed is forgotten, and so is that it
        was asked to end; its events stay. Its last failure is shown as before, but until it fails again, it is none
        that fails: neither `failures` nor a `list` by signature has it. `taken` while another unfinished job has its
        unique key. Repeated: `forbidden`, for it is queued by then, or runs.
        """
        ...

    def tidy(self, ages: Mapping[Status, float], jobs: int, chunks: int) -> Answer[Tidied]:
        """Do away with what nobody needs, so little of it that nobody waits long for that.

        - queued → cancelled, for at most so many `jobs` that have expired.
        - At most so many `jobs` are forgotten, the oldest first: those that ended with one of the statuses of `ages`
          more than so many seconds ago. Their files become nobody's.
        - Of files that are no job's, and that no process with a liveness row is storing, at most so many `chunks` are
          freed. The content of a job's file is there until the job succeeds or is forgotten.
        - Repeated: the next so many.
        """
        ...

    def get_chunk(self, file: str, number: int) -> Answer[Chunk | None]:
        """A part of the content of a job's file; None when there is no such part."""
        ...

    def prunable(self, ages: Mapping[Status, float]) -> Answer[int]:
        """How many jobs `tidy` would forget, were it called again and again."""
        ...

    def get(self, jobs: Sequence[str]) -> Answer[list[Job | None]]:
        """Jobs by their ids, in order, with their attempts; None for an unknown one."""
        ...

    def list(
        self, *, status: Status | Collection[Status] | None = None, task: str | None = None, queue: str | None = None,
        unique: str | None = None, before: str | None = None, since: datetime | None = None, limit: int = 50,
        owner: str | None = None, signature: str | None = None, text: str | None = None
    ) -> Answer[list[Job]]:  # fmt: skip
        """Jobs, newest first, without their attempts.

        `status`: of this one, or of one of these. `unique`: with this key. `owner`: whose they are.
        `text`: with this in the arguments, or in the kind or message of the failure, whatever the case of ASCII
        letters; only the newest `SEARCHED` of what else is asked for are searched.
        `signature`: whose last failure has this one, and that have failed for good, or are tried again: they are queued
        or running, and an attempt of theirs has ended with `Retry` or `Died` since they were stored, or since a person
        retried them last. So not what has succeeded or was cancelled after a failure, nor what `reap` alone has queued
        again.
        `before`: only those older than the job of this id; when it is not there (any more), those from the job on whose
        id is the next below. `since`: only those stored at that time or later; the first that is older ends the list.
        """
        ...

    def changed(self, since: datetime, limit: int) -> Answer[list[Job]]:
        """Jobs, newest first, without their attempts, that were stored or have ended at that time or later, and those
        that are held or run, whenever that began. At most `limit`; its cost does not grow with the rest.
        """
        ...

    def stats(self) -> Answer[Stats]:
        """How many jobs are ready, wait, are held and run, for people and for what decides how many workers there are.

        A job that has expired waits until it is cancelled. The cost grows with what is held and run, with the tasks,
        queues and priorities of what waits, and with `COUNTED`; not with the rest.
        """
        ...

    def find(self, prefix: str, limit: int) -> Answer[Sequence[str]]:
        """The ids that begin with this text, in order, and no more than so many; those that lead to a job included."""
        ...

    async def watch(self, jobs: Sequence[str], seconds: float) -> None:
        """Return when one of these jobs may have ended, or has said something, or after so many seconds.

        A hint, never a promise.
        """
        ...

    async def wait(self, seconds: float) -> None:
        """Return when jobs may have become claimable, or after so many seconds. A hint, never a promise."""
        ...

    def ring(self) -> None:
        """Wake one `wait`, of this process or another; as each operation does that leaves a job to be claimed.

        Never raises, may be called from any thread.
        """
        ...
