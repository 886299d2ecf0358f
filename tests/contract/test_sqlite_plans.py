"""SQLite: every query of the hot path goes by an index, and its work does not grow with what it does not want."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw
import pytest

from afterward.job import (
    Cancelled,
    EventKind,
    Failed,
    Failure,
    Lease,
    NewEvent,
    Placement,
    Process,
    Released,
    Report,
    Retry,
    Ruling,
    Status,
    Stored,
    Succeeded,
)
from afterward.stores.base import Store, Wanted
from afterward.stores.handing import HandOver, Start
from afterward.stores.sql import load_queries
from afterward.stores.sqlite import SQLiteStore
from afterward.stores.sqlite.bulk import for_rows
from tests.support.stores import Clock, new_file, new_job, put, send

pytestmark = pytest.mark.anyio

QUERIES = {
    name: query
    for file in ("queries.sql", "events.sql", "seen.sql", "handing.sql")
    for name, query in load_queries("afterward.stores.sqlite", file).items()
}
MANY = 5000


class Opened:
    """A store, its connection, and a count of what SQLite's machine does."""

    def __init__(self, store: Store, connection: apsw.Connection, clock: Clock) -> None:
        self.store = store
        self.connection = connection
        self.clock = clock

    async def steps(self, operation: Callable[[], Awaitable[Any]]) -> int:
        """How many instructions SQLite executes for an operation (https://www.sqlite.org/opcode.html)."""
        count = 0

        def step() -> bool:
            nonlocal count
            count += 1
            return False

        self.connection.set_progress_handler(step, 1)
        await operation()
        self.connection.set_progress_handler(None)
        return count


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    clock = Clock()
    made: list[apsw.Connection] = []
    apsw.connection_hooks.append(made.append)
    store = SQLiteStore(tmp_path / "jobs.db", clock=clock)
    try:
        await store.open()
    finally:
        apsw.connection_hooks.remove(made.append)
    await store.join(Process("worker", 1, "example"))
    yield Opened(store, made[-1], clock)
    await store.leave("worker")
    await store.close()


def plan(connection: apsw.Connection, query: str) -> list[str]:
    """How SQLite means to find its rows (https://www.sqlite.org/eqp.html)."""
    numbers = [int(number) for number in re.findall(r"\?(\d+)", query)]
    named = dict.fromkeys(re.findall(r":(\w+)", query))
    values = named or [None] * max(numbers, default=query.count("?"))
    return [str(row[3]) for row in connection.execute("EXPLAIN QUERY PLAN " + query, values)]


FAR = {"list", "with_text"}
"""What may read far, for it is asked for a few only."""

SORTED = {"history", "processes"}
"""What puts into an order of its own: what it has counted, or the few processes that there are."""

READS = [name for name, query in QUERIES.items() if name not in FAR and not query.startswith("INSERT INTO jobs")]


@pytest.mark.parametrize("name", READS)
async def test_no_query_reads_jobs_from_end_to_end(opened: Opened, name: str) -> None:
    """Each looks up what it wants in an index, in the order that it wants it; only the list may read far."""
    steps = plan(opened.connection, QUERIES[name])
    large = (
        "SCAN jobs", "SCAN j", "SCAN files", "SCAN f", "SCAN chunks", "SCAN c", "SCAN events", "SCAN streams",
        "SCAN handed", "SCAN h",
    )  # fmt: skip
    assert [step for step in steps if step.startswith(large) and "INDEX" not in step] == []
    assert name in SORTED or [step for step in steps if "TEMP B-TREE" in step or "AUTOMATIC" in step] == []


