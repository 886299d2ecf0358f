"""The SQLite store as a simulated process sees it: its operations and queries are the real ones, on one connection that
all processes share; its threads, locks and datagrams are played, and so is what can happen to them.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, TypeVar

import apsw

from afterward.errors import StoreUnavailable
from afterward.job import Lease, Outcome
from afterward.stores.batch import Operation, answer
from afterward.stores.sql import load_migrations
from afterward.stores.sqlite import SQLiteStore
from tests.simulation.loops import Owner, World

T = TypeVar("T")

LONGEST_DELAY_SECONDS = 2.0


class Machine:
    """What outlives the processes of one machine: the file, and the locks beside it.

    `proves_death`: a lock that nobody holds is a death; if not, only a counter that stands still is. `side_by_side`:
    the operations of a process overtake each other, as on several connections; if not, what is asked for while a
    transaction is under way gathers, and goes with the next. `trouble`: how likely something is wrong with one.
    """

    def __init__(self, world: World, *, proves_death: bool, side_by_side: bool) -> None:
        self.world = world
        self.proves_death = proves_death
        self.side_by_side = side_by_side
        self.trouble = 0.0
        self.connection = apsw.Connection(":memory:")
        self.connection.deserialize("main", _empty())
        self.connection.pragma("foreign_keys", True)
        self.locks: dict[str, Owner | None] = {}
        self.bells: dict[int, Bell] = {}
        self.held_by: Callable[[Lease], bool]
        self.hear_of_ends: Callable[[Sequence[tuple[Lease, Outcome]], list[bool], list[bool]], None]

    def rows(self, query: str, *values: Any) -> list[Any]:
        return self.connection.execute(query, values).fetchall()

    def delay(self) -> float:
        """Of one hand-over: nearly always some tenths of a millisecond."""
        dice = self.world.random
        if dice.random() < self.trouble / 4:
            return dice.uniform(0, LONGEST_DELAY_SECONDS)
        return dice.uniform(0.0001, 0.002)


@cache
def _empty() -> bytes:
    connection = apsw.Connection(":memory:")
    for _, statements in load_migrations("afterward.stores.sqlite"):
        connection.execute(statements)
    return connection.serialize("main")


class Locks:
    """The lock files beside the database, as one process has them."""

    def __init__(self, machine: Machine, owner: Owner) -> None:
        self._machine = machine
        self._owner = owner
        self._held: list[str] = []

    @property
    def held(self) -> list[str]:
        return list(self._held)

    def take(self, process: str) -> None:
        self._machine.locks[process] = self._owner
        self._held.append(process)

    def drop(self, process: str) -> None:
        if process in self._held:
            self._held.remove(process)
            self.remove(process)

    def abandon(self, process: str) -> None:
        if process in self._held:
            self._held.remove(process)
            self._machine.locks[process] = None

    def close(self) -> None:
        for process in self.held:
            self.abandon(process)

    def remove(self, process: str) -> None:
        self._machine.locks.pop(process, None)

    def dead(self) -> list[str]:
        if not self._machine.proves_death:
            return []
        return [process for process, holder in self._machine.locks.items() if holder is None]


class Bell:
    """The doorbell of one process. A ring at another's door may be lost."""

    def __init__(self, machine: Machine, port: int) -> None:
        self._machine = machine
        self._waiting: list[asyncio.Event] = []
        self._has_rung = False
        self._others: tuple[int, ...] = ()
        self._number = port
        self.port: int | None = None

    def listen(self) -> bool:
        if self.port is not None:
            return False
        self.port = self._number
        self._machine.bells[self._number] = self
        return True

    def close(self) -> None:
        self.port = None

    def know_others(self, ports: Iterable[int]) -> None:
        self._others = tuple(ports)

    def ring(self) -> None:
        if not self._ring_here() and self._others:
            self._ring_there([self._machine.world.random.choice(self._others)])

    def ring_all(self) -> None:
        self._ring_here()
        self._ring_there(self._others)

    async def wait(self, seconds: float) -> None:
        event = asyncio.Event()
        if self._has_rung:
            self._has_rung = False
            return
        self._waiting.append(event)
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return
        finally:
            self._waiting.remove(event)
            self._has_rung = False

    def _ring_here(self) -> bool:
        self._has_rung = True
        for event in self._waiting:
            event.set()
        return bool(self._waiting)

    def _ring_there(self, ports: Iterable[int]) -> None:
        for port in ports:
            if self._machine.world.chance(self._machine.trouble):
                self._machine.world.seen["a ring was lost"] += 1
            elif port in self._machine.bells:
                self._machine.world.call_later(0.0001, self._machine.bells[port]._ring_here)


