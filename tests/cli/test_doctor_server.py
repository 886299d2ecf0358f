"""`afterward doctor` of a PostgreSQL store: what puts its jobs at risk, and what slows them down."""

import asyncio
import dataclasses
from collections.abc import Iterator

import psycopg
import pytest

from afterward.cli.doctor import server
from afterward.cli.doctor.finding import Finding, Level
from afterward.cli.doctor.visit import findings
from afterward.job import Process
from afterward.stores.postgres import PostgresStore
from afterward.stores.postgres.checkup import Checkup, Settings
from tests.support.stores import new_job, put

SOUND = Settings("18.1", False, True, True, True, 3, 100, 1_700_000_000.0)


def doctor(url: str) -> dict[str, list[Finding]]:
    """What it finds, by subject."""
    found: dict[str, list[Finding]] = {}
    for finding in findings(None, url, 1.0):
        found.setdefault(finding.subject, []).append(finding)
    return found


@pytest.fixture
def checkup(postgres_url: str) -> Iterator[Checkup]:
    checkup = Checkup(PostgresStore(postgres_url).address)
    yield checkup
    checkup.close()


def changed(**changes: object) -> Settings:
    return dataclasses.replace(SOUND, **changes)


async def _make(url: str, *, jobs: int = 0, joins: bool = False) -> None:
    store = PostgresStore(url)
    await store.open()
    await put(store, *(new_job() for _ in range(jobs)))
    if joins:
        await store.join(Process("somebody", 4711, "example"))
    await store.close()


def test_a_database_without_a_store_is_told_how_to_make_one(empty_postgres_url: str) -> None:
    [schema] = doctor(empty_postgres_url)["schema"]
    assert (schema.level, schema.mend) == (Level.problem, "make it: afterward migrate")


def test_a_database_that_is_not_there_is_named(postgres_url: str) -> None:
    [store] = doctor(postgres_url + "_not")["store"]
    assert store.level is Level.problem
    assert "there is no such database" in store.said


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    [store] = doctor("postgresql://me:secret@127.0.0.1:1/jobs")["store"]
    assert store.level is Level.problem
    assert "postgresql://127.0.0.1:1/jobs" in store.said
    assert "secret" not in store.said + store.mend


def test_jobs_that_wait_for_nobody_are_found(postgres_url: str) -> None:
    """And a process whose heart stands still."""
    asyncio.run(_make(postgres_url, jobs=3, joins=True))
    found = doctor(postgres_url)
    assert [(one.level, one.said.partition(", ")[2]) for one in found["schema"]] == [(Level.ok, "the newest")]
    assert any("has not beaten" in one.said for one in found["processes"])
    [waiting] = found["waiting"]
    assert (waiting.level, waiting.said) == (Level.ok, "3 jobs due, none for long")


def test_a_transaction_that_keeps_dead_rows_is_found(postgres_url: str, checkup: Checkup) -> None:
    """By who has it, however it was opened."""
    assert checkup.horizon() is None
    with psycopg.connect(postgres_url, application_name="reports") as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT 1")
        oldest = checkup.horizon()
        assert oldest is not None
        assert "(reports)" in oldest[0]
    assert checkup.horizon() is None


def test_the_server_says_how_it_is_set_up(checkup: Checkup) -> None:
    """The tests' server runs without fsync, which the doctor calls a problem."""
    settings = checkup.settings()
    assert (settings.is_standby, settings.fsync, settings.autovacuum) == (False, False, True)
    assert server.durability(settings).level is Level.problem


@pytest.mark.parametrize(
    ("finding", "level"),
    [
        (server.standby(SOUND), Level.ok),
        (server.standby(changed(is_standby=True)), Level.problem),
        (server.durability(SOUND), Level.ok),
        (server.durability(changed(full_page_writes=False)), Level.problem),
        (server.connections(SOUND), Level.ok),
        (server.connections(changed(connections=81)), Level.warning),
        (server.clocks(1000.0, 1000.9), Level.ok),
        (server.clocks(1000.0, 1002.0), Level.warning),
        (server.horizon(None), Level.ok),
        (server.horizon(("transaction of process 7", 59.0)), Level.ok),
        (server.horizon(("transaction of process 7", 61.0)), Level.warning),
        (server.vacuum(10, 20, False, autovacuum=True), Level.ok),
        (server.vacuum(10, 200_000, False, autovacuum=True), Level.warning),
        (server.vacuum(10, 20, True, autovacuum=True), Level.problem),
        (server.vacuum(10, 20, False, autovacuum=False), Level.problem),
    ],
)
def test_what_is_no_ok_names_its_mend(finding: Finding, level: Level) -> None:
    assert finding.level is level
    assert bool(finding.mend) is (level is not Level.ok)