async def test_many_attempts_that_end_together_are_each_looked_up(opened: Opened) -> None:
    """However many there are of them in one statement."""
    steps = plan(opened.connection, for_rows(QUERIES["succeed"], 64))
    assert any("sqlite_autoindex_jobs_1 (id=?)" in step for step in steps), steps
    assert not any(step.startswith("SCAN jobs") or "AUTOMATIC" in step for step in steps), steps


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("candidates", "jobs_ready (queue=? AND task=? AND unfit_for=?)"),
        ("lanes", "jobs_ready"),
        ("promote", "jobs_later (run_at<?)"),
        ("next_due", "jobs_later"),
        ("held", "jobs_taken (process=?)"),
        ("give_all_back", "jobs_taken (process=?)"),
        ("claimed", "jobs_taken (process=?)"),
        ("orphans", "jobs_taken (process=?)"),
        ("known_as", "sqlite_autoindex_jobs_1 (id=?)"),
        ("has_succeeded", "sqlite_autoindex_jobs_1 (id=?)"),
        ("has_ended", "sqlite_autoindex_jobs_1 (id=?)"),
        ("is_unfit", "sqlite_autoindex_jobs_1 (id=?)"),
        ("succeed", "sqlite_autoindex_jobs_1 (id=?)"),
        ("replace_waiting", "jobs_unique (task=? AND unique_key=?)"),
        ("replace_running", "jobs_unique (task=? AND unique_key=?)"),
        ("expire", "jobs_expiring (expires_at<?)"),
        ("prune", "jobs_finished (status=? AND finished_at<?)"),
        ("prune_aliases", "aliases_job (job=?)"),
        ("cancel", "sqlite_autoindex_jobs_1 (id=?)"),
        ("retry", "sqlite_autoindex_jobs_1 (id=?)"),
        ("get", "sqlite_autoindex_jobs_1 (id=?)"),
        ("file_is_whole", "sqlite_autoindex_files_1 (id=?)"),
        ("link_file", "sqlite_autoindex_files_1 (id=?)"),
        ("unlink_file", "sqlite_autoindex_files_1 (id=?)"),
        ("loose_files", "files_loose (process=?)"),
        ("unwanted_file", "files_loose (process=?)"),
        ("free_chunks", "sqlite_autoindex_chunks_1 (file=?)"),
        ("get_chunk", "sqlite_autoindex_chunks_1 (file=? AND number=?)"),
        ("named", "sqlite_autoindex_jobs_1 (id=?)"),
        ("in_hand", "jobs_taken"),
        ("lane_waits", "jobs_ready (queue=? AND task=? AND unfit_for=? AND priority<?)"),
        ("place", "sqlite_autoindex_jobs_1 (id=?)"),
        ("ahead", "jobs_ready (queue=? AND task=? AND unfit_for=? AND priority>?)"),
        ("ahead", "jobs_ready (queue=? AND task=? AND unfit_for=? AND priority=? AND run_at<?)"),
        ("ahead", "jobs_ready (queue=? AND task=? AND unfit_for=? AND priority=? AND run_at=? AND seq<?)"),
        ("overdue_ahead", "jobs_scheduled (queue=? AND run_at<?)"),
        ("scheduled", "jobs_scheduled (queue>?)"),
        ("scheduled", "jobs_scheduled (queue=? AND run_at<?)"),
        ("scheduled", "jobs_scheduled (queue=? AND run_at>?)"),
        ("taken_of_queues", "jobs_taken"),
        ("ended_since", "jobs_finished (status=? AND finished_at>?)"),
        ("prunable", "COVERING INDEX jobs_finished (status=? AND finished_at<?)"),
        ("find", "sqlite_autoindex_jobs_1 (id>? AND id<?)"),
        ("ask_to_end", "sqlite_autoindex_jobs_1 (id=?)"),
        ("asked_to_end", "jobs_taken (process=?)"),
        ("hasten", "sqlite_autoindex_jobs_1 (id=?)"),
        ("stream", "sqlite_autoindex_jobs_1 (id=?)"),
        ("stream", "sqlite_autoindex_streams_1 (job=?)"),
        ("stream_of", "sqlite_autoindex_streams_1 (job=?)"),
        ("events", "PRIMARY KEY (stream=? AND number>?)"),
        ("trim", "PRIMARY KEY (stream=? AND number<?)"),
        ("free_events", "PRIMARY KEY (stream=?)"),
        ("unwanted_stream", "sqlite_autoindex_streams_1 (job=?)"),
        ("runs", "jobs_taken (process=?)"),
        ("failures", "COVERING INDEX jobs_failed"),
        ("failures", "COVERING INDEX jobs_retrying"),
        ("newest_failed", "jobs_failed (signature=? AND task=?)"),
        ("newest_retrying", "jobs_retrying (signature=? AND task=? AND finished_at=?"),
        ("failing", "COVERING INDEX jobs_failed (signature=?)"),
        ("failing", "COVERING INDEX jobs_retrying (signature=?)"),
        ("history", "COVERING INDEX jobs_finished (status=? AND finished_at>?)"),
        ("reservation", "PRIMARY KEY (scope=? AND key=?)"),
        ("has_reserved", "sqlite_autoindex_reservations_1 (id=?)"),
        ("complete", "sqlite_autoindex_reservations_1 (id=?)"),
        ("open_reservations", "reservations_open (process=?)"),
        ("give_back_reservation", "sqlite_autoindex_reservations_1 (id=?)"),
        ("forget_completed", "reservations_completed (completed_at<?)"),
        ("forget_abandoned", "reservations_open (process=?)"),
        ("hand_over", "sqlite_autoindex_jobs_1 (id=?)"),
        ("begin", "sqlite_autoindex_jobs_1 (id=?)"),
        ("begun", "sqlite_autoindex_jobs_1 (id=?)"),
        ("is_handed", "sqlite_autoindex_jobs_1 (id=?)"),
        ("make_due", "sqlite_autoindex_jobs_1 (id=?)"),
        ("hand_back", "sqlite_autoindex_jobs_1 (id=?)"),
        ("hand_all_back", "jobs_taken (process=?)"),
        ("queues_again", "handed_again (task=? AND queue>?)"),
        ("due_again", "handed_again (task=? AND queue=? AND again_at<?)"),
        ("next_again", "handed_again (task=? AND queue=? AND again_at>?)"),
        ("kept", "SEARCH h USING INTEGER PRIMARY KEY (rowid>?)"),
        ("followed", "handed_followed (task=? AND id>?)"),
    ],
)
async def test_each_query_goes_by_its_index(opened: Opened, name: str, index: str) -> None:
    assert any(index in step for step in plan(opened.connection, QUERIES[name]))


