"""new → queued or running: how jobs enter the table, one `enqueue` after the other in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from afterward.job import NewJob, OnDuplicate, Placement, Stored
from afterward.stores.sql import load_queries
from afterward.stores.sqlite import contents, reservations
from afterward.stores.sqlite.bulk import execute_for_all
from afterward.stores.sqlite.rows import row_of

_Q = load_queries("afterward.stores.sqlite")


_IS_THERE = frozenset({Stored.stored, Stored.exists})


class Entry:
    """One transaction's new jobs, in order. Plain ones that follow each other are gathered, and inserted as one.

    `end` inserts what is left of them.
    """

    def __init__(self, connection: apsw.Connection, now: float) -> None:
        self._connection = connection
        self._now = now
        self._alive: dict[str | None, bool] = {None: False}
        self._plain: list[tuple[Any, ...]] = []

    def enqueue(self, jobs: Sequence[tuple[NewJob, Placement]], process: str | None) -> list[Stored]:
        """One `enqueue`: all of it, or, when one of its jobs is refused, or lacks a file or its reservation, none."""
        completes = has_files = needs_refusing = False
        for job, _ in jobs:
            completes = completes or job.completes is not None
            has_files = has_files or bool(job.files)
            needs_refusing = needs_refusing or job.on_duplicate is OnDuplicate.refuse
        if completes:
            return self._complete(jobs, process, has_files=has_files, needs_refusing=needs_refusing)
        return self._enqueue(jobs, process, has_files=has_files, needs_refusing=needs_refusing)

    def _complete(self, jobs: Sequence[tuple[NewJob, Placement]], process: str | None, **care: bool) -> list[Stored]:
        completing = [job.completes for job, _ in jobs if job.completes is not None]
        if not all(reservations.is_there(self._connection, one) for one in completing):
            return [self._unreserved(job) for job, _ in jobs]
        answers = self._enqueue(jobs, process, **care)
        there = [job.completes for (job, _), answer in zip(jobs, answers, strict=True) if answer in _IS_THERE]
        reservations.complete(self._connection, filter(None, there), self._now)
        return answers

    def _unreserved(self, job: NewJob) -> Stored:
        is_there = job.completes is None or reservations.is_there(self._connection, job.completes)
        return Stored.dropped if is_there else Stored.unreserved

    def _enqueue(
        self, jobs: Sequence[tuple[NewJob, Placement]], process: str | None, *, has_files: bool, needs_refusing: bool
    ) -> list[Stored]:
        if has_files and not all(self._has_its_files(job) for job, _ in jobs):
            return self._incomplete(jobs)
        if needs_refusing:
            return self._enqueue_or_not(jobs, process)
        return [self._enter(job, placement, process) for job, placement in jobs]

    def _incomplete(self, jobs: Sequence[tuple[NewJob, Placement]]) -> list[Stored]:
        return [Stored.dropped if self._has_its_files(job) else Stored.incomplete for job, _ in jobs]

    def _has_its_files(self, job: NewJob) -> bool:
        """Can they be the job's; or is the job there already, with them or done with them?"""
        return contents.are_whole(self._connection, job.files) or self._known(job) is not None

    def end(self) -> None:
        """Insert what has gathered."""
        if self._plain:
            execute_for_all(self._connection, _Q["enqueue"], self._plain)
            self._plain = []

    def _enqueue_or_not(self, jobs: Sequence[tuple[NewJob, Placement]], process: str | None) -> list[Stored]:
        self.end()
        self._connection.execute("SAVEPOINT enqueue")
        answers = [self._enter(job, placement, process) for job, placement in jobs]
        if Stored.refused in answers:
            self._connection.execute("ROLLBACK TO enqueue")
            self._plain = []
            answers = [answer if answer is Stored.refused else Stored.dropped for answer in answers]
        self._connection.execute("RELEASE enqueue")
        return answers

    def _enter(self, job: NewJob, placement: Placement, process: str | None) -> Stored:
        if placement is not Placement.free and not self._is_alive(process):
            return Stored.stranger
        row = row_of(job, placement, process, self._now)
        if job.unique is None and not job.files:
            self._plain.append(row)
            return Stored.stored
        self.end()
        return self._known(job) or self._enter_new(job, row)

    def _known(self, job: NewJob) -> Stored | None:
        """What was said of it when it was stored before; None for a new one."""
        leads_elsewhere = self._connection.execute(_Q["known_as"], (job.id,)).get
        if leads_elsewhere is None:
            return None
        return Stored.exists if leads_elsewhere else Stored.stored

    def _enter_new(self, job: NewJob, row: tuple[Any, ...]) -> Stored:
        if job.unique is None:
            self._connection.execute(_Q["enqueue"], row)
            stored = Stored.stored
        else:
            stored = self._enter_unique(job, row)
        if job.files and stored is Stored.stored:
            contents.link(self._connection, job.files, job.id)
        return stored

    def _enter_unique(self, job: NewJob, row: tuple[Any, ...]) -> Stored:
        connection, key = self._connection, (job.task, job.unique)
        connection.execute(_Q["expire_unique"], (*key, job.id, self._now))
        if job.on_duplicate is OnDuplicate.replace:
            connection.execute(_Q["replace_waiting"], (*key, job.id, self._now))
            connection.execute(_Q["replace_running"], (*key, job.id))
        before = connection.total_changes()
        connection.execute(_Q["enqueue"], row)
        if connection.total_changes() > before:
            return Stored.stored
        if job.on_duplicate is OnDuplicate.refuse:
            return Stored.refused
        connection.execute(_Q["alias"], (job.id, *key))
        return Stored.exists

    def _is_alive(self, process: str | None) -> bool:
        if process not in self._alive:
            self._alive[process] = bool(self._connection.execute(_Q["exists"], (process,)).get)
        return self._alive[process]
