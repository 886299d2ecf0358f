"""Every kind of store there is, to be put through the same contract.

A new kind is one line in `KINDS`.
"""

import asyncio
import multiprocessing
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import apsw

from afterward.errors import StoreError
from afterward.identity import new_id
from afterward.job import (
    Cancelled,
    Died,
    Failed,
    Failure,
    Job,
    Lease,
    NewFile,
    NewJob,
    Outcome,
    Placement,
    Process,
    Released,
    Retry,
    Stored,
    Succeeded,
)
from afterward.stores.base import Beat, Claimed, Store, Wanted
from afterward.stores.postgres import PostgresStore
from afterward.stores.sqlite import SQLiteStore
from servers.postgres import Server
from tests.support.postgres import READY

MORNING = 1_700_000_000.0
"""The time at which the clock of every test stands, until the test sets it."""

OOPS = Failure("OopsError", "it did not work", "Traceback (most recent call last): ...")
OUTCOMES: list[Outcome] = [
    Succeeded(),
    Succeeded('{"sent":true}'),
    Failed(OOPS),
    Cancelled("asked to end"),
    Retry(OOPS, 0),
    Retry(OOPS, 30),
    Released("a shutdown"),
    Released("out of memory", 30),
    Released("its arguments do not fit", 0, "v1"),
    Died(OOPS, 0, final=False),
    Died(OOPS, 30, final=False),
    Died(OOPS, 0, final=True),
]
"""Every way in which an attempt ends."""


class Clock:
    """A store's clock, that only the test moves."""

    def __init__(self, now: float = MORNING) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass(frozen=True)
class Kind:
    """One kind of store, and what it is capable of.

    `create`: a place without jobs, which a folder of the test's own may hold, or the server that tests share (started
    when it is asked for), for as long as the block lasts; at its end, nothing there is damaged. It is named by a text,
    also to other processes. `create_empty`: one without anything, where a store is yet to be made. `make`: a store
    object on it.
    """

    create: Callable[[Path, Callable[[], Server]], AbstractContextManager[str]]
    create_empty: Callable[[Path, Callable[[], Server]], AbstractContextManager[str]]
    make: Callable[[str, Callable[[], float]], Store]
    proves_death: bool


@contextmanager
def in_a_file(folder: Path, _: Callable[[], Server]) -> Generator[str]:
    yield str(folder / "jobs.db")
    check_sqlite(folder)


def check_sqlite(folder: Path) -> None:
    """SQLite finds no damage in the file, and no reference that leads nowhere."""
    file = folder / "jobs.db"
    if not file.exists():
        return
    connection = apsw.Connection(str(file))
    try:
        connection.set_busy_timeout(5000)
        assert connection.pragma("integrity_check") == "ok"
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    finally:
        connection.close()


def in_a_database(_: Path, server: Callable[[], Server]) -> AbstractContextManager[str]:
    return server().database(template=READY)


def in_an_empty_database(_: Path, server: Callable[[], Server]) -> AbstractContextManager[str]:
    return server().database()


KINDS = {
    "postgres": Kind(
        in_a_database,
        in_an_empty_database,
        lambda where, clock: PostgresStore(where, clock=clock),
        proves_death=False,
    ),
    "sqlite": Kind(in_a_file, in_a_file, lambda where, clock: SQLiteStore(where, clock=clock), proves_death=True),
}


_numbers = count(1)


def new_job(**changes: Any) -> NewJob:
    """A job that nothing is said of but what the test says."""
    said: dict[str, Any] = {"task": "app:send", "queue": "default", "priority": 0, "arguments": '{"n":1}'} | changes
    return NewJob(said.pop("id", None) or new_id(), **said)


class Bytes:
    """What a file contains, in memory."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    def read(self, offset: int, size: int) -> bytes:
        return self.data[offset : offset + size]


def new_file() -> NewFile:
    """A file that a store knows nothing of."""
    return NewFile(new_id(), Bytes())


async def put_file(living: "Living", *chunks: bytes) -> NewFile:
    """A file whose content is stored in a process's name, in these chunks."""
    file = new_file()
    for number, data in enumerate(chunks):
        is_last = number == len(chunks) - 1
        assert await living.store.put_chunk(file.id, number, data, living.id, is_last=is_last)
    return file