@pytest.mark.parametrize("status", ["", "done"])
async def test_an_unknown_status_is_refused_without_a_table_of_the_known_ones(opened: Opened, status: str) -> None:
    """SQLite makes one of a list with more than two members, anew for each row that is checked against it."""
    [id_] = await put(opened.store, new_job())
    with pytest.raises(apsw.ConstraintError, match="CHECK constraint failed"):
        opened.connection.execute("UPDATE jobs SET status = ? WHERE id = ?", (status, id_))
    enqueue = QUERIES["enqueue"]
    instructions = opened.connection.execute("EXPLAIN " + enqueue, [None] * enqueue.count("?"))
    assert "OpenEphemeral" not in {str(row[1]) for row in instructions}


async def claim_nothing(opened: Opened) -> int:
    async def claim() -> None:
        claimed = await opened.store.claim("worker", send(10), "token")
        assert claimed.leases == []

    return await opened.steps(claim)


@pytest.mark.parametrize(
    "unwanted",
    [
        {"task": "app:unknown"},
        {"task": "app:a"},
        {"queue": "other", "task": "app:zz"},
        {"delay": 60.0},
        {"priority": 100, "task": "app:unknown"},
    ],
    ids=str,
)
async def test_a_claim_passes_over_jobs_of_unwanted_tasks_without_reading_them(
    opened: Opened, unwanted: dict[str, Any]
) -> None:
    """Five thousand cost what five cost: a worker that knows few tasks is not slowed down by those of others."""
    await put(opened.store, *(new_job(**unwanted) for _ in range(5)))
    few = await claim_nothing(opened)
    await put(opened.store, *(new_job(**unwanted) for _ in range(MANY)))
    many = await claim_nothing(opened)
    assert many <= few + 50


