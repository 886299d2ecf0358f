"""Natural batching on one connection: while one batch is under way, the next operations gather.

A lane lives on one event loop, and takes operations from any. No timer: alone, an operation goes at once; under load,
hundreds share one statement and one wait for the disk. What was lost with its connection is done again on a new one:
every operation may be repeated.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

from afterward.errors import StoreError, StoreUnavailable
from afterward.faults import Crash
from afterward.stores.batch import Operation, answer, deliver
from afterward.stores.postgres.connection import Connection, is_lost, is_passing, translated

Perform = Callable[[Connection, str, Sequence[Operation]], Awaitable[None]]
"""Does operations of one kind, and sets each one's answer."""

ONCE = frozenset({"cancel", "retry"})
"""A repetition of these answers that nothing is left to do: who asked is told of the trouble instead."""

_LONGEST_PAUSE = 0.5


class Lane:
    """The one user of a connection; at any time at most one batch of it is under way."""

    def __init__(
        self,
        connect: Callable[[float], Awaitable[Connection]],
        perform: Perform,
        location: str,
        patience: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connect = connect
        self._perform = perform
        self._location = location
        self._patience = patience
        self._connection: Connection | None = None
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
            self._going = self._loop.create_task(self._go(), name="afterward-postgres")

    async def _go(self) -> None:
        try:
            while self._gathered:
                batch, self._gathered = self._gathered, []
                by_kind: dict[str, list[Operation]] = {}
                for operation in batch:
                    by_kind.setdefault(operation.kind, []).append(operation)
                for kind, operations in by_kind.items():
                    await self._carry_out(kind, operations)
                    self._deliver(operations)
        finally:
            self._going = None

    def _deliver(self, operations: list[Operation]) -> None:
        """At once to those who asked on this loop."""
        answer(operation for operation in operations if operation.loop is self._loop)
        elsewhere = [operation for operation in operations if operation.loop is not self._loop]
        if elsewhere:
            deliver(elsewhere)

    async def _carry_out(self, kind: str, operations: list[Operation]) -> None:
        deadline = self._loop.time() + self._patience
        pause = 0.01
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._perform(await self._connected(), kind, operations)
            except (Exception, Crash) as error:  # noqa: BLE001 - it becomes the operations' answer
                is_over = self._loop.time() + pause >= deadline
                if is_passing(error) and kind not in ONCE and not is_over:
                    self._let_go_if_lost(error)
                    await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - it spreads tries
                    pause = min(2 * pause, _LONGEST_PAUSE)
                    continue
                self._let_go_if_lost(error)
                if len(operations) == 1 or is_passing(error) or isinstance(error, StoreError | Crash):
                    for operation in operations:
                        operation.error = translated(error, self._location)
                    return
                for operation in operations:  # one bad row never stops the rest
                    await self._carry_out(kind, [operation])
                return
            else:
                return

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect(self._patience)
        return self._connection

    def _let_go_if_lost(self, error: BaseException) -> None:
        connection = self._connection
        if connection is not None and (is_lost(error) or connection.is_closed() or connection.is_in_transaction()):
            self._connection = None
            connection.terminate()
