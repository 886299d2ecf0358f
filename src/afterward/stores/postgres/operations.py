"""How operations of one kind are carried out on a connection, each with its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any, TypeAlias

from afterward.job import Lease, Outcome, Stored
from afterward.stores.batch import Operation
from afterward.stores.postgres import (
    claims,
    contents,
    entry,
    handing,
    joining,
    life,
    looks,
    moves,
    reservations,
    seen,
    stats,
    streams,
    tidying,
)
from afterward.stores.postgres.connection import Connection, is_of_all
from afterward.stores.postgres.desk import Desk

CarryOut: TypeAlias = Callable[[Desk, Connection, Sequence[Operation]], Awaitable[None]]


def _each(one: Callable[..., Awaitable[Any]]) -> CarryOut:
    """One after the other, each with its own items."""

    async def carry_out(desk: Desk, connection: Connection, operations: Sequence[Operation]) -> None:
        for operation in operations:
            operation.answer = await one(desk, connection, *operation.items)

    return carry_out


async def _enqueue(desk: Desk, connection: Connection, operations: Sequence[Operation]) -> None:
    entering = [one for operation in operations for one in operation.items]
    enqueue = entry.enqueue_apart if any(operation.is_repeated for operation in operations) else entry.enqueue_plain
    answers = iter(await enqueue(desk, connection, entering) if entering else [])
    for operation in operations:
        operation.answer = [next(answers) for _ in operation.items]


async def enqueue_ringing(desk: Desk, connection: Connection, operation: Operation, channel: str) -> None:
    """One job for anybody is stored, and who waits for jobs in other processes is called, in one round trip.

    What is wrong with this way, such as a queue of notifications that is full, is not what is wrong with the job: then
    it is stored by itself, which may be repeated.
    """
    [(job, _, _)] = operation.items
    try:
        await entry.enqueue_one(desk, connection, job, channel)
    except Exception as error:
        if is_of_all(error):
            raise
        operation.is_repeated = True
        await _enqueue(desk, connection, [operation])
    else:
        operation.answer, operation.has_rung = [Stored.stored], True


async def _release(desk: Desk, connection: Connection, operations: Sequence[Operation]) -> None:
    held = [(job, process) for process, jobs in (operation.items for operation in operations) for job in jobs]
    rows = await connection.fetch(desk["release"], [job for job, _ in held], [process for _, process in held])
    released = {(row["id"], row["process"]) for row in rows}
    for operation in operations:
        process, jobs = operation.items
        operation.answer = [(job, process) in released for job in jobs]


async def _finish(desk: Desk, connection: Connection, operations: Sequence[Operation]) -> None:
    """One with an end that has to wait for a transaction is left to another lane: whole, for it may be repeated."""
    ends: list[tuple[Lease, Outcome]] = [end for operation in operations for end in operation.items]
    accepted = iter(await moves.finish(desk, connection, ends, waits=False))
    for operation in operations:
        operation.answer = [next(accepted) for _ in operation.items]
        if None in operation.answer:
            operation.kind = "finish_apart"


async def _finish_apart(desk: Desk, connection: Connection, operations: Sequence[Operation]) -> None:
    for operation in operations:
        operation.answer = await moves.finish(desk, connection, operation.items, waits=True)


async def _report(desk: Desk, connection: Connection, operations: Sequence[Operation]) -> None:
    """One that has to wait for a transaction is left to another lane: whole, for it may be repeated."""
    said = [one for operation in operations for one in operation.items]
    accepted = iter(await streams.report(desk, connection, said, waits=False))
    for operation in operations:
        operation.answer = [next(accepted) for _ in operation.items]
        if None in operation.answer:
            operation.kind = "report_apart"


async def _report_apart(desk: Desk, connection: Connection, operations: Sequence[Operation]) -> None:
    for operation in operations:
        operation.answer = await streams.report(desk, connection, operation.items, waits=True)


async def _hand_over(desk: Desk, connection: Connection, operations: Sequence[Operation]) -> None:
    """One that has to wait for a transaction is left to another lane: whole, for it may be repeated."""
    handed = [one for operation in operations for one in operation.items]
    answers = iter(await handing.hand_over(desk, connection, handed, waits=False))
    for operation in operations:
        operation.answer = [next(answers) for _ in operation.items]
        if None in operation.answer:
            operation.kind = "hand_over_apart"


async def _hand_over_apart(desk: Desk, connection: Connection, operations: Sequence[Operation]) -> None:
    for operation in operations:
        operation.answer = await handing.hand_over(desk, connection, operation.items, waits=True)


async def _begin(desk: Desk, connection: Connection, operations: Sequence[Operation]) -> None:
    """One that has to wait for a transaction is left to another lane: whole, for it may be repeated."""
    messages = [message for operation in operations for message in operation.items]
    answers, places = await handing.begin(desk, connection, messages, waits=False), count()
    for operation in operations:
        numbers = [next(places) for _ in operation.items]
        operation.answer = [answers.get(number) for number in numbers]
        if not answers.keys() >= set(numbers):
            operation.kind = "begin_apart"


async def _begin_apart(desk: Desk, connection: Connection, operations: Sequence[Operation]) -> None:
    for operation in operations:
        answers = await handing.begin(desk, connection, operation.items, waits=True)
        operation.answer = [answers[number] for number in range(len(operation.items))]


async def _notify(desk: Desk, connection: Connection, operations: Sequence[Operation]) -> None:
    """Once for all of them."""
    [(channel,), *_] = [operation.items for operation in operations]
    await connection.execute(desk["notify"], channel)


async def _connect(_desk: Desk, _connection: Connection, _operations: Sequence[Operation]) -> None:
    """There is a connection again, and that was all."""


IN_A_TRANSACTION = frozenset({"changed", "search", "stats"})
"""Those that are a transaction of their own, whatever the connection: one that sees all at one moment."""

CARRY_OUT: dict[str, CarryOut] = {
    "join": _each(life.join),
    "leave": _each(life.leave),
    "beat": _each(life.beat),
    "give_back": _each(life.give_back),
    "reap": _each(life.reap),
    "connect": _connect,
    "show_life": _connect,
    "notify": _notify,
    "enqueue": _enqueue,
    "enqueue_apart": _each(entry.enqueue_apart),
    "put_chunk": _each(contents.put_chunk),
    "release": _release,
    "claim": _each(claims.claim),
    "finish": _finish,
    "finish_apart": _finish_apart,
    "report": _report,
    "report_apart": _report_apart,
    "hand_over": _hand_over,
    "hand_over_apart": _hand_over_apart,
    "begin": _begin,
    "begin_apart": _begin_apart,
    "take_back": _each(handing.take_back),
    "followed": _each(handing.followed),
    "cancel": _each(moves.cancel),
    "retry": _each(moves.retry),
    "hasten": _each(moves.hasten),
    "describe": _each(seen.describe),
    "pause": _each(seen.pause),
    "resume": _each(seen.resume),
    "reserve": _each(reservations.reserve),
    "amend": _each(reservations.amend),
    "drop": _each(reservations.drop),
    "tidy": _each(tidying.tidy),
    "in_progress": _each(joining.in_progress),
    "get_chunk": _each(contents.get_chunk),
    "prunable": _each(looks.prunable),
    "get": _each(looks.get),
    "list": _each(looks.listed),
    "search": _each(looks.searched),
    "changed": _each(looks.changed),
    "find": _each(looks.find),
    "stats": _each(stats.stats),
    "ahead": _each(stats.ahead),
    "events": _each(streams.events),
    "failures": _each(seen.failures),
    "history": _each(seen.history),
    "processes": _each(seen.processes),
    "tasks_seen": _each(seen.tasks_seen),
    "paused": _each(seen.paused),
}
