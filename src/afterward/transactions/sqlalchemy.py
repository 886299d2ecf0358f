"""Sessions of SQLAlchemy, and so of SQLModel: they tell of their commits and rollbacks.

Nothing of it is imported before there is such a session. `AsyncSession` is a shell around a `Session`: what that calls
runs in a greenlet, where the same blocking code waits for the event loop.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from afterward.errors import ConfigurationError
from afterward.job import NewJob
from afterward.stores.joining import Script, Statement, carry_out
from afterward.transactions.host import Host
from afterward.transactions.joined import Joined, Standing

T = TypeVar("T")

_CLASSES = {
    ("sqlalchemy.orm.session", "Session"),
    ("sqlalchemy.ext.asyncio.session", "AsyncSession"),
    ("sqlalchemy.orm.scoping", "scoped_session"),
    ("sqlalchemy.ext.asyncio.scoping", "async_scoped_session"),
}


def is_session(thing: object) -> bool:
    """Is it a session of SQLAlchemy's, or of a class that extends one?"""
    return any((cls.__module__, cls.__name__) in _CLASSES for cls in type(thing).__mro__)


def transaction_of(session: Any, host: Host) -> SessionTransactions:
    """What jobs join in a session; the same object for the same session."""
    if hasattr(session, "registry"):  # a scoped one stands for one of its own
        session = session.registry()
    blocking = getattr(session, "sync_session", session)
    found: SessionTransactions | None = blocking.info.get(host)
    if found is None:
        found = blocking.info[host] = SessionTransactions(blocking, host)
    found.is_async = found.is_async or blocking is not session
    return found


@dataclass(slots=True, eq=False)
class _Addition:
    """Jobs that were added at once. `owner`: the transaction or savepoint they were added in; None: the next.

    `written_in`: the one that they are written in.
    """

    joined: Joined
    owner: Any
    written_in: Any = None


