"""PostgreSQL: every query goes by an index, whatever the statistics say, and reads nothing that it does not want."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from afterward.identity import new_id
from afterward.job import (
    Completion,
    EventKind,
    Failed,
    Lease,
    NewEvent,
    Placement,
    Process,
    Released,
    Report,
    Retry,
    Ruling,
    Status,
    Succeeded,
)
from afterward.stores.base import Store, Wanted
from afterward.stores.handing import HandOver, Start
from afterward.stores.postgres import (
    PostgresStore,
    claims,
    contents,
    entry,
    handing,
    life,
    looks,
    moves,
    reservations,
    stats,
    streams,
    tidying,
)
from afterward.stores.postgres.address import address_of
from afterward.stores.postgres.connection import Connection, connect
from afterward.stores.postgres.desk import Desk, desk_for
from afterward.stores.seen import Reservation, Reserved
from tests.support.stores import OOPS, Clock, altered, new_file, new_job, put

pytestmark = pytest.mark.anyio

MANY = 300
"""How many there are in the end of each sort of what is unwanted."""

SMALL = {"migrations", "pauses", "processes", "served", "store", "tasks"}
"""Tables that are read from end to end: they have a row or two for each process, queue or task."""

TABLES = (
    "jobs",
    "finished",
    "attempts",
    "aliases",
    "files",
    "chunks",
    "origins",
    "streams",
    "events",
    "reservations",
    "handed",
)

CALLS = {"enqueue_one"}
"""Of a procedure, which has no plan: it inserts one row of values."""

OTHERS: dict[str, str] = {
    "jobs": "(task <> 'app:own' OR queue = 'others')",
    "finished": "task <> 'app:own'",
    "origins": "owner <> 'own'",
    "streams": "progress IS NULL",
    "events": "kind <> 'progress'",
    "reservations": "scope <> 'own'",
    "handed": "(task <> 'app:own' OR queue = 'others')",
}

READ = """
SELECT sum(pg_stat_get_xact_tuples_returned(oid))::bigint FROM pg_class
WHERE relnamespace = 'afterward'::regnamespace AND relkind IN ('r', 'i')
"""
"""What has been read, by this connection's counters: entries of indexes, and rows of tables that no index led to."""


@dataclass(frozen=True)
class Opened:
    """A store, and a connection like its own."""

    store: Store
    connection: Connection
    desk: Desk
    clock: Clock

    async def reads(self, operation: Callable[["Opened"], Awaitable[Any]]) -> int:
        """How much an operation reads; what it has done is undone."""
        transaction = self.connection.transaction(isolation="repeatable_read")
        await transaction.start()
        try:
            before = await self.connection.fetchval(READ)
            await operation(self)
            return int(await self.connection.fetchval(READ) - before)
        finally:
            await transaction.rollback()

    async def claim(self, wanted: Wanted, token: str = "token") -> list[Lease]:
        return (await claims.claim(self.desk, self.connection, "worker", [wanted], token)).leases


@pytest.fixture
async def opened(postgres_url: str) -> AsyncIterator[Opened]:
    clock = Clock()
    store = PostgresStore(postgres_url, clock=clock)
    await store.open()
    connection = await connect(address_of(postgres_url), 5.0)
    for table in TABLES:
        await connection.execute(f"ALTER TABLE afterward.{table} SET (autovacuum_enabled = off)")
    for process in ("worker", "other"):
        await store.join(Process(process, 1, "example"))
    yield Opened(store, connection, desk_for("afterward", clock), clock)
    await connection.close()
    for process in ("worker", "other"):
        await store.leave(process)
    await store.close()


