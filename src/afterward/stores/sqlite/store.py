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
from afterward.faults import crash_point
from afterward.job import Died, Job, Lease, NewJob, Outcome, Placement, Process, Released, Retry, Ruling, Status, Stored
from afterward.stores.base import Answer, Beat, Chunk, Claimed, Held, Reaped, Schema, Stats, Tidied, Wanted
from afterward.stores.batch import Operation, by_kind
from afterward.stores.joining import Joins
from afterward.stores.rows import job_of, text_of_death
from afterward.stores.sql import load_queries
from afterward.stores.sqlite import contents, looks, moves
from afterward.stores.sqlite.connect import connect, schema_of
from afterward.stores.sqlite.doorbell import Doorbell
from afterward.stores.sqlite.entry import Entry
from afterward.stores.sqlite.files import LivenessLocks
from afterward.stores.sqlite.looks import Space
from afterward.stores.sqlite.reader import Reader
from afterward.stores.sqlite.stats import ahead, stats
from afterward.stores.sqlite.writer import Writer
from afterward.stores.watchers import Watchers

T = TypeVar("T")

_Inode = tuple[int, int]

PAGE = 200
"""How many jobs one call of `reap` queues again at most."""

MANY = 200
"""More jobs than this in one `enqueue` are a millisecond or more of work: too much for the loop of an application."""

PROMOTED = 1000
"""How many jobs whose time has come one claim makes ready at most, and how many it finds expired."""

_Q = load_queries("afterward.stores.sqlite")
_ORDER = (
    "join", "announce", "beat", "give_back", "reap", "put_chunk", "enqueue", "release", "finish", "cancel", "retry",
    "claim", "tidy", "leave",
)  # fmt: skip


