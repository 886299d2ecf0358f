"""How attempts end, and what a person wants of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from afterward.job import (
    TERMINAL,
    Cancelled,
    Died,
    Failed,
    Lease,
    Outcome,
    Placement,
    Released,
    Retry,
    Ruling,
    Status,
    Succeeded,
)
from afterward.stores.postgres import contents, streams
from afterward.stores.postgres.connection import Connection, Row
from afterward.stores.postgres.desk import Desk
from afterward.stores.postgres.entry import enter_all
from afterward.stores.rows import text_of
from afterward.text import is_storable

T = TypeVar("T")
End = tuple[Lease, Outcome]
Numbered = tuple[int, End]

_CAN_BE_RETRIED = (Status.failed, Status.cancelled)


async def finish(desk: Desk, connection: Connection, ends: Sequence[End], *, waits: bool = True) -> list[bool | None]:
    """running → succeeded, failed, cancelled or queued, for attempts that still hold their jobs.

    What another transaction has locked is passed over at first. `waits`: it is waited for then, one by one; else it is
    answered with None. What is in other hands, and to be queued again, is brought back from there first.
    """
    answers: list[bool | None] = [False] * len(ends)
    left = list(enumerate(ends))
    while left:
        now, left = _one_of_each_job(left)
        accepted = await _end_all(desk, connection, [end for _, end in now])
        refused = [one for one in now if one[1][0].id not in accepted]
        for number, (lease, _) in now:
            answers[number] = lease.id in accepted
        if refused:
            locked, elsewhere = await _look_at_refused(desk, connection, refused, answers)
            if elsewhere:
                locked += await _end_elsewhere(desk, connection, elsewhere, answers)
            if waits:
                await _wait_for(desk, connection, locked)
                left += locked
    return answers


def _one_of_each_job(ends: Sequence[Numbered]) -> tuple[list[Numbered], list[Numbered]]:
    """The first end of each job, and the rest."""
    first: dict[str, Numbered] = {}
    rest = [one for one in ends if first.setdefault(one[1][0].id, one) is not one]
    return list(first.values()), rest


async def _look_at_refused(
    desk: Desk, connection: Connection, refused: Sequence[Numbered], answers: list[bool | None]
) -> tuple[list[Numbered], list[Numbered]]:
    """Accept what ended just so before; the ends of those that hold their jobs, which somebody else had locked, or
    which are in other hands.
    """
    rows = await connection.fetch(desk["refused"], *_columns_of_refused([end for _, end in refused]))
    looked_at = list(zip(refused, rows, strict=True))
    for (number, _), row in looked_at:
        answers[number] = None if row["holds"] else row["did"]
    holding = [(one, row["is_elsewhere"] and not is_final(one[1][1])) for one, row in looked_at if row["holds"]]
    return [one for one, is_there in holding if not is_there], [one for one, is_there in holding if is_there]


async def _end_elsewhere(
    desk: Desk, connection: Connection, elsewhere: Sequence[Numbered], answers: list[bool | None]
) -> list[Numbered]:
    """End attempts of jobs in other hands, which are so no more; those that somebody else had locked."""
    ends = [end for _, end in elsewhere]
    async with connection.transaction():
        await connection.execute(desk["bring_back"], *_fences(ends))
        accepted = await _end_all(desk, connection, ends)
    for number, (lease, _) in elsewhere:
        answers[number] = True if lease.id in accepted else None
    return [one for one in elsewhere if one[1][0].id not in accepted]


async def _wait_for(desk: Desk, connection: Connection, locked: Sequence[Numbered]) -> None:
    """Until nobody else has their jobs locked."""
    for _, (lease, _) in locked:
        await connection.execute(desk["wait_for"], lease.id)


def has_more_to_write(outcome: Outcome) -> bool:
    """Does more belong to this end than its job's own row?"""
    if outcome.report is not None:
        return True
    if isinstance(outcome, Succeeded | Failed | Died) and outcome.then is not None:
        return True
    return isinstance(outcome, Succeeded) and bool(outcome.files)


