"""PostgreSQL: an old transaction keeps dead entries in every index, and what is done all the time passes over them."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from afterward.identity import new_id
from afterward.job import Lease, Process, Released, Succeeded
from afterward.stores.base import Beat, Claimed, Store, Wanted
from afterward.stores.postgres import PostgresStore, claims, life, moves
from afterward.stores.postgres.address import address_of
from afterward.stores.postgres.bookmarks import Bookmarks
from afterward.stores.postgres.connection import Connection, connect
from afterward.stores.postgres.desk import Desk, desk_for
from afterward.stores.postgres.pace import Pace
from tests.support.stores import Clock, ids, new_job, put

pytestmark = pytest.mark.anyio

PAGE = 50
FEW = 100
"""How many dead entries a full look passes over here before bookmarks are used."""

READ = "SELECT pg_stat_get_xact_tuples_returned('afterward.jobs_ready'::regclass)"
PAGES = "SELECT pg_stat_get_xact_blocks_fetched('afterward.jobs_ready'::regclass)"


@dataclass
class Opened:
    """A store in which an old transaction stays open; a connection that claims; and a watch that stands still."""

    store: Store
    connection: Connection
    queries: dict[str, str]
    watch: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.desk = Desk(self.queries, None, Bookmarks(FEW, self.watch), Pace(self.watch))

    async def claim(self, *tasks: str, limit: int = PAGE, token: str | None = None) -> Claimed:
        wanted = [Wanted(tasks or {"app:send"}, limit)]
        return await claims.claim(self.desk, self.connection, "worker", wanted, token or new_id())

    async def beat(self) -> Beat:
        beat, _ = await life.beat(self.desk, self.connection, "worker", False)
        assert beat is not None
        return beat

    async def reads(self) -> int:
        """Claim and finish a page; how many entries of the index of what is ready the claim has read."""
        before = await self.connection.fetchval(READ)
        leases = (await self.claim()).leases
        after = await self.connection.fetchval(READ)
        assert len(leases) == PAGE
        await self.finish(leases)
        return int(after - before)

    async def finish(self, leases: list[Lease]) -> None:
        ends = [(lease, Succeeded()) for lease in leases]
        assert await moves.finish(self.desk, self.connection, ends, waits=False) == [True] * len(leases)

    async def leave_dead_entries(self) -> None:
        """More than a few, and a full look that has seen them."""
        for _ in range(2):
            await put(self.store, *(new_job() for _ in range(PAGE)))
            await self.reads()


@pytest.fixture
async def opened(postgres_url: str) -> AsyncIterator[Opened]:
    async with a_store(postgres_url, has_old_transaction=True) as opened:
        yield opened


@asynccontextmanager
async def a_store(postgres_url: str, *, has_old_transaction: bool) -> AsyncGenerator[Opened]:
    store = PostgresStore(postgres_url)
    await store.open()
    await store.join(Process("worker", 1, "example"))
    connection, old = [await connect(address_of(postgres_url), 5.0) for _ in range(2)]
    if has_old_transaction:
        await old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await old.execute("SELECT 1 FROM afterward.store")
    try:
        yield Opened(store, connection, desk_for("afterward", None).queries)
    finally:
        await old.close()
        await connection.close()
        await store.leave("worker")
        await store.close()


async def test_a_claim_reads_the_same_however_much_was_claimed_since_the_old_transaction_began(opened: Opened) -> None:
    await opened.leave_dead_entries()
    read: list[int] = []
    for _ in range(6):
        await put(opened.store, *(new_job() for _ in range(PAGE)))
        read.append(await opened.reads())
    assert max(read) <= 2 * PAGE


async def test_claims_go_on_in_order(opened: Opened) -> None:
    await opened.leave_dead_entries()
    waiting = await put(opened.store, *(new_job() for _ in range(9)))
    given = [await opened.claim(limit=3) for _ in range(3)]
    assert [id_ for claimed in given for id_ in ids(claimed.leases)] == waiting
    assert all(claimed.more for claimed in given)


async def test_what_stands_elsewhere_is_found_by_the_next_full_look(opened: Opened) -> None:
    """More urgent jobs, other tasks, and jobs that were given back."""
    await put(opened.store, new_job())
    [early] = (await opened.claim()).leases
    await opened.leave_dead_entries()
    urgent, other = await put(opened.store, new_job(priority=5), new_job(task="app:other"))
    await moves.finish(opened.desk, opened.connection, [(early, Released("a shutdown"))], waits=False)
    await put(opened.store, *(new_job() for _ in range(PAGE)))
    assert len((await opened.claim(limit=PAGE - 1)).leases) == PAGE - 1, "at the bookmark"
    opened.watch.advance(60)
    claimed = await opened.claim("app:send", "app:other", limit=3)
    assert set(ids(claimed.leases)) == {urgent, other, early.id}


async def test_a_queue_that_is_paused_is_passed_over_at_the_bookmarks_as_well(opened: Opened) -> None:
    await opened.leave_dead_entries()
    waiting = await put(opened.store, *(new_job() for _ in range(2)))
    opened.desk.bookmarks.looked(0.05, opened.desk.bookmarks.text())
    await opened.store.pause("default", "ada")
    claimed = await opened.claim()
    assert (claimed.leases, claimed.paused) == ([], {"default"})
    await opened.store.resume("default")
    claimed = await opened.claim()
    assert (ids(claimed.leases), claimed.paused) == (waiting, frozenset())


async def test_a_claim_that_finds_nothing_makes_a_full_look_unless_these_take_a_tenth_of_the_time(
    opened: Opened,
) -> None:
    await opened.leave_dead_entries()
    [other] = await put(opened.store, new_job(task="app:other"))
    opened.desk.bookmarks.looked(0.05, "[]")
    claimed = await opened.claim("app:other")
    assert (claimed.leases, claimed.more) == ([], False)
    assert claimed.next_due == pytest.approx(0.45)
    opened.watch.advance(0.46)
    assert ids((await opened.claim("app:other")).leases) == [other]


async def test_a_claim_reads_few_pages_of_the_index_however_many_were_claimed_since_the_last_vacuum(
    postgres_url: str,
) -> None:
    """Without an old transaction too: nobody reads their entries twice, but the pages that are full of them."""
    async with a_store(postgres_url, has_old_transaction=False) as opened:
        await opened.connection.execute("ALTER TABLE afterward.jobs SET (autovacuum_enabled = off)")
        opened.desk.bookmarks.most_dead = 1000
        for _ in range(10):
            await put(opened.store, *(new_job() for _ in range(500)))
            await opened.finish((await opened.claim(limit=500)).leases)
        await put(opened.store, *(new_job() for _ in range(20)))
        assert len((await opened.claim(limit=10)).leases) == 10
        before = await opened.connection.fetchval(PAGES)
        assert len((await opened.claim(limit=10)).leases) == 10
        assert await opened.connection.fetchval(PAGES) - before <= 8


async def test_a_claim_that_is_said_again_gives_the_same(opened: Opened) -> None:
    await opened.leave_dead_entries()
    await put(opened.store, *(new_job() for _ in range(5)))
    first = await opened.claim(limit=3, token="token")
    assert ids((await opened.claim(limit=3, token="token")).leases) == ids(first.leases)


async def test_a_full_look_that_passes_over_little_ends_the_use_of_bookmarks(opened: Opened) -> None:
    await opened.leave_dead_entries()
    assert opened.desk.bookmarks.text() is not None
    opened.desk.bookmarks.most_dead = 10_000
    opened.watch.advance(60)
    await opened.claim()
    assert opened.desk.bookmarks.text() is None


async def test_a_beat_looks_at_what_is_held_for_a_tenth_of_the_time_at_most_and_beats_all_the_same(
    opened: Opened,
) -> None:
    await opened.leave_dead_entries()
    await put(opened.store, new_job())
    [lease] = (await opened.claim()).leases
    look = await opened.beat()
    assert (look.has_looked, set(look.held)) == (True, {lease.id})
    opened.desk.looks.done(0.2)
    beat = await opened.beat()
    assert (beat.has_looked, beat.held, beat.has_orphans) == (False, {}, False)
    opened.watch.advance(1.9)
    assert set((await opened.beat()).held) == {lease.id}
    counted = await opened.connection.fetchval("SELECT beat FROM afterward.processes WHERE id = 'worker'")
    assert counted == 3


async def test_a_look_that_was_long_is_paused_after_and_a_short_one_is_not(opened: Opened) -> None:
    await opened.beat()
    assert opened.desk.looks.seconds_left == 0
    await opened.leave_dead_entries()
    await opened.beat()
    assert opened.desk.looks.seconds_left > 0
