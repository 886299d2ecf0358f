"""Natural batching on one connection: while one batch is under way, the next operations gather.

A lane lives on one event loop, and takes operations from any. No timer: alone, an operation goes at once; under load,
hundreds share one statement and one wait for the disk. What was lost with its connection is done again on a new one:
every operation may be repeated.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager

from afterward.errors import StoreUnavailable
from afterward.faults import Crash
from afterward.stores.batch import Operation, answer, deliver
from afterward.stores.postgres.connection import (
    Connection,
    Demoted,
    is_lost,
    is_of_all,
    is_passing,
    only_reads,
    translated,
)

Perform = Callable[[Connection, str, Sequence[Operation]], Awaitable[None]]
"""Does operations of one kind, and sets each one's answer; or its kind, and then another lane answers it."""

ONCE = frozenset({"cancel", "hasten", "pause", "resume", "retry"})
"""A repetition of these answers that nothing is left to do: who asked is told of the trouble instead."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 1.0

_TASK = "afterward-postgres"


class Lane:
    """The one user of a connection; at any time at most one batch of it is under way.

    `patience`: seconds that operations are tried for. `one_try`: seconds that one try may take, before another
    connection is made: nobody says that a network has swallowed the last one.
    """

    def __init__(
        self,
        connect: Callable[[float], Awaitable[Connection]],
        perform: Perform,
        location: str,
        patience: float,
        one_try: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connect = connect
        self._perform = perform
        self._location = location
        self._patience = patience
        self._one_try = one_try
        self._connection: Connection | None = None
        self._pause = _FIRST_PAUSE
        self._gathered: list[Operation] = []
        self._going: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many operations are under way or gathered."""
        return len(self._gathered) + (self._going is not None)

    def end(self) -> None:
        """Refuse all that comes from here on."""
        self._closed = True

    async def close(self) -> None:
        """Do what has been asked for, then let go of the connection. On its loop; idempotent."""
        self._closed = True
        while self._going is not None:
            await asyncio.wait([self._going])
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=1.0)
            except Exception:  # noqa: BLE001 - it is of no use any more, however it ends
                connection.terminate()

    def submit(self, operation: Operation) -> None:
        """Take an operation. On its loop."""
        if self._closed:
            operation.error = StoreUnavailable(f"the store {self._location} is closed")
            self._deliver([operation])
            return
        self._gathered.append(operation)
        if self._going is None:
            self._going = self._loop.create_task(self._go(), name=_TASK)
            self._going.add_done_callback(self._has_ended)

    async def _go(self) -> None:
        by_kind: dict[str, list[Operation]] = {}
        try:
            while self._gathered:
                batch, self._gathered = self._gathered, []
                for operation in batch:
                    by_kind.setdefault(operation.kind, []).append(operation)
                for kind in [*by_kind]:
                    await self._carry_out(kind, by_kind[kind])
                    self._deliver([operation for operation in by_kind.pop(kind) if operation.kind == kind])
        except BaseException:
            ours = [operation for kind, theirs in by_kind.items() for operation in theirs if operation.kind == kind]
            self._give_up([*ours, *self._gathered])
            raise
        finally:
            self._going = None

    def _has_ended(self, going: asyncio.Task[None]) -> None:
        if self._going is going:  # it was cancelled before it had begun
            self._going = None
            self._give_up(self._gathered)

    def _give_up(self, left: list[Operation]) -> None:
        """This was cancelled, as by who cancels all tasks there are: nobody may wait for an answer without end."""
        self._gathered = []
        if self._connection is not None:  # the answer to what was asked may be on its way
            self._connection.terminate()
            self._connection = None
        for operation in left:
            operation.error = StoreUnavailable(
                f"the store {self._location} was not waited for: the task {_TASK} was cancelled; "
                f"whoever cancels all tasks of an event loop should leave out those of this name"
            )
        self._deliver(left)

    def _deliver(self, operations: list[Operation]) -> None:
        """At once to those who asked on this loop."""
        answer(operation for operation in operations if operation.loop is self._loop)
        elsewhere = [operation for operation in operations if operation.loop is not self._loop]
        if elsewhere:
            deliver(elsewhere)

    async def _carry_out(self, kind: str, operations: list[Operation]) -> None:
        """Again and again, as long as that may help and there is time."""
        deadline = self._loop.time() + self._patience
        while (error := await self._try(kind, operations, deadline)) is not None:
            pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
            if not is_passing(error) or kind in ONCE or self._loop.time() + pause >= deadline:
                await self._fail(kind, operations, error)
                return
            for operation in operations:
                operation.is_repeated = True
            await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - it spreads tries
        self._pause = _FIRST_PAUSE

    async def _try(self, kind: str, operations: list[Operation], deadline: float) -> BaseException | None:
        """Once; what went wrong."""
        try:
            connection = self._connection
            if connection is None or connection.is_closed():
                connection = await self._connected(deadline)
            could_write = not only_reads(connection)
            with self._cut_off_at(connection, deadline):
                await self._perform(connection, kind, operations)
            is_repeatable = kind not in ONCE and all(operation.kind == kind for operation in operations)
            self._let_go_if_it_only_reads(connection, could_write and is_repeatable)
        except (Exception, Crash) as error:  # noqa: BLE001 - it becomes the operations' answer
            self._let_go_if_lost(error)
            return error
        return None

    @contextmanager
    def _cut_off_at(self, connection: Connection, deadline: float) -> Generator[None]:
        """End the connection when time is up, which ends whatever waits for an answer on it.

        A cancellation would not: the driver then asks the server to cancel, and a transaction to roll back, and waits
        for that, for ever where the network swallows everything.
        """
        deadline = min(deadline, self._loop.time() + self._one_try)
        cutting = self._loop.call_at(deadline, connection.terminate)
        try:
            yield
        except Exception as error:
            if connection.is_closed() and self._loop.time() >= deadline:
                raise TimeoutError from error
            raise
        finally:
            cutting.cancel()

    async def _fail(self, kind: str, operations: list[Operation], error: BaseException) -> None:
        """What is wrong with one does not stop the rest."""
        if len(operations) > 1 and not is_of_all(error):
            for operation in operations:
                await self._carry_out(kind, [operation])
            return
        for operation in operations:
            operation.error = translated(error, self._location)

    async def _connected(self, deadline: float) -> Connection:
        async with asyncio.timeout_at(min(deadline, self._loop.time() + self._one_try)):
            self._connection = await self._connect(self._patience)
        return self._connection

    def _let_go_if_it_only_reads(self, connection: Connection, is_to_be_repeated: bool) -> None:
        """Who only looks would stay with a primary that was replaced, and see the past: no look of his fails.

        So the next connection goes where the name leads by then. The first look that is answered by a server that takes
        no writes any more (`is_to_be_repeated`) is done again on it; after that, it is
        as good as can be had.
        """
        if not only_reads(connection):
            return
        self._connection = None
        connection.terminate()
        if is_to_be_repeated:
            raise Demoted

    def _let_go_if_lost(self, error: BaseException) -> None:
        connection = self._connection
        if connection is not None and (is_lost(error) or connection.is_closed() or connection.is_in_transaction()):
            self._connection = None
            connection.terminate()