async def test_a_claim_passes_over_queues_that_it_does_not_serve(opened: Opened) -> None:
    async def claim() -> None:
        wanted = [Wanted({"app:send"}, 10, {"mine"})]
        assert (await opened.store.claim("worker", wanted, "token")).leases == []

    await put(opened.store, *(new_job() for _ in range(5)))
    few = await opened.steps(claim)
    await put(opened.store, *(new_job() for _ in range(MANY)))
    assert await opened.steps(claim) <= few + 50


async def test_a_claim_passes_over_jobs_that_do_not_fit(opened: Opened) -> None:
    async def mark(jobs: int) -> None:
        await put(opened.store, *(new_job() for _ in range(jobs)))
        leases = (await opened.store.claim("worker", send(2 * MANY), f"token-{jobs}")).leases
        await opened.store.finish([(lease, Released("it lacks a size", 0, "v1")) for lease in leases])

    async def claim() -> None:
        wanted = [Wanted({"app:send"}, 10, None, {"v1"})]
        assert (await opened.store.claim("worker", wanted, "token")).leases == []

    async def settled() -> int:
        await claim()  # what is remembered of its statements may have been pushed out by others
        return await opened.steps(claim)

    await mark(5)
    few = await settled()
    await mark(MANY)
    assert await settled() <= few + 50


async def test_a_claim_reads_what_it_gives_and_not_what_waits_behind_it(opened: Opened) -> None:
    """The backlog, finished jobs, running jobs and held jobs cost nothing."""

    async def claim(token: str) -> None:
        [_] = (await opened.store.claim("worker", send(1), token)).leases

    await put(opened.store, *(new_job() for _ in range(5)))
    few = await opened.steps(lambda: claim("first"))
    await put(opened.store, *(new_job() for _ in range(MANY)))
    await opened.store.join(Process("other", 1, "example"))
    await opened.store.enqueue([(new_job(), Placement.leased) for _ in range(MANY)], "other")
    await opened.store.enqueue([(new_job(), Placement.held) for _ in range(MANY)], "other")
    leases = (await opened.store.claim("other", [Wanted({"app:send"}, 1000)], "token")).leases
    await opened.store.finish([(lease, Succeeded()) for lease in leases])
    many = await opened.steps(lambda: claim("second"))
    assert many <= few + 50
    await opened.store.leave("other")


async def test_an_idle_claim_and_a_beat_cost_little_however_much_is_finished(opened: Opened) -> None:
    async def beat() -> None:
        assert await opened.store.beat("worker") is not None

    few = await claim_nothing(opened), await opened.steps(beat)
    await put(opened.store, *(new_job() for _ in range(MANY)))
    leases = (await opened.store.claim("worker", [Wanted({"app:send"}, MANY)], "token-1")).leases
    await opened.store.finish([(lease, Succeeded()) for lease in leases])
    many = await claim_nothing(opened), await opened.steps(beat)
    assert many[0] <= few[0] + 50
    assert many[1] <= few[1] + 50


async def test_a_reap_passes_over_the_jobs_of_the_living(opened: Opened) -> None:
    """However many they run and hold, and however many wait."""

    async def reap() -> None:
        assert (await opened.store.reap([("nobody", None)], 2, 1.0)).jobs == 0

    await opened.store.enqueue([(new_job(), Placement.leased)], "worker")
    few = await opened.steps(reap)
    await opened.store.enqueue([(new_job(), Placement.leased) for _ in range(MANY)], "worker")
    await opened.store.enqueue([(new_job(), Placement.held) for _ in range(MANY)], "worker")
    await put(opened.store, *(new_job() for _ in range(MANY)))
    assert await opened.steps(reap) <= few + 50


async def test_an_enqueue_costs_the_same_beside_a_backlog(opened: Opened) -> None:
    async def enqueue() -> None:
        await put(opened.store, new_job())

    few = await opened.steps(enqueue)
    await put(opened.store, *(new_job(unique=str(number)) for number in range(MANY)))
    assert await opened.steps(enqueue) <= few + 50