async def put_unwanted(opened: Opened) -> None:
    """One of each sort that a worker for `app:send` in `default` does not want."""
    store = opened.store
    unfit, ended, failed, again = await put(store, *(new_job() for _ in range(4)))
    leases = (await store.claim("other", [Wanted({"app:send"}, 4)], "others")).leases
    released, oops = Released("its arguments do not fit", 0, "v1"), replace(OOPS, signature="others")
    ends = {unfit: released, ended: Succeeded("1"), failed: Failed(oops), again: Retry(oops, 600)}
    assert await store.report([(lease, SAID) for lease in leases]) == [True] * 4
    assert await store.finish([(lease, ends[lease.id]) for lease in leases]) == [True] * 4
    await put(
        store,
        new_job(task="app:a"),
        new_job(task="app:zz", priority=100),
        new_job(queue="other"),
        new_job(delay=600),
        new_job(task="app:a", expires=600.0),
        new_job(task="app:a", unique="key"),
    )
    await store.enqueue([(new_job(), Placement.held), (new_job(delay=600), Placement.held)], "other")
    asked = new_job(owner="others", origin="{}")
    await store.enqueue([(new_job(), Placement.leased), (asked, Placement.leased)], "other")
    assert await store.cancel([asked.id]) == [Ruling.asked]
    await hand_unwanted_over(store)
    await store.reserve(new_id(), "others", "k", "f", "other")
    for is_linked in (True, False):
        file = new_file()
        await store.put_chunk(file.id, 0, b"a", "other", is_last=True)
        if is_linked:
            await put(store, new_job(task="app:a", files=(file,)))


async def hand_unwanted_over(store: Store) -> None:
    """Not due again; never; followed, begun or not; cancelled since."""
    jobs = [new_job(task="app:own", queue="others"), *(new_job(task="app:a") for _ in range(5))]
    await store.enqueue([(job, Placement.leased) for job in jobs], "other")
    leases = [Lease(job.id, 1, "other", job.task, job.arguments) for job in jobs]
    again, is_followed = (600, 600, None, None, 60, 600), (False, False, False, True, True, False)
    handed = [HandOver(*one) for one in zip(leases, again, is_followed, strict=True)]
    assert await store.hand_over(handed) == [True] * len(jobs)
    [_] = await store.begin("other", [Start(jobs[4].id, 1, "other")])
    assert await store.cancel([jobs[5].id]) == [Ruling.done]


async def multiply(connection: Connection, times: int) -> None:
    """Copies of all that there is, but for the worker's own, under other names."""
    made = {
        "jobs": "'id', it.id || '-' || n, 'seq', nextval(pg_get_serial_sequence('afterward.jobs', 'seq')), "
        "'unique_key', it.unique_key || n",
        "finished": "'id', it.id || '-' || n",
        "attempts": "'job', it.job || '-' || n",
        "files": "'id', it.id || '-' || n",
        "origins": "'job', it.job || '-' || n",
        "streams": "'job', it.job || '-' || n, 'id', it.id + 1000 * n",
        "events": "'stream', it.stream + 1000 * n",
        "handed": "'job', it.job || '-' || n",
        "reservations": "'id', it.id || '-' || n, 'key', it.key || n",
        "chunks": "'file', it.file || '-' || n",
    }
    for table, changes in made.items():
        await connection.execute(
            f"INSERT INTO afterward.{table} {'OVERRIDING SYSTEM VALUE' * (table in {'jobs', 'streams'})} "
            f"SELECT (jsonb_populate_record(it, jsonb_build_object({changes}))).* "
            f"FROM afterward.{table} it CROSS JOIN generate_series(1, $1) AS n "
            f"WHERE {OTHERS.get(table, 'true')}",
            times,
        )


async def empty(connection: Connection) -> None:
    for table in TABLES:
        await connection.execute(f"DELETE FROM afterward.{table}")


async def never_analysed(opened: Opened) -> None:
    await put_unwanted(opened)
    await multiply(opened.connection, MANY)


async def analysed(opened: Opened) -> None:
    await never_analysed(opened)
    await opened.connection.execute("VACUUM ANALYZE")


async def analysed_when_empty(opened: Opened) -> None:
    """As it is when the statistics are taken after a drain, and the next thousands come."""
    await never_analysed(opened)
    await empty(opened.connection)
    await opened.connection.execute("VACUUM ANALYZE")
    await never_analysed(opened)