@dataclass(slots=True, eq=False)
class _Batch:
    """The operations of one transaction."""

    operations: list[Operation]
    is_carried_out: bool = False


class SimulatedStore(SQLiteStore):
    """A store object of one process."""

    def __init__(self, machine: Machine, owner: Owner, port: int) -> None:
        super().__init__("/simulated/jobs.db", clock=lambda: machine.world.now)
        self.asked = 0
        """How many transactions it has asked for."""
        self._machine = machine
        self._owner = owner
        self._locks: Any = Locks(machine, owner)
        self._doorbell: Any = Bell(machine, port)
        self._is_open = False
        self._has_died = False
        self._gathered: list[Operation] = []
        self._under_way: list[_Batch] = []

    @property
    def proves_death(self) -> bool:
        return self._machine.proves_death

    async def open(self, *, migrate: bool = True) -> None:
        await asyncio.sleep(self._machine.delay())
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False
        self._doorbell.close()
        self._locks.close()

    def die(self) -> None:
        """Its process is dead. What was under way has been committed by then, or has not."""
        self._has_died = True
        for batch in self._under_way:
            if not batch.is_carried_out and self._machine.world.chance(0.5):
                self._machine.world.seen["it died between a commit and its answer"] += 1
                self._carry_out(batch)
        self._doorbell.close()
        self._locks.close()

    def unwind(self) -> None:
        """Answer all who still wait: the site is at its end."""
        self._has_died = True
        for operation in chain(self._gathered, *(batch.operations for batch in self._under_way)):
            if not operation.done():
                operation.error = StoreUnavailable("its process is dead")
                operation.loop.call_soon_threadsafe(answer, [operation])

    # one transaction

    def _ask(self, kind: str, items: Any, *, is_heavy: bool = False) -> Any:
        if not self._is_open or self._has_died:
            raise StoreUnavailable("the store is not open")
        operation = Operation(kind, items, asyncio.get_running_loop(), is_heavy)
        self._gathered.append(operation)
        if self._machine.side_by_side or not self._under_way:
            self._next_batch()
        return operation

    def _next_batch(self) -> None:
        batch, self._gathered = _Batch(self._gathered), []
        self._under_way.append(batch)
        self.asked += 1
        self._machine.world.call_later(self._machine.delay(), lambda: self._transact(batch))

    def _transact(self, batch: _Batch) -> None:
        world = self._machine.world
        if self._has_died:
            return
        if self._owner.stands_still:
            world.call_later(0.05, lambda: self._transact(batch))
            return
        fate = world.random.random() / self._machine.trouble if self._machine.trouble else 1.0
        if fate < 0.5:
            _refuse(batch.operations, "it is locked")
            world.seen["a transaction was refused"] += 1
        else:
            self._carry_out(batch)
            if fate < 1.0:
                _refuse(batch.operations, "nobody knows whether it was committed")
                world.seen.update(f"the answer to a {operation.kind} was lost" for operation in batch.operations)
        world.call_later(self._machine.delay(), lambda: self._deliver(batch))

    def _carry_out(self, batch: _Batch) -> None:
        connection = self._machine.connection
        ends = [operation for operation in batch.operations if operation.kind in {"finish", "finish_saying"}]
        held = [[self._machine.held_by(lease) for lease, _ in operation.items] for operation in ends]
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._stage(connection, batch.operations)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        batch.is_carried_out = True
        for operation, was_held in zip(ends, held, strict=True):
            self._machine.hear_of_ends(operation.items, operation.answer, was_held)

    def _deliver(self, batch: _Batch) -> None:
        if self._has_died:
            return
        by_loop: dict[asyncio.AbstractEventLoop, list[Operation]] = {}
        for operation in batch.operations:
            by_loop.setdefault(operation.loop, []).append(operation)
        for loop, operations in by_loop.items():
            loop.call_soon_threadsafe(answer, operations)
        self._under_way.remove(batch)
        if self._gathered:
            self._next_batch()

    def _read(self, reader: Any, look: Callable[[apsw.Connection], T]) -> Any:
        if not self._is_open or self._has_died:
            raise StoreUnavailable("the store is not open")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        later = self._machine.world.call_later
        later(self._machine.delay(), lambda: loop.call_soon_threadsafe(self._look_now, future, look))
        return future

    def _look_now(self, future: "asyncio.Future[T]", look: Callable[[apsw.Connection], T]) -> None:
        if not future.done():
            future.set_result(look(self._machine.connection))

    def _check_file(self) -> None:
        """There is none."""


def _refuse(operations: Sequence[Operation], why: str) -> None:
    for operation in operations:
        operation.error = StoreUnavailable(why)
