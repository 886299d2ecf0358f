"""The moves of jobs that are in the table: how attempts end, and what a person wants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from afterward.job import (
    Cancelled,
    Died,
    Failed,
    Lease,
    NewJob,
    Outcome,
    Placement,
    Released,
    Retry,
    Ruling,
    Status,
    Succeeded,
)
from afterward.stores.rows import text_of
from afterward.stores.sql import load_queries
from afterward.stores.sqlite import contents, events
from afterward.stores.sqlite.bulk import execute_for_all
from afterward.stores.sqlite.entry import Entry
from afterward.stores.sqlite.transaction import Transaction
from afterward.text import is_storable

_Q = load_queries("afterward.stores.sqlite")
_CAN_BE_RETRIED = (Status.failed, Status.cancelled)


def finish(connection: apsw.Connection, ends: Sequence[tuple[Lease, Outcome]], now: float) -> list[bool]:
    """running → succeeded, failed, cancelled or queued, for attempts that still hold their jobs."""
    succeeded = [
        (lease.id, lease.attempt, lease.process, outcome.result, now)
        for lease, outcome in ends
        if isinstance(outcome, Succeeded)
    ]
    all_did = _succeed_all(connection, succeeded)
    have_ended = [
        all_did or _succeed(connection, lease, outcome, now)
        if isinstance(outcome, Succeeded)
        else _end(connection, lease, outcome, now)
        for lease, outcome in ends
    ]
    entry = Entry(connection, now)
    for (lease, outcome), has_ended in zip(ends, have_ended, strict=True):
        if has_ended and isinstance(outcome, Succeeded | Failed | Died) and outcome.then is not None:
            entry.enqueue([(_owned(connection, lease, outcome.then), Placement.free)], None)
        if has_ended and isinstance(outcome, Succeeded) and outcome.files:
            contents.unlink(connection, outcome.files, lease.id)
    entry.end()
    if all(have_ended):
        return have_ended
    return [
        has_ended or _had_ended(connection, lease, outcome)
        for (lease, outcome), has_ended in zip(ends, have_ended, strict=True)
    ]


def _owned(connection: apsw.Connection, lease: Lease, then: NewJob) -> NewJob:
    """What follows a job is its owner's."""
    return then if then.owner is not None else then._replace(owner=connection.execute(_Q["owner"], (lease.id,)).get)


def finish_saying(connection: apsw.Connection, ends: Sequence[tuple[Lease, Outcome]], now: float) -> list[bool]:
    """The same, with the last that the attempts say: as long as they hold their jobs."""
    for lease, outcome in ends:
        if outcome.report is not None:
            events.report(connection, lease, outcome.report, now)
    return finish(connection, ends, now)


def release(transaction: Transaction, process: str, jobs: Sequence[str]) -> list[bool]:
    """queued and held → queued, for those that a process holds."""
    done = transaction.connection.executemany(_Q["release"], [(job, process) for job in jobs]).fetchall()
    released = {job for (job,) in done}
    return [job in released for job in jobs]


def cancel(transaction: Transaction, job: str) -> Ruling:
    """queued → cancelled, because a person says so; one that runs is asked to end."""
    ruling = _rule(transaction, job, "cancel")
    if ruling is Ruling.forbidden and _rule(transaction, job, "ask_to_end") is Ruling.done:
        return Ruling.asked
    return ruling


def hasten(transaction: Transaction, job: str) -> Ruling:
    """It waits for its time no longer, because a person says so."""
    return _rule(transaction, job, "hasten")


def retry(transaction: Transaction, job: str) -> Ruling:
    """failed or cancelled → queued, because a person says so."""
    connection, now = transaction.connection, transaction.now
    if is_storable(job):
        for key in connection.execute(_Q["unique_of"], (job,)).fetchall():
            connection.execute(_Q["expire_unique"], (*key, now))
    ruling = _rule(transaction, job, "retry")
    if ruling is Ruling.forbidden and connection.execute(_Q["status"], (job,)).get in _CAN_BE_RETRIED:
        return Ruling.taken
    return ruling


def _rule(transaction: Transaction, job: str, query: str) -> Ruling:
    connection = transaction.connection
    if not is_storable(job) or connection.execute(_Q["status"], (job,)).get is None:
        return Ruling.unknown
    before = connection.total_changes()
    connection.execute(_Q[query], (job, transaction.now))
    return Ruling.done if connection.total_changes() > before else Ruling.forbidden


def _succeed_all(connection: apsw.Connection, succeeded: Sequence[tuple[Any, ...]]) -> bool:
    """running → succeeded, for all of them or, when one does not hold its job any more, for none."""
    before = connection.total_changes()
    connection.execute("SAVEPOINT succeed")
    execute_for_all(connection, _Q["succeed"], succeeded)
    all_did = connection.total_changes() - before == len(succeeded)
    if not all_did:
        connection.execute("ROLLBACK TO succeed")
    connection.execute("RELEASE succeed")
    return all_did


def _succeed(connection: apsw.Connection, lease: Lease, outcome: Succeeded, now: float) -> bool:
    """running → succeeded, for one attempt that still holds its job."""
    connection.execute(_Q["succeed"], (lease.id, lease.attempt, lease.process, outcome.result, now))
    return connection.changes() == 1


def _end(connection: apsw.Connection, lease: Lease, outcome: Outcome, now: float) -> bool:
    """running → queued, failed or cancelled, for one attempt that still holds its job."""
    fence = (lease.id, lease.attempt, lease.process)
    name, failure, note = _memory_of(outcome)
    unfit_for = outcome.unfit_for if isinstance(outcome, Released) else ""
    delay = outcome.delay if isinstance(outcome, Retry | Released | Died) else 0.0
    signature = outcome.failure.signature if isinstance(outcome, Failed | Retry | Died) else ""
    failed, died = int(isinstance(outcome, Failed | Retry)), int(isinstance(outcome, Died))
    if not unfit_for:
        connection.execute(_Q["remember"], (*fence, name, now, failure, note, signature))
    due, run_at = int(delay <= 0), now + delay if delay > 0 else None
    values = (_status_after(outcome).value, due, run_at, failed, died, failure, note, now, unfit_for, signature)
    return connection.execute(_Q["end"], (*fence, *values)).get is not None


def _status_after(outcome: Outcome) -> Status:
    """Of a job that nobody has asked to end."""
    if isinstance(outcome, Cancelled):
        return Status.cancelled
    is_final = isinstance(outcome, Failed) or (isinstance(outcome, Died) and outcome.final)
    return Status.failed if is_final else Status.queued


def _had_ended(connection: apsw.Connection, lease: Lease, outcome: Outcome) -> bool:
    """Had this attempt ended just so before? Then the end is said again, for its answer was lost."""
    if isinstance(outcome, Succeeded):
        shows, said = "has_succeeded", (outcome.result,)
    elif isinstance(outcome, Released) and outcome.unfit_for:
        shows, said = "is_unfit", (outcome.unfit_for,)
    else:
        shows, said = "has_ended", _memory_of(outcome)
    return bool(connection.execute(_Q[shows], (lease.id, lease.attempt, *said)).get)


def _memory_of(outcome: Outcome) -> tuple[str, str | None, str | None]:
    """What is remembered of an attempt that ended so: the name of that, the failure, the note."""
    failure = text_of(outcome.failure) if isinstance(outcome, Failed | Retry | Died) else None
    note = outcome.note if isinstance(outcome, Released | Cancelled) else None
    return type(outcome).__name__.lower(), failure, note
