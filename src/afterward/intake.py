"""How jobs get into the store, in this process's name when they must wait for the end of a request."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol, TypeAlias

from afterward.contents import Contents
from afterward.errors import (
    ArgumentError,
    ConfigurationError,
    DuplicateJob,
    ReservationLost,
    StoreError,
    StoreUnavailable,
)
from afterward.faults import crash_point
from afterward.job import Lease, NewJob, Placement, Stored
from afterward.liveness import Liveness
from afterward.options import Joinable
from afterward.reservations import Reservations
from afterward.stores.base import Answer, Store
from afterward.transactions.host import Host
from afterward.transactions.joined import Joined, Transaction
from afterward.transactions.kinds import transaction_of

_TO_BE_STORED_AGAIN = (Stored.stranger, Stored.incomplete, Stored.dropped)

Placed: TypeAlias = list[tuple[NewJob, Placement]]
"""New jobs, each with how it enters the store."""


class Direct(Protocol):
    """A worker in this process that can start a job without claiming it."""

    def reserve(self, job: NewJob) -> bool:
        """Keep a slot for this job, if it may run here at once: then `start` or `give_up` follows."""
        ...

    def give_up(self, task: str) -> None:
        """Free a slot that was reserved for a job of this task."""
        ...

    def start(self, lease: Lease) -> None:
        """Run a job in the slot that was reserved for it."""
        ...


class Keeper(Protocol):
    """Who has jobs stored that wait for its end, as a request does: `leases` of the worker here, and those `held`."""

    leases: Sequence[Lease]
    held: Sequence[str]

    def take_back(self, jobs: Sequence[NewJob], error: StoreError | ArgumentError) -> None:
        """They could not be stored."""
        ...


class Intake:
    """Stores jobs for a process that lives, and lets go of them when their time has come."""

    def __init__(self, store: Store, liveness: Liveness) -> None:
        self.store = store
        self.liveness = liveness
        self.direct: Direct | None = None
        self.reservations = Reservations(store, liveness)
        self._contents = Contents(store, liveness.holdings)
        self.host = Host(store, liveness, self._contents)

    def keep(self, jobs: Sequence[NewJob], keeper: Keeper, *, direct: bool) -> Awaitable[None]:
        """Store jobs so that nobody starts them before `let_go`; what is stored is added to what `keeper` keeps.

        `direct`: they may be leased to the worker of this process. When this is cancelled, the jobs are stored first,
        and `keeper` is right; unless their files are still being stored: then none of them is. Raises `StoreError`, and
        `ArgumentError` for a file that cannot be stored, when `keeper` has taken them back; then none of them is
        stored, unless it is `StoreUnavailable`: what was stored all the same is given back by the next heartbeat, and
        runs.
        """
        return self._keep_with_files(jobs, keeper, direct) if _have_files(jobs) else self._keep(jobs, keeper, direct)

    async def _keep_with_files(self, jobs: Sequence[NewJob], keeper: Keeper, direct: bool) -> None:
        with self._contents.expected(jobs):
            await self._keep(jobs, keeper, direct, have_files=True)

    async def _keep(self, jobs: Sequence[NewJob], keeper: Keeper, direct: bool, *, have_files: bool = False) -> None:
        placed: Placed = []
        try:
            process = self.liveness.process or await self.liveness.start()
            while jobs:
                if have_files:
                    process = await self._store_files(jobs, process)
                placed, jobs = self._place(jobs, direct), ()
                answer: Answer[list[Stored]] | None = None
                answers: list[Stored] | None = None
                try:
                    answer = self.store.enqueue(placed, process)
                    await answer
                finally:  # cancelled, too: what was stored is accounted for
                    if answer is not None and answer.done() and answer.exception() is None:
                        answers = answer.result()
                    jobs = self._account(placed, answers, process, keeper)
                _raise_if_refused(placed, answers)
                if jobs and answers is not None and Stored.stranger in answers:
                    process = await self.liveness.another_identity(process)  # its row was gone
                    direct = False  # the store may have it all the same, from a try whose answer was lost
        except (StoreError, ArgumentError) as error:
            keeper.take_back(jobs or [job for job, _ in placed], error)
            raise
        crash_point("after_store")

    async def _store_files(self, jobs: Sequence[NewJob], process: str) -> str:
        """Store what their files contain, and answer in whose name: this process may get another while it does."""
        while not await self._contents.put(jobs, process):
            process = await self.liveness.another_identity(process)
        return process

    async def let_go(self, keeper: Keeper) -> None:
        """The request is over: start what is leased to this process, and give the rest to whoever claims it."""
        holdings = self.liveness.holdings
        for lease in keeper.leases:
            if self.direct is not None and holdings.has(lease.id, lease.attempt):
                self.direct.start(lease)
            else:
                self._abandon(lease)
        keeper.leases = ()
        if keeper.held:
            held, keeper.held = keeper.held, ()
            process = self.liveness.process
            holdings.leave((job, 0) for job in held)
            try:
                if process is not None:
                    await self.store.release(process, held)
            except StoreUnavailable:
                return  # the next heartbeat gives back what this process does not hold on to
            finally:
                holdings.forget((job, 0) for job in held)

    async def put(self, jobs: Sequence[NewJob]) -> None:
        """Store jobs that anybody may start as soon as they are due. Raises as `keep`."""
        process = await self.liveness.start()
        have_files = _have_files(jobs)
        with self._contents.expected(jobs):
            while jobs:
                if have_files:
                    process = await self._store_files(jobs, self.liveness.process or process)
                placed = [(job, Placement.free) for job in jobs]
                answers = await self.store.enqueue(placed, None)
                _raise_if_refused(placed, answers)
                jobs = jobs if Stored.incomplete in answers else []

    def put_sync(self, jobs: Sequence[NewJob]) -> None:
        """`put`, for code without an event loop. It blocks until they are stored."""
        self.liveness.run(self.put(jobs))

    def transaction_of(self, thing: Joinable) -> Transaction:
        """What jobs join in a session or a connection. Raises `ConfigurationError` where they cannot."""
        return transaction_of(thing, self.host)

    async def join(self, jobs: Sequence[NewJob], thing: Joinable) -> Joined:
        """Have jobs written by a transaction of the application's own, on a session or a connection."""
        transaction = self.transaction_of(thing)
        if not self.host.is_ready_for(jobs):
            await self.host.prepare(jobs)
        joined = transaction.add(jobs)
        if not transaction.writes_by_itself:
            await transaction.write()
        return joined

    def join_sync(self, jobs: Sequence[NewJob], thing: Joinable) -> Joined:
        """`join`, for code without an event loop."""
        transaction = self.transaction_of(thing)
        if not transaction.writes_by_itself:
            raise ConfigurationError(
                "a connection that is awaited cannot be written to by code without an event loop; "
                "use `await task.options(transaction=connection).enqueue(…)`, or a connection that blocks"
            )
        if not self.host.is_ready_for(jobs):
            self.host.prepare_sync(jobs)
        return transaction.add(jobs)

    def _place(self, jobs: Sequence[NewJob], direct: bool) -> Placed:
        """Leased to the worker of this process where it has a slot, which is then reserved; else held."""
        worker = self.direct if direct else None
        expect = self.liveness.holdings.expect
        placed: Placed = []
        for job in jobs:
            leased = worker is not None and worker.reserve(job)
            placed.append((job, Placement.leased if leased else Placement.held))
            expect(job.id, 1 if leased else 0)
        return placed

    def _account(self, placed: Placed, answers: list[Stored] | None, process: str, keeper: Keeper) -> list[NewJob]:
        """Note what became of each job; those that are to be stored again are given back."""
        again: list[NewJob] = []
        leases: list[Lease] = []
        held: list[str] = []
        holdings = self.liveness.holdings
        for (job, placement), stored in zip(placed, answers or [None] * len(placed), strict=True):
            leased = placement is Placement.leased
            if stored is not Stored.stored:
                holdings.forget([(job.id, 1 if leased else 0)])
                if leased and self.direct is not None:
                    self.direct.give_up(job.task)
                if stored in _TO_BE_STORED_AGAIN:
                    again.append(job)
            elif leased:
                holdings.have(job.id, 1)
                leases.append(_first_lease(job, process))
            else:
                holdings.have(job.id, 0)
                held.append(job.id)
        if leases:
            keeper.leases = [*keeper.leases, *leases]
        if held:
            keeper.held = [*keeper.held, *held]
        return again

    def _abandon(self, lease: Lease) -> None:
        """A lease that nobody here will run: the next heartbeat gives it back, if it is still ours."""
        self.liveness.holdings.forget([(lease.id, lease.attempt)])
        if self.direct is not None:
            self.direct.give_up(lease.task)


def _have_files(jobs: Sequence[NewJob]) -> bool:
    for job in jobs:  # noqa: SIM110 - any() of a generator takes twice as long
        if job.files:
            return True
    return False


def _first_lease(job: NewJob, process: str) -> Lease:
    return Lease(
        job.id, 1, process, job.task, job.arguments, job.context, 0, 0,
        job.max_attempts, job.timeout, job.queue, job.priority,
    )  # fmt: skip


def _raise_if_refused(placed: Placed, answers: Sequence[Stored] | None) -> None:
    if answers is None:
        return
    if Stored.unreserved in answers:
        raise ReservationLost(
            "the Idempotency-Key of the request is its own no more: its process was taken for dead, and another "
            "request with the same key may be under way; nothing was stored"
        )
    if Stored.refused in answers:
        job, _ = placed[answers.index(Stored.refused)]
        raise DuplicateJob(
            f"task {job.task}: an unfinished job has the unique key {job.unique!r} already; nothing was stored "
            f'(on_duplicate="keep" would lead to that job, "replace" take its place)'
        )