async def content_of(store: Store, file: NewFile) -> list[bytes] | None:
    """The chunks of a file; None when it is not there."""
    chunks: list[bytes] = []
    while (chunk := await store.get_chunk(file.id, len(chunks))) is not None:
        chunks.append(chunk.data)
        if chunk.is_last:
            return chunks
    assert not chunks, "it ends before its last chunk"
    return None


async def sweep(store: Store, limit: int = 100) -> int:
    """Free all that nobody wants; how many chunks that was."""
    freed = 0
    while page := (await store.tidy({}, limit, limit)).freed:
        freed += page
    return freed


def name_of(outcome: Outcome) -> str:
    """An outcome as the name of a test."""
    said = {"result": "with a result", "delay": "later", "final": "for good", "unfit_for": "as unfit"}
    return " ".join([type(outcome).__name__, *(text for name, text in said.items() if getattr(outcome, name, None))])


def altered(lease: Lease, *, process: str | None = None, attempt: int | None = None) -> Lease:
    """The same lease with another fence."""
    attempt = lease.attempt if attempt is None else attempt
    return Lease(lease.id, attempt, process or lease.process, lease.task, lease.arguments, lease.context)


def send(limit: int = 10) -> list[Wanted]:
    """Room for jobs of the task that `new_job` makes."""
    return [Wanted({"app:send"}, limit)]


class Living:
    """A process that has joined a store, with a store object of its own."""

    def __init__(self, store: Store, id_: str) -> None:
        self.store = store
        self.id = id_

    async def claim(self, wanted: list[Wanted] | None = None, token: str | None = None) -> Claimed:
        """Claim, with a new token unless one is given."""
        return await self.store.claim(self.id, send() if wanted is None else wanted, token or new_id())

    def named(self, *jobs: str) -> list[Wanted]:
        """Room for jobs because a person names them."""
        return [Wanted({"app:send"}, len(jobs), only=list(jobs))]

    async def claim_one(self) -> Lease:
        """Claim the one job that there is to claim."""
        [lease] = (await self.claim()).leases
        return lease

    async def enqueue(self, *jobs: NewJob, placement: Placement = Placement.held) -> list[Stored]:
        """Store jobs in this process's name."""
        return await self.store.enqueue([(job, placement) for job in jobs], self.id)

    async def leased(self, job: NewJob) -> Lease:
        """Store a job as this process's first attempt of it."""
        assert await self.enqueue(job, placement=Placement.leased) == [Stored.stored]
        return Lease(job.id, 1, self.id, job.task, job.arguments, job.context)

    async def beat(self) -> Beat | None:
        """One heartbeat, of a process that may have been taken for dead."""
        return await self.store.beat(self.id)

    async def look(self) -> Beat:
        """One heartbeat, of a process that lives."""
        beat = await self.beat()
        assert beat is not None
        return beat

    async def give_all_back(self) -> list[bool]:
        """As a process that knows of nothing any more: give back what the store holds in its name."""
        beat = await self.look()
        attempts = [(job, held.attempt) for job, held in beat.held.items()]
        return await self.store.give_back(self.id, attempts, beat.files)