class SQLiteStore:
    """A store in one file. `patience`: seconds an operation waits for another process's lock before it gives up."""

    def __init__(self, path: str | Path, *, clock: Callable[[], float] = time.time, patience: float = 5.0) -> None:
        self._path = Path(path).resolve()  # by whatever links it is named, it is one store
        self._clock = clock
        self._patience = patience
        self._opening = threading.Lock()
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._wal = self._path.with_name(self._path.name + "-wal")
        self._identity: tuple[_Inode | None, _Inode | None] = (None, None)
        self._locks = LivenessLocks(self._path)
        self._doorbell = Doorbell()
        self._watchers = Watchers()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget_inherited)

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
        open_ones = [connected for connected in (self._reader, self._writer) if connected is not None]
        self._reader = self._writer = None
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
            await self._ask("join", process)
        except BaseException:
            self._locks.drop(process.id)
            raise

    async def leave(self, process: str) -> None:
        try:
            leaves_work: bool = await self._ask("leave", process)
        except BaseException:
            self._locks.abandon(process)
            raise
        self._locks.drop(process)
        if leaves_work:
            self._doorbell.ring_all()

    async def beat(self, process: str) -> Beat | None:
        answer: Beat | None = await self._ask("beat", process)
        if answer is None:
            self._locks.drop(process)
        return answer

    async def give_back(self, process: str, attempts: Iterable[tuple[str, int]], files: Iterable[str]) -> list[bool]:
        answer: Answer[list[bool]] = self._ask("give_back", (process, list(attempts), list(files)))
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
        answer = self._ask("finish", ends)
        if self._watchers:
            answer.add_done_callback(lambda _: self._watchers.tell([lease.id for lease, _ in ends]))
        return self._ringing(answer) if any(_leaves_work(outcome) for _, outcome in ends) else answer

    def cancel(self, jobs: Sequence[str]) -> Answer[list[Ruling]]:
        return self._ask("cancel", jobs)

    def retry(self, jobs: Sequence[str]) -> Answer[list[Ruling]]:
        return self._ringing(self._ask("retry", jobs))

    def tidy(self, ages: Mapping[Status, float], jobs: int, chunks: int) -> Answer[Tidied]:
        return self._ask("tidy", (ages, jobs, chunks), is_heavy=True)

    def get_chunk(self, file: str, number: int) -> Answer[Chunk | None]:
        return self._look(lambda connection: contents.get_chunk(connection, file, number))

    def prunable(self, ages: Mapping[Status, float]) -> Answer[int]:
        return self._look(lambda connection: looks.prunable(connection, ages, self._clock()))

    def get(self, jobs: Sequence[str]) -> Answer[list[Job | None]]:
        return self._look(lambda connection: [looks.get(connection, job) for job in jobs])

    def list(
        self, *, status: Status | Collection[Status] | None = None, task: str | None = None, queue: str | None = None,
        unique: str | None = None, before: str | None = None, since: datetime | None = None, limit: int = 50
    ) -> Answer[list[Job]]:  # fmt: skip
        statuses = [status] if isinstance(status, Status) else status
        oldest = None if since is None else since.timestamp()
        filters = (None if statuses is None else json.dumps(list(statuses)), task, queue, before, oldest, limit, unique)
        return self._look(lambda connection: [job_of(row, []) for row in looks.listed(connection, filters)])

    def changed(self, since: datetime, limit: int) -> Answer[list[Job]]:
        return self._look(lambda connection: looks.changed(connection, since.timestamp(), limit))

    def stats(self) -> Answer[Stats]:
        return self._look(lambda connection: stats(connection, self._clock(), self._locks.dead()))

    def ahead(self, job: str, tasks: Collection[str], queues: Collection[str], limit: int) -> Answer[int]:
        return self._look(lambda connection: ahead(connection, job, tasks, queues, limit, self._clock()))

    def find(self, prefix: str, limit: int) -> Answer[Sequence[str]]:
        return self._look(lambda connection: looks.find(connection, prefix, limit))

    def space(self) -> Answer[Space]:
        """How large the file is, and how much of it holds nothing."""
        return self._look(looks.space)

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
                self._reader = Reader(self._path, self._patience)
                self._writer = Writer(connection, self._stage, self.location, self._patience)

    def _forget_inherited(self) -> None:
        """In a forked child: the connection is the parent's; closed here, it could harm the file."""
        _INHERITED.append((self._reader, self._writer, self._doorbell))
        self._reader, self._writer, self._doorbell, self._opening = None, None, Doorbell(), threading.Lock()

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

    def _look(self, look: Callable[[apsw.Connection], T]) -> Answer[T]:
        reader = self._reader
        if reader is None:
            raise StoreUnavailable(f"the store {self._path} is not open")
        self._check_file()
        return reader.look(look)

    def _stage(self, connection: apsw.Connection, operations: Sequence[Operation]) -> None:
        self._check_file()
        now = self._clock()
        for kind, theirs in by_kind(operations, _ORDER):
            _STAGES[kind](self, connection, theirs, now)

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

    def _stage_join(self, connection: apsw.Connection, operations: Sequence[Operation], now: float) -> None:
        for operation in operations:
            process: Process = operation.items
            connection.execute(_Q["join"], (process.id, process.pid, process.host, self._doorbell.port, now))
            self._know_others(connection, process.id)

    def _stage_announce(self, connection: apsw.Connection, operations: Sequence[Operation], _now: float) -> None:
        for operation in operations:
            connection.executemany(_Q["announce"], [(process, self._doorbell.port) for process in operation.items])
            operation.answer = bool(connection.execute(_Q["has_ready"]).get)

    def _stage_leave(self, connection: apsw.Connection, operations: Sequence[Operation], _now: float) -> None:
        for operation in operations:
            connection.execute(_Q["give_all_back"], (operation.items,))
            connection.execute(_Q["leave"], (operation.items,))
            operation.answer = bool(connection.execute(_Q["has_ready"]).get)
            self._know_others(connection, operation.items)

    def _stage_beat(self, connection: apsw.Connection, operations: Sequence[Operation], _now: float) -> None:
        for operation in operations:
            process: str = operation.items
            if not connection.execute(_Q["beat"], (process, self._doorbell.port)).get:
                operation.answer = None
                continue
            operation.answer = Beat(
                others=self._know_others(connection, process),
                signs=frozenset(),
                held={job: Held(attempt, token) for job, attempt, token in connection.execute(_Q["held"], (process,))},
                files=contents.loose(connection, process),
                has_orphans=connection.execute(_Q["orphans"], (1,)).get is not None,
            )

    def _stage_give_back(self, connection: apsw.Connection, operations: Sequence[Operation], _now: float) -> None:
        for operation in operations:
            process, attempts, files = operation.items
            fences = [(job, attempt, process) for job, attempt in attempts]
            given_back = {job for (job,) in connection.executemany(_Q["give_back"], fences)}
            contents.drop(connection, process, files)
            operation.answer = [job in given_back for job, _ in attempts]

    def _know_others(self, connection: apsw.Connection, process: str) -> dict[str, int]:
        """The counters of other processes; their doorbells are noted on the way."""
        others: list[Any] = connection.execute(_Q["others"], (process,)).fetchall()
        self._doorbell.know_others(port for _, _, port in others if port and port != self._doorbell.port)
        return {name: count for name, count, _ in others}

    def _stage_reap(self, connection: apsw.Connection, operations: Sequence[Operation], now: float) -> None:
        died = text_of_death()
        for operation in operations:
            buried, suspect_after, suspect_delay = operation.items
            connection.executemany(_Q["bury"], buried)
            orphans = connection.execute(_Q["orphans"], (PAGE,)).fetchall()
            for seq, process, status, attempt in orphans:
                if status == Status.running:
                    connection.execute(_Q["orphan_attempt"], (now, died, seq, process, attempt))
                connection.execute(_Q["orphan"], (seq, process, attempt, now, suspect_after, suspect_delay))
                crash_point("in_reap")
            operation.answer = Reaped(len(orphans), more=len(orphans) == PAGE)

    def _stage_put_chunk(self, connection: apsw.Connection, operations: Sequence[Operation], _now: float) -> None:
        for operation in operations:
            operation.answer = contents.put_chunk(connection, *operation.items)

    def _stage_enqueue(self, connection: apsw.Connection, operations: Sequence[Operation], now: float) -> None:
        entry = Entry(connection, now)
        for operation in operations:
            operation.answer = entry.enqueue(*operation.items)
        entry.end()

    def _stage_release(self, connection: apsw.Connection, operations: Sequence[Operation], _now: float) -> None:
        for operation in operations:
            process, jobs = operation.items
            done = connection.executemany(_Q["release"], [(job, process) for job in jobs]).fetchall()
            released = {job for (job,) in done}
            operation.answer = [job in released for job in jobs]

    def _stage_claim(self, connection: apsw.Connection, operations: Sequence[Operation], now: float) -> None:
        connection.execute(_Q["expire"], (now, PROMOTED))
        connection.execute(_Q["promote"], (now, PROMOTED))
        for operation in operations:
            process, wanted, token = operation.items
            operation.answer = self._claim(connection, process, wanted, token, now)

    def _claim(
        self, connection: apsw.Connection, process: str, wanted: Sequence[Wanted], token: str, now: float
    ) -> Claimed:
        if not connection.execute(_Q["exists"], (process,)).get:
            return Claimed([], more=False, next_due=None)
        again = [Lease(*row) for row in connection.execute(_Q["claimed"], (process, token))]
        if again:
            return Claimed(again, more=True, next_due=None)
        lanes = connection.execute(_Q["lanes"]).fetchall()
        leases: list[Lease] = []
        more = False
        for want in wanted:
            candidates = _candidates(connection, want, lanes)
            candidates.sort()
            more = more or len(candidates) > want.limit
            chosen = [(seq, process, token, now) for _, _, seq in candidates[: want.limit]]
            leases += [Lease(*row) for row in connection.executemany(_Q["claim"], chosen)]
        due = connection.execute(_Q["next_due"]).get
        return Claimed(leases, more, None if due is None else max(0.0, due - now))

    def _stage_finish(self, connection: apsw.Connection, operations: Sequence[Operation], now: float) -> None:
        accepted = iter(moves.finish(connection, [end for operation in operations for end in operation.items], now))
        for operation in operations:
            operation.answer = [next(accepted) for _ in operation.items]

    def _stage_cancel(self, connection: apsw.Connection, operations: Sequence[Operation], now: float) -> None:
        for operation in operations:
            operation.answer = [moves.cancel(connection, job, now) for job in operation.items]

    def _stage_retry(self, connection: apsw.Connection, operations: Sequence[Operation], now: float) -> None:
        for operation in operations:
            operation.answer = [moves.retry(connection, job, now) for job in operation.items]
        self._know_others(connection, "")  # whoever retries rings, also if it never joined

    def _stage_tidy(self, connection: apsw.Connection, operations: Sequence[Operation], now: float) -> None:
        for operation in operations:
            ages, jobs, chunks = operation.items
            connection.execute(_Q["expire"], (now, jobs))
            expired = connection.changes()
            pruned = _prune(connection, {status: now - age for status, age in ages.items()}, jobs)
            freed = contents.sweep(connection, chunks)
            operation.answer = Tidied(expired, pruned, freed, more=jobs in {expired, pruned} or freed == chunks)


