"""Keys of requests that are to be answered once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apsw

from afterward.job import Completion
from afterward.stores.seen import Reservation, Reserved
from afterward.stores.sql import load_queries
from afterward.stores.sqlite.transaction import Transaction

_Q = load_queries("afterward.stores.sqlite", "seen.sql")
_EXISTS = load_queries("afterward.stores.sqlite")["exists"]

_KEPT_SECONDS = 86_400.0


def reserve(  # noqa: PLR0917 - as the operation has them
    transaction: Transaction, reservation: str, scope: str, key: str, fingerprint: str, process: str
) -> Reservation:
    """Reserve a key that nobody has; else say what has become of it."""
    connection = transaction.connection
    if not _is_alive(connection, process):
        return Reservation(Reserved.stranger)
    row: Any = connection.execute(_Q["reservation"], (scope, key)).fetchone()
    if row is not None and not _can_be_taken(connection, row):
        return _known_as(row, reservation, fingerprint)
    connection.execute(_Q["reserve"], (reservation, scope, key, fingerprint, process))
    return Reservation(Reserved.reserved)


def _can_be_taken(connection: apsw.Connection, row: Any) -> bool:
    """Is it nobody's?"""
    _, _, process, answer = row
    return answer is None and not _is_alive(connection, process)


def _known_as(row: Any, reservation: str, fingerprint: str) -> Reservation:
    """What to say of a key that somebody has."""
    id_, kept, _, answer = row
    if id_ == reservation:
        return Reservation(Reserved.reserved)
    if kept != fingerprint:
        return Reservation(Reserved.other)
    return Reservation(Reserved.in_flight) if answer is None else Reservation(Reserved.completed, answer)


def _is_alive(connection: apsw.Connection, process: str) -> bool:
    return bool(connection.execute(_EXISTS, (process,)).get)


def amend(transaction: Transaction, reservation: str, answer: str) -> bool:
    """Another answer for one that is completed."""
    return transaction.connection.execute(_Q["amend"], (reservation, answer)).get is not None


def is_there(connection: apsw.Connection, completion: Completion) -> bool:
    """Has nobody else taken its place?"""
    return bool(connection.execute(_Q["has_reserved"], (completion.reservation,)).get)


def drop(transaction: Transaction, *reservations: str) -> None:
    """They are nobody's, unless they are completed."""
    transaction.connection.executemany(_Q["drop"], [(reservation,) for reservation in reservations])


def open_ones(connection: apsw.Connection, process: str) -> frozenset[str]:
    """Those in the name of a process that are not completed."""
    return frozenset(id_ for (id_,) in connection.execute(_Q["open_reservations"], (process,)))


def give_back(connection: apsw.Connection, process: str, reservations: Iterable[str]) -> None:
    """They are nobody's, if they still are in the name of this process, and not completed."""
    connection.executemany(_Q["give_back_reservation"], [(one, process) for one in reservations])


def complete(connection: apsw.Connection, completions: Iterable[Completion], now: float) -> None:
    """What was answered to their requests is kept."""
    connection.executemany(_Q["complete"], [(one.reservation, one.answer, now) for one in completions])


def forget(connection: apsw.Connection, now: float, limit: int) -> bool:
    """Those completed a day ago, and those of dead processes; did it stop at the limit?"""
    forgotten: list[int] = []
    for query, values in (("forget_completed", (now - _KEPT_SECONDS, limit)), ("forget_abandoned", (limit,))):
        connection.execute(_Q[query], values)
        forgotten.append(connection.changes())
    return limit in forgotten
