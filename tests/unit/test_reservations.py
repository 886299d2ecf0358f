"""No key stays reserved for a request that is over, whatever becomes of the answers of the store."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, cast

import pytest

from afterward import reservations
from afterward.errors import StoreUnavailable
from afterward.holdings import Holdings
from afterward.liveness import Liveness
from afterward.reservations import Reservations
from afterward.stores.base import Store
from afterward.stores.seen import Reservation, Reserved

pytestmark = pytest.mark.anyio


class Process:
    """The life of a process that is taken for dead as often as the test says; what it spawns runs here."""

    def __init__(self) -> None:
        self.process = "first"
        self.holdings = Holdings()
        self.spawned: list[asyncio.Task[None]] = []

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.spawned.append(asyncio.create_task(work()))

    async def another_identity(self, old: str) -> str:
        assert old == self.process
        self.process = "second"
        return self.process


class Keys:
    """A store of keys. `strangers`: processes that it does not know. `away`: how many more drops fail.

    `after_reserve`, `after_drop`: what happens once one is carried out, and before its answer is known.
    """

    def __init__(self) -> None:
        self.reserved: set[str] = set()
        self.strangers: set[str] = set()
        self.away = 0
        self.after_reserve: Sequence[Callable[[], Awaitable[object]]] = []
        self.after_drop: list[Callable[[], object]] = []

    async def reserve(self, reservation: str, scope: str, key: str, fingerprint: str, process: str) -> Reservation:
        if process in self.strangers:
            return Reservation(Reserved.stranger)
        self.reserved.add(reservation)
        for happens in self.after_reserve:
            await happens()
        return Reservation(Reserved.reserved)

    async def drop(self, dropped: Sequence[str]) -> None:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("the store is away")
        self.reserved.difference_update(dropped)
        while self.after_drop:
            self.after_drop.pop()()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction] - it is a fixture
    monkeypatch.setattr(reservations, "_TRY_AGAIN_SECONDS", 0)
    monkeypatch.setattr(reservations, "_LATE_SECONDS", 0)


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.fixture
def kept(keys: Keys, process: Process) -> Reservations:
    return Reservations(cast("Store", keys), cast("Liveness", process))


async def reserve(kept: Reservations) -> Reservation:
    return await kept.reserve("1", "scope", "key", "fingerprint")


async def lose_the_answer() -> None:
    raise StoreUnavailable("the connection was lost")


async def test_one_whose_answer_was_lost_is_dropped(keys: Keys, process: Process, kept: Reservations) -> None:
    """As soon as the store can do it."""
    keys.after_reserve, keys.away = [lose_the_answer], 2
    with pytest.raises(StoreUnavailable):
        await reserve(kept)
    assert keys.reserved == {"1"}
    await asyncio.gather(*process.spawned)
    assert keys.reserved == set()


async def test_one_that_is_made_after_it_was_dropped_is_dropped_once_more(
    keys: Keys, process: Process, kept: Reservations
) -> None:
    """A statement that nobody waits for any more may still be carried out."""
    keys.after_reserve = [lose_the_answer]
    keys.after_drop = [lambda: keys.reserved.add("1")]
    with pytest.raises(StoreUnavailable):
        await reserve(kept)
    await asyncio.gather(*process.spawned)
    assert (keys.after_drop, keys.reserved) == ([], set())


async def test_a_request_that_is_cancelled_while_it_reserves_leaves_nothing(
    keys: Keys, process: Process, kept: Reservations
) -> None:
    begun = asyncio.Event()

    async def take_long() -> None:
        begun.set()
        await asyncio.Event().wait()

    keys.after_reserve = [take_long]
    reserving = asyncio.create_task(reserve(kept))
    await begun.wait()
    reserving.cancel()
    await asyncio.wait({reserving})
    await asyncio.gather(*process.spawned)
    assert keys.reserved == set()


async def test_a_process_that_was_taken_for_dead_reserves_under_its_new_identity(
    keys: Keys, process: Process, kept: Reservations
) -> None:
    keys.strangers = {"first"}
    assert (await reserve(kept)).state is Reserved.reserved
    assert (process.process, keys.reserved, process.spawned) == ("second", {"1"}, [])


@pytest.mark.parametrize("at_once", [True, False])
async def test_what_cannot_be_dropped_now_is_dropped_later(
    keys: Keys, process: Process, kept: Reservations, at_once: bool
) -> None:
    """Who gives it up is not held up, and does not fail."""
    await reserve(kept)
    keys.away = 2
    await kept.drop("1", at_once=at_once)
    assert keys.reserved == {"1"}
    await asyncio.gather(*process.spawned)
    assert keys.reserved == set()


async def test_what_can_be_dropped_now_is_dropped_when_that_returns(keys: Keys, kept: Reservations) -> None:
    await reserve(kept)
    await kept.drop("1", at_once=True)
    assert keys.reserved == set()
