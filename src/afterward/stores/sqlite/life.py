"""The signs of life: rows and beats of processes; and what becomes of what the dead held."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from afterward.faults import crash_point
from afterward.job import Process, Status
from afterward.stores.base import Beat, Held, Reaped
from afterward.stores.rows import death, text_of
from afterward.stores.sql import load_queries
from afterward.stores.sqlite import contents, handing, reservations
from afterward.stores.sqlite.transaction import Transaction

_Q = load_queries("afterward.stores.sqlite")

PAGE = 200
"""How many jobs one call of `reap` queues again at most."""

_DIED = death()


def join(transaction: Transaction, process: Process) -> None:
    """Write the row of a process."""
    port = transaction.doorbell.port
    transaction.connection.execute(_Q["join"], (process.id, process.pid, process.host, port, transaction.now))
    know_others(transaction, process.id)


def announce(transaction: Transaction, *processes: str) -> bool:
    """They wait for jobs, and can be woken here; is there anything to claim already?"""
    port = transaction.doorbell.port
    transaction.connection.executemany(_Q["announce"], [(process, port) for process in processes])
    return bool(transaction.connection.execute(_Q["has_ready"]).get)


def leave(transaction: Transaction, process: str) -> bool:
    """Remove the row of a process; what it holds is anybody's. Is there anything to claim then?"""
    connection = transaction.connection
    handing.hand_all_back(transaction, process)
    connection.execute(_Q["give_all_back"], (process, transaction.now))
    connection.execute(_Q["leave"], (process,))
    know_others(transaction, process)
    return bool(connection.execute(_Q["has_ready"]).get)


def beat(transaction: Transaction, process: str) -> Beat | None:
    """One beat more; None without a row."""
    connection = transaction.connection
    if not connection.execute(_Q["beat"], (process, transaction.doorbell.port)).get:
        return None
    return Beat(
        others=know_others(transaction, process),
        signs=frozenset(),
        held={job: Held(attempt, token) for job, attempt, token in connection.execute(_Q["held"], (process,))},
        files=contents.loose(connection, process),
        reservations=reservations.open_ones(connection, process),
        has_orphans=connection.execute(_Q["orphans"], (1,)).get is not None,
    )


def give_back(
    transaction: Transaction,
    process: str,
    attempts: Sequence[tuple[str, int]],
    files: Collection[str],
    reserved: Collection[str],
) -> list[bool]:
    """held or running → queued, for what is still in the name of a process; its files and reservations are nobody's."""
    connection = transaction.connection
    fences = [(job, attempt, process) for job, attempt in attempts]
    given_back = {fence[0] for fence in fences if handing.hand_back(transaction, *fence)}
    rows = [(*fence, transaction.now) for fence in fences]
    given_back |= {job for (job,) in connection.executemany(_Q["give_back"], rows)}
    contents.drop(connection, process, files)
    reservations.give_back(connection, process, reserved)
    return [job in given_back for job, _ in attempts]


def reap(
    transaction: Transaction, buried: Sequence[tuple[str, int | None]], suspect_after: int, suspect_delay: float
) -> Reaped:
    """Remove the rows of the dead, and queue a page of what belongs to nobody again."""
    connection, now = transaction.connection, transaction.now
    queued = 0
    connection.executemany(_Q["bury"], buried)
    orphans: list[Any] = connection.execute(_Q["orphans"], (PAGE,)).fetchall()
    for seq, job, process, status, attempt in orphans:
        fate = handing.hand_back(transaction, job, attempt, process)
        if fate is None and status == Status.running:
            connection.execute(_Q["orphan_attempt"], (now, text_of(_DIED), seq, process, attempt, _DIED.signature))
        if fate is None:
            fate = connection.execute(_Q["orphan"], (seq, process, attempt, now, suspect_after, suspect_delay)).get
        queued += fate == Status.queued
        crash_point("in_reap")
    return Reaped(queued, more=len(orphans) == PAGE)


def know_others(transaction: Transaction, process: str = "") -> dict[str, int]:
    """The counters of all processes but this one; their doorbells are noted on the way."""
    others: list[Any] = transaction.connection.execute(_Q["others"], (process,)).fetchall()
    doorbell = transaction.doorbell
    doorbell.know_others(port for _, _, port in others if port and port != doorbell.port)
    return {name: count for name, count, _ in others}