async def _end_all(desk: Desk, connection: Connection, ends: Sequence[End]) -> set[str]:
    """The ids of those whose end was accepted."""
    are_alike = len({is_final(outcome) for _, outcome in ends}) == 1
    if are_alike and not any(has_more_to_write(outcome) for _, outcome in ends):
        return await _move(desk, connection, ends)  # one statement, which is a transaction by itself
    async with connection.transaction():
        accepted = await _move(desk, connection, ends)
        await _write_more(desk, connection, [end for end in ends if end[0].id in accepted])
    return accepted


async def _write_more(desk: Desk, connection: Connection, ends: Sequence[End]) -> None:
    """What follows them is stored together, and so is the last that they say; each lets go of its files."""
    said = [(lease, outcome.report) for lease, outcome in ends if outcome.report is not None]
    if said:
        await streams.append(desk, connection, said)
    following = [
        (lease.id, outcome.then)
        for lease, outcome in ends
        if isinstance(outcome, Succeeded | Failed | Died) and outcome.then is not None
    ]
    if following:
        rows = await connection.fetch(desk["owners"], [before for before, _ in following])
        owners = {row["job"]: row["owner"] for row in rows}
        owned = [then._replace(owner=then.owner or owners.get(before)) for before, then in following]
        await enter_all(desk, connection, [(job, Placement.free, None) for job in owned])
    for lease, outcome in ends:
        if isinstance(outcome, Succeeded) and outcome.files:
            await contents.unlink(desk, connection, outcome.files, lease.id)


async def _move(desk: Desk, connection: Connection, ends: Sequence[End]) -> set[str]:
    """One statement for those that end for good, one for those that are queued again."""
    for_good = [end for end in ends if is_final(end[1])]
    for_now = [end for end in ends if not is_final(end[1])]
    accepted: set[str] = set()
    if for_good:
        rows = await connection.fetch(desk["end_for_good"], desk.now, *_columns_for_good(for_good))
        accepted.update(row["id"] for row in rows)
    if for_now:
        rows = await connection.fetch(desk["end_for_now"], desk.now, *_columns_for_now(for_now))
        accepted.update(row["id"] for row in rows)
    return accepted


def is_final(outcome: Outcome) -> bool:
    """Is the job over with this?"""
    return isinstance(outcome, Succeeded | Failed | Cancelled) or (isinstance(outcome, Died) and outcome.final)


def _name_of(outcome: Outcome) -> str:
    return type(outcome).__name__.lower()


def _fences(ends: Sequence[End]) -> list[list[Any]]:
    leases = [lease for lease, _ in ends]
    return [[lease.id for lease in leases], [lease.attempt for lease in leases], [lease.process for lease in leases]]


def _failures(ends: Sequence[End]) -> list[str | None]:
    return [text_of(end.failure) if isinstance(end, Failed | Retry | Died) else None for _, end in ends]


def _signatures(ends: Sequence[End]) -> list[str]:
    return [end.failure.signature if isinstance(end, Failed | Retry | Died) else "" for _, end in ends]


def _results(ends: Sequence[End]) -> list[str | None]:
    return [outcome.result if isinstance(outcome, Succeeded) else None for _, outcome in ends]


def _notes(ends: Sequence[End]) -> list[str | None]:
    return [outcome.note if isinstance(outcome, Released | Cancelled) else None for _, outcome in ends]


def _columns_for_good(ends: Sequence[End]) -> list[list[Any]]:
    return [
        *_fences(ends),
        [_name_of(outcome) for _, outcome in ends],
        _results(ends),
        _failures(ends),
        [isinstance(outcome, Died) for _, outcome in ends],
        _if_any(_notes(ends)),
        _if_any(_signatures(ends)),
    ]


def _if_any(texts: list[T]) -> list[T]:
    """An array that says nothing need not be sent: the server takes what is missing for null."""
    return texts if any(texts) else []


