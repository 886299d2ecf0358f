"""PostgreSQL: what the version before has stored, and goes on to store beside this one."""

from collections.abc import AsyncIterator

import psycopg
import pytest

from afterward.identity import new_id
from afterward.job import Cancelled, EventKind, Failure, NewEvent, Process, Report, Retry, Ruling, Status, Succeeded
from afterward.stores.handing import HandOver, Start
from afterward.stores.postgres import PostgresStore
from afterward.stores.sql import load_migrations
from tests.support.stores import OOPS, Living, get, ids, ids_of, new_job

pytestmark = pytest.mark.anyio

OLDEST = 1
ROLE = "afterward_example"

FAILED = """
INSERT INTO afterward.finished (
    seq, run_at, created_at, started_at, finished_at, priority, attempt, failures, deaths, status, id, task, queue,
    unfit_for, failure, arguments
)
SELECT nextval(pg_get_serial_sequence('afterward.jobs', 'seq')), 10, 10, 11, 12, 0, 1, 1, 0, 'failed', $1, 'app:send',
    'default', '', '{"kind": "OopsError", "message": "it did not work", "traceback": ""}', '{}'
"""

RETRIED = """
INSERT INTO afterward.jobs (
    run_at, created_at, started_at, priority, attempt, failures, due, status, id, task, queue, failure, arguments
)
VALUES (10, 10, 11, 0, 1, 1, true, 'queued', $1, 'app:send', 'default',
    '{"kind": "OopsError", "message": "it did not work", "traceback": ""}', '{}')
"""

FAILED_ONCE = """
INSERT INTO afterward.attempts (job, number, outcome, started_at, ended_at, failure)
VALUES ($1, 1, 'retry', 11, 12, '{"kind": "OopsError", "message": "it did not work", "traceback": ""}')
"""

REMEMBERED = """
INSERT INTO afterward.attempts (job, number, outcome, started_at, ended_at, failure)
VALUES ($1, 1, 'failed', 11, 12, '{"kind": "OopsError", "message": "it did not work", "traceback": ""}')
"""

FORGOTTEN = """
WITH gone AS (DELETE FROM afterward.attempts WHERE job = $1) DELETE FROM afterward.finished WHERE id = $1
"""

LEFT = """
SELECT (SELECT count(*) FROM afterward.origins), (SELECT count(*) FROM afterward.streams),
    (SELECT count(*) FROM afterward.events)
"""

QUEUED_AGAIN = "UPDATE afterward.jobs SET status = 'queued', process = NULL, token = NULL, due = true WHERE id = $1"


CLAIMED_BY_NAME = """
UPDATE afterward.jobs SET status = 'running', process = 'of the version before', token = 'token', attempt = attempt + 1
WHERE id = $1 AND status = 'queued' AND process IS NULL
"""