async def test_a_job_that_came_due_is_made_ready_once(opened: Opened) -> None:
    """And then is not looked at again by claims that do not want it."""
    await put(opened.store, *(new_job(task="app:unknown", delay=60) for _ in range(400)))
    opened.clock.advance(60)
    for _ in range(5):
        await claim_nothing(opened)
    settled = await claim_nothing(opened)
    await put(opened.store, *(new_job(task="app:unknown", delay=60) for _ in range(MANY)))
    assert await claim_nothing(opened) <= settled + 200


async def put_files(opened: Opened, count: int, *, linked: bool) -> None:
    for _ in range(count):
        file = new_file()
        await opened.store.put_chunk(file.id, 0, b"a", "worker", is_last=True)
        if linked:
            await put(opened.store, new_job(files=(file,)))


async def test_an_idle_sweep_costs_the_same_however_many_files_wait_with_their_jobs(opened: Opened) -> None:
    """And however many a living process is storing."""

    async def sweep() -> None:
        assert (await opened.store.tidy({}, 10, 10)).freed == 0

    await put_files(opened, 5, linked=True)
    await put_files(opened, 5, linked=False)
    few = await opened.steps(sweep)
    await put_files(opened, 300, linked=True)
    await put_files(opened, 300, linked=False)
    assert await opened.steps(sweep) <= few + 50


async def test_pruning_a_job_costs_the_same_however_large_its_file_is_and_however_many_there_are(
    opened: Opened,
) -> None:
    """Its content is freed later, in small steps."""

    async def prune() -> None:
        assert (await opened.store.tidy({Status.cancelled: 0}, 1, 2)).pruned == 1

    async def cancelled(chunks: int) -> int:
        file = new_file()
        for number in range(chunks):
            await opened.store.put_chunk(file.id, number, b"a" * 1000, "worker", is_last=number == chunks - 1)
        await opened.store.cancel(await put(opened.store, new_job(files=(file,))))
        return await opened.steps(prune)

    few = await cancelled(1)
    await put_files(opened, 300, linked=True)
    assert await cancelled(300) <= few + 50


async def test_a_claim_by_name_costs_the_same_beside_a_backlog(opened: Opened) -> None:
    """The job is looked up by its id."""

    async def claim(token: str, job: str) -> None:
        [_] = (await opened.store.claim("worker", [Wanted({"app:send"}, 1, only=[job])], token)).leases

    first, second = await put(opened.store, new_job(), new_job())
    few = await opened.steps(lambda: claim("first", first))
    await put(opened.store, *(new_job() for _ in range(MANY)))
    assert await opened.steps(lambda: claim("second", second)) <= few + 50


@pytest.fixture
def instructions() -> Iterator[list[int]]:
    """What SQLite's machine has executed on every connection that is opened from now on."""
    counts = [0]

    def count() -> bool:
        counts[0] += 1
        return False

    def watch(connection: apsw.Connection) -> None:
        connection.set_progress_handler(count, 1)

    apsw.connection_hooks.append(watch)
    yield counts
    apsw.connection_hooks.remove(watch)