class SessionTransactions:
    """The transactions of one session, one after the other, each with its savepoints."""

    writes_by_itself = True
    is_async = False
    """Is it known by the shell around it, so that what blocks is to be called in a greenlet?"""

    def __init__(self, session: Any, host: Host) -> None:
        self._session = session
        self._host = host
        self._mutex = threading.Lock()
        self._additions: list[_Addition] = []
        self._rolled_back: set[Any] = set()
        self._committed: Any = None
        self._is_committing = False
        self._listen()

    def _listen(self) -> None:
        from sqlalchemy import event

        for name in (
            "before_commit", "after_commit", "after_rollback", "after_transaction_create", "after_transaction_end"
        ):  # fmt: skip
            event.listen(self._session, name, getattr(self, f"_{name}"))
        # A session that has begun no transaction tells of neither; but what was added to it is meant, too.
        self._session.rollback = self._settling_next(self._session.rollback, Standing.undone)
        self._session.close = self._settling_next(self._session.close, Standing.left)

    def _settling_next(self, end: Callable[[], None], standing: Standing) -> Callable[[], None]:
        @functools.wraps(end)
        def ended() -> None:
            end()
            self._settle(None, standing)

        return ended

    # what is asked of a transaction

    def add(self, jobs: Sequence[NewJob]) -> Joined:
        joined = Joined(jobs)
        with self._mutex:
            self._additions.append(_Addition(joined, self._innermost()))
        if self._is_committing and self._session.get_transaction().is_active:
            self._write()  # at once: it was added by what the flush of the commit calls
        return joined

    async def write(self) -> None:
        if self.is_async:
            from sqlalchemy.util import greenlet_spawn

            await greenlet_spawn(self._write)
        else:
            self._write()

    async def carry_out(self, script: Script[T]) -> T:
        if self.is_async:
            from sqlalchemy.util import greenlet_spawn

            result: T = await greenlet_spawn(lambda: self._carry_out(script))
            return result
        return self._carry_out(script)

    def carry_out_sync(self, script: Script[T]) -> T:
        if self.is_async and not _in_greenlet():
            script.close()
            raise ConfigurationError("this session has to be awaited: `await finish(session)`")
        return self._carry_out(script)

    # writing

    def _write(self) -> None:
        additions = [addition for addition in self._additions if addition.written_in is None]
        jobs = [job for addition in additions for job in addition.joined.jobs]
        if not jobs:
            return
        joins = self._host.joins
        if not self._host.is_ready_for(jobs):
            self._prepare(jobs)
        self._carry_out(joins.enter(jobs))
        for addition in additions:
            addition.written_in = self._innermost()

    def _carry_out(self, script: Script[T]) -> T:
        from sqlalchemy import text

        def execute(statement: Statement) -> str:
            query = text(statement.written(":said"))
            connection = self._session.connection(bind_arguments={"clause": query})
            answer: str = connection.execute(query, {"said": statement.said}).scalar_one()
            return answer

        return carry_out(script, execute, self._host.joins)

    def _prepare(self, jobs: Sequence[NewJob]) -> None:
        if self.is_async:
            from sqlalchemy.util import await_only

            await_only(self._host.prepare(jobs))
        else:
            self._host.prepare_sync(jobs)

    def _innermost(self) -> Any:
        return self._session.get_nested_transaction() or self._session.get_transaction()

    # what a session tells

    def _before_commit(self, _session: Any) -> None:
        """Of a transaction, or of a savepoint: then as well, for the first may be under way around it."""
        self._is_committing = True
        self._write()

    def _after_commit(self, session: Any) -> None:
        """At once, where it is the whole transaction's: what others do after the commit may fail."""
        self._is_committing = False
        self._committed = self._innermost()
        if session.get_nested_transaction() is None:
            for addition in self._additions:
                if addition.written_in is None:  # by what else is called after the commit: it is of the next
                    addition.owner = None
            self._settle(self._committed, Standing.stored)

    def _after_rollback(self, _session: Any) -> None:
        self._is_committing = False
        self._rolled_back.add(self._innermost())

    def _after_transaction_create(self, _session: Any, transaction: Any) -> None:
        if transaction.parent is None:
            for addition in self._additions:
                addition.owner = addition.owner or transaction

    def _after_transaction_end(self, _session: Any, transaction: Any) -> None:
        is_rolled_back = transaction in self._rolled_back
        self._rolled_back.discard(transaction)
        is_committed = transaction is self._committed
        self._committed = None if is_committed else self._committed
        if is_committed:
            self._hand_on(transaction)
        elif transaction.parent is None:
            self._is_committing = False
            self._settle(transaction, Standing.undone if is_rolled_back else Standing.left)
        elif transaction.nested:
            self._settle(transaction, Standing.undone)
            for addition in self._additions:  # of those around it, which were written within it
                if addition.written_in is transaction:
                    addition.written_in = None

    def _hand_on(self, transaction: Any) -> None:
        """What was of a savepoint is of the one around it; what came too late for a transaction is of the next."""
        for addition in self._additions:
            if addition.owner is transaction:
                addition.owner = _around(transaction)
            if addition.written_in is transaction:
                addition.written_in = _around(transaction)

    def _settle(self, transaction: Any, standing: Standing) -> None:
        with self._mutex:
            over = [addition for addition in self._additions if addition.owner is transaction]
            self._additions = [addition for addition in self._additions if addition.owner is not transaction]
        for addition in over:
            addition.joined.standing = standing
        jobs = [job for addition in over for job in addition.joined.jobs]
        if jobs:
            self._host.settle(jobs, are_stored=standing is Standing.stored)


def _in_greenlet() -> bool:
    """Can blocking code wait for the event loop here?"""
    from sqlalchemy.util.concurrency import in_greenlet

    return in_greenlet()


def _around(transaction: Any) -> Any:
    """The transaction or savepoint that a savepoint is in; None for a transaction."""
    around = transaction.parent
    while around is not None and around.parent is not None and not around.nested:
        around = around.parent
    return around
