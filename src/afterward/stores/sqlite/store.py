"""Jobs in one SQLite file: the contract of `stores.base`, for several processes on one machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import apsw

from afterward.errors import StoreUnavailable
from afterward.forks import call_in_child
from afterward.job import (
    Job,
    Lease,
    NewJob,
    Outcome,
    Placement,
    Process,
    Report,
    Ruling,
    Status,
    Stored,
)
from afterward.stores.base import Beat, Chunk, Claimed, Reaped, Schema, Stats, Tidied, Wanted
from afterward.stores.batch import Operation, by_kind
from afterward.stores.handing import Followed, HandOver, Start, TakenBack
from afterward.stores.joining import Joins
from afterward.stores.outcomes import leave_work
from afterward.stores.rows import job_of
from afterward.stores.seen import (
    Answer,
    FailureGroup,
    Pause,
    Period,
    ProcessSeen,
    Reservation,
    Served,
    Stream,
    TaskSeen,
)
from afterward.stores.sqlite import contents, ended, events, handing, looks, processes, queues
from afterward.stores.sqlite.connect import connect, schema_of
from afterward.stores.sqlite.doorbell import Doorbell
from afterward.stores.sqlite.files import LivenessLocks
from afterward.stores.sqlite.looks import Filters, Space
from afterward.stores.sqlite.operations import CARRY_OUT
from afterward.stores.sqlite.reader import Reader
from afterward.stores.sqlite.stats import ahead, stats
from afterward.stores.sqlite.transaction import Transaction
from afterward.stores.sqlite.writer import Writer
from afterward.stores.watchers import Watchers

T = TypeVar("T")

_Inode = tuple[int, int]

MANY = 200
"""More jobs than this in one `enqueue` are a millisecond or more of work: too much for the loop of an application."""

LARGE = 256 * 1024
"""So many characters of what attempts say are as much."""


class SQLiteStore:
    """A store in one file. `patience`: seconds an operation waits for another process's lock before it gives up."""

    def __init__(self, path: str | Path, *, clock: Callable[[], float] = time.time, patience: float = 5.0) -> None:
        self._path = Path(path).resolve()  # by whatever links it is named, it is one store
        self._clock = clock
        self._patience = patience
        self._opening = threading.Lock()
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._surveyor: Reader | None = None
        self._wal = self._path.with_name(self._path.name + "-wal")
        self._identity: tuple[_Inode | None, _Inode | None] = (None, None)
        self._locks = LivenessLocks(self._path)
        self._doorbell = Doorbell()
        self._watchers = Watchers()
        self._swept = handing.Sweep()
        call_in_child(self._forget_inherited)

    @property
    def location(self) -> str:
        return str(self._path)

    @property
    def joins(self) -> Joins | None:
        return None  # its file is its own

    @property
    def reconcile_seconds(self) -> float:
        return 1.0  # a look costs next to nothing

    @property
    def refuses_workers(self) -> None:
        return None

    @property
    def proves_death(self) -> bool:
        return True

    async def schema(self) -> Schema:
        return await asyncio.get_running_loop().run_in_executor(None, schema_of, self._path, self._patience)

    async def open(self, *, migrate: bool = True) -> None:
        if self._writer is None:
            await asyncio.get_running_loop().run_in_executor(None, self._open, migrate)

    async def close(self) -> None:
        connections = self._reader, self._surveyor, self._writer
        open_ones = [connected for connected in connections if connected is not None]
        self._reader = self._surveyor = self._writer = None
        self._doorbell.close()
        self._locks.close()
        for connected in open_ones:
            connected.close()  # here, for one commit at most: an executor takes no work once the interpreter is ending

    def at_home(self) -> AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()  # its threads serve all loops alike

    async def join(self, process: Process) -> None:
        try:
            self._locks.take(process.id)
        except OSError as error:
            raise StoreUnavailable(f"the store {self._path}: no lock file could be made beside it: {error}") from error
        try:
            await self._ask("join", (process,))
        except BaseException:
            self._locks.drop(process.id)
            raise

    async def leave(self, process: str) -> None:
        try:
            has_left_work: bool = await self._ask("leave", (process,))
        except BaseException:
            self._locks.abandon(process)
            raise
        self._locks.drop(process)
        if has_left_work:
            self._doorbell.ring_all()

    async def beat(self, process: str) -> Beat | None:
        answer: Beat | None = await self._ask("beat", (process,))
        if answer is None:
            self._locks.drop(process)
        return answer

    async def give_back(
        self, process: str, attempts: Iterable[tuple[str, int]], files: Iterable[str], reservations: Iterable[str] = ()
    ) -> list[bool]:
        unknown = list(attempts), list(files), list(reservations)
        answer: Answer[list[bool]] = self._ask("give_back", (process, *unknown))
        return await self._ringing(answer)

    async def dead(self) -> list[str]:
        return self._locks.dead()

    async def reap(self, buried: Iterable[tuple[str, int | None]], suspect_after: int, suspect_delay: float) -> Reaped:
        buried = list(buried)
        answer: Reaped = await self._ask("reap", (buried, suspect_after, suspect_delay), is_heavy=True)
        if not answer.more:
            for process, beat in buried:
                if beat is None:
                    self._locks.remove(process)
        if answer.jobs:
            self._doorbell.ring()
        return answer

    def enqueue(self, jobs: Sequence[tuple[NewJob, Placement]], process: str | None) -> Answer[list[Stored]]:
        answer = self._ask("enqueue", (jobs, process), is_heavy=len(jobs) > MANY)
        return answer if process is not None else self._ringing(answer)

    def put_chunk(self, file: str, number: int, data: bytes, process: str, *, is_last: bool) -> Answer[bool]:
        return self._ask("put_chunk", (file, number, data, process, is_last), is_heavy=True)

    def release(self, process: str, jobs: Sequence[str]) -> Answer[list[bool]]:
        return self._ringing(self._ask("release", (process, jobs)))

    def claim(self, process: str, wanted: Sequence[Wanted], token: str) -> Answer[Claimed]:
        return self._ask("claim", (process, wanted, token))

    def finish(self, ends: Sequence[tuple[Lease, Outcome]]) -> Answer[list[bool]]:
        reports = [outcome.report for _, outcome in ends if outcome.report is not None]
        kind = "finish_saying" if reports else "finish"
        answer = self._ask(kind, ends, is_heavy=bool(reports) and _are_large(reports))
        self._telling(answer, [lease.id for lease, _ in ends])
        return self._ringing(answer) if leave_work(ends) else answer

    def report(self, reports: Sequence[tuple[Lease, Report]]) -> Answer[list[bool]]:
        answer = self._ask("report", reports, is_heavy=_are_large([said for _, said in reports]))
        return self._telling(answer, [lease.id for lease, _ in reports])

    def cancel(self, jobs: Sequence[str]) -> Answer[list[Ruling]]:
        return self._telling(self._ask("cancel", jobs), jobs)

    async def asked_to_end(self, process: str) -> Mapping[str, int]:
        return await self._look(lambda connection: looks.asked_to_end(connection, process))

    def retry(self, jobs: Sequence[str]) -> Answer[list[Ruling]]:
        return self._ringing(self._ask("retry", jobs))

    def tidy(self, ages: Mapping[Status, float], jobs: int, chunks: int) -> Answer[Tidied]:
        return self._ask("tidy", (ages, jobs, chunks), is_heavy=True)

    def get_chunk(self, file: str, number: int) -> Answer[Chunk | None]:
        return self._look(lambda connection: contents.get_chunk(connection, file, number))

    def prunable(self, ages: Mapping[Status, float]) -> Answer[int]:
        return self._survey(lambda connection: looks.prunable(connection, ages, self._clock()))

    def get(self, jobs: Sequence[str]) -> Answer[list[Job | None]]:
        return self._look(lambda connection: [looks.get(connection, job) for job in jobs])

    def list(
        self, *, status: Status | Collection[Status] | None = None, task: str | None = None, queue: str | None = None,
        unique: str | None = None, before: str | None = None, since: datetime | None = None, limit: int = 50,
        owner: str | None = None, signature: str | None = None, text: str | None = None
    ) -> Answer[list[Job]]:  # fmt: skip
        statuses = [status] if isinstance(status, Status) else status
        names = None if statuses is None else json.dumps(list(statuses))
        oldest = None if since is None else since.timestamp()
        filters = Filters(names, task, queue, before, oldest, limit, unique, owner, signature)
        return self._survey(lambda connection: [job_of(row, []) for row in looks.listed(connection, filters, text)])

    def changed(self, since: datetime, limit: int) -> Answer[list[Job]]:
        return self._survey(lambda connection: looks.changed(connection, since.timestamp(), limit))

    def stats(self) -> Answer[Stats]:
        return self._survey(lambda connection: stats(connection, self._clock(), self._locks.dead()))

    def ahead(self, job: str, tasks: Collection[str], queues: Collection[str], limit: int) -> Answer[int]:
        return self._survey(lambda connection: ahead(connection, job, tasks, queues, limit, self._clock()))

    def find(self, prefix: str, limit: int) -> Answer[Sequence[str]]:
        return self._look(lambda connection: looks.find(connection, prefix, limit))

    def events(self, asked: Sequence[tuple[str, int]], limit: int) -> Answer[list[Stream | None]]:
        return self._look(lambda connection: [events.stream(connection, job, after, limit) for job, after in asked])

    def hasten(self, jobs: Sequence[str]) -> Answer[list[Ruling]]:
        return self._ringing(self._ask("hasten", jobs))

    def failures(self, limit: int) -> Answer[list[FailureGroup]]:
        return self._survey(lambda connection: ended.failures(connection, limit))

    def history(self, since: datetime, seconds: float) -> Answer[list[Period]]:
        return self._survey(lambda connection: ended.history(connection, since.timestamp(), seconds))

    def describe(self, process: str, served: Served) -> Answer[bool]:
        return self._ask("describe", (process, served))

    def processes(self) -> Answer[list[ProcessSeen]]:
        return self._look(lambda connection: processes.processes(connection, self._locks.dead()))

    def tasks_seen(self) -> Answer[list[TaskSeen]]:
        return self._look(processes.tasks_seen)

    def pause(self, queue: str, by: str) -> Answer[bool]:
        return self._ringing_all(self._ask("pause", (queue, by)))

    def resume(self, queue: str) -> Answer[bool]:
        return self._ringing_all(self._ask("resume", (queue,)))

    def paused(self) -> Answer[list[Pause]]:
        return self._look(queues.paused)

    def reserve(self, reservation: str, scope: str, key: str, fingerprint: str, process: str) -> Answer[Reservation]:
        return self._ask("reserve", (reservation, scope, key, fingerprint, process))

    def amend(self, reservation: str, answer: str) -> Answer[bool]:
        return self._ask("amend", (reservation, answer))

    def drop(self, reservations: Sequence[str]) -> Answer[None]:
        return self._ask("drop", reservations)

    def hand_over(self, handed: Sequence[HandOver]) -> Answer[list[bool]]:
        return self._telling(self._ask("hand_over", handed), [one.lease.id for one in handed])

    def begin(self, process: str, starts: Sequence[Start]) -> Answer[list[Lease | None]]:
        return self._ask("begin", (process, starts))

    def take_back(self, process: str, tasks: Collection[str], limit: int) -> Answer[TakenBack]:
        return self._ask("take_back", (process, tasks, limit, self._swept), is_heavy=True)

    def followed(self, tasks: Collection[str], after: str, limit: int) -> Answer[list[Followed]]:
        return self._look(lambda connection: handing.followed(connection, tasks, after, limit))

    def space(self) -> Answer[Space]:
        """How large the file is, and how much of it holds nothing."""
        return self._survey(looks.space)

    async def watch(self, jobs: Sequence[str], seconds: float) -> None:
        await self._watchers.wait(jobs, seconds)

    async def wait(self, seconds: float) -> None:
        if self._doorbell.listen():
            with contextlib.suppress(StoreUnavailable):  # the next heartbeat tells it as well
                if await self._ask("announce", self._locks.held):
                    return  # whoever left this could not know of us yet
        await self._doorbell.wait(seconds)

    def ring(self) -> None:
        self._doorbell.ring()

    # opening

    def _open(self, migrate: bool) -> None:
        with self._opening:
            if self._writer is None:
                connection = connect(self._path, self._patience, migrate=migrate)
                self._identity = (_identity(self._path), _identity(self._wal))
                self._reader, self._surveyor = [Reader(self._path, self._patience) for _ in range(2)]
                self._writer = Writer(connection, self._stage, self.location, self._patience)

    def _forget_inherited(self) -> None:
        """In a forked child: the connection is the parent's; closed here, it could harm the file."""
        _INHERITED.append((self._reader, self._surveyor, self._writer, self._doorbell))
        self._reader = self._surveyor = self._writer = None
        self._doorbell, self._opening = Doorbell(), threading.Lock()

    # one transaction

    def _ask(self, kind: str, items: Any, *, is_heavy: bool = False) -> Answer[Any]:
        writer = self._writer  # once: another thread may be closing
        if writer is None:
            raise StoreUnavailable(f"the store {self._path} is not open")
        return writer.submit(kind, items, is_heavy=is_heavy)

    def _ringing(self, answer: Answer[T]) -> Answer[T]:
        """Who waits for jobs is called once this is written: it leaves jobs that anybody may claim."""
        answer.add_done_callback(lambda _: self._doorbell.ring())
        return answer

    def _ringing_all(self, answer: Answer[T]) -> Answer[T]:
        """All who wait for jobs are called once this is written: each has to know."""
        answer.add_done_callback(lambda _: self._doorbell.ring_all())
        return answer

    def _telling(self, answer: Answer[T], jobs: Sequence[str]) -> Answer[T]:
        """Who watches one of these jobs is told once this is written."""
        answer.add_done_callback(lambda _: self._watchers.tell(jobs))  # whoever watches by then, not only by now
        return answer

    def _look(self, look: Callable[[apsw.Connection], T]) -> Answer[T]:
        return self._read(self._reader, look)

    def _survey(self, look: Callable[[apsw.Connection], T]) -> Answer[T]:
        """One that may have to read much: it holds up no look at a single job."""
        return self._read(self._surveyor, look)

    def _read(self, reader: Reader | None, look: Callable[[apsw.Connection], T]) -> Answer[T]:
        if reader is None:
            raise StoreUnavailable(f"the store {self._path} is not open")
        self._check_file()
        return reader.look(look)

    def _stage(self, connection: apsw.Connection, operations: Sequence[Operation]) -> None:
        self._check_file()
        transaction = Transaction(connection, self._clock(), self._doorbell)
        for kind, theirs in by_kind(operations, CARRY_OUT):
            CARRY_OUT[kind](transaction, theirs)

    def _check_file(self) -> None:
        """A file deleted or replaced under us would take our commits with it, and nobody would notice."""
        found = _identity(self._path), _identity(self._wal)
        if self._identity[1] is None:
            self._identity = (self._identity[0], found[1])  # the first to write makes the WAL
        if found != self._identity:
            raise StoreUnavailable(
                f"the store {self._path} was deleted or replaced while in use; "
                f"put the file back, or restart to begin with the one that is there now"
            )


_INHERITED: list[Any] = []


def _identity(path: Path) -> _Inode | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - Path.stat takes three times as long, and this is done for each batch
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _are_large(reports: Sequence[Report]) -> bool:
    """Is to store them too much for the loop of an application?"""
    said = [event for report in reports for event in report.events]
    return len(said) > MANY or sum(len(event.data) for event in said) >= LARGE
