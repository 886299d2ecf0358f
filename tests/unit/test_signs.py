"""A life in a store that proves no death: it is looked for by signs, and decided by counters."""

import logging
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from afterward.errors import StoreUnavailable
from afterward.identity import new_id
from afterward.job import NewJob, Placement, Process, Status
from afterward.liveness import Liveness
from afterward.stores.base import Beat, Reaped
from afterward.stores.sqlite import SQLiteStore
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio

LEASE = 2.0
BEAT = LEASE / 5


class SignsOnly(SQLiteStore):
    """A store whose deaths nothing proves: the test says who shows a sign of death, and when it is out of reach."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.signs: set[str] = set()
        self.refusals = 0
        self.beats: list[float] = []
        self.reaped: list[list[tuple[str, int | None]]] = []

    @property
    def proves_death(self) -> bool:
        return False

    async def dead(self) -> list[str]:
        return []

    async def beat(self, process: str) -> Beat | None:
        self.beats.append(time.monotonic())
        if self.refusals:
            self.refusals -= 1
            raise StoreUnavailable("the connection is lost")
        beat = await super().beat(process)
        return beat and replace(beat, signs=frozenset(self.signs & beat.others.keys()))

    async def reap(self, buried: Iterable[tuple[str, int | None]], suspect_after: int, suspect_delay: float) -> Reaped:
        self.reaped.append(list(buried))
        return await super().reap(buried, suspect_after, suspect_delay)


@pytest.fixture
async def store(tmp_path: Path) -> SignsOnly:
    return SignsOnly(tmp_path / "jobs.db")


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    """The same store, as another process sees it, that has joined and runs jobs."""
    store = SQLiteStore(tmp_path / "jobs.db")
    await store.open()
    await store.join(Process("other", 1, "example"))
    jobs = [NewJob(new_id(), "app:send", "default", 0, "{}") for _ in range(450)]
    await store.enqueue([(job, Placement.leased) for job in jobs], "other")
    yield store
    await store.close()


async def count(store: SQLiteStore, status: Status) -> int:
    return len(await store.list(status=status, limit=1000))


async def test_one_that_shows_a_sign_and_stands_still_is_buried_by_its_counter(
    store: SignsOnly, other: SQLiteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """All its jobs are queued again, and its death is told once."""
    caplog.set_level(logging.WARNING, "afterward")
    await other.beat("other")
    liveness = Liveness(store, LEASE)
    await liveness.start()
    store.signs.add("other")
    began = time.monotonic()
    await soon(lambda: len(store.reaped) == 3, "its jobs are queued again, page by page")
    assert time.monotonic() - began >= 1.25 * BEAT
    await liveness.stop()
    assert store.reaped == [[("other", 1)]] * 3
    assert caplog.messages == ["process.died process=other jobs=450"]
    assert await count(other, Status.queued) == 450
    assert await other.beat("other") is None


async def test_one_whose_counter_moves_is_never_buried_for_a_sign(store: SignsOnly, other: SQLiteStore) -> None:
    liveness = Liveness(store, LEASE)
    await liveness.start()
    store.signs.add("other")
    until = len(store.beats) + 8
    while len(store.beats) < until:
        seen = len(store.beats)
        assert await other.beat("other") is not None
        await soon(lambda seen=seen: len(store.beats) > seen, "the next look")
    await liveness.stop()
    assert store.reaped == []
    assert await count(other, Status.running) == 450


async def test_one_that_wakes_up_in_the_last_moment_keeps_everything(store: SignsOnly, other: SQLiteStore) -> None:
    """Between the look that condemned it and the burial: its counter is compared again."""

    class Waking(SignsOnly):
        async def reap(
            self, buried: Iterable[tuple[str, int | None]], suspect_after: int, suspect_delay: float
        ) -> Reaped:
            await other.beat("other")
            return await super().reap(buried, suspect_after, suspect_delay)

    waking = Waking(Path(store.location))
    liveness = Liveness(waking, LEASE)
    await liveness.start()
    waking.signs.add("other")
    await soon(lambda: waking.reaped, "a burial")
    waking.signs.clear()
    await liveness.stop()
    assert await count(other, Status.running) == 450


async def test_after_the_store_was_out_of_reach_signs_count_again_when_all_have_had_time(
    store: SignsOnly, other: SQLiteStore
) -> None:
    """They were cut off as well: who is slower to come back has not died of it."""
    liveness = Liveness(store, LEASE)
    await liveness.start()
    store.refusals = 2
    store.signs.add("other")
    await soon(lambda: not store.refusals, "the store is back")
    back = len(store.beats)
    await soon(lambda: len(store.beats) >= back + 4, "some looks")
    assert store.reaped == []
    assert await other.beat("other") is not None, "it is back too"
    store.signs.clear()
    await liveness.stop()
    assert await count(other, Status.running) == 450


async def test_a_heartbeat_reaps_only_when_there_is_something_to_reap(store: SignsOnly, other: SQLiteStore) -> None:
    """So that an idle one makes one write. What a reaper left that died between its pages is found, page by page."""
    liveness = Liveness(store, LEASE)
    await liveness.start()
    for _ in range(3):
        await liveness.beat()
    assert store.reaped == []
    await other.reap([("other", None)], 2, 1.0)
    for _ in range(4):
        await liveness.beat()
    assert store.reaped == [[], []]
    await liveness.stop()
    assert await count(other, Status.queued) == 450
