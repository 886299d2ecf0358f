"""Following what jobs say: one look at the store for all who ask, and nobody misses anything."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from afterward.errors import StoreUnavailable
from afterward.stores.seen import Stream
from afterward.web.tail import PAGE, TASKS, Tail, Tails
from tests.support.telling import TellingStore
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio


@pytest.fixture
def store() -> TellingStore:
    return TellingStore()


@pytest.fixture
async def tail(store: TellingStore) -> AsyncIterator[Tail]:
    """Nothing of it is left when a test is over."""
    yield Tail(store.as_store)
    await soon(nobody_looks, "all that followed has ended")


def nobody_looks() -> bool:
    return all(task.get_name() != TASKS for task in asyncio.all_tasks())


def has_events(found: Stream) -> bool:
    return bool(found.events)


async def said_after(tail: Tail, job: str, after: int = 0) -> list[int] | None:
    """The numbers of what a job has said after one of them, as soon as there is any."""
    found = await tail.more(job, after, has_events)
    return None if found is None else [event.number for event in found.events]


def begin(tail: Tail, job: str, after: int = 0) -> "asyncio.Task[list[int] | None]":
    return asyncio.create_task(said_after(tail, job, after))


async def waiting(store: TellingStore, *jobs: str) -> None:
    """Until these have been looked for and are watched."""
    await soon(lambda: store.asked and set(jobs) <= {job for job, _ in store.asked[-1]}, "they are looked for")
    await asyncio.sleep(0)


async def test_what_is_there_is_given_at_once_and_no_more_than_a_page(tail: Tail, store: TellingStore) -> None:
    store.new("a").say(*range(PAGE + 1))
    assert await said_after(tail, "a") == list(range(1, PAGE + 1))
    assert await said_after(tail, "a", PAGE) == [PAGE + 1]
    assert store.asked == [[("a", 0)], [("a", PAGE)]]


async def test_who_waits_is_told_as_soon_as_the_store_tells(
    tail: Tail, store: TellingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No pause has to pass for that."""
    monkeypatch.setattr("afterward.web.tail._FIRST_PAUSE", 60.0)
    monkeypatch.setattr("afterward.web.tail._LONGEST_PAUSE", 60.0)
    store.new("a")
    asked = begin(Tail(store.as_store), "a")
    await waiting(store, "a")
    store.say("a", "something")
    assert await asked == [1]


async def test_what_is_said_elsewhere_is_found_after_a_pause(tail: Tail, store: TellingStore) -> None:
    store.tells = False
    store.new("a")
    asked = begin(tail, "a")
    await waiting(store, "a")
    store.say("a", "something")
    assert await asked == [1]


