"""PostgreSQL: an old transaction keeps dead entries in every index, and claims pass over them at no cost."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from afterward.identity import new_id
from afterward.job import Lease, Process, Released, Succeeded
from afterward.stores.base import Claimed, Store, Wanted
from afterward.stores.postgres import PostgresStore, claims, moves
from afterward.stores.postgres.address import address_of
from afterward.stores.postgres.bookmarks import Bookmarks
from afterward.stores.postgres.connection import Connection, connect
from afterward.stores.postgres.desk import Desk, desk_for
from tests.support.stores import Clock, ids, new_job, put

pytestmark = pytest.mark.anyio

PAGE = 50
FEW = 20
"""How many dead entries a full look passes over here before bookmarks are used."""

READ = "SELECT pg_stat_get_xact_tuples_returned('afterward.jobs_ready'::regclass)"


@dataclass
class Opened:
    """A store in which an old transaction stays open; a connection that claims; and a watch that stands still."""

    store: Store
    connection: Connection
    queries: dict[str, str]
    watch: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.desk = Desk(self.queries, None, Bookmarks(FEW, self.watch))

    async def claim(self, *tasks: str, limit: int = PAGE, token: str | None = None) -> Claimed:
        wanted = [Wanted(tasks or {"app:send"}, limit)]
        return await claims.claim(self.desk, self.connection, "worker", wanted, token or new_id())

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
    store = PostgresStore(postgres_url)
    await store.open()
    await store.join(Process("worker", 1, "example"))
    connection, old = [await connect(address_of(postgres_url), 5.0) for _ in range(2)]
    await old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await old.execute("SELECT 1 FROM afterward.store")
    yield Opened(store, connection, desk_for("afterward", None).queries)
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


async def test_what_stands_elsewhere_is_found_by_the_next_full_look_within_a_second(opened: Opened) -> None:
    """More urgent jobs, other tasks, and jobs that were given back."""
    await put(opened.store, new_job())
    [early] = (await opened.claim()).leases
    await opened.leave_dead_entries()
    urgent, other = await put(opened.store, new_job(priority=5), new_job(task="app:other"))
    await moves.finish(opened.desk, opened.connection, [(early, Released("a shutdown"))], waits=False)
    await put(opened.store, *(new_job() for _ in range(PAGE)))
    assert len((await opened.claim(limit=PAGE - 1)).leases) == PAGE - 1, "at the bookmark"
    opened.watch.advance(1)
    claimed = await opened.claim("app:send", "app:other", limit=3)
    assert set(ids(claimed.leases)) == {urgent, other, early.id}


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


async def test_a_claim_that_is_said_again_gives_the_same(opened: Opened) -> None:
    await opened.leave_dead_entries()
    await put(opened.store, *(new_job() for _ in range(5)))
    first = await opened.claim(limit=3, token="token")
    assert ids((await opened.claim(limit=3, token="token")).leases) == ids(first.leases)


async def test_a_full_look_that_passes_over_little_ends_the_use_of_bookmarks(opened: Opened) -> None:
    await opened.leave_dead_entries()
    assert opened.desk.bookmarks.text() is not None
    opened.desk.bookmarks.most_dead = 10_000
    opened.watch.advance(1)
    await opened.claim()
    assert opened.desk.bookmarks.text() is None
