"""Natural batching on one SQLite connection: while one transaction is under way, the next operations gather.

The statements of a batch run at once on the event loop that asked (they touch pages in memory); the commit, which
waits for the disk, runs in a thread. One hand-over for each batch, and no timer: alone, an operation goes at once;
under load, hundreds share one fsync. When another process holds the file's lock, the whole batch waits in the thread.
So does a batch with operations that take long (the contents of files, very many jobs, tidying): two of them at most.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

import apsw

from afterward.errors import StoreError, StoreUnavailable
from afterward.faults import Crash, crash_point
from afterward.stores.batch import Operation, deliver

HEAVY = 2
"""How many operations that take long one batch has at most: more carry files faster, and hold up all else."""

SHORTEST_WAIT = 0.0003
LONGEST_WAIT = 0.005
"""How many seconds it is waited at most until a lock is asked for again: at first, and in the end."""

Stage = Callable[[apsw.Connection, Sequence[Operation]], None]
"""Runs the statements of a batch inside an open transaction, and sets each operation's answer."""


class Writer:
    """The one user of a connection; at any time at most one batch of it is under way."""

    def __init__(self, connection: apsw.Connection, stage: Stage, location: str, patience: float) -> None:
        self._connection = connection
        self._stage = stage
        self._location = location
        self._patience = patience
        self._deadline = 0.0
        self._mutex = threading.Lock()
        self._gathered: list[Operation] = []
        self._called: set[asyncio.AbstractEventLoop] = set()
        self._heavy = 0
        self._busy = False
        self._closed = False
        self._work: SimpleQueue[tuple[list[Operation], bool] | None] = SimpleQueue()
        connection.set_busy_handler(self._wait_for_lock)
        self._thread = threading.Thread(target=self._run, name="afterward-sqlite", daemon=True)
        self._thread.start()

    def submit(self, kind: str, items: Any, *, is_heavy: bool = False) -> asyncio.Future[Any]:
        """Ask for an operation, from a running event loop; await the answer. `is_heavy`: it may take long."""
        loop = asyncio.get_running_loop()
        operation = Operation(kind, items, loop, is_heavy)
        with self._mutex:
            if self._closed:
                raise StoreUnavailable(f"the store {self._location} is closed")
            self._gathered.append(operation)
            self._heavy += is_heavy
            called = self._busy or loop in self._called
            if not called:
                self._called.add(loop)
        if not called:
            loop.call_soon(self._next_batch)
        return operation

    def close(self) -> None:
        """Commit what is under way, fail what has not begun, close the connection. Blocks; idempotent."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            if not self._busy:
                self._work.put(None)
        self._thread.join()

    def _next_batch(self) -> None:
        """On a loop: stage all that has gathered, of whatever loop, and hand it on to be committed."""
        with self._mutex:
            self._called.discard(asyncio.get_running_loop())
            if self._busy or not self._gathered or self._closed:
                return
            self._busy = True
            is_heavy = self._heavy > 0
            operations, self._gathered = self._gathered, []
            if is_heavy:
                operations, self._gathered = self._without_too_much(operations)
        if is_heavy:  # never on the loop
            self._work.put((operations, False))
            return
        self._deadline = 0.0
        staged = False
        try:
            self._begin(operations)
            staged = True
        except (Exception, Crash):  # noqa: BLE001 - whatever it is, the thread meets it again
            self._roll_back()  # and, with patience, tries again or says what is wrong
        finally:
            self._work.put((operations, staged))

    def _without_too_much(self, gathered: list[Operation]) -> tuple[list[Operation], list[Operation]]:
        """What of it goes now, and what waits, so that all else never waits for much work."""
        now: list[Operation] = []
        later: list[Operation] = []
        heavy = 0
        for operation in gathered:
            heavy += operation.is_heavy
            (later if operation.is_heavy and heavy > HEAVY else now).append(operation)
        self._heavy = len(later)
        return now, later

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            operations, staged = work
            self._carry_out(operations, staged)
            with self._mutex:
                self._busy = False
                waiting = {operation.loop for operation in self._gathered}
                self._called |= waiting
                ending = self._closed
            self._deliver(operations, waiting)
            if ending:
                break
        with self._mutex:
            left, self._gathered = self._gathered, []
        for operation in left:
            operation.error = StoreUnavailable(f"the store {self._location} was closed")
        self._deliver(left, set())
        self._connection.close()

    def _carry_out(self, operations: list[Operation], staged: bool) -> None:
        try:
            self._transact(operations, staged)
        except BaseException as error:  # noqa: BLE001 - it becomes the operations' answer
            if len(operations) == 1 or isinstance(error, apsw.BusyError | apsw.IOError | StoreError | Crash):
                for operation in operations:
                    operation.error = self._translated(error)
                return
            for operation in operations:  # one bad row never stops the rest
                self._carry_out([operation], staged=False)

    def _transact(self, operations: list[Operation], staged: bool) -> None:
        try:
            if not staged:
                self._deadline = time.monotonic() + self._patience
                self._begin(operations)
            if any(operation.kind == "enqueue" for operation in operations):
                crash_point("after_insert")
            self._connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _begin(self, operations: list[Operation]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._stage(self._connection, operations)

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _wait_for_lock(self, tries: int) -> bool:
        """Called by SQLite while another process holds the lock. On a loop the deadline is 0: never wait there."""
        if time.monotonic() >= self._deadline:
            return False
        longest = min(LONGEST_WAIT, SHORTEST_WAIT * 2.0 ** min(tries, 10))
        time.sleep(random.uniform(longest / 10, longest))  # noqa: S311 - uneven, so that nobody starves
        return True

    def _translated(self, error: BaseException) -> StoreError | Crash:
        if isinstance(error, StoreError | Crash):
            return error
        if isinstance(error, apsw.BusyError):
            said = f"another process held its lock for more than {self._patience:g} s"
        elif isinstance(error, apsw.FullError):
            said = "its disk is full"
        else:
            said = f"{type(error).__name__}: {error}"
        unavailable = StoreUnavailable(f"the store {self._location} could not be written: {said}")
        unavailable.__cause__ = error
        return unavailable

    def _deliver(self, operations: list[Operation], waiting: set[asyncio.AbstractEventLoop]) -> None:
        """Give each loop its answers, and call those on which operations wait."""
        for loop in deliver(operations, waiting, self._next_batch):
            with self._mutex:
                self._called.discard(loop)
                self._gathered = [operation for operation in self._gathered if operation.loop is not loop]
                self._heavy = sum(operation.is_heavy for operation in self._gathered)
