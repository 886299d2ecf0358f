"""How operations of one kind are carried out in a transaction, each with its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import apsw

from afterward.job import Lease, Outcome
from afterward.stores.batch import Operation
from afterward.stores.sqlite import (
    claims,
    contents,
    events,
    handing,
    life,
    moves,
    processes,
    queues,
    reservations,
    tidying,
)
from afterward.stores.sqlite.entry import Entry
from afterward.stores.sqlite.transaction import Transaction

CarryOut: TypeAlias = Callable[[Transaction, Sequence[Operation]], None]


def _each(one: Callable[..., Any]) -> CarryOut:
    """One after the other, each with its own items."""

    def carry_out(transaction: Transaction, operations: Sequence[Operation]) -> None:
        for operation in operations:
            operation.answer = one(transaction, *operation.items)

    return carry_out


def _each_job(one: Callable[[Transaction, Any], Any]) -> CarryOut:
    """One after the other, each with an answer for every one of its items."""

    def carry_out(transaction: Transaction, operations: Sequence[Operation]) -> None:
        for operation in operations:
            operation.answer = [one(transaction, item) for item in operation.items]

    return carry_out


def _put_chunk(transaction: Transaction, operations: Sequence[Operation]) -> None:
    for operation in operations:
        operation.answer = contents.put_chunk(transaction.connection, *operation.items)


def _enqueue(transaction: Transaction, operations: Sequence[Operation]) -> None:
    entry = Entry(transaction.connection, transaction.now)
    for operation in operations:
        operation.answer = entry.enqueue(*operation.items)
    entry.end()


def _claim(transaction: Transaction, operations: Sequence[Operation]) -> None:
    claims.promote(transaction)
    for operation in operations:
        operation.answer = claims.claim(transaction, *operation.items)


def _as_one(finish: Callable[[apsw.Connection, Sequence[tuple[Lease, Outcome]], float], list[bool]]) -> CarryOut:
    """All ends together: those that succeeded share a statement."""

    def carry_out(transaction: Transaction, operations: Sequence[Operation]) -> None:
        ends: list[tuple[Lease, Outcome]] = [end for operation in operations for end in operation.items]
        accepted = iter(finish(transaction.connection, ends, transaction.now))
        for operation in operations:
            operation.answer = [next(accepted) for _ in operation.items]

    return carry_out


def _report(transaction: Transaction, operations: Sequence[Operation]) -> None:
    connection, now = transaction.connection, transaction.now
    for operation in operations:
        operation.answer = [events.report(connection, lease, said, now) for lease, said in operation.items]


def _retry(transaction: Transaction, operations: Sequence[Operation]) -> None:
    _each_job(moves.retry)(transaction, operations)
    life.know_others(transaction)  # whoever retries rings, also if it never joined


def _hasten(transaction: Transaction, operations: Sequence[Operation]) -> None:
    _each_job(moves.hasten)(transaction, operations)
    life.know_others(transaction)


CARRY_OUT: dict[str, CarryOut] = {
    "join": _each(life.join),
    "announce": _each(life.announce),
    "describe": _each(processes.describe),
    "beat": _each(life.beat),
    "give_back": _each(life.give_back),
    "reap": _each(life.reap),
    "reserve": _each(reservations.reserve),
    "put_chunk": _put_chunk,
    "enqueue": _enqueue,
    "amend": _each(reservations.amend),
    "drop": _each(reservations.drop),
    "release": _each(moves.release),
    "report": _report,
    "finish_saying": _as_one(moves.finish_saying),
    "finish": _as_one(moves.finish),
    "hand_over": _each_job(handing.hand_over),
    "begin": _each(handing.begin),
    "cancel": _each_job(moves.cancel),
    "retry": _retry,
    "hasten": _hasten,
    "pause": _each(queues.pause),
    "resume": _each(queues.resume),
    "claim": _claim,
    "take_back": _each(handing.take_back),
    "tidy": _each(tidying.tidy),
    "leave": _each(life.leave),
}
"""In the order in which they are carried out: what one leaves to be claimed is there for the next that claims."""
