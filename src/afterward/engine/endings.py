"""Attempts that end themselves: their success is written by a transaction of the task's own.

What is true when the function has returned or raised, only the store can say: the transaction may have been committed,
rolled back, or forgotten. It is asked, and its word is the outcome.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from afterward.contents import Contents
from afterward.context import Voice
from afterward.errors import LeaseLost, NotCommitted, StoreError
from afterward.hooks import with_follow_up
from afterward.job import Lease, Outcome, Status, Succeeded
from afterward.liveness import Liveness
from afterward.observe import emit
from afterward.options import Joinable
from afterward.stores.base import Store
from afterward.stores.joining import Joins, Script
from afterward.task import Task
from afterward.transactions.host import Host
from afterward.transactions.joined import Transaction
from afterward.transactions.kinds import transaction_of
from afterward.uploads import stored_in

_PAUSE_SECONDS = 0.5


class Endings:
    """What the attempts of one worker share. `leave`: this process is about to let go of an attempt."""

    def __init__(self, host: Host, store: Store, leave: Callable[[Lease], None]) -> None:
        self.host = host
        self.leave = leave
        self._store = store

    @classmethod
    def of(cls, store: Store, liveness: Liveness) -> Endings | None:
        """None where there is nothing to be joined."""
        if store.joins is None:
            return None
        host = Host(store, liveness, Contents(store, liveness.holdings))
        return cls(host, store, lambda lease: liveness.holdings.leave([(lease.id, lease.attempt)]))

    @property
    def joins(self) -> Joins:
        return self.host.joins

    async def has_ended(self, lease: Lease) -> bool:
        """Has this attempt succeeded, as the store has it? Asked until it answers: nothing else knows."""
        while True:
            try:
                [job] = await self._store.get([lease.id])
            except StoreError as error:
                emit(logging.WARNING, "worker.store_unavailable", reason=str(error), retry_in=_PAUSE_SECONDS)
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                # One that is gone has ended before it could be forgotten.
                return job is None or (job.status is Status.succeeded and job.attempt == lease.attempt)


class AttemptEnding:
    """The end of one attempt. `outcome`: what a transaction was given to write, if any."""

    def __init__(self, endings: Endings, task: Task[..., Any], lease: Lease, voice: Voice) -> None:
        self._endings = endings
        self._task = task
        self._lease = lease
        self._voice = voice
        self.outcome: Succeeded | None = None

    async def write(self, transaction: Joinable, result: Any) -> None:
        await self._voice.settle()
        joined, outcome = self._begin(transaction, result)
        self._conclude(outcome, await joined.carry_out(self._script(outcome)))

    def write_sync(self, transaction: Joinable, result: Any) -> None:
        self._voice.settle_sync()
        joined, outcome = self._begin(transaction, result)
        self._conclude(outcome, joined.carry_out_sync(self._script(outcome)))

    def _begin(self, transaction: Joinable, result: Any) -> tuple[Transaction, Succeeded]:
        joined = transaction_of(transaction, self._endings.host)
        succeeded = Succeeded(self._task.result.dump(result), files=tuple(stored_in(self._lease.arguments)))
        outcome = with_follow_up(self._task, self._lease, succeeded)
        assert isinstance(outcome, Succeeded)  # noqa: S101 - as it came in
        self._endings.leave(self._lease)
        return joined, outcome

    def _script(self, outcome: Succeeded) -> Script[bool]:
        return self._endings.joins.end(self._lease, outcome)

    def _conclude(self, outcome: Succeeded, has_ended: bool) -> None:
        if not has_ended:
            raise LeaseLost(
                f"attempt {self._lease.attempt} of job {self._lease.id} does not hold it any more: this process was "
                f"taken for dead, or the attempt has ended; roll back what it has done"
            )
        self.outcome = outcome

    async def settled(self, outcome: Outcome) -> Outcome:
        """How the attempt has ended, by the word of the store. `outcome`: what its function came to.

        Raises `NotCommitted` when that returned as if it had ended.
        """
        if self.outcome is None:
            return outcome
        if self._endings.joins.is_pretended:  # nothing was written, so nothing is known: as it came to its end
            return self.outcome if isinstance(outcome, Succeeded) else outcome
        if await self._endings.has_ended(self._lease):
            if not isinstance(outcome, Succeeded):
                self._tell_of_failure_after(outcome)
            return self.outcome
        if isinstance(outcome, Succeeded):
            raise NotCommitted(
                "finish() was called, and its transaction was not committed when the function had returned and its "
                "dependencies had exited; commit it"
            )
        return outcome

    def _tell_of_failure_after(self, outcome: Outcome) -> None:
        failure = getattr(outcome, "failure", None)
        emit(
            logging.WARNING,
            "job.failed_after_finish",
            job_id=self._lease.id,
            task=self._lease.task,
            attempt=self._lease.attempt,
            failure=None if failure is None else failure.kind,
            reason="finish() was committed, so the job has succeeded, though its function ended in an error",
        )