_STAGES: dict[str, Callable[[SQLiteStore, apsw.Connection, Sequence[Operation], float], None]] = {
    kind: getattr(SQLiteStore, f"_stage_{kind}") for kind in _ORDER
}
_INHERITED: list[Any] = []


def _leaves_work(outcome: Outcome) -> bool:
    """Is there a job to claim after this, now or soon?"""
    if isinstance(outcome, Retry | Released):
        return True
    return outcome.then is not None or (isinstance(outcome, Died) and not outcome.final)


def _identity(path: Path) -> _Inode | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - Path.stat takes three times as long, and this is done for each batch
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _prune(connection: apsw.Connection, until: Mapping[Status, float], limit: int) -> int:
    """Forget the oldest of those that ended with these statuses up to these times; how many they were."""
    pruned: list[Any] = []
    for status, time_ in until.items():
        rest = limit - len(pruned)
        pruned += connection.execute(_Q["prune"], (status, time_, rest)).fetchall() if rest else []
        crash_point("in_prune")
    connection.executemany(_Q["prune_aliases"], pruned)
    return len(pruned)


def _candidates(connection: apsw.Connection, want: Wanted, lanes: Iterable[Any]) -> list[tuple[int, float, int]]:
    """The most urgent of each lane that is wanted; or what is wanted by name."""
    if want.only is not None:
        named: list[Any] = [row for job in want.only for row in connection.execute(_Q["named"], (job,))]
        return [row[3:] for row in named if _is_wanted(row[:3], want)]
    found: list[tuple[int, float, int]] = []
    for lane in lanes:
        if _is_wanted(lane, want):
            found += connection.execute(_Q["candidates"], (*lane, want.limit + 1))
    return found


def _is_wanted(lane: Sequence[str], want: Wanted) -> bool:
    queue, task, unfit_for = lane
    return task in want.tasks and (want.queues is None or queue in want.queues) and unfit_for not in want.unfit_for