async def run(url: str, *statements: str, job: str = "") -> None:
    """As the version before does."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for statement in statements:
            told = [job] * statement.count("$1") or None
            await connection.execute(statement.replace("$1", "%s").encode(), told)


@pytest.fixture
async def url(empty_postgres_url: str) -> AsyncIterator[str]:
    """A database with the oldest schema; and somebody whom its owner lets use the tables."""
    made = "CREATE SCHEMA afterward; CREATE TABLE afterward.migrations (number int PRIMARY KEY, applied_at timestamptz)"
    oldest = [statements for number, statements in load_migrations("afterward.stores.postgres") if number <= OLDEST]
    role = f"{ROLE}_{new_id()[-12:]}"
    await run(empty_postgres_url, made, *oldest, f"INSERT INTO afterward.migrations (number) VALUES ({OLDEST})")
    await run(
        empty_postgres_url,
        f"CREATE ROLE {role}",
        f"GRANT USAGE ON SCHEMA afterward TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA afterward TO {role}",
    )
    yield f"{empty_postgres_url}?options=-c%20role%3D{role}"
    await run(empty_postgres_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_what_was_there_is_shown_and_can_be_retried(empty_postgres_url: str, url: str) -> None:
    job = new_id()
    await run(empty_postgres_url, FAILED, REMEMBERED, job=job)
    store = PostgresStore(empty_postgres_url)
    await store.open()
    [found] = await store.get([job])
    assert found is not None
    assert (found.status, found.owner, found.origin, found.progress) == (Status.failed, None, None, None)
    assert found.failure == found.attempts[0].failure == Failure("OopsError", "it did not work")
    [group] = await store.failures(10)
    assert (group.signature, group.task, group.count, group.newest) == ("", "app:send", 1, job)
    assert await ids_of(store, text="did not") == await ids_of(store, signature="") == [job]
    [stream] = await store.events([(job, 0)], 10)
    assert stream is not None
    assert (stream.first, stream.last) == (0, 0)
    assert await store.retry([job]) == [Ruling.done]
    await store.close()


async def test_what_was_tried_again_before_is_in_its_group(empty_postgres_url: str, url: str) -> None:
    """At the time that its attempts tell. What that version queues again stands there from its next failure on."""
    before, meanwhile = new_id(), new_id()
    await run(empty_postgres_url, RETRIED, FAILED_ONCE, job=before)
    store = PostgresStore(empty_postgres_url)
    await store.open()
    await run(empty_postgres_url, RETRIED, FAILED_ONCE, job=meanwhile)
    [group] = await store.failures(10)
    assert (group.task, group.count, group.retrying, group.newest) == ("app:send", 0, 1, before)
    assert group.last_at.timestamp() == 12
    assert await ids_of(store, signature="") == [before]
    living = Living(store, new_id())
    await store.join(Process(living.id, 1, "example"))
    leases = (await living.claim()).leases
    assert await store.finish([(lease, Retry(OOPS, 60)) for lease in leases]) == [True, True]
    [group] = await store.failures(10)
    assert group.retrying == 2
    await store.leave(living.id)
    await store.close()


async def test_who_could_use_the_tables_can_use_the_new_ones(empty_postgres_url: str, url: str) -> None:
    """Whoever joins jobs to transactions of his own need not be let in again."""
    store = PostgresStore(empty_postgres_url)
    await store.open()
    await store.close()
    await run(
        url,
        *(
            f"SELECT * FROM afterward.{table} FOR UPDATE; DELETE FROM afterward.{table}"
            for table in ("origins", "streams", "events", "served", "tasks", "pauses", "reservations", "handed")
        ),
    )


async def test_what_was_asked_to_end_and_is_queued_again_by_the_version_before_ends_with_its_next_attempt(
    empty_postgres_url: str,
) -> None:
    """That one does not know of it."""
    store = PostgresStore(empty_postgres_url)
    await store.open()
    living = Living(store, new_id())
    await store.join(Process(living.id, 1, "example"))
    lease = await living.leased(new_job())
    assert await store.cancel([lease.id]) == [Ruling.asked]
    await run(empty_postgres_url, QUEUED_AGAIN, job=lease.id)
    [again] = (await living.claim()).leases
    assert ids([again]) == [lease.id]
    await living.look()
    assert await store.asked_to_end(living.id) == {lease.id: 2}
    assert await store.finish([(again, Cancelled("stopped"))]) == [True]
    await store.leave(living.id)
    await store.close()


@pytest.mark.parametrize("is_swept_first", [True, False], ids=["while it runs", "once it waits again"])
async def test_what_is_in_other_hands_and_the_version_before_claims_by_its_name_is_not_stuck(
    empty_postgres_url: str, *, is_swept_first: bool
) -> None:
    """That one knows nothing of other hands, and lets such a job wait; but a person may name it."""
    store = PostgresStore(empty_postgres_url)
    await store.open()
    living = Living(store, new_id())
    await store.join(Process(living.id, 1, "example"))
    lease = await living.leased(new_job())
    assert await store.hand_over([HandOver(lease, 60.0)]) == [True]
    was_due = (await get(store, lease.id)).run_at
    await run(empty_postgres_url, CLAIMED_BY_NAME, job=lease.id)
    if is_swept_first:
        await store.take_back(living.id, ["app:send"], 10)
    await store.reap([], 2, 1.0)
    if not is_swept_first:
        assert (await living.claim()).leases == []
        await store.take_back(living.id, ["app:send"], 10)
    [again] = (await living.claim()).leases
    assert (again.id, again.attempt) == (lease.id, 3)
    assert (await get(store, lease.id)).run_at == was_due
    assert await store.begin(living.id, [Start(lease.id, 1, living.id)]) == [None]
    await store.leave(living.id)
    await store.close()


async def test_what_the_version_before_left_of_jobs_that_it_forgot_is_found_by_the_next_start(
    empty_postgres_url: str,
) -> None:
    """It goes; that of all other jobs stays."""
    store = PostgresStore(empty_postgres_url)
    await store.open()
    living = Living(store, new_id())
    await store.join(Process(living.id, 1, "example"))
    leases = [await living.leased(new_job(owner="ada")) for _ in range(2)]
    said = Report(1, (NewEvent(EventKind.item, "1"),))
    assert await store.finish([(lease, Succeeded(report=said)) for lease in leases]) == [True, True]
    await run(empty_postgres_url, FORGOTTEN, job=leases[0].id)
    assert await left(empty_postgres_url) == (2, 2, 2)
    await store.tidy({}, 10, 10)
    assert await left(empty_postgres_url) == (1, 1, 1)
    await run(empty_postgres_url, FORGOTTEN, job=leases[1].id)
    await store.leave(living.id)
    await store.close()
    again = PostgresStore(empty_postgres_url)
    await again.open()
    await again.tidy({}, 10, 10)
    assert await left(empty_postgres_url) == (0, 0, 0)
    await again.close()


async def left(url: str) -> tuple[int, ...]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        row = await (await connection.execute(LEFT)).fetchone()
        assert row is not None
        return row
