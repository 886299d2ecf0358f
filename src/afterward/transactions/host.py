"""What transactions of others need of this process: its store, open; and the files of their jobs, stored before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from afterward.contents import Contents
from afterward.errors import ConfigurationError, NotCommitted, StoreUnavailable
from afterward.job import NewJob
from afterward.liveness import Liveness
from afterward.stores.base import Store
from afterward.stores.joining import Joins
from afterward.transactions.joined import Joined, Standing

_FIRST_LOOK_SECONDS, _LONGEST_PAUSE_SECONDS = 0.005, 2.0


class Host:
    """One for each store that this process lives in.

    `stores_after`: for a store that only pretends to be joined, what stores jobs once their transaction is committed.
    """

    stores_after: Callable[[Sequence[NewJob]], None] | None = None

    def __init__(self, store: Store, liveness: Liveness, contents: Contents) -> None:
        self._store = store
        self._liveness = liveness
        self._contents = contents
        self._prepared: set[str] = set()

    @property
    def joins(self) -> Joins:
        """How its store is joined. Raises `ConfigurationError` where it cannot be."""
        joins = self._store.joins
        if joins is None:
            raise ConfigurationError(
                f"jobs cannot join a transaction of the application's own here: the store {self._store.location} is a "
                f"file of afterward's own, and no other library may open it. Keep the jobs in the application's "
                f"PostgreSQL database: Afterward('postgresql://…')"
            )
        return joins

    def is_ready_for(self, jobs: Sequence[NewJob]) -> bool:
        """Can they be written without `prepare`?"""
        have_files = [job for job in jobs if job.files]
        return self._liveness.process is not None and all(job.id in self._prepared for job in have_files)

    async def prepare(self, jobs: Sequence[NewJob]) -> None:
        """See that the store is open, and store what their files contain, until `settle`."""
        process = await self._liveness.start()
        jobs = [job for job in jobs if job.files and job.id not in self._prepared]
        self._liveness.holdings.expect_files(_files(jobs))
        self._prepared.update(job.id for job in jobs)
        try:
            if not await self._contents.put(jobs, process):
                raise StoreUnavailable("this process was taken for dead by another, and is still finding out")
        except BaseException:
            self._forget(jobs)
            raise

    def prepare_sync(self, jobs: Sequence[NewJob]) -> None:
        """`prepare`, for code without an event loop. It blocks."""
        self._liveness.run(self.prepare(jobs))

    def settle(self, jobs: Sequence[NewJob], *, are_stored: bool) -> None:
        """Their transaction is over: whoever runs jobs is called, and files that are no job's are nobody's."""
        self._forget(jobs)
        if are_stored and self.stores_after is not None:
            self.stores_after(jobs)
        elif are_stored:
            self._store.ring()

    async def check_committed(self, joined: Sequence[Joined]) -> None:
        """Raise `NotCommitted` for jobs whose transactions are still open, or ended without saying how."""
        asked = {each.transaction for each in joined if each.transaction is not None}
        in_progress = await self.joins.in_progress(asked) if asked else frozenset[str]()
        for each in joined:
            if each.standing in _OPEN or each.transaction in in_progress:
                raise NotCommitted(_ask_for_commit(each))

    def follow(self, transaction: str, jobs: Sequence[NewJob]) -> None:
        """Call whoever runs jobs when this transaction is over, for it does not tell. A hint: nobody waits for it."""
        if self.joins.is_pretended:
            self.settle(jobs, are_stored=True)
        else:
            self._liveness.spawn(lambda: self._follow(transaction, jobs))

    def _forget(self, jobs: Sequence[NewJob]) -> None:
        self._liveness.holdings.forget_files(_files(jobs))
        self._prepared.difference_update(job.id for job in jobs)

    async def _follow(self, transaction: str, jobs: Sequence[NewJob]) -> None:
        pause = _FIRST_LOOK_SECONDS
        try:
            while await self._is_in_progress(transaction):
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        finally:
            self.settle(jobs, are_stored=True)

    async def _is_in_progress(self, transaction: str) -> bool:
        try:
            return bool(await self.joins.in_progress([transaction]))
        except StoreUnavailable:
            return True  # as far as is known


def _ask_for_commit(joined: Joined) -> str:
    task, job = joined.jobs[0].task, joined.jobs[0].id
    return (
        f"task {task} (job {job}) was added to a transaction that is not committed as the response starts, and the "
        f"response would promise what may never be there; commit in the endpoint, or have the dependency commit before "
        f'the response: Depends(tasks.joining(get_session, scope="function"))'
        + (_AND_FLUSH if joined.standing is Standing.unwritten else "")
    )


_AND_FLUSH = ", which writes it as well; elsewhere, `await background_tasks.flush()` does, before the commit"
_OPEN = frozenset({Standing.waiting, Standing.unwritten, Standing.left})


def _files(jobs: Sequence[NewJob]) -> list[str]:
    return [file.id for job in jobs for file in job.files]
