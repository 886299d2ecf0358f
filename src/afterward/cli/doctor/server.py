"""A PostgreSQL server: whether jobs are safe there, and what slows them down."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from datetime import timedelta

from afterward.cli.doctor.database import schema
from afterward.cli.doctor.finding import Finding, ok, problem, refusal, warning
from afterward.cli.doctor.life import examine_processes_and_jobs
from afterward.sizes import many
from afterward.states import span
from afterward.stores.postgres.checkup import Checkup, Settings
from afterward.stores.postgres.store import PostgresStore, what_is_wrong

_LONG_SECONDS = 60.0
_MANY_DEAD = 100_000
_CLOCKS_APART_SECONDS = 1.0
_FULL_SHARE = 0.8


def examine_server(store: PostgresStore, known: Collection[str] | None) -> Iterator[Finding]:
    """`known`: the tasks of the program, if there is one to compare with."""
    try:
        checkup = Checkup(store.address)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is wrong
        yield refusal(
            "store", what_is_wrong(error, store.location), "see that the server runs, and the URL leads to it"
        )
        return
    try:
        yield from _examine(checkup, store, known)
    except Exception as error:  # noqa: BLE001 - as above
        yield refusal("store", what_is_wrong(error, store.location), "look at the server and its log")
    finally:
        checkup.close()


def _examine(checkup: Checkup, store: PostgresStore, known: Collection[str] | None) -> Iterator[Finding]:
    found = checkup.schema
    settings = checkup.settings()
    yield ok("store", f"{store.location}, PostgreSQL {settings.version}")
    if checkup.address.pooled:
        yield ok("pooler", "pgbouncer=true: this URL stores jobs, and runs none")
    yield standby(settings)
    yield durability(settings)
    yield connections(settings)
    yield clocks(settings.clock, time.time())
    if not found.found:
        yield problem("schema", f"there is no store at {store.location}", "make it: afterward migrate")
        return
    yield schema(found)
    if found.found >= found.newest and not found.is_beyond:
        yield horizon(checkup.horizon())
        yield vacuum(*checkup.rows(), settings.autovacuum)
        yield from examine_processes_and_jobs(checkup, known, checkup.now())


def standby(settings: Settings) -> Finding:
    """Whoever stores writes."""
    if settings.is_standby:
        return problem("server", "it is a standby, which takes no writes", "let the URL lead to the primary")
    return ok("server", "it takes writes")


def durability(settings: Settings) -> Finding:
    """What was answered must be there after a power cut."""
    off = [
        name
        for name, is_on in (("fsync", settings.fsync), ("full_page_writes", settings.full_page_writes))
        if not is_on
    ]
    if off:
        said = f"{' and '.join(off)} {'is' if len(off) == 1 else 'are'} off: a power cut can lose or damage everything"
        return problem("durability", said, "set it on in postgresql.conf, and restart the server")
    return ok("durability", "fsync and full_page_writes are on; afterward's own commits are synchronous")


def connections(settings: Settings) -> Finding:
    """Each process of an app wants a few."""
    said = f"{settings.connections} of {settings.max_connections} are in use"
    if settings.connections > _FULL_SHARE * settings.max_connections:
        return warning("connections", said, "raise max_connections, or put a pooler before what only stores jobs")
    return ok("connections", said)


def clocks(server: float, here: float) -> Finding:
    """Times of jobs are the server's; ids are made here, and are ordered by time."""
    apart = abs(server - here)
    if apart > _CLOCKS_APART_SECONDS:
        said = f"the server's clock and this machine's are {span(timedelta(seconds=apart))} apart"
        return warning(
            "clock", f"{said}; lists of jobs are ordered by both", "see that both are kept by NTP (timedatectl)"
        )
    return ok("clock", "the server's and this machine's agree")


def horizon(oldest: tuple[str, float] | None) -> Finding:
    """Rows that were changed or removed stay as long as an older transaction might see them, and slow each claim."""
    if oldest is not None and oldest[1] > _LONG_SECONDS:
        said = f"the {oldest[0]} is open for {span(timedelta(seconds=oldest[1]))}; dead rows stay until it ends"
        return warning(
            "horizon", said, "end it: SELECT pg_terminate_backend(…), or set idle_in_transaction_session_timeout"
        )
    return ok("horizon", "no transaction is open for long")


def vacuum(live: int, dead: int, is_off: bool, autovacuum: bool) -> Finding:
    """A queue's table lives on being vacuumed."""
    said = f"{many(live, 'row')} of jobs that wait or run, and {many(dead, 'dead row')}"
    if is_off or not autovacuum:
        return problem(
            "vacuum", f"{said}; autovacuum is off", "set autovacuum on: without it each claim becomes slower"
        )
    if dead > max(_MANY_DEAD, live):
        return warning("vacuum", said, "see what holds it up: a long transaction, or too few autovacuum_max_workers")
    return ok("vacuum", said)