async def test_pauses_grow_while_nothing_is_said_and_are_short_again_when_something_is(
    store: TellingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.tells = False
    monkeypatch.setattr("afterward.web.tail._FIRST_PAUSE", 0.002)
    monkeypatch.setattr("afterward.web.tail._LONGEST_PAUSE", 0.005)
    tail = Tail(store.as_store)
    job = store.new("a")
    asked = begin(tail, "a")
    await soon(lambda: len(store.pauses) >= 4)
    job.say("something")
    await asked
    assert store.pauses[:4] == [pytest.approx(0.002 * 1.5**n) for n in range(3)] + [0.005]
    store.pauses.clear()
    asked = begin(tail, "a", 1)
    await soon(lambda: store.pauses)
    assert store.pauses[0] == 0.002
    asked.cancel()


async def test_all_who_wait_are_looked_for_in_one_look(tail: Tail, store: TellingStore) -> None:
    store.tells = False
    for job in ("a", "b"):
        store.new(job)
    asked = [begin(tail, "a"), begin(tail, "a"), begin(tail, "b")]
    await waiting(store, "a", "b")
    looks = len(store.asked)
    await soon(lambda: len(store.asked) > looks)
    assert sorted(store.asked[-1]) == [("a", 0), ("b", 0)]
    store.say("a", 1)
    store.say("b", 2)
    assert await asyncio.gather(*asked) == [[1], [1], [1]]


async def test_who_comes_later_is_looked_for_at_once_and_alone(
    store: TellingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its job is followed already; those who wait have been looked for."""
    monkeypatch.setattr("afterward.web.tail._FIRST_PAUSE", 60.0)
    tail = Tail(store.as_store)
    store.new("a").say("first")
    early = begin(tail, "a", 1)
    await waiting(store, "a")
    assert await said_after(tail, "a") == [1]
    assert store.asked == [[("a", 1)], [("a", 0)]]
    store.say("a", "second")
    assert await early == [2]


async def test_a_job_that_is_followed_later_is_watched_as_well(
    store: TellingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afterward.web.tail._FIRST_PAUSE", 60.0)
    tail = Tail(store.as_store)
    for job in ("a", "b"):
        store.new(job)
    first = begin(tail, "a")
    await waiting(store, "a")
    second = begin(tail, "b")
    await waiting(store, "b")
    store.say("b", "something")
    assert await second == [1]
    store.say("a", "something")
    assert await first == [1]


async def test_a_job_that_is_asked_for_just_as_others_begin_to_be_watched_is_watched_as_well(
    store: TellingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afterward.web.tail._FIRST_PAUSE", 60.0)
    monkeypatch.setattr("afterward.web.tail._LONGEST_PAUSE", 60.0)
    tail = Tail(store.as_store)
    for job in ("a", "b"):
        store.new(job)

    async def a_moment_later() -> list[int] | None:
        await asyncio.sleep(0)
        return await said_after(tail, "b")

    first, second = begin(tail, "a"), asyncio.create_task(a_moment_later())
    await waiting(store, "b")
    await soon(lambda: store.watchers and len(store.pauses) == 2, "both are watched")
    store.say("b", "something")
    assert await second == [1]
    first.cancel()


async def test_nothing_is_missed_between_two_looks(store: TellingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said while the store is looked at, and after what it answers, is told of."""
    monkeypatch.setattr("afterward.web.tail._FIRST_PAUSE", 60.0)
    events: Callable[..., Any] = store.events

    def events_and_then_something(asked: list[tuple[str, int]], limit: int) -> Any:
        answer = events(asked, limit)
        if len(store.asked) == 1:
            store.say("a", "something")
        return answer

    monkeypatch.setattr(store, "events", events_and_then_something)
    store.new("a")
    assert await said_after(Tail(store.as_store), "a") == [1]
    assert len(store.asked) == 2


async def test_nobody_is_looked_for_who_does_not_wait(tail: Tail, store: TellingStore) -> None:
    """One whose client is gone, or slow, costs nothing."""
    store.new("a")
    store.new("b")
    leaving, staying = begin(tail, "a"), begin(tail, "b")
    await waiting(store, "a", "b")
    leaving.cancel()
    looks = len(store.asked)
    await soon(lambda: len(store.asked) > looks)
    assert store.asked[-1] == [("b", 0)]
    staying.cancel()
    await asyncio.wait({staying})
    await soon(nobody_looks)


async def test_a_store_that_is_down_is_waited_for(tail: Tail, store: TellingStore) -> None:
    """Without more looks than there are pauses."""
    store.new("a").say("something")
    store.is_down = True
    asked = begin(tail, "a")
    await soon(lambda: len(store.asked) >= 2)
    assert not asked.done()
    store.is_down = False
    assert await asked == [1]
    assert len(store.asked) == len(store.pauses)


async def test_a_watch_that_fails_is_as_one_that_tells_nothing(
    store: TellingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def watch(jobs: list[str], seconds: float) -> None:
        store.pauses.append(seconds)
        raise StoreUnavailable("it is down")

    monkeypatch.setattr(store, "watch", watch)
    job = store.new("a")
    asked = begin(Tail(store.as_store), "a")
    await waiting(store, "a")
    assert len(store.pauses) == 1
    job.say("something")
    assert await asked == [1]
    assert len(store.asked) == len(store.pauses) == 2


async def test_a_job_that_is_unknown_has_no_stream(tail: Tail) -> None:
    assert await said_after(tail, "a") is None


async def test_a_mistake_in_looking_ends_the_streams_and_not_those_that_come_after(store: TellingStore) -> None:
    tail = Tail(store.as_store)

    def fails(found: Stream) -> bool:
        raise ZeroDivisionError

    store.new("a")
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(tail.more("a", 0, fails), 5)
    store.say("a", "something")
    assert await said_after(tail, "a") == [1]


async def test_at_the_end_nobody_waits_any_more(store: TellingStore) -> None:
    """Those who wait are answered, those who come later too; until streams go on again."""
    tails = Tails()
    store.new("a")
    asked = [begin(tails.at(store.as_store), "a") for _ in range(2)]
    await waiting(store, "a")
    await asyncio.to_thread(tails.end)
    assert await asyncio.gather(*asked) == [None, None]
    store.say("a", "something")
    assert await said_after(tails.at(store.as_store), "a") is None
    tails.begin()
    assert await said_after(tails.at(store.as_store), "a") == [1]


async def test_streams_of_one_loop_and_store_follow_together(store: TellingStore) -> None:
    tails = Tails()
    assert tails.at(store.as_store) is tails.at(store.as_store)
    assert tails.at(store.as_store) is not tails.at(TellingStore().as_store)
    assert tails.at(store.as_store) is not await asyncio.to_thread(asyncio.run, at(tails, store))
    tails.end()  # the loop of the other is closed


async def at(tails: Tails, store: TellingStore) -> Tail:
    return tails.at(store.as_store)
