"""Jobs in a PostgreSQL database: the contract of `stores.base`, for many processes on many servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none of its own

from afterward.errors import StoreError, StoreUnavailable, StoreUnusable
from afterward.faults import Crash
from afterward.forks import call_in_child
from afterward.job import Job, Lease, NewJob, Outcome, Placement, Process, Report, Ruling, Status, Stored
from afterward.stores.base import Answer, Beat, Chunk, Claimed, Reaped, Schema, Stats, Tidied, Wanted
from afterward.stores.batch import Operation
from afterward.stores.handing import Followed, HandOver, Start, TakenBack
from afterward.stores.outcomes import leave_work
from afterward.stores.postgres import entry, life, moves
from afterward.stores.postgres.address import Address, address_of
from afterward.stores.postgres.bell import Bell, running_loop
from afterward.stores.postgres.connection import (
    NEEDS_SESSIONS,
    SETTINGS_OF_ONE_TRANSACTION,
    Connection,
    check_session,
    connect,
    is_passing,
    is_refused_by_pooler,
    translated,
)
from afterward.stores.postgres.desk import desk_for
from afterward.stores.postgres.handing import Message
from afterward.stores.postgres.joining import Joining, identity_of
from afterward.stores.postgres.lane import Lane
from afterward.stores.postgres.lanes import Lanes
from afterward.stores.postgres.notices import Notices
from afterward.stores.postgres.operations import CARRY_OUT, IN_A_TRANSACTION, enqueue_ringing
from afterward.stores.postgres.schema import is_current, schema_of
from afterward.stores.postgres.schema import migrate as bring_up_to_date
from afterward.stores.seen import FailureGroup, Pause, Period, ProcessSeen, Reservation, Served, Stream, TaskSeen
from afterward.stores.watchers import Watchers

T = TypeVar("T")


_MIGRATING_SECONDS = 3600.0
"""How long the schema may take to be brought up to date, with the wait for others who do it."""

_CLOSING_SECONDS = 2.0
"""How long a close waits for a loop that is not its own."""


class PostgresStore:
    """A store in one schema of a database. `patience`: seconds an operation is tried for before it gives up.

    `clock`: for tests; in life the server's clock is the store's.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] | None = None, patience: float = 5.0) -> None:
        self.address: Address = address_of(url)
        self._desk = desk_for(self.address.schema, clock)
        self._channel = f"{self.address.schema}.jobs"
        self._patience = patience
        self._home: Lanes | None = None
        self._elsewhere: dict[asyncio.AbstractEventLoop | None, Lanes] = {}
        self._joined: set[str] = set()
        self._unlocked: set[str] = set()
        self._asked: dict[str, Mapping[str, int]] = {}
        self._has_listened = False
        self._ears: set[Connection] = set()
        self._bell = Bell(self._notify)
        self._watchers = Watchers()
        self._joining = Joining(self._desk, self.address.schema, self.location, self._ask)
        call_in_child(self._forget_inherited)

    @property
    def joins(self) -> Joining:
        return self._joining

    @property
    def proves_death(self) -> bool:
        return False  # a session that ended is a sign

    @property
    def reconcile_seconds(self) -> float:
        return 5.0  # notifications are sure as long as the connection lasts; a new one begins with a look

    @property
    def refuses_workers(self) -> str | None:
        if not self.address.pooled:
            return None
        return (
            f"the store {self.location} is reached through a pooler (pgbouncer=true): it keeps no session for a worker "
            f"to listen in, and to hold the lock that shows it to live; give the worker a URL that leads to the server "
            f"itself, and where jobs are only stored, say install(app, worker=False)"
        )

    @property
    def location(self) -> str:
        return self.address.location

    async def schema(self) -> Schema:
        async with self._apart() as connection:
            return await schema_of(connection, self.address.schema)

    async def open(self, *, migrate: bool = True) -> None:
        if self._home is not None:
            return
        schema = self.address.schema
        async with self._apart() as connection:
            if not self.address.pooled:
                await check_session(connection)
            is_ready = await is_current(connection, schema, self.location, migrate=migrate)
            if is_ready:
                self._joining.identity = await identity_of(connection, schema)
        if not is_ready:
            async with self._apart(_MIGRATING_SECONDS) as connection:
                await bring_up_to_date(connection, schema)
                self._joining.identity = await identity_of(connection, schema)
        self._home = Lanes(self._make_lane, self._channel)

    async def close(self) -> None:
        home, self._home = self._home, None
        if home is None:
            return
        self._joined.clear()
        self._unlocked.clear()
        self._asked.clear()
        self._has_listened = False
        if home.loop is asyncio.get_running_loop():
            await home.close()
            return
        with contextlib.suppress(RuntimeError, TimeoutError):  # its loop has ended, or is blocked: it closes by itself
            closing = asyncio.run_coroutine_threadsafe(home.close(), home.loop)
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(closing)), _CLOSING_SECONDS)

    @contextlib.asynccontextmanager
    async def at_home(self) -> AsyncGenerator[None]:
        """With connections of its own; without, what is asked for goes by those of the loop that opened the store."""
        loop = asyncio.get_running_loop()
        if loop in self._elsewhere:
            yield
            return
        lanes = self._elsewhere[loop] = Lanes(self._make_lane, self._channel)
        try:
            yield
        finally:
            del self._elsewhere[loop]
            await lanes.close()

    async def join(self, process: Process) -> None:
        self._joined.add(process.id)  # first: its lock is to be taken again on each new connection
        try:
            await self._ask("vital", "join", (process, not self.address.pooled))
        except BaseException:
            self._joined.discard(process.id)
            raise

    async def leave(self, process: str) -> None:
        await self._ask("vital", "leave", (process, process in self._joined and not self.address.pooled))
        self._forget(process)
        self._bell.ring_all()

    def _forget(self, process: str) -> None:
        self._joined.discard(process)
        self._unlocked.discard(process)
        self._asked.pop(process, None)

    async def beat(self, process: str) -> Beat | None:
        seen, asked = await self._ask("vital", "beat", (process, self._bell.was_waited_for))
        if seen is None:
            self._forget(process)  # it was taken for dead: its lock shows nothing any more
        else:
            self._asked[process] = asked
        return seen

    async def asked_to_end(self, process: str) -> Mapping[str, int]:
        return self._asked.get(process, {})

    async def give_back(
        self, process: str, attempts: Iterable[tuple[str, int]], files: Iterable[str], reservations: Iterable[str] = ()
    ) -> list[bool]:
        unknown = list(attempts), list(files), list(reservations)
        given: list[bool] = await self._ask("vital", "give_back", (process, *unknown))
        self._bell.ring()
        return given

    async def dead(self) -> list[str]:
        return []

    async def reap(self, buried: Iterable[tuple[str, int | None]], suspect_after: int, suspect_delay: float) -> Reaped:
        reaped: Reaped = await self._ask("vital", "reap", (list(buried), suspect_after, suspect_delay))
        if reaped.jobs:
            self._bell.ring()
        return reaped

    def enqueue(self, jobs: Sequence[tuple[NewJob, Placement]], process: str | None) -> Answer[list[Stored]]:
        are_plain = all(entry.is_plain(job) for job, _ in jobs)
        entering = [(job, placement, process) for job, placement in jobs]
        answer = (
            self._ask("writes", "enqueue", entering) if are_plain else self._ask("apart", "enqueue_apart", (entering,))
        )
        return answer if process is not None else self._ringing(answer)

    def put_chunk(self, file: str, number: int, data: bytes, process: str, *, is_last: bool) -> Answer[bool]:
        return self._ask("apart", "put_chunk", (file, number, data, process, is_last))

    def release(self, process: str, jobs: Sequence[str]) -> Answer[list[bool]]:
        return self._ringing(self._ask("writes", "release", (process, jobs)))

    def claim(self, process: str, wanted: Sequence[Wanted], token: str) -> Answer[Claimed]:
        answer: Answer[Claimed] = self._ask("claims", "claim", (process, wanted, token))
        answer.add_done_callback(self._has_looked)
        return answer

    def finish(self, ends: Sequence[tuple[Lease, Outcome]]) -> Answer[list[bool]]:
        if any(moves.may_wait(outcome) for _, outcome in ends):
            answer = self._ask("apart", "finish_apart", ends)
        else:
            answer = self._ask("writes", "finish", ends)
        self._telling(answer, [lease.id for lease, _ in ends])
        return self._ringing(answer) if leave_work(ends) else answer

    def report(self, reports: Sequence[tuple[Lease, Report]]) -> Answer[list[bool]]:
        return self._telling(self._ask("writes", "report", reports), [lease.id for lease, _ in reports])

    def cancel(self, jobs: Sequence[str]) -> Answer[list[Ruling]]:
        return self._telling(self._ask("apart", "cancel", (jobs,)), jobs)

    def retry(self, jobs: Sequence[str]) -> Answer[list[Ruling]]:
        return self._ringing(self._ask("apart", "retry", (jobs,)))

    def hasten(self, jobs: Sequence[str]) -> Answer[list[Ruling]]:
        return self._ringing(self._ask("apart", "hasten", (jobs,)))

    def pause(self, queue: str, by: str) -> Answer[bool]:
        return self._ringing_all(self._ask("apart", "pause", (queue, by)))

    def resume(self, queue: str) -> Answer[bool]:
        return self._ringing_all(self._ask("apart", "resume", (queue,)))

    def describe(self, process: str, served: Served) -> Answer[bool]:
        return self._ask("apart", "describe", (process, served))

    def reserve(self, reservation: str, scope: str, key: str, fingerprint: str, process: str) -> Answer[Reservation]:
        return self._ask("apart", "reserve", (reservation, scope, key, fingerprint, process))

    def amend(self, reservation: str, answer: str) -> Answer[bool]:
        return self._ask("apart", "amend", (reservation, answer))

    def drop(self, reservations: Sequence[str]) -> Answer[None]:
        return self._ask("apart", "drop", (reservations,))

    def hand_over(self, handed: Sequence[HandOver]) -> Answer[list[bool]]:
        return self._telling(self._ask("writes", "hand_over", handed), [one.lease.id for one in handed])

    def begin(self, process: str, starts: Sequence[Start]) -> Answer[list[Lease | None]]:
        return self._ask("writes", "begin", [Message(process, start) for start in starts])

    def take_back(self, process: str, tasks: Collection[str], limit: int) -> Answer[TakenBack]:
        return self._ask("apart", "take_back", (process, tasks, limit))

    def followed(self, tasks: Collection[str], after: str, limit: int) -> Answer[list[Followed]]:
        return self._ask("surveys", "followed", (tasks, after, limit))

    def tidy(self, ages: Mapping[Status, float], jobs: int, chunks: int) -> Answer[Tidied]:
        return self._ask("apart", "tidy", (ages, jobs, chunks))

    def get_chunk(self, file: str, number: int) -> Answer[Chunk | None]:
        return self._ask("looks", "get_chunk", (file, number))

    def prunable(self, ages: Mapping[Status, float]) -> Answer[int]:
        return self._ask("surveys", "prunable", (ages,))

    def get(self, jobs: Sequence[str]) -> Answer[list[Job | None]]:
        return self._ask("looks", "get", (jobs,))

    def list(
        self, *, status: Status | Collection[Status] | None = None, task: str | None = None, queue: str | None = None,
        unique: str | None = None, before: str | None = None, since: datetime | None = None, limit: int = 50,
        owner: str | None = None, signature: str | None = None, text: str | None = None
    ) -> Answer[list[Job]]:  # fmt: skip
        statuses = [status] if isinstance(status, Status) else status
        oldest = None if since is None else since.timestamp()
        names = None if statuses is None else [one.value for one in statuses]
        filters = names, task, queue, before, oldest, limit, unique
        if owner is None and signature is None and text is None:
            return self._ask("surveys", "list", (filters,))
        return self._ask("surveys", "search", (filters, owner, signature, text))

    def changed(self, since: datetime, limit: int) -> Answer[list[Job]]:
        return self._ask("surveys", "changed", (since.timestamp(), limit))

    def find(self, prefix: str, limit: int) -> Answer[Sequence[str]]:
        return self._ask("looks", "find", (prefix, limit))

    def events(self, asked: Sequence[tuple[str, int]], limit: int) -> Answer[list[Stream | None]]:
        return self._ask("looks", "events", (asked, limit))

    def failures(self, limit: int) -> Answer[list[FailureGroup]]:
        return self._ask("surveys", "failures", (limit,))

    def history(self, since: datetime, seconds: float) -> Answer[list[Period]]:
        return self._ask("surveys", "history", (since.timestamp(), seconds))

    def processes(self) -> Answer[list[ProcessSeen]]:
        return self._ask("looks", "processes", ())

    def tasks_seen(self) -> Answer[list[TaskSeen]]:
        return self._ask("looks", "tasks_seen", ())

    def paused(self) -> Answer[list[Pause]]:
        return self._ask("looks", "paused", ())

    def stats(self) -> Answer[Stats]:
        return self._ask("surveys", "stats", ())

    def ahead(self, job: str, tasks: Collection[str], queues: Collection[str], limit: int) -> Answer[int]:
        return self._ask("surveys", "ahead", (job, tasks, queues, limit))

    async def watch(self, jobs: Sequence[str], seconds: float) -> None:
        await self._watchers.wait(jobs, seconds)

    async def wait(self, seconds: float) -> None:
        if not self._ears:
            with contextlib.suppress(StoreUnavailable):  # the next claim tells it as well
                await self._ask("claims", "connect", ())
        await self._bell.wait(seconds)

    def ring(self) -> None:
        self._bell.ring()

    def _has_looked(self, answer: Answer[Claimed]) -> None:
        if answer.exception() is None:
            self._bell.has_looked(sees_others_jobs=answer.result().for_others)

    # asking

    def _ask(self, sort: str, kind: str, items: Any) -> Answer[Any]:
        loop = asyncio.get_running_loop()
        home = self._home  # once: another thread may be closing
        if home is None:
            raise StoreUnavailable(f"the store {self.location} is not open")
        lanes = home if sort == "vital" else self._elsewhere.get(loop, home)
        operation = Operation(kind, items, loop)
        try:
            lanes.submit(sort, operation)
        except RuntimeError as error:  # its loop has ended
            raise StoreUnavailable(f"the store {self.location} is not open any more") from error
        return operation

    def _ringing(self, answer: Answer[T]) -> Answer[T]:
        """Who waits for jobs is called once this is written: it leaves jobs that anybody may claim."""
        answer.add_done_callback(self._ring_for)
        return answer

    def _ring_for(self, answer: asyncio.Future[Any]) -> None:
        if isinstance(answer, Operation) and answer.has_rung:
            self._bell.hear()
        else:
            self._bell.ring()

    def _ringing_all(self, answer: Answer[T]) -> Answer[T]:
        """All who wait for jobs are called once this is written: what they may claim is not what it was."""
        answer.add_done_callback(lambda _: self._bell.ring_all())
        return answer

    def _telling(self, answer: Answer[T], jobs: Sequence[str]) -> Answer[T]:
        """Who watches one of these jobs here is told once this is written."""
        answer.add_done_callback(lambda _: self._watchers.tell(jobs))  # whoever watches by then, not only by now
        return answer

    def _notify(self) -> None:
        """Ring in other processes, from whatever thread: at once from a loop that has connections of its own."""
        lanes = self._elsewhere.get(running_loop())
        home = self._home
        if home is None:
            return
        if lanes is not None:
            lanes.notices.send()
            return
        with contextlib.suppress(RuntimeError):  # its loop has ended
            home.loop.call_soon_threadsafe(home.notices.send)

    def _forget_inherited(self) -> None:
        """In a forked child: the connections are the parent's; closed here, they would be closed there."""
        _INHERITED.append((self._home, self._elsewhere))
        self._home, self._elsewhere, self._joined, self._unlocked = None, {}, set(), set()
        self._has_listened, self._ears, self._asked = False, set(), {}
        self._bell = Bell(self._notify)

    # connecting

    @contextlib.asynccontextmanager
    async def _apart(self, seconds: float | None = None) -> AsyncGenerator[Connection]:
        """A connection for the block alone, which may take so long; what the driver raises in it is ours."""
        seconds = seconds or self._patience
        try:
            connection = await connect(self.address, self._patience)
            cutting = asyncio.get_running_loop().call_later(seconds, connection.terminate)
            try:
                yield connection
                await connection.close(timeout=self._patience)
            finally:
                cutting.cancel()
                connection.terminate()
        except (StoreError, Crash):
            raise
        except Exception as error:
            raise what_is_wrong(error, self.location) from error

    def _make_lane(self, sort: str) -> Lane:
        if sort == "vital":  # a heart must not stand still for as long as others may wait
            return Lane(self._connect_vital, self._carry_out, self.location, self._patience, self._patience / 2)
        connect = self._connect_listening if sort == "claims" else self._connect
        return Lane(connect, self._carry_out, self.location, self._patience, self._patience)

    async def _connect(self, patience: float) -> Connection:
        return await connect(self.address, patience, limit=self._patience)

    async def _connect_vital(self, patience: float) -> Connection:
        """The locks of this process are to be taken on it."""
        return await self._connect_with(self._show_life, patience)

    async def _connect_listening(self, patience: float) -> Connection:
        """With an ear for those who ring, where what they ring for is claimed; what was rung before is looked for."""
        connection = await self._connect_with(self._listen, patience)
        if self._has_listened:
            self._bell.hear()
        self._has_listened = True
        return connection

    async def _connect_with(self, prepare: Callable[[Connection], Awaitable[None]], patience: float) -> Connection:
        connection = await self._connect(patience)
        try:
            if not self.address.pooled:
                await prepare(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _show_life(self, connection: Connection) -> None:
        self._unlocked = set(self._joined)
        connection.add_termination_listener(lambda *_: self._connect_again("vital", self._home))

    async def _listen(self, connection: Connection) -> None:
        lanes = self._elsewhere.get(running_loop(), self._home)

        def lose_it(*_: Any) -> None:
            self._ears.discard(connection)
            self._connect_again("claims", lanes)

        await connection.add_listener(self._channel, self._hear)
        self._ears.add(connection)
        connection.add_termination_listener(lose_it)

    def _connect_again(self, sort: str, lanes: Lanes | None) -> None:
        """The session is lost: meanwhile its lock shows no life, or who rings is not heard."""
        if self._home is not None and lanes is not None:
            operation = Operation("connect" if sort == "claims" else "show_life", (), lanes.loop)
            operation.add_done_callback(self._look_by_himself if sort == "claims" else _leave_it_to_the_next_beat)
            lanes.submit(sort, operation)

    def _look_by_himself(self, answer: asyncio.Future[Any]) -> None:
        """Who waits here cannot be called, for there is no connection: he looks, and so tries for one again."""
        if answer.exception() is not None:
            self._bell.hear()

    def _hear(self, *_: Any) -> None:
        self._bell.hear()

    async def _carry_out(self, connection: Connection, kind: str, operations: Sequence[Operation]) -> None:
        if kind == "enqueue" and (notices := self._notices_for(operations)) is not None:
            with notices.rung_by_another():
                await enqueue_ringing(self._desk, connection, operations[0], self._channel)
        elif not self.address.pooled or kind in IN_A_TRANSACTION:
            await CARRY_OUT[kind](self._desk, connection, operations)
        else:
            async with connection.transaction():
                await connection.execute(SETTINGS_OF_ONE_TRANSACTION)
                await CARRY_OUT[kind](self._desk, connection, operations)
        if kind in {"beat", "show_life"} and self._unlocked:  # a beat comes first: it counts, whatever ends the session
            self._unlocked = {process for process in self._unlocked if not await life.lock(connection, process)}
        for operation in operations:
            if operation.kind != kind:
                self._pass_on(operation, kind)

    def _notices_for(self, operations: Sequence[Operation]) -> Notices | None:
        """By which other processes are to be called at once with a job for anybody; None where that is not so."""
        is_one_job = len(operations) == 1 and len(operations[0].items) == 1 and not operations[0].is_repeated
        if self.address.pooled or not is_one_job or self._bell.is_waited_for:
            return None
        [(_, _, process)] = operations[0].items
        lanes = self._elsewhere.get(running_loop(), self._home)
        if process is not None or lanes is None:
            return None
        return lanes.notices if lanes.notices.may_be_rung else None

    def _pass_on(self, operation: Operation, kind: str) -> None:
        """It may have to wait for another transaction: that must hold up nothing else."""
        lanes = self._elsewhere.get(operation.loop, self._home)
        if lanes is None:
            operation.kind = kind
            operation.error = StoreUnavailable(f"the store {self.location} is not open any more")
        else:
            lanes.submit("apart", operation)


_INHERITED: list[Any] = []


def _leave_it_to_the_next_beat(answer: asyncio.Future[Any]) -> None:
    """Which asks for the same connection."""
    answer.exception()


def what_is_wrong(error: BaseException, location: str) -> StoreError:
    """Why a store could not be opened, with the mend."""
    if is_refused_by_pooler(error):
        return StoreUnusable(f"the store {location}: {NEEDS_SESSIONS}")
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return StoreUnusable(f"the store {location}: there is no such database; make it with CREATE DATABASE")
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return StoreUnusable(
            f"the store {location} lets this user not in ({error}); look at the user and password of the URL"
        )
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return StoreUnusable(
            f"the store {location}: this user may not make or use the schema ({error}); "
            f"let a user who may run `afterward migrate`, and grant this one its use"
        )
    if is_passing(error):
        return StoreUnavailable(f"the store {location} cannot be reached: {type(error).__name__}: {error}")
    found = translated(error, location)
    return found if isinstance(found, StoreError) else StoreUnavailable(str(found))