def walk(node: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    """Every node of a plan, with the types of those above it, the nearest last."""
    yield node, above
    for child in node.get("Plans", []):
        yield from walk(child, (*above, node["Node Type"]))


def reads_far(node: dict[str, Any], above: tuple[str, ...]) -> bool:
    """Is this a scan of a table or index from end to end? One that ends with the first rows that it finds is none."""
    if node.get("Relation Name") in SMALL:
        return False
    if node["Node Type"] not in {"Index Scan", "Index Only Scan"}:
        return node["Node Type"] in {"Seq Scan", "Bitmap Heap Scan"}
    nearest = next((name for name in reversed(above) if name not in {"Result", "LockRows"}), "")
    return "Index Cond" not in node and nearest != "Limit"


FAR = {
    "list",  # with a filter, it looks for what is rare
    "list_text",
    "taken_counts",  # what is held or run is what it counts
}


@pytest.mark.parametrize("fill", [never_analysed, analysed_when_empty, analysed], ids=lambda fill: fill.__name__)
async def test_every_query_finds_its_rows_by_an_index_whatever_the_statistics_say(
    opened: Opened, fill: Callable[[Opened], Awaitable[None]]
) -> None:
    """A plan that is made once is kept for the life of a connection, while tables fill and empty."""
    await fill(opened)
    far: dict[str, list[str]] = {}
    for name, query in opened.desk.queries.items():
        if name in CALLS:
            continue
        plan = await plan_of(opened.connection, query)
        found = [str(node) for node, above in walk(plan) if reads_far(node, above)]
        if found:
            far[name] = found
    assert {name: found for name, found in far.items() if name not in FAR} == {}


async def plan_of(connection: Connection, query: str) -> dict[str, Any]:
    """The plan that is good for every call."""
    count = max(map(int, re.findall(r"\$(\d+)", query)), default=0)
    values = f"({', '.join(['NULL'] * count)})" if count else ""
    await connection.execute(f"PREPARE asked AS {query}")
    [(answer,)] = await connection.fetch(f"EXPLAIN (FORMAT JSON) EXECUTE asked{values}")
    await connection.execute("DEALLOCATE asked")
    plan: dict[str, Any] = json.loads(answer)[0]["Plan"]
    return plan


SAID = Report(1, tuple(NewEvent(EventKind.item, str(number)) for number in range(3)))
OWN = Report(1, tuple(NewEvent(EventKind.progress, str(number)) for number in range(2)))
FILTERS = (None, None, None, None, None, 50, None)

WANTED = Wanted({"app:send"}, 10, {"default"}, {"v1"})
AT_ONCE = 50


class Own:
    """What the worker has before any of the unwanted is there."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened

    async def make(self) -> "Own":
        store, clock = self.opened.store, self.opened.clock
        self.waiting, self.old, self.failed, self.again, self.later = [
            new_job(task="app:own", owner="own", delay=delay) for delay in (None, None, None, None, 600)
        ]
        await put(store, self.old, self.failed, self.again, self.later)
        leases = (await store.claim("worker", [Wanted({"app:own"}, 3)], "before")).leases
        await store.report([(lease, OWN) for lease in leases])
        oops = replace(OOPS, signature="own")
        ends = {self.old.id: Succeeded(), self.failed.id: Failed(oops), self.again.id: Retry(oops, 600)}
        await store.finish([(lease, ends[lease.id]) for lease in leases])
        await put(store, self.waiting)
        self.held, *running = [new_job(task="app:own") for _ in range(AT_ONCE + 1)]
        await store.enqueue([(self.held, Placement.held)], "worker")
        await store.enqueue([(job, Placement.leased) for job in running], "worker")
        self.leases = [Lease(job.id, 1, "worker", job.task, job.arguments) for job in running]
        given = [new_job(task="app:own") for _ in range(AT_ONCE)]
        await store.enqueue([(job, Placement.leased) for job in given], "worker")
        self.handed = [
            HandOver(Lease(job.id, 1, "worker", job.task, job.arguments), 30.0, is_followed=number % 2 > 0)
            for number, job in enumerate(given)
        ]
        assert await store.hand_over(self.handed) == [True] * AT_ONCE
        clock.advance(60)
        return self

    async def claim_nothing(self, opened: Opened) -> None:
        assert await opened.claim(WANTED) == []

    async def claim_one(self, opened: Opened) -> None:
        [_] = await opened.claim(Wanted({"app:own"}, 1))

    async def claim_by_name(self, opened: Opened) -> None:
        [_] = await opened.claim(Wanted({"app:own"}, 1, only=[self.waiting.id]))

    async def enqueue(self, opened: Opened) -> None:
        await entry.enqueue_plain(opened.desk, opened.connection, [(new_job(), Placement.held, "worker")])

    async def enqueue_a_unique_one(self, opened: Opened) -> None:
        await entry.enqueue_apart(opened.desk, opened.connection, [(new_job(unique="k"), Placement.held, "worker")])

    async def finish_all(self, opened: Opened) -> None:
        ends = [(lease, Succeeded()) for lease in self.leases]
        assert await moves.finish(opened.desk, opened.connection, ends, waits=False) == [True] * AT_ONCE

    async def queue_all_again(self, opened: Opened) -> None:
        ends = [(lease, Retry(OOPS, 5)) for lease in self.leases]
        assert await moves.finish(opened.desk, opened.connection, ends, waits=False) == [True] * AT_ONCE

    async def be_refused(self, opened: Opened) -> None:
        ends = [(altered(lease, attempt=2), Succeeded()) for lease in self.leases]
        assert await moves.finish(opened.desk, opened.connection, ends, waits=False) == [False] * AT_ONCE

    async def finish_all_with_something_to_say(self, opened: Opened) -> None:
        ends = [(lease, Succeeded(report=OWN)) for lease in self.leases]
        assert await moves.finish(opened.desk, opened.connection, ends, waits=False) == [True] * AT_ONCE

    async def report_all(self, opened: Opened) -> None:
        said = [(lease, OWN) for lease in self.leases]
        for _ in range(2):
            assert await streams.report(opened.desk, opened.connection, said, waits=False) == [True] * AT_ONCE

    async def read_events(self, opened: Opened) -> None:
        [stream, _] = await streams.events(opened.desk, opened.connection, [(self.old.id, 0), (self.held.id, 0)], 10)
        assert stream is not None
        assert stream.last == 2

    async def hand_all_over(self, opened: Opened) -> None:
        handed = [HandOver(lease, 60.0) for lease in self.leases]
        for _ in range(2):
            assert await handing.hand_over(opened.desk, opened.connection, handed, waits=False) == [True] * AT_ONCE

    async def begin_all(self, opened: Opened) -> None:
        messages = [handing.Message("worker", Start(one.lease.id, 1, "worker")) for one in self.handed]
        for _ in range(2):
            begun = await handing.begin(opened.desk, opened.connection, messages, waits=False)
            assert all(begun[number] == one.lease for number, one in enumerate(self.handed))

    async def begin_none(self, opened: Opened) -> None:
        messages = [handing.Message("worker", Start(one.lease.id, 2, "worker")) for one in self.handed]
        begun = await handing.begin(opened.desk, opened.connection, messages, waits=False)
        assert begun == dict.fromkeys(range(AT_ONCE))

    async def take_back(self, opened: Opened) -> None:
        asked = opened.desk.now, "worker", ["app:own", "app:unknown"], 10
        assert len(await opened.connection.fetch(opened.desk["take_back"], *asked)) == 10

    async def follow(self, opened: Opened) -> None:
        assert len(await handing.followed(opened.desk, opened.connection, ["app:own"], "", 10)) == 10

    async def show_what_is_handed_over(self, opened: Opened) -> None:
        jobs = await looks.get(opened.desk, opened.connection, [one.lease.id for one in self.handed])
        assert all(job is not None and job.handed_at is not None for job in jobs)

    async def ask_to_end(self, opened: Opened) -> None:
        assert await moves.cancel(opened.desk, opened.connection, [self.leases[0].id]) == [Ruling.asked]
        _, asked = await life.beat(opened.desk, opened.connection, "worker", False)
        assert asked == {self.leases[0].id: 1}

    async def leave(self, opened: Opened) -> None:
        await life.leave(opened.desk, opened.connection, "worker", False)

    async def hasten(self, opened: Opened) -> None:
        assert await moves.hasten(opened.desk, opened.connection, [self.later.id]) == [Ruling.done]

    async def reserve_and_complete(self, opened: Opened) -> None:
        asked = "first", "own", "k", "f", "worker"
        assert await reservations.reserve(opened.desk, opened.connection, *asked) == Reservation(Reserved.reserved)
        job = new_job(completes=Completion("first", "202"))
        await entry.enqueue_apart(opened.desk, opened.connection, [(job, Placement.held, "worker")])
        await reservations.drop(opened.desk, opened.connection, ["first"])

    async def list_ones_own(self, opened: Opened) -> None:
        jobs = await looks.searched(opened.desk, opened.connection, FILTERS, "own", None, None)
        assert len(jobs) == 5

    async def list_by_signature(self, opened: Opened) -> None:
        jobs = await looks.searched(opened.desk, opened.connection, FILTERS, None, "own", None)
        assert [job.id for job in jobs] == [self.again.id, self.failed.id]

    async def release(self, opened: Opened) -> None:
        rows = await opened.connection.fetch(opened.desk["release"], [self.held.id], ["worker"])
        assert len(rows) == 1

    async def give_back(self, opened: Opened) -> None:
        attempts = [(lease.id, lease.attempt) for lease in self.leases]
        given = await life.give_back(opened.desk, opened.connection, "worker", attempts, [], ["first"])
        assert given == [True] * AT_ONCE

    async def beat(self, opened: Opened) -> None:
        beat, _ = await life.beat(opened.desk, opened.connection, "worker", False)
        assert beat is not None
        assert len(beat.held) == AT_ONCE + 1

    async def reap(self, opened: Opened) -> None:
        reaped = await life.reap(opened.desk, opened.connection, [("nobody", None)], 2, 1.0)
        assert reaped.jobs == 0

    async def prune(self, opened: Opened) -> None:
        tidied = await tidying.tidy(opened.desk, opened.connection, {Status.succeeded: 60.0}, 10, 10)
        assert (tidied.pruned, tidied.freed) == (1, 0)

    async def sweep(self, opened: Opened) -> None:
        assert await contents.sweep(opened.desk, opened.connection, 10) == 0

    async def cancel(self, opened: Opened) -> None:
        await moves.cancel(opened.desk, opened.connection, [self.waiting.id])

    async def retry(self, opened: Opened) -> None:
        await moves.retry(opened.desk, opened.connection, [self.failed.id])

    async def get(self, opened: Opened) -> None:
        assert None not in await looks.get(opened.desk, opened.connection, [self.failed.id, self.held.id])

    async def find(self, opened: Opened) -> None:
        assert await looks.find(opened.desk, opened.connection, self.held.id, 10) == [self.held.id]

    async def count_those_ahead(self, opened: Opened) -> None:
        ahead = await stats.ahead(opened.desk, opened.connection, self.waiting.id, ["app:own"], ["default"], 10)
        assert ahead == 0

    async def look_for_news(self, opened: Opened) -> None:
        await looks.changed(opened.desk, opened.connection, opened.clock.now + 1, 10)


OPERATIONS = [name for name in vars(Own) if not name.startswith("_") and name != "make"]


@pytest.mark.parametrize("name", OPERATIONS)
async def test_an_operation_reads_the_same_whatever_else_there_is(opened: Opened, name: str) -> None:
    """Hundreds of each sort of what it does not want cost what one of each costs."""
    operation = getattr(await Own(opened).make(), name)
    await put_unwanted(opened)
    await opened.connection.execute("VACUUM ANALYZE")
    few = await opened.reads(operation)
    await multiply(opened.connection, MANY)
    await opened.connection.execute("VACUUM ANALYZE")
    assert await opened.reads(operation) <= few + 10


READ_FOR_EACH = {
    "finish_all": 6,
    "queue_all_again": 6,
    "be_refused": 6,
    "give_back": 6,
    "report_all": 6,
    "hand_all_over": 8,  # what is kept of each is looked up as well; and all of it is done again
    "begin_all": 15,
}


@pytest.mark.parametrize("name", READ_FOR_EACH)
async def test_many_attempts_are_each_looked_up(opened: Opened, name: str) -> None:
    """Also where the statistics were taken when there was nothing."""
    await analysed_when_empty(opened)
    operation = getattr(await Own(opened).make(), name)
    assert await opened.reads(operation) <= READ_FOR_EACH[name] * AT_ONCE


async def test_a_claim_reads_what_it_gives_and_not_what_waits_behind_it(opened: Opened) -> None:
    async def claim(opened: Opened) -> None:
        [_] = await opened.claim(Wanted({"app:send"}, 1))

    await put(opened.store, *(new_job() for _ in range(5)))
    few = await opened.reads(claim)
    await multiply(opened.connection, MANY)
    await opened.connection.execute("VACUUM")
    assert await opened.reads(claim) <= few


async def test_what_is_kept_in_vain_is_looked_for_a_page_at_a_time(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is in other hands; and all of it goes, page by page."""
    monkeypatch.setattr(handing, "SWEPT", 100)

    async def take_back(opened: Opened) -> None:
        await handing.take_back(opened.desk, opened.connection, "worker", ["app:unknown"], 10)

    await put_unwanted(opened)
    await multiply(opened.connection, MANY)
    await opened.connection.execute("VACUUM ANALYZE")
    assert await opened.reads(take_back) < 6 * handing.SWEPT
    kept = await opened.connection.fetchval("SELECT count(*) FROM afterward.handed")
    assert await opened.connection.fetchval(KEPT_IN_VAIN) == MANY + 1
    for _ in range(2 * kept // handing.SWEPT):
        await take_back(opened)
    assert await opened.connection.fetchval(KEPT_IN_VAIN) == 0
    assert await opened.connection.fetchval("SELECT count(*) FROM afterward.handed") == kept - MANY - 1


KEPT_IN_VAIN = """
SELECT count(*) FROM afterward.handed h WHERE NOT EXISTS (SELECT 1 FROM afterward.jobs j WHERE j.id = h.job)
"""


@pytest.mark.parametrize("status", ["running", "cancelled"])
async def test_a_list_of_what_is_rare_reads_nothing_of_what_is_not(opened: Opened, status: str) -> None:
    async def list_them(opened: Opened) -> None:
        assert await looks.listed(opened.desk, opened.connection, ([status], *FILTERS[1:])) == []

    await put(opened.store, new_job(task="app:own"))
    [lease] = (await opened.store.claim("worker", [Wanted({"app:own"}, 1)], "before")).leases
    assert await opened.store.finish([(lease, Succeeded())]) == [True]
    few = await opened.reads(list_them)
    await opened.connection.execute("UPDATE afterward.finished SET task = 'app:others'")
    await multiply(opened.connection, MANY)
    await opened.connection.execute("VACUUM ANALYZE")
    assert await opened.reads(list_them) <= few + 10


async def test_a_job_that_came_due_is_made_ready_once(opened: Opened) -> None:
    """And then is not looked at again by claims that do not want it."""
    await put(opened.store, *(new_job(task="app:unknown", delay=60) for _ in range(MANY)))
    few = await opened.reads(Own(opened).claim_nothing)
    opened.clock.advance(60)
    assert await opened.claim(WANTED) == []
    await opened.connection.execute("VACUUM")
    assert await opened.reads(Own(opened).claim_nothing) <= few + 10
