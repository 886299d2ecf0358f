"""What processes say of themselves: `describe`, `processes`, `tasks_seen`."""

from datetime import UTC, datetime

import pytest

from afterward.job import Placement
from afterward.stores.base import Store
from afterward.stores.seen import Served, TaskSeen
from tests.support.stores import MORNING, Living, Place, new_job

pytestmark = pytest.mark.anyio

SERVED = Served({"app:send": "v1", "app:resize": "v2"}, ["default", "slow"], 10, 4, "1.2", frozenset({"app:resize"}))


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(MORNING + seconds, UTC)


async def test_nobody_is_there_at_first(store: Store) -> None:
    assert await store.processes() == []
    assert await store.tasks_seen() == []


async def test_a_process_shows_what_it_serves_and_runs(worker: Living) -> None:
    lease, second = await worker.leased(new_job()), await worker.leased(new_job())
    await worker.enqueue(new_job(), placement=Placement.held)
    [seen] = await worker.store.processes()
    assert (seen.id, seen.pid, seen.host, seen.joined_at) == (worker.id, 4711, "example", at(0))
    assert seen.served is None
    assert list(seen.running) == [lease.id, second.id]
    assert await worker.store.describe(worker.id, SERVED)
    [seen] = await worker.store.processes()
    assert seen.served is not None
    assert (dict(seen.served.tasks), list(seen.served.queues or ())) == (dict(SERVED.tasks), ["default", "slow"])
    assert (seen.served.concurrency, seen.served.threads, seen.served.version) == (10, 4, "1.2")
    assert set(seen.served.threaded) == {"app:resize"}


async def test_what_is_said_anew_replaces_what_was_said(worker: Living) -> None:
    assert await worker.store.describe(worker.id, SERVED)
    assert await worker.store.describe(worker.id, Served({"app:send": "v3"}, None, 1, 0))
    [seen] = await worker.store.processes()
    assert seen.served is not None
    assert (dict(seen.served.tasks), seen.served.queues, seen.served.version) == ({"app:send": "v3"}, None, "")


async def test_a_beat_leaves_what_was_said(worker: Living) -> None:
    assert await worker.store.describe(worker.id, SERVED)
    await worker.look()
    [seen] = await worker.store.processes()
    assert seen.served is not None


async def test_who_has_no_row_serves_nothing(worker: Living) -> None:
    assert not await worker.store.describe("nobody", SERVED)
    assert [seen.id for seen in await worker.store.processes()] == [worker.id]
    assert await worker.store.tasks_seen() == []


async def test_the_one_that_joined_last_comes_first(place: Place) -> None:
    living: list[Living] = []
    for _ in range(3):
        living.append(await place.process())
        place.clock.advance(1)
    assert [seen.id for seen in await living[0].store.processes()] == [each.id for each in reversed(living)]


async def test_who_has_left_or_died_is_not_seen_any_more(place: Place, worker: Living, other: Living) -> None:
    """Nor is what it served, when another comes by its name; its tasks were seen all the same."""
    third = await place.process("third")
    for living in (other, third):
        assert await living.store.describe(living.id, SERVED)
    await other.store.leave(other.id)
    await worker.store.reap([(third.id, None)], 2, 1.0)
    assert [seen.id for seen in await worker.store.processes()] == [worker.id]
    await place.process("third")
    assert [(seen.id, seen.served) for seen in await worker.store.processes() if seen.id == "third"] == [
        ("third", None)
    ]
    assert [seen.task for seen in await worker.store.tasks_seen()] == ["app:resize", "app:send"]


async def test_a_task_is_seen_in_the_version_that_served_it_last(place: Place, worker: Living, other: Living) -> None:
    await worker.store.describe(worker.id, SERVED)
    place.clock.advance(60)
    await other.store.describe(other.id, Served({"app:send": "v3", "app:new": "v1"}, None, 1, 1, "1.3"))
    assert await worker.store.tasks_seen() == [
        TaskSeen("app:new", "1.3", at(60)), TaskSeen("app:resize", "1.2", at(0)), TaskSeen("app:send", "1.3", at(60)),
    ]  # fmt: skip


async def test_a_process_that_serves_no_task_yet_says_so(worker: Living) -> None:
    assert await worker.store.describe(worker.id, Served({}, [], 1, 1))
    [seen] = await worker.store.processes()
    assert seen.served is not None
    assert (dict(seen.served.tasks), list(seen.served.queues or ["?"])) == ({}, ["?"])