def _columns_for_now(ends: Sequence[End]) -> list[list[Any]]:
    return [
        *_fences(ends),
        [_name_of(outcome) for _, outcome in ends],
        _failures(ends),
        _notes(ends),
        [_unfit_for(outcome) for _, outcome in ends],
        [outcome.delay if isinstance(outcome, Retry | Released | Died) else 0.0 for _, outcome in ends],
        _signatures(ends),
    ]


def _columns_of_refused(ends: Sequence[End]) -> list[list[Any]]:
    return [
        *_fences(ends),
        [_name_of(outcome) for _, outcome in ends],
        [_unfit_for(outcome) for _, outcome in ends],
        _results(ends),
        _failures(ends),
        _notes(ends),
    ]


def _unfit_for(outcome: Outcome) -> str:
    return outcome.unfit_for if isinstance(outcome, Released) else ""


async def cancel(desk: Desk, connection: Connection, jobs: Sequence[str]) -> list[Ruling]:
    """queued → cancelled, because a person says so; what runs is asked to end."""
    return [await _cancel(desk, connection, job) for job in jobs]


async def _cancel(desk: Desk, connection: Connection, job: str) -> Ruling:
    """Again, as long as it has been moved before this could know."""
    while (found := await _find(desk, connection, job)) is not None:
        if found["status"] in TERMINAL:
            return Ruling.forbidden
        if await connection.fetchval(desk["cancel"], desk.now, found["id"], "cancelled") is not None:
            return Ruling.done
        if await connection.fetchval(desk["ask_to_end"], desk.now, found["id"]) is not None:
            return Ruling.asked
    return Ruling.unknown


async def hasten(desk: Desk, connection: Connection, jobs: Sequence[str]) -> list[Ruling]:
    """What waits for its time is due now, because a person says so."""
    return [await _hasten(desk, connection, job) for job in jobs]


async def _hasten(desk: Desk, connection: Connection, job: str) -> Ruling:
    found = await _find(desk, connection, job)
    if found is None:
        return Ruling.unknown
    hastened = await connection.fetchval(desk["hasten"], desk.now, found["id"])
    return Ruling.forbidden if hastened is None else Ruling.done


async def retry(desk: Desk, connection: Connection, jobs: Sequence[str]) -> list[Ruling]:
    """failed or cancelled → queued, because a person says so."""
    return [await _retry(desk, connection, job) for job in jobs]


async def _retry(desk: Desk, connection: Connection, job: str) -> Ruling:
    found = await _find(desk, connection, job)
    if found is None:
        return Ruling.unknown
    async with connection.transaction():
        if found["unique_key"] is not None:
            await _expire_holder(desk, connection, found)
        back = await connection.fetchval(desk["retry"], desk.now, found["id"])
    if back is not None:
        return Ruling.done
    if found["status"] not in _CAN_BE_RETRIED:  # when it was asked for, whatever has become of it since
        return Ruling.forbidden
    again = await _find(desk, connection, job)
    return Ruling.taken if again is not None and again["status"] in _CAN_BE_RETRIED else Ruling.forbidden


async def _expire_holder(desk: Desk, connection: Connection, found: Row) -> None:
    """What has expired keeps its unique key from no other job."""
    holder = await connection.fetchrow(desk["holder"], desk.now, found["task"], found["unique_key"])
    if holder is not None and holder["id"] != found["id"] and holder["status"] == "queued" and holder["has_expired"]:
        await connection.execute(desk["cancel"], desk.now, holder["id"], "expired")


async def _find(desk: Desk, connection: Connection, job: str) -> Row | None:
    return await connection.fetchrow(desk["real_id"], job) if is_storable(job) else None


def may_wait(outcome: Outcome) -> bool:
    """Does what follows have a unique key, which a transaction of somebody else's may be about to take?"""
    return (
        isinstance(outcome, Succeeded | Failed | Died) and outcome.then is not None and outcome.then.unique is not None
    )
