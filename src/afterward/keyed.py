"""One request that has an `Idempotency-Key`: its answer is kept with its jobs, for whoever sends the same again."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Awaitable, Sequence
from dataclasses import replace

from starlette.types import Message, Receive

from afterward.errors import (
    ConfigurationError,
    DuplicateJob,
    NotCommitted,
    ReservationLost,
    StoreError,
    StoreUnavailable,
)
from afterward.idempotency import KeptAnswer, scope_of
from afterward.identity import new_id
from afterward.job import Completion, NewJob
from afterward.keeping import Keeping
from afterward.messages import has_length
from afterward.observe import emit
from afterward.options import Joinable
from afterward.received import Received
from afterward.request import Call
from afterward.stores.seen import Reservation, Reserved
from afterward.transactions.joined import Standing


class KeyedCall(Call):
    """A request, as any other until its key is reserved; from then on nothing leaves before its whole answer is known.

    - What it has added is stored with the answer, by one transaction, which uses up the key.
    - Where its tasks join a transaction, that has used up the key by then, with an answer that names the jobs; the real
      one takes its place before it leaves.
    - Where it fails, or has added nothing, the key is free before the answer leaves.
    """

    _keeping: Keeping | None = None
    """What is to be kept of its answer, while its key is reserved, and not used up."""

    _reserved: str | None = None
    """The id of its reservation, until it is over."""

    _received: Received | None = None

    def listen(self, receive: Receive) -> Receive:
        self._received = received = Received(self.scope, receive)
        return received

    async def reserve(self, key: str, whose: str | None) -> Reservation:
        """Reserve a key for this request, in the name of its owner, unless it is said whose the key is.

        Raises `TooMuchAhead`, `StoreUnavailable`, and `ConfigurationError`.
        """
        if self._keeping is not None:
            raise ConfigurationError(
                "this request has reserved its Idempotency-Key already; depend on one tasks.idempotent(…), once"
            )
        if self._joined is not None:
            raise ConfigurationError(
                "a task was added to a transaction before the Idempotency-Key of its request was reserved; "
                "put tasks.idempotent(…) before whatever adds tasks"
            )
        owner = self.owner if whose is None else whose
        keeping = Keeping(new_id(), is_anybodys=owner is None)
        reservation = await self._reserve(keeping.reservation, key, owner or "")
        if reservation.state is Reserved.reserved:
            self._keeping, self._reserved = keeping, keeping.reservation
            if self._pending:
                keeping.take((), None)
        return reservation

    async def _reserve(self, reservation: str, key: str, owner: str) -> Reservation:
        received = self._received
        assert received is not None  # noqa: S101 - it listens from its start
        fingerprint = await received.fingerprint()
        scope = scope_of(owner, received.method, received.path)
        return await self._intake.reservations.reserve(reservation, scope, key, fingerprint)

    # what is added

    def give_to(self, owner: str) -> None:
        if self._keeping is not None and self._keeping.is_anybodys:
            raise ConfigurationError(
                "the Idempotency-Key of this request was reserved before it was known whose the request is, and would "
                "have shown one user what another was answered; say tasks.idempotent(owner=…), or have it come after"
            )
        super().give_to(owner)

    def taken(self, jobs: Sequence[NewJob], stored_by: Joinable | None) -> Sequence[NewJob]:
        keeping = self._keeping
        if keeping is None:
            return jobs
        if stored_by is not None and any(joined.standing is Standing.stored for joined in self._joined or ()):
            raise ConfigurationError(
                "a request with an Idempotency-Key has its tasks stored by one transaction, and that is committed "
                "by now; add all of them before the commit"
            )
        return keeping.take(jobs, stored_by)

    def refuse_at_once(self, jobs: Sequence[NewJob]) -> None:
        """They would be stored once more when the request is sent again."""
        if self._keeping is not None:
            raise ConfigurationError(
                f"task {jobs[0].task}: it was enqueued in a request with an Idempotency-Key, and would be enqueued "
                f"once more when that is sent again; use add_task of BackgroundTasks, which stores it with the answer"
            )

    # what is answered

    def send(self, message: Message) -> Awaitable[None]:
        return super().send(message) if self._keeping is None else self._keep(message, self._keeping)

    def hear(self, message: Message) -> None:
        if self._keeping is not None and self.refusal is None:
            try:
                self._keeping.hear(message)
            except ConfigurationError as error:
                self.refusal = error
                raise

    async def _keep(self, message: Message, keeping: Keeping) -> None:
        """Take a part of the answer; with the last, all of it is stored, and leaves."""
        kind = message["type"]
        if self.refusal is not None:
            return
        if kind == "http.response.debug":
            await self._send(message)
            return
        if kind == "http.response.start" and not await self._is_to_be_kept(message):
            return
        if not self.is_seen_inside:
            self.hear(message)
        keeping.withhold(message)
        if kind == "http.response.body" and not message.get("more_body", False):
            await self._end_answer(keeping)

    async def _is_to_be_kept(self, start: Message) -> bool:
        """Is this the start of an answer that is to be kept? Else it is dealt with."""
        self.start = start
        error = sys.exception()
        if isinstance(error, DuplicateJob | ReservationLost) and start["status"] == 500:  # of a commit, unhandled
            self.refusal = error
            return False
        if not self.is_seen_inside:
            self.sift(self._around)
        if start["status"] >= 400 and self._joined is None and not self._has_added():
            await self.give_up_key()
            await self.send(start)
            return False
        return True

    def _has_added(self) -> bool:
        """Is there a task that is wanted, and not only because the request has failed?"""
        return any(p.job.id not in self._on_error for p in self._pending)

    async def _end_answer(self, keeping: Keeping) -> None:
        """The answer is known: it is kept together with the jobs, and then leaves."""
        answer, status = self._answer_of(keeping), 0 if self.start is None else self.start["status"]
        if self._joined is not None:
            await self._amend(keeping, answer, promises=status < 400)
        if self._pending:
            if answer is not None:
                self._complete(Completion(keeping.reservation, answer.written()))
            await self._store(direct=self.start is not None and has_length(self.start))
            if answer is not None:
                self._keeping = None
        await self.give_up_key()
        self._withheld = list(keeping.let_go())
        if not (answer is not None and answer.is_document and self._documents[0].seconds):
            await self._leave_at_once()

    def _answer_of(self, keeping: Keeping) -> KeptAnswer | None:
        """What is kept of its answer: of a status document, which job it is of."""
        answer = keeping.answer()
        if answer is None or not any(document.placeholder == answer.body for document in self._documents):
            return answer
        return replace(answer, is_document=True, owner=self.owner_of(json.loads(answer.body)))

    async def _amend(self, keeping: Keeping, answer: KeptAnswer | None, *, promises: bool) -> None:
        """What was committed is kept with an answer that names its jobs; this one takes its place.

        Not one that tells of a mistake of the server's: whoever sends the request again is better told of the jobs.
        """
        joined = self._joined or []
        await self._see_that_all_is_committed(promises=promises)
        try:
            if not promises:
                await self._intake.host.check_committed(joined)
            if answer is None or answer.status >= 500:
                await self.give_up_key()
            elif await self._intake.reservations.amend(keeping.reservation, answer.written()):
                self._keeping = None
        except NotCommitted:  # what its transaction keeps locked cannot be given up before that is over
            await self.give_up_key(at_once=False)
        except StoreError as error:
            emit(logging.WARNING, "answer.not_kept", reason=str(error))
            await self.give_up_key(at_once=False)

    # how it ends

    async def give_up_key(self, *, at_once: bool = True) -> None:
        """Where its key is reserved and not used up: another request may have it."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            at_once = at_once and not isinstance(self.refusal, StoreUnavailable | NotCommitted)
            await self._intake.reservations.drop(keeping.reservation, at_once=at_once)

    async def end(self) -> None:
        try:
            await super().end()
        finally:
            try:
                await self.give_up_key()
            finally:
                if self._reserved is not None:
                    self._intake.reservations.forget(self._reserved)