async def test_looking_for_news_costs_the_same_in_a_large_store(instructions: list[int], opened: Opened) -> None:
    """Old jobs, ended or waiting, are not read: neither for what has changed, nor for what was stored since a time."""

    async def look() -> int:
        since = datetime.fromtimestamp(opened.clock.now, UTC)
        await put(opened.store, new_job(queue="news"))
        before = instructions[0]
        assert len(await opened.store.changed(since, 10)) == 1
        assert len(await opened.store.list(since=since, queue="news")) == 1
        assert await opened.store.list(since=since, queue="slow") == []
        return instructions[0] - before

    await put(opened.store, *(new_job() for _ in range(5)))
    opened.clock.advance(60)
    await look()
    opened.clock.advance(60)
    few = await look()
    await put(opened.store, *(new_job() for _ in range(MANY)))
    leases = (await opened.store.claim("worker", send(MANY // 2), "token")).leases
    await opened.store.finish([(lease, Succeeded()) for lease in leases])
    opened.clock.advance(60)
    assert await look() <= few + 50


async def test_counting_costs_the_same_in_a_large_store(
    instructions: list[int], opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has ended is not read, and of what waits only so much is counted; the oldest of it is found all the same."""
    monkeypatch.setattr("afterward.stores.sqlite.stats.COUNTED", 50)

    async def count() -> int:
        before = instructions[0]
        [counted] = (await opened.store.stats()).queues
        assert (counted.depth, counted.later, counted.oldest_age) == (50, 50, opened.clock.now - began)
        return instructions[0] - before

    async def add(jobs: int) -> None:
        await put(
            opened.store, *(new_job(priority=number % 3, delay=delay) for number in range(jobs) for delay in (0, 600))
        )

    began = opened.clock.now
    await add(100)
    opened.clock.advance(60)
    await count()
    few = await count()
    await put(opened.store, *(new_job(task="app:other") for _ in range(MANY)))
    leases = (await opened.store.claim("worker", [Wanted({"app:other"}, MANY)], "token")).leases
    await opened.store.finish([(lease, Succeeded()) for lease in leases])
    await add(MANY)
    assert await count() <= few + 50


def items(many: int, first: int = 1) -> Report:
    return Report(first, (NewEvent(EventKind.item, '"said"'),) * many)


async def leased(opened: Opened, **said: Any) -> Lease:
    job = new_job(**said)
    assert await opened.store.enqueue([(job, Placement.leased)], "worker") == [Stored.stored]
    return Lease(job.id, 1, "worker", job.task, job.arguments)


async def test_a_report_costs_the_same_however_much_was_said(opened: Opened) -> None:
    """By the same job, and by others; the job's own row is not written."""

    async def report(first: int) -> None:
        assert await opened.store.report([(lease, items(3, first))]) == [True]

    lease = await leased(opened)
    await report(1)
    few = await opened.steps(lambda: report(4))
    await opened.store.report([(lease, items(MANY, 7))])
    for _ in range(20):
        await opened.store.report([(await leased(opened), items(100))])
    assert await opened.steps(lambda: report(MANY + 7)) <= few + 50


async def test_an_end_that_says_nothing_costs_the_same_as_if_nobody_ever_had(opened: Opened) -> None:
    async def finish(lease: Lease) -> None:
        assert await opened.store.finish([(lease, Succeeded())]) == [True]

    leases = [await leased(opened) for _ in range(3)]
    await finish(leases[0])
    few = await opened.steps(lambda: finish(leases[1]))
    await opened.store.report([(leases[2], items(MANY))])
    assert await opened.steps(lambda: finish(leases[2])) <= few + 50


async def test_pruning_a_job_costs_the_same_however_much_it_has_said(opened: Opened) -> None:
    """What it said is freed later, so much in one tidying and no more."""

    async def prune() -> None:
        assert (await opened.store.tidy({Status.succeeded: 0}, 1, 1)).pruned == 1

    async def ended(events: int) -> int:
        lease = await leased(opened)
        await opened.store.finish([(lease, Succeeded(report=items(events)))])
        return await opened.steps(prune)

    few = await ended(100)
    assert await ended(MANY) <= few + 50


async def test_a_paused_queue_costs_a_claim_the_same_however_many_wait_there(opened: Opened) -> None:
    await put(opened.store, *(new_job() for _ in range(5)))
    await opened.store.pause("default", "somebody")
    few = await claim_nothing(opened)
    await put(opened.store, *(new_job() for _ in range(MANY)))
    assert await claim_nothing(opened) <= few + 50


async def test_whose_jobs_alike_failures_and_the_few_with_a_status_are_found_by_index(
    instructions: list[int], opened: Opened
) -> None:
    """And so are failures in their groups: what else there is costs nothing."""

    async def look() -> int:
        before = instructions[0]
        assert [job.id for job in await opened.store.list(owner="ada")] == [mine.id]
        assert [job.id for job in await opened.store.list(signature="cause-1")] == [again.id, failed.id]
        assert [job.id for job in await opened.store.list(signature="cause-1", status=Status.queued)] == [again.id]
        assert await opened.store.list(owner="nobody") == []
        assert [job.id for job in await opened.store.list(status=Status.failed)] == [failed.id]
        assert await opened.store.list(status=[Status.cancelled, Status.succeeded], text="x") == []
        assert await opened.store.list(signature="cause-2", text="x") == []
        [group] = await opened.store.failures(10)
        assert (group.count, group.retrying) == (1, 1)
        return instructions[0] - before

    mine, failed, again = await leased(opened, owner="ada"), await leased(opened), await leased(opened)
    oops = Failure("Oops", "no", signature="cause-1")
    await opened.store.finish([(failed, Failed(oops)), (again, Retry(oops, 60))])
    await look()
    few = await look()
    await opened.store.enqueue([(new_job(owner="bob"), Placement.leased) for _ in range(MANY)], "worker")
    await put(opened.store, *(new_job(owner="eve") for _ in range(MANY)))
    assert await look() <= few + 50


async def hand_over(opened: Opened, jobs: int, *, again: float | None, is_followed: bool = False, **said: Any) -> None:
    """So many jobs, of which this is said."""
    new = [new_job(**said) for _ in range(jobs)]
    await opened.store.enqueue([(job, Placement.leased) for job in new], "worker")
    leases = [Lease(job.id, 1, "worker", job.task, job.arguments) for job in new]
    handed = [HandOver(lease, again, is_followed) for lease in leases]
    assert await opened.store.hand_over(handed) == [True] * jobs


async def test_what_is_handed_over_costs_those_nothing_who_want_other_jobs(opened: Opened) -> None:
    """A claim, with what runs out and comes due; an end, a beat, a reap."""

    async def work(token: str) -> None:
        await put(opened.store, new_job(expires=60.0, delay=1.0))
        opened.clock.advance(1)
        [lease] = (await opened.store.claim("worker", send(10), token)).leases
        assert await opened.store.finish([(lease, Succeeded())]) == [True]
        assert await opened.store.beat("worker") is not None
        await opened.store.reap([("nobody", None)], 2, 1.0)

    await hand_over(opened, 5, again=60.0)
    await work("before")
    few = await opened.steps(lambda: work("few"))
    await hand_over(opened, MANY, again=0.0)
    await hand_over(opened, MANY, again=None, is_followed=True)
    await work("after")  # what is remembered of its statements may have been pushed out by others
    assert await opened.steps(lambda: work("many")) <= few + 50


async def test_what_is_taken_back_is_found_among_all_that_is_handed_over(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not due yet, or never; of tasks that are not asked for, or of queues that are paused; however many those are."""
    monkeypatch.setattr("afterward.stores.sqlite.handing.SWEPT", 5)

    async def take_back() -> None:
        [_] = (await opened.store.take_back("worker", {"app:send"}, 1)).leases

    await opened.store.pause("paused", "ada")
    others: list[dict[str, Any]] = [
        {"again": 600.0}, {"again": None}, {"again": 0.0, "task": "app:other"}, {"again": 0.0, "queue": "paused"},
    ]  # fmt: skip
    for other in others:
        await hand_over(opened, 10, **other)
    await hand_over(opened, 10, again=0.0)
    await opened.steps(take_back)
    few = await opened.steps(take_back)
    for other in others:
        await hand_over(opened, MANY // 2, **other)
    assert await opened.steps(take_back) <= few + 100  # a deeper tree; a look at each would take thousands


async def test_who_follows_reads_what_is_followed(instructions: list[int], opened: Opened) -> None:
    """And no more of it than is asked for."""

    async def look() -> int:
        before = instructions[0]
        assert len(await opened.store.followed({"app:send"}, "", 5)) == 5
        return instructions[0] - before

    await hand_over(opened, 10, again=None, is_followed=True)
    await look()
    few = await look()
    await hand_over(opened, MANY, again=None, is_followed=True)
    await hand_over(opened, MANY, again=None, is_followed=True, task="app:other")
    await hand_over(opened, MANY, again=None)
    await put(opened.store, *(new_job() for _ in range(MANY)))
    assert await look() <= few + 50


async def test_what_is_kept_of_jobs_in_no_other_hands_is_done_away_with_step_by_step(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many in one step, however many are to be looked at; nothing of the others. Their own rows show when they were
    due.
    """
    monkeypatch.setattr("afterward.stores.sqlite.handing.SWEPT", 2)

    def kept() -> int:
        count: int = opened.connection.execute("SELECT count(*) FROM handed").get
        return count

    async def take_back() -> None:
        await opened.store.take_back("worker", {"app:send"}, 1)

    await hand_over(opened, 2, again=None, is_followed=True)
    await hand_over(opened, 6, again=600.0, expires=60.0, unique=None)
    await hand_over(opened, 2, again=600.0)
    *waits, begun, hastened, cancelled, retried = (await opened.store.list())[:6]
    assert await opened.store.begin("worker", [Start(begun.id, 1, "worker")]) != [None]
    assert kept() == 9
    assert await opened.store.hasten([hastened.id]) == [Ruling.done]
    assert await opened.store.cancel([cancelled.id, retried.id]) == [Ruling.done] * 2
    assert await opened.store.retry([retried.id]) == [Ruling.done]
    followed = await opened.store.followed({"app:send"}, "", 1)
    [lease] = await opened.store.begin("worker", [Start(followed[0].id, 1, "worker")])
    assert lease is not None
    assert await opened.store.finish([(lease, Succeeded())]) == [True]
    opened.clock.advance(60)
    await opened.store.claim("worker", [], "token")  # what has expired is cancelled
    steps = 0
    while kept() > 1 + len(waits):
        before = kept()
        await take_back()
        assert before - 2 <= kept() <= before
        steps += 1
        assert steps <= 5
    far = opened.connection.execute("SELECT count(*) FROM jobs WHERE run_at > ?", (opened.clock.now,)).get
    assert far == kept() == 1 + len(waits)


async def test_a_history_costs_the_same_whatever_ended_before_it(instructions: list[int], opened: Opened) -> None:
    """And in proportion to what ended within it, which is read from one index."""

    async def end(many: int) -> None:
        jobs = [new_job() for _ in range(many)]
        await opened.store.enqueue([(job, Placement.leased) for job in jobs], "worker")
        leases = [Lease(job.id, 1, "worker", job.task, job.arguments) for job in jobs]
        await opened.store.finish([(lease, Succeeded()) for lease in leases])

    async def look(many: int) -> int:
        opened.clock.advance(600)
        since = datetime.fromtimestamp(opened.clock.now, UTC)
        await end(many)
        before = instructions[0]
        [period] = await opened.store.history(since, 60.0)
        assert period.succeeded == many
        return instructions[0] - before

    await look(10)
    few = await look(10)
    await end(MANY)
    assert await look(10) <= few + 50
    assert await look(MANY) <= few + 100 * MANY


async def test_a_list_by_status_is_the_same_by_whatever_way_it_is_found(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By index where there are few, and by reading where there are many: held, due, later, running and ended."""
    await opened.store.enqueue([(new_job(), placement) for placement in Placement for _ in range(2)], "worker")
    await put(opened.store, *(new_job(delay=60) for _ in range(3)))
    for outcome in (Succeeded(), Failed(Failure("Oops", "no")), Cancelled("asked to end")):
        await opened.store.finish([(await leased(opened), outcome)])
    everything = await opened.store.list()
    assert len(everything) == 12
    for few in (0, 2, 100):
        monkeypatch.setattr("afterward.stores.sqlite.looks._FEW", few)
        for wanted in ([], *([status] for status in Status), [Status.queued, Status.failed], list(Status)):
            expected = [job for job in everything if job.status in wanted]
            assert await opened.store.list(status=wanted) == expected
            assert (
                await opened.store.list(status=wanted, before=everything[3].id, limit=2)
                == [job for job in expected if job in everything[4:]][:2]
            )
