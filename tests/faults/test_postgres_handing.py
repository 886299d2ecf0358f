"""Jobs in the hands of another system, with the store on PostgreSQL: many hosts, and a server that goes away."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from afterward.job import Lease, Status, Succeeded
from afterward.stores.handing import HandOver, Start
from servers.postgres import Server
from tests.support.stores import Living, OtherProcess, Place, get, new_job

pytestmark = pytest.mark.anyio

MESSAGES = 200
ENDS = [Server.kill, Server.abort, Server.stop]


@pytest.fixture
async def place(own_server: Server) -> AsyncIterator[Place]:
    """A database on the server that tests stop."""
    own_server.start()
    with own_server.database() as url:
        async with AsyncExitStack() as cleanup:
            yield Place("postgres", url, cleanup)
            own_server.start()


async def sent(relay: Living, count: int) -> list[Start]:
    """Messages of so many jobs that are leased to it, and not said to be handed over yet."""
    return [Start((await relay.leased(new_job())).id, 1, relay.id) for _ in range(count)]


def handed(relay: Living, starts: list[Start]) -> list[HandOver]:
    return [HandOver(Lease(start.id, start.attempt, relay.id, "app:send", "{}"), 60.0) for start in starts]


async def test_of_two_hosts_that_begin_the_same_messages_at_the_same_moment_one_begins_each(place: Place) -> None:
    """Whether it is handed over by then, or about to be; and each is told which are its own."""
    relay = await place.process("relay")
    hosts: dict[str, OtherProcess] = {name: place.living_elsewhere(name) for name in ("host-1", "host-2")}
    starts = await sent(relay, MESSAGES)
    assert all(await relay.store.hand_over(handed(relay, starts[::2])))
    for name, host in hosts.items():
        host.begin("begin", name, starts if name == "host-1" else starts[::-1])
    handing_over = relay.store.hand_over(handed(relay, starts[1::2]))
    answers: dict[str, list[Lease | None]] = {name: host.answer() for name, host in hosts.items()}
    answers["host-2"].reverse()
    for start, first, second in zip(starts, *answers.values(), strict=True):
        [begun] = [lease for lease in (first, second) if lease is not None]
        job = await get(relay.store, start.id)
        assert (job.status, job.attempt, job.process, job.handed_at) == (Status.running, 1, begun.process, None)
    await handing_over
    ends = [(lease, Succeeded()) for leases in answers.values() for lease in leases if lease is not None]
    assert await relay.store.finish(ends) == [True] * MESSAGES
    for host in hosts.values():
        assert host.call("begin", "host-1", starts) == [None] * MESSAGES


@pytest.mark.parametrize("end", ENDS)
async def test_a_server_that_ends_between_the_hand_over_and_the_begin_forgets_neither(
    place: Place, own_server: Server, end: Callable[[Server], None]
) -> None:
    relay, host, late = [await place.process() for _ in range(3)]
    starts = await sent(relay, 2)
    assert await relay.store.hand_over(handed(relay, starts)) == [True, True]
    end(own_server)
    own_server.start()
    [first] = await host.store.begin(host.id, starts[:1])
    assert first is not None
    end(own_server)
    own_server.start()
    assert await late.store.begin(late.id, starts[:1]) == [None]
    assert await host.store.begin(host.id, starts[:1]) == [first]
    assert await relay.store.hand_over(handed(relay, starts)) == [False, True]
    place.clock.advance(60)
    taken = await relay.store.take_back(relay.id, {"app:send"}, 10)
    assert [lease.id for lease in taken.leases] == [starts[1].id]
    end(own_server)
    own_server.start()
    assert await relay.store.hand_over(handed(relay, starts[1:])) == [True]
    [second] = await late.store.begin(late.id, starts[1:])
    assert second is not None
    assert (second.attempt, second.process) == (1, late.id)
    assert await host.store.finish([(first, Succeeded()), (second, Succeeded())]) == [True, True]