class Place:
    """One place where jobs live, and as many store objects on it as a test asks for, each closed with the test."""

    def __init__(self, kind: str, where: str, cleanup: AsyncExitStack) -> None:
        self.kind = kind
        self.where = where
        self.clock = Clock()
        self._cleanup = cleanup

    def make(self) -> Store:
        """A store object that is not open."""
        store = KINDS[self.kind].make(self.where, self.clock)
        self._cleanup.push_async_callback(store.close)
        return store

    async def open(self) -> Store:
        """A store object that is open."""
        store = self.make()
        await store.open()
        return store

    async def process(self, id_: str | None = None, *, on: Store | None = None) -> Living:
        """A process that lives, as far as the store can see; with a store object of its own, or on this one."""
        store = on or await self.open()
        living = Living(store, id_ or f"process-{next(_numbers)}")
        await store.join(Process(living.id, 4711, "example"))
        self._cleanup.push_async_callback(_leave, living)
        return living

    def other_process(self) -> "OtherProcess":
        """A process of the operating system, with a store object of its own."""
        other = OtherProcess(self.kind, self.where, self.clock.now)
        self._cleanup.callback(other.kill)
        return other

    def living_elsewhere(self, id_: str) -> "OtherProcess":
        """A process of the operating system that has joined."""
        other = self.other_process()
        other.call("open")
        other.call("join", Process(id_, 1, "example"))
        return other

    async def seem_dead(self, looker: Living) -> set[str]:
        """Who is dead, as far as this kind of store can tell: for certain, or by a sign."""
        if KINDS[self.kind].proves_death:
            return set(await looker.store.dead())
        assert await looker.store.dead() == []
        return set((await looker.look()).signs)

    async def seems_dead(self, looker: Living, id_: str) -> None:
        """A process is dead, and the store tells: at once, where that is certain."""
        seconds = 0.0 if KINDS[self.kind].proves_death else 10.0
        while await self.seem_dead(looker) != {id_}:
            assert seconds > 0, f"nothing tells that {id_} is dead"
            await asyncio.sleep(0.02)
            seconds -= 0.02


async def _leave(living: Living) -> None:
    try:
        await living.store.leave(living.id)
    except StoreError:
        return  # a test may have closed or broken the store


async def put(store: Store, *jobs: NewJob) -> list[str]:
    """Store jobs that anybody may claim, and give their ids."""
    assert await store.enqueue([(job, Placement.free) for job in jobs], None) == [Stored.stored] * len(jobs)
    return [job.id for job in jobs]


async def get(store: Store, id_: str) -> Job:
    """A job that is there."""
    [job] = await store.get([id_])
    assert job is not None
    return job


async def ids_of(store: Store, **asked: Any) -> list[str]:
    """The ids of the jobs of a list."""
    return [job.id for job in await store.list(**asked)]


def ids(leases: list[Lease]) -> list[str]:
    return [lease.id for lease in leases]


class OtherProcess:
    """A process of its own, that obeys one order at a time, and can be killed."""

    def __init__(self, kind: str, where: str, now: float) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.support.stores"])
        self._orders, there = context.Pipe()
        self._process = context.Process(target=obey, args=(there, kind, where, now), daemon=True)
        self._process.start()
        there.close()

    def begin(self, operation: str, *args: Any) -> None:
        """Tell the process to do an operation of its store, and do not wait for it."""
        self._orders.send((operation, args))

    def answer(self) -> Any:
        """What the operation that was begun answered; what it raised is raised here."""
        assert self._orders.poll(30), "the other process gave no answer"
        answer = self._orders.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def call(self, operation: str, *args: Any) -> Any:
        """Do an operation of its store, there, and give its answer."""
        self.begin(operation, *args)
        return self.answer()

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function there, and give what it returns."""
        self._orders.send((function, args))
        return self.answer()

    def kill(self) -> None:
        """`kill -9`; lawful on a process that has ended."""
        self._process.kill()
        self._process.join()
        self._orders.close()


def obey(orders: Connection, kind: str, where: str, now: float) -> None:
    """The life of another process: operations of its store object, in order, until nobody orders any more."""
    store = cast("Any", KINDS[kind].make(where, Clock(now)))
    with asyncio.Runner() as runner:
        while True:
            try:
                operation, args = orders.recv()
            except EOFError:
                return
            try:
                if callable(operation):
                    orders.send(operation(*args))
                elif operation == "move":
                    store = cast("Any", KINDS[kind].make(args[0], Clock(now)))
                    orders.send(None)
                else:
                    orders.send(runner.run(_await(getattr(store, operation), args)))
            except Exception as error:
                orders.send(error)


async def _await(operation: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return await operation(*args)
