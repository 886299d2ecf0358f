"""What a person wants of jobs: try them again, cancel them, have them run at once, forget them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from afterward.cli.consent import consents
from afterward.cli.exits import DONE, FAILURE
from afterward.cli.progress import progress
from afterward.cli.reading import Filters, found_in, opened, unknown
from afterward.cli.telling import complain
from afterward.engine.tidier import rounds
from afterward.errors import AfterwardError, ConfigurationError
from afterward.job import TERMINAL, Job, Ruling, Status
from afterward.sizes import many, size
from afterward.states import why_not
from afterward.stores.base import Answer, Store
from afterward.stores.sqlite import SQLiteStore

PAGE = 100
"""How many jobs are moved in one transaction: nobody waits long for it."""

DEFAULT_AGE = 86_400.0
"""Seconds for which what has ended is kept, if nothing is said of it."""

_SHOWN_TROUBLES = 20
_HEEDED = {Ruling.done, Ruling.asked}


@dataclass(frozen=True, slots=True)
class Move:
    """One thing that can be wanted of jobs. `status`: of which jobs, if nothing is said of it."""

    word: str
    done: str
    ask: Callable[[Store, Sequence[str]], Answer[list[Ruling]]]
    status: Status


RETRY = Move("retry", "retried", lambda store, ids: store.retry(ids), Status.failed)
CANCEL = Move("cancel", "cancelled", lambda store, ids: store.cancel(ids), Status.queued)
HASTEN = Move("hasten", "hastened", lambda store, ids: store.hasten(ids), Status.queued)


def move(url: str | None, move: Move, ids: Sequence[str] | None, wanted: Filters, *, every: bool, yes: bool) -> int:
    """Make the move with the jobs of these ids, or with every one that is wanted; the exit code.

    Raises `ConfigurationError` when both, or none, were named.
    """
    if ids and (every or wanted.are_said):
        raise ConfigurationError(f"{move.word} takes ids, or --all with filters, and not both")
    if ids:
        return asyncio.run(_move_named(url, move, list(dict.fromkeys(ids))))
    if not every:
        raise ConfigurationError(
            f"which jobs? Give their ids; or --all, to {move.word} all that the other options leave"
        )
    return asyncio.run(_move_all(url, move, replace(wanted, statuses=wanted.statuses or [move.status]), yes=yes))


async def _move_named(url: str | None, move: Move, ids: Sequence[str]) -> int:
    """Make the move with the jobs of these ids; the exit code."""
    async with opened(url) as store:
        found: list[str] = []
        troubles: list[str] = []
        for id_ in ids:
            try:
                found.append((await found_in(store, id_)).id)
            except AfterwardError as error:
                troubles.append(str(error))
        return await _move(store, move, list(dict.fromkeys(found)), troubles)


async def _move_all(url: str | None, move: Move, wanted: Filters, *, yes: bool) -> int:
    """Make the move with all jobs that are wanted, if the person agrees; the exit code."""
    async with opened(url) as store:
        ids = await _ids(store, wanted)
        if not ids:
            print(f"no jobs to {move.word}")
            return DONE
        if not consents(f"{move.word.capitalize()} {many(len(ids), 'job')}?", yes=yes):
            return FAILURE
        return await _move(store, move, ids, [])


async def prune(url: str | None, statuses: Sequence[Status], older_than: float, *, dry_run: bool, yes: bool) -> int:
    """Forget jobs that ended so long ago, in small steps, if the person agrees; the exit code."""
    unended = [status.value for status in statuses if status not in TERMINAL]
    if unended:
        raise ConfigurationError(
            f"jobs that are {unended[0]} have not ended, and are not forgotten; "
            f"prune takes --status succeeded, failed or cancelled"
        )
    async with opened(url) as store:
        counted = time.monotonic()
        total = await store.prunable(dict.fromkeys(statuses, older_than))
        if dry_run:
            print(f"{many(total, 'job')} to prune")
            return DONE
        if total and not consents(f"Forget {many(total, 'job')}, with their results and errors?", yes=yes):
            return FAILURE
        # Those that were asked about, and none that have grown so old while the person thought; and whatever else
        # there is to tidy, such as the content of files, which nobody needs to be asked about.
        ages = dict.fromkeys(statuses, older_than + time.monotonic() - counted) if total else {}
        pruned = 0
        with progress("pruning", total) as advance:
            async for tidied in rounds(store, ages):
                pruned += tidied.pruned
                advance(tidied.pruned)
        print(f"pruned {many(pruned, 'job')}{await _room(store)}" if total else "0 jobs to prune")
    return DONE


async def _room(store: Store) -> str:
    if not isinstance(store, SQLiteStore):
        return ""
    space = await store.space()
    return f"; {size(space.free)} of the file's {size(space.total)} can be used again"


async def _ids(store: Store, wanted: Filters) -> list[str]:
    """All of them before any is moved: the number asked about is the number moved."""
    ids: list[str] = []
    with progress("looking for jobs", None):
        while page := await wanted.page(store, PAGE, ids[-1] if ids else None):
            ids += [job.id for job in page]
    return list(dict.fromkeys(ids))


async def _move(store: Store, move: Move, ids: Sequence[str], troubles: list[str]) -> int:
    done, asked = 0, 0
    with progress(move.word, len(ids)) as advance:
        for start in range(0, len(ids), PAGE):
            page = ids[start : start + PAGE]
            rulings = await move.ask(store, page)
            done += rulings.count(Ruling.done)
            asked += rulings.count(Ruling.asked)
            refused = [(id_, ruling) for id_, ruling in zip(page, rulings, strict=True) if ruling not in _HEEDED]
            troubles += [await _trouble(store, move, id_, ruling) for id_, ruling in refused]
            advance(len(page))
    if done:
        print(f"{move.done} {many(done, 'job')}")
    if asked:
        print(f"asked {many(asked, 'job')} to end")
    for trouble in troubles[:_SHOWN_TROUBLES]:
        complain(trouble)
    if len(troubles) > _SHOWN_TROUBLES:
        complain(f"… and {len(troubles) - _SHOWN_TROUBLES:,} more")
    return FAILURE if troubles else DONE


async def _trouble(store: Store, move: Move, id_: str, ruling: Ruling) -> str:
    """Why it was not moved, and the mend."""
    [job] = await store.get([id_])
    if job is None:
        return str(unknown(store, id_))
    if ruling is Ruling.taken:
        return f"job {id_} is not {move.done}: {await _who_has_its_key(store, job)}"
    why = why_not(move.word, job) or f"it is {job.status.value} by now; look again"
    return f"job {id_} is not {move.done}: {why}"


async def _who_has_its_key(store: Store, job: Job) -> str:
    unfinished = [Status.queued, Status.running]
    others = await store.list(status=unfinished, task=job.task, unique=job.unique, limit=1)
    if not others:
        return f"another job had its unique key {job.unique!r}, and has ended by now; try again"
    [other] = others
    said = f"job {other.id}, which is {other.status.value}, has its unique key {job.unique!r}"
    return f"{said}; wait for its end, or cancel it"
