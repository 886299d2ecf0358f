"""Jobs and ends of attempts that transactions of others write: as scripts, for whatever driver they have."""

from __future__ import annotations

import json
from asyncio import Future
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from operator import index
from typing import Any

from afterward.errors import AfterwardError, ConfigurationError, DuplicateJob, ReservationLost, StoreUnavailable
from afterward.faults import crash_point
from afterward.job import Lease, NewJob, OnDuplicate, Stored, Succeeded
from afterward.stores.joining import Entered, Script, Statement
from afterward.stores.postgres.connection import Connection
from afterward.stores.postgres.desk import Desk, in_schema
from afterward.stores.sql import load_queries

_ELSEWHERE = frozenset({"42P01", "3F000", "42703", "42883"})
"""No such table, schema, column or function."""

_FORBIDDEN = "42501"


class Joining:
    """What a transaction of somebody else's has to do to join this store. `ask`: an operation of the store."""

    is_pretended = False

    def __init__(self, desk: Desk, schema: str, location: str, ask: Callable[[str, str, Any], Future[Any]]) -> None:
        queries = load_queries("afterward.stores.postgres", "joining.sql")
        self._queries = {name: in_schema(query, schema) for name, query in queries.items()}
        self._desk = desk
        self._location = location
        self._ask = ask
        self.identity = ""
        """What tells this store from every other, once it has been opened."""

    def enter(self, jobs: Sequence[NewJob]) -> Script[Entered]:
        answers: dict[str, Stored] = {}
        transaction = ""
        for job in jobs:
            yield from self._hold(job)
        plain = [job for job in jobs if job.unique is None]
        if plain:
            said = yield from self._enter(plain)
            transaction = said["transaction"]
        for job in jobs:
            if job.unique is not None:
                transaction, answers[job.id] = yield from self._enter_unique(job)
            if job.files:
                yield from self._link(job)
        for job in jobs:
            yield from self._complete(job)
        return Entered(transaction, [answers.get(job.id, Stored.stored) for job in jobs])

    def _enter(self, jobs: Sequence[NewJob]) -> Script[dict[str, Any]]:
        said = yield from self._ask_for("enter", {"jobs": [_said(place, job) for place, job in enumerate(jobs)]})
        crash_point("after_insert")
        return said

    def _enter_unique(self, job: NewJob) -> Script[tuple[str, Stored]]:
        """Again, as long as whoever had the key has let go of it before this could know."""
        replaces = job.on_duplicate is OnDuplicate.replace
        room = {"id": job.id, "task": job.task, "unique_key": job.unique, "replaces": replaces}
        while True:
            yield from self._ask_for("make_room", room)
            said = yield from self._enter([job])
            if said["entered"]:
                return said["transaction"], Stored.stored
            if said["met"] and job.on_duplicate is OnDuplicate.refuse:
                raise DuplicateJob(
                    f"task {job.task}: an unfinished job has the unique key {job.unique!r} already; roll the "
                    f'transaction back (on_duplicate="keep" would lead to that job, "replace" take its place)'
                )
            if said["met"] and not replaces:
                return said["transaction"], Stored.exists

    def _hold(self, job: NewJob) -> Script[None]:
        """What it completes is the request's still, until the transaction ends."""
        if job.completes is not None:
            said = yield from self._ask_for("hold", {"reservation": job.completes.reservation})
            if not said["is_held"]:
                raise ReservationLost(
                    f"task {job.task}: the Idempotency-Key of this request is another request's by now; roll the "
                    f"transaction back, and let the client send the request again"
                )

    def _complete(self, job: NewJob) -> Script[None]:
        if job.completes is not None:
            yield from self._ask_for("complete", job.completes._asdict())

    def _link(self, job: NewJob) -> Script[None]:
        files = [file.id for file in job.files]
        said = yield self._statement("link", {"id": job.id, "files": files})
        if json.loads(said)["linked"] < len(set(files)):
            raise StoreUnavailable(f"task {job.task}: the store has lost what a file of its arguments contains")

    def end(self, lease: Lease, outcome: Succeeded) -> Script[bool]:
        said = yield from self._ask_for(
            "end",
            {
                "id": lease.id, "attempt": lease.attempt, "process": lease.process, "result": outcome.result,
                "files": list(outcome.files),
            },
        )  # fmt: skip
        if said["ended"] and outcome.then is not None:
            yield from self.enter([outcome.then._replace(owner=outcome.then.owner or said["owner"])])
        return bool(said["ended"])

    def explained(self, error: Exception) -> Exception:
        state = _sqlstate(error)
        if isinstance(error, AfterwardError):
            return error
        if state in _ELSEWHERE:
            return self._elsewhere()
        if state == _FORBIDDEN:
            return ConfigurationError(
                f"the user of this connection may not write to the tables of the store {self._location} ({error}); "
                f"grant it USAGE of their schema, and SELECT, INSERT, UPDATE and DELETE on its tables"
            )
        return error

    def in_progress(self, transactions: Collection[str]) -> Future[frozenset[str]]:
        return self._ask("looks", "in_progress", (list(transactions),))

    def _ask_for(self, name: str, said: dict[str, Any]) -> Script[dict[str, Any]]:
        """One statement; the answer says whether it was asked of the store that is meant."""
        answer: dict[str, Any] = json.loads((yield self._statement(name, said)))
        if not answer["is_home"]:
            raise self._elsewhere()
        return answer

    def _statement(self, name: str, said: dict[str, Any]) -> Statement:
        return Statement(self._queries[name], json.dumps({**said, "store": self.identity, "now": self._desk.now}))

    def _elsewhere(self) -> ConfigurationError:
        return ConfigurationError(
            f"this transaction is not one of the database that the jobs are in ({self._location}): it cannot be "
            f"committed together with them; connect to that database, or store the job by itself with "
            f"task.options(transaction=None)"
        )


async def identity_of(connection: Connection, schema: str) -> str:
    """What tells a store from every other."""
    found: str = await connection.fetchval(in_schema("SELECT id::text FROM afterward.store", schema))
    return found


async def in_progress(desk: Desk, connection: Connection, transactions: Sequence[str]) -> frozenset[str]:
    """Which of these transactions are neither committed nor rolled back."""
    return frozenset(row["id"] for row in await connection.fetch(desk["in_progress"], transactions))


def _said(place: int, job: NewJob) -> dict[str, Any]:
    return {
        "place": place,
        "id": job.id,
        "task": job.task,
        "queue": job.queue,
        "priority": index(job.priority),
        "delay": job.delay or 0.0,
        "run_at": _seconds(job.run_at),
        "unique_key": job.unique,
        "arguments": job.arguments,
        "context": job.context,
        "max_attempts": job.max_attempts,
        "timeout": job.timeout,
        "expires_at": _seconds(job.expires) if isinstance(job.expires, datetime) else None,
        "expires_in": None if isinstance(job.expires, datetime) else job.expires,
        "owner": job.owner,
        "origin": job.origin,
    }


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


def _sqlstate(error: Exception) -> str | None:
    """The code of an error of whatever driver; SQLAlchemy keeps the driver's own as `orig`."""
    of_driver = getattr(error, "orig", None) or error
    return getattr(of_driver, "sqlstate", None) or getattr(of_driver, "pgcode", None)
