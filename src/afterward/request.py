"""One request: its durable tasks, stored before the first byte of the response, started after its last."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from starlette.background import BackgroundTask as StockBackgroundTask
from starlette.types import Message, Receive, Scope, Send

from afterward.errors import (
    AfterwardError,
    ArgumentError,
    ConfigurationError,
    DuplicateJob,
    NotCommitted,
    NotInARequest,
    StoreError,
)
from afterward.faults import crash_point
from afterward.handle import JobHandle
from afterward.intake import Intake
from afterward.job import Completion, Lease, NewJob, OnDuplicate
from afterward.messages import background_being_sent, has_length, send_nothing, send_nowhere
from afterward.observe import emit
from afterward.onlookers import Onlookers
from afterward.options import UNSAID, Joinable, checked_owner
from afterward.origin import origin_of
from afterward.task import Task
from afterward.transactions.joined import Joined, Transaction

_ADDING = threading.Lock()
"""Held for a few steps of what a request has pending; threads may add to it."""


class _Pending(NamedTuple):
    """A job added in a request and not yet stored; `origin` is the container that it was added to."""

    job: NewJob
    origin: StockBackgroundTask | None


_NO_SCOPE: Scope = {}


class Document(Protocol):
    """What a response is replaced by once the job that it tells of is stored: that job, as the store holds it.

    `placeholder`: the body of the response that is to be replaced. `seconds`: how long its client waits for the end.
    """

    @property
    def placeholder(self) -> bytes: ...

    @property
    def seconds(self) -> float: ...

    async def until_ended(self) -> None:
        """Return when the job has ended, or after so many seconds, or when the server stops. Never raises."""
        ...

    async def in_place_of(self, start: Message) -> tuple[Message, Message]:
        """The response whose start the application wanted to be this one. Never raises."""
        ...


_NOTHING: list[_Pending] = []
"""Never changed: most requests add nothing, or all of theirs in one place."""


class Call:
    """One request, from the first byte in to the end of the last dependency: its durable tasks.

    - Added before the response starts: stored as it starts, or, where nothing in the application could tell the
      difference, once the application has returned; if that fails, the client gets 503.
    - Added while the response streams: stored before its last chunk leaves.
    - Added later: stored when the call ends.

    What is stored starts when the call is over, however it ends.

    A response that is to be replaced by the status of a job is held back until that is stored. Where its client waits
    for the end of the job, it is held back until the application has returned, as the job cannot start before: then it
    is stored, started and waited for, and the response leaves last. If the application fails after it has responded,
    nothing was stored and nothing has left: the client gets 500. A client that goes away meanwhile changes nothing.

    `owner`: whose the jobs are that are stored from here on, unless their own options say so.
    """

    # What most requests never change costs them nothing.
    _pending = _NOTHING
    _on_error: frozenset[str] = frozenset()
    """The ids of those that are to run though the request ends in an error."""
    leases: Sequence[Lease] = ()
    held: Sequence[str] = ()
    _started = _sent = _over = False
    _joined: list[Joined] | None = None
    _transactions: Sequence[tuple[Joinable, Transaction]] = ()
    _to_join: Sequence[Joinable] = ()
    is_seen_inside = False
    """Does a middleware of ours, inside of all others, see what the response answers?"""
    is_looked_at = False
    """Is there a middleware of which it is not known that it does nothing once the response is sent?"""
    _withheld: list[Message] | None = None
    start: Message | None = None
    """The start of its response, where that had to wait for the store."""
    refusal: AfterwardError | None = None
    tries_again = False
    """Is what could not be stored once tried again?"""
    owner: str | None = None
    _whose: Mapping[str, str | None] = {}
    """The owners of those of its jobs, by their ids, whose options say so, or an answer that is given again."""
    _documents: Sequence[Document] = ()
    _document: Document | None = None
    _leaves_at_once = False
    """Does what is withheld leave as soon as it is whole?"""

    def __init__(self, intake: Intake, onlookers: Onlookers, send: Send, scope: Scope) -> None:
        self._intake = intake
        self._onlookers = onlookers
        self._send = send
        self.scope = scope
        self._around = sys.exception()  # what the caller of the whole app is handling is no affair of this call

    @property
    def answer_is_due(self) -> bool:
        """Was storing refused before the client got anything?"""
        return self.refusal is not None and not self._started

    @property
    def is_answered(self) -> bool:
        """Has the last chunk of the response left?"""
        return self._sent

    def add(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        origin: StockBackgroundTask,
    ) -> JobHandle[Any]:
        """Take one durable task. May be called from any thread."""
        # Before a route is found, its template is not known: then what has made the job is told when it is stored.
        job = task.new_job(args, kwargs, origin=origin_of(self.scope) if "route" in self.scope else None)
        if job.owner is not None:
            self._note_owners([job])
        thing = self._to_be_joined_by(task)
        if thing is not None:
            self._admit(task)
            self.watch(self._transaction_on(thing).add(self.taken(self._owned([job]), thing)))
            return task.handle(job.id)
        self.taken((job,), None)
        with _ADDING:
            self._admit(task)
            if task.call_options.run_on_error:
                self._on_error |= {job.id}
            pending = _Pending(job, origin)
            if self._pending:
                self._pending.append(pending)
            else:
                self._pending = [pending]
        return task.handle(job.id)

    def give_to(self, owner: str) -> None:
        """Its jobs are this owner's, also those that are added already and not yet stored.

        Raises `ConfigurationError` for one who cannot be an owner, or when jobs are written already that are nobody's.
        """
        checked_owner(owner)
        if any(job.owner is None for joined in self._joined or () for job in joined.jobs):
            raise ConfigurationError(
                "this request has added tasks to a transaction before it was known whose they are; "
                "let the dependency that tells the owner come before what adds tasks"
            )
        self.owner = owner

    def signed(self, jobs: Sequence[NewJob]) -> list[NewJob]:
        """The same jobs, with whose they are, and the request that has made them."""
        origin = origin_of(self.scope)
        self._note_owners(jobs)
        return self._owned([job._replace(origin=job.origin or origin) for job in jobs])

    def _owned(self, jobs: list[NewJob]) -> list[NewJob]:
        for job in jobs:
            if job.origin is None:
                return self.signed(jobs)
        owner = self.owner
        return jobs if owner is None else [job._replace(owner=job.owner or owner) for job in jobs]

    def _note_owners(self, jobs: Sequence[NewJob]) -> None:
        said = {job.id: job.owner for job in jobs if job.owner is not None}
        if said:
            with _ADDING:
                self._whose = {**self._whose, **said}

    def owner_of(self, job: str) -> str | None:
        """Whose job it is that this request answers with: its own, unless something else was said of this one."""
        return self._whose.get(job, self.owner)

    def answers_again(self, job: str, owner: str | None) -> None:
        """It is answered as a request before was, with this job, which was this owner's."""
        self._whose = {**self._whose, job: owner}

    def answer_with(self, document: Document) -> None:
        """If the response is the placeholder of this document, let it be replaced by that."""
        self._documents = (*self._documents, document)

    def _admit(self, task: Task[..., Any]) -> None:
        if self._over:
            raise NotInARequest(
                f"task {task.name} was added after its request was over; use `await {task.__name__}.enqueue(…)` there"
            )

    def join(self, thing: Joinable) -> Transaction:
        """Tasks that are added from here on are stored by what this session or connection commits."""
        transaction = self._transaction_on(thing)
        with _ADDING:
            if not any(known is thing for known in self._to_join):
                self._to_join = (*self._to_join, thing)
        return transaction

    def watch(self, joined: Joined) -> None:
        """These jobs are of this request: its response says so only once they are committed."""
        with _ADDING:
            self._joined = [*(self._joined or ()), joined]

    async def write_joined(self) -> None:
        """Write now what was added to transactions, and is not written."""
        for _, transaction in self._transactions:
            await transaction.write()

    def _to_be_joined_by(self, task: Task[..., Any]) -> Joinable | None:
        """The session or connection that a call of this task joins, if any."""
        said = task.call_options.transaction
        if said is not UNSAID:
            return said
        if not self._to_join or task.call_options.run_on_error:
            return None
        if len(self._to_join) > 1:
            raise ConfigurationError(
                f"task {task.name}: this request has joined two transactions, and the task can be stored by one; "
                f"say which: add_task({task.__name__}.options(transaction=session), …), or transaction=None for neither"
            )
        return self._to_join[0]

    def _transaction_on(self, thing: Joinable) -> Transaction:
        with _ADDING:
            for known, transaction in self._transactions:
                if known is thing:
                    return transaction
            transaction = self._intake.transaction_of(thing)
            self._transactions = (*self._transactions, (thing, transaction))
            return transaction

    def discard(self, origin: StockBackgroundTask | None = None) -> None:
        """Drop what is not yet stored: of one container, or of all; but never what is to run on an error."""
        with _ADDING:
            self._pending = [
                p
                for p in self._pending
                if p.job.id in self._on_error or (origin is not None and p.origin is not origin)
            ]

    def fail(self) -> None:
        """The application ends in an exception: unless a response has begun, none of what it has added is wanted."""
        if not self._started:
            self.discard()

    def sift(self, around: BaseException | None) -> None:
        """A response starts. If it answers an exception, drop what was added for another that is not sent now.

        An exception handler sends its response while it handles: what goes with that response is kept. An exception
        that is being handled `around` the application is no affair of this request's.
        """
        answered = sys.exception()
        if self._pending and answered is not None and answered is not around:
            with_it = background_being_sent()
            with _ADDING:
                self._pending = [
                    p for p in self._pending if p.job.id in self._on_error or any(p.origin is task for task in with_it)
                ]

    def send(self, message: Message) -> Awaitable[None]:
        """The application's `send`: nothing that promises a job leaves before the job is stored."""
        # Not a coroutine function: where nothing is to be done, what awaits this awaits the server's `send` itself.
        kind = message["type"]
        if kind == "http.response.start":
            return self._begin_response(message)
        if kind == "http.response.body":
            return self._go_on_with_response(message)
        return self._send(message)

    def _begin_response(self, start: Message) -> Awaitable[None]:
        if self.refusal is not None:
            return send_nothing()  # the answer is ours to give
        if self._joined is not None:
            error = sys.exception()
            if isinstance(error, DuplicateJob) and start["status"] == 500:  # of a commit, and nobody has handled it
                self.start, self.refusal = start, error
                return send_nothing()
            return self._begin_committed(start)
        may_be_replaced = bool(self._documents) and self._may_be_replaced(start)
        if self._pending or may_be_replaced:
            if not self.is_seen_inside:
                self.sift(self._around)
            self.start = start
            can_wait = self._can_wait(start)
            if can_wait or may_be_replaced:
                self._withheld = [start]
                self._leaves_at_once = not can_wait and not self._documents[0].seconds
                return send_nothing()
            return self._begin_stored(start)
        self._started = True
        return self._send(start)

    async def _begin_committed(self, start: Message) -> None:
        self.start = start
        await self._see_that_all_is_committed(promises=start["status"] < 400)
        await self._begin_response(start)

    async def _begin_stored(self, start: Message) -> None:
        await self._store(direct=has_length(start))
        self._started = True
        await self._send(start)

    def _go_on_with_response(self, chunk: Message) -> Awaitable[None]:
        if self._withheld is not None:
            self._withheld.append(chunk)
            if self._leaves_at_once and not chunk.get("more_body", False):
                return self._leave_at_once()
            return send_nothing()
        if self.answer_is_due:
            return send_nothing()
        if chunk.get("more_body", False):
            return self._send(chunk)
        if self._joined is not None or self._pending:
            return self._end_stored(chunk)
        self._sent = True
        return self._send(chunk)

    async def _end_stored(self, chunk: Message) -> None:
        if self._joined is not None:
            await self._see_that_all_is_committed(promises=True)
        if self._pending:
            await self._store(direct=False)
        self._sent = True
        await self._send(chunk)

    # what only a request with an `Idempotency-Key` does (`KeyedCall`)

    def listen(self, receive: Receive) -> Receive:
        """What the application is to receive by."""
        return receive

    def taken(self, jobs: Sequence[NewJob], _stored_by: Joinable | None) -> Sequence[NewJob]:
        """Jobs of this request as they are to be stored, by a session or connection, or by the request itself.

        May be called from any thread.
        """
        return jobs

    def refuse_at_once(self, _jobs: Sequence[NewJob]) -> None:
        """Raise `ConfigurationError` where jobs must not be stored before the response is known."""

    def hear(self, message: Message) -> None:
        """The application gives this part of its response, inside of all middleware."""

    async def give_up_key(self) -> None:
        """The response that is sent now is none to be kept."""

    def _complete(self, completion: Completion) -> None:
        """What is pending completes this reservation."""
        with _ADDING:
            first, *others = self._pending
            self._pending = [first._replace(job=first.job._replace(completes=completion)), *others]

    async def _see_that_all_is_committed(self, *, promises: bool) -> None:
        """Refuse the response where it promises what is not committed; one that tells of a failure promises nothing."""
        with _ADDING:
            joined, self._joined = self._joined or [], None
        try:
            if promises:
                await self._intake.host.check_committed(joined)
        except (StoreError, NotCommitted) as error:
            self.refusal = error
            raise

    def _can_wait(self, start: Message) -> bool:
        """Can this response leave when the application has returned, instead of while it waits for that?"""
        return (
            not self.is_looked_at
            and has_length(start)
            and sys.exception() is self._around
            and not self._onlookers.look_on(self)
        )

    @property
    def is_withheld(self) -> bool:
        """Has the application returned a response that waits for the store?"""
        return self._withheld is not None

    def _may_be_replaced(self, start: Message) -> bool:
        """By its head, this may be the placeholder of a document; only its body can tell."""
        length = str(len(self._documents[0].placeholder)).encode()
        return any(name.lower() == b"content-length" and value == length for name, value in start.get("headers", ()))

    async def _leave_at_once(self) -> None:
        """It is whole: store the tasks and let it leave, while the application waits."""
        try:
            await self.store_withheld()
        except BaseException:
            self._withheld = None
            raise
        await self.send_withheld()

    def store_withheld(self) -> Awaitable[None]:
        """Store the tasks of a response that is withheld."""
        if self._documents:
            body = b"".join(chunk.get("body", b"") for chunk in self._withheld or ())
            self._document = next((document for document in self._documents if document.placeholder == body), None)
        return self._store(direct=True) if self._pending else send_nothing()

    @property
    def is_waited_for(self) -> bool:
        """Does the client wait for the end of the job that the response tells of?"""
        return self._document is not None and self._document.seconds > 0

    async def wait(self) -> None:
        """They are stored, and the application has returned: start them, and wait for the end as the client does."""
        self._admit_no_more()
        await self._intake.let_go(self)
        if self._document is not None:
            await self._document.until_ended()

    async def send_withheld(self) -> None:
        """They are stored: let the response leave."""
        messages, self._withheld = self._withheld or (), None
        if self._document is not None:
            messages = await self._document.in_place_of(next(iter(messages)))
        self._started = True
        for message in messages:
            await self._send(message)
        self._sent = True

    async def end(self) -> None:
        """The call is over: store what was added late, and start all that is stored."""
        self._admit_no_more()
        try:
            if self._joined is not None and self._started and self.refusal is None:
                await self._see_that_all_is_committed(promises=True)
            if self._pending and (self.refusal is not None or not self._started):
                self.discard()
            if self._pending and (self.tries_again or self.refusal is None or isinstance(self.refusal, DuplicateJob)):
                await self._store(direct=False)
        except NotCommitted as error:
            emit(logging.ERROR, "request.not_committed", reason=str(error))
        except (StoreError, ArgumentError) as error:
            for lost in self._pending:
                emit(logging.ERROR, "job.not_stored", error, job_id=lost.job.id, task=lost.job.task)
        finally:
            if self.leases or self.held:
                crash_point("after_response")
                await self._intake.let_go(self)
            # The server's leads back here by its scope, and so does the scope: a circle for each request.
            self._send, self.scope, self._documents, self._document = send_nowhere, _NO_SCOPE, (), None
            if (
                self._to_join or self._transactions
            ):  # a pool's connection keeps the context, and so the call, it was made in
                self._to_join, self._transactions = (), ()

    def _admit_no_more(self) -> None:
        with _ADDING:
            self._over = True

    def _store(self, *, direct: bool) -> Awaitable[None]:
        with _ADDING:
            pending, self._pending = self._pending, _NOTHING
        crash_point("before_store")
        return self._intake.keep(self._owned([p.job for p in pending]), self, direct=direct)

    def take_back(self, jobs: Sequence[NewJob], error: StoreError | ArgumentError) -> None:
        """They could not be stored: they are pending again, but for those that refuse to be there twice."""
        is_duplicate = isinstance(error, DuplicateJob)
        left = [_Pending(job, None) for job in jobs if not (is_duplicate and job.on_duplicate is OnDuplicate.refuse)]
        with _ADDING:
            self._pending = [*left, *self._pending]
        self.refusal = error
