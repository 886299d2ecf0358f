"""Keys of requests: reserved for one of them, completed with the job that it stores."""

import asyncio
from typing import Any

import pytest

from afterward.identity import new_id
from afterward.job import Completion, NewJob, OnDuplicate, Placement, Status, Stored
from afterward.stores.base import Store
from afterward.stores.seen import Reservation, Reserved
from tests.support.stores import Living, Place, get, new_file, new_job, put

pytestmark = pytest.mark.anyio

RESERVED, IN_FLIGHT, OTHER, STRANGER = (
    Reservation(state) for state in (Reserved.reserved, Reserved.in_flight, Reserved.other, Reserved.stranger)
)
DAY = 86_400.0


async def reserve(living: Living, reservation: str = "first", **changes: Any) -> Reservation:
    """By a request that differs from others of these tests in what the test says."""
    said: dict[str, Any] = {"scope": "ada POST /send", "key": "k", "fingerprint": "f", "process": living.id} | changes
    return await living.store.reserve(reservation, *said.values())


def completing(reservation: str = "first", answer: str = "202", **changes: Any) -> NewJob:
    return new_job(completes=Completion(reservation, answer), **changes)


async def test_a_key_is_one_requests_until_it_is_completed(worker: Living, other: Living) -> None:
    assert await reserve(worker) == RESERVED
    assert await reserve(worker, "second") == IN_FLIGHT
    assert await reserve(other, "second") == IN_FLIGHT
    await put(worker.store, completing())
    assert await reserve(other, "second") == Reservation(Reserved.completed, "202")


async def test_the_same_key_for_something_else_is_refused(worker: Living) -> None:
    """While it is under way, and after."""
    await reserve(worker)
    assert await reserve(worker, "second", fingerprint="g") == OTHER
    await put(worker.store, completing())
    assert await reserve(worker, "second", fingerprint="g") == OTHER


async def test_another_scope_and_another_key_are_others(worker: Living) -> None:
    await reserve(worker)
    assert await reserve(worker, "second", scope="grace POST /send") == RESERVED
    assert await reserve(worker, "third", key="k2") == RESERVED


async def test_it_is_reserved_again_for_the_same_reservation(worker: Living) -> None:
    """Whose answer was lost."""
    for _ in range(2):
        assert await reserve(worker) == RESERVED
    assert await reserve(worker, "second") == IN_FLIGHT


async def test_what_is_dropped_can_be_reserved_anew(worker: Living) -> None:
    await reserve(worker)
    for _ in range(2):
        await worker.store.drop(["first", "unheard of"])
    assert await reserve(worker, "second", fingerprint="g") == RESERVED
    await worker.store.drop(["first"])
    assert await reserve(worker, "third", fingerprint="g") == IN_FLIGHT
    await worker.store.drop([])


async def test_what_is_completed_cannot_be_dropped(worker: Living) -> None:
    await reserve(worker)
    await put(worker.store, completing())
    await worker.store.drop(["first"])
    assert await reserve(worker, "second") == Reservation(Reserved.completed, "202")


async def test_who_has_no_row_reserves_nothing(worker: Living) -> None:
    """Whoever has the key, and though nobody has."""
    assert await reserve(worker, process="nobody") == STRANGER
    assert await reserve(worker) == RESERVED
    assert await reserve(worker, "second", process="nobody") == STRANGER


@pytest.mark.parametrize("how", ["has left", "is dead"])
async def test_what_a_process_reserved_that_is_gone_another_may_have(worker: Living, other: Living, how: str) -> None:
    await reserve(other)
    if how == "has left":
        await other.store.leave(other.id)
    else:
        await worker.store.reap([(other.id, None)], 2, 1.0)
    assert await reserve(worker, "second", fingerprint="g") == RESERVED
    assert await reserve(worker, "third", fingerprint="g") == IN_FLIGHT


async def test_what_was_completed_by_a_process_that_is_gone_stays_so(worker: Living, other: Living) -> None:
    await reserve(other)
    await put(other.store, completing())
    await other.store.leave(other.id)
    assert await reserve(worker, "second") == Reservation(Reserved.completed, "202")


async def test_a_request_whose_key_another_has_by_now_stores_nothing(worker: Living, other: Living) -> None:
    """Its process was taken for dead, and lives."""
    await reserve(other)
    await worker.store.reap([(other.id, None)], 2, 1.0)
    assert await reserve(worker, "second") == RESERVED
    late, beside = completing(), new_job(owner="ada")
    answers = await other.store.enqueue([(late, Placement.free), (beside, Placement.free)], None)
    assert answers == [Stored.unreserved, Stored.dropped]
    assert await worker.store.get([late.id, beside.id]) == [None, None]
    assert await worker.store.list(owner="ada") == []
    assert await reserve(worker, "third") == IN_FLIGHT
    assert await put(worker.store, completing("second"))


async def test_a_beat_tells_what_its_process_has_reserved_and_not_completed(worker: Living, other: Living) -> None:
    for number, key in enumerate("abcd"):
        await reserve(other if key == "d" else worker, str(number), key=key)
    await put(worker.store, completing("0"))
    await worker.store.drop(["1"])
    assert (await worker.look()).reservations == {"2"}
    assert (await other.look()).reservations == {"3"}


async def test_reservations_that_are_given_back_are_nobodys_and_no_others(worker: Living, other: Living) -> None:
    """Those in the name of the process that are not completed; the others may be named, and stay."""
    for number, key in enumerate("abc"):
        await reserve(other if key == "c" else worker, str(number), key=key)
    await put(worker.store, completing("1"))
    for _ in range(2):
        await worker.store.give_back(worker.id, [], [], ["0", "1", "2", "unheard of"])
    assert await reserve(other, "anew", key="a") == RESERVED
    assert await reserve(worker, "anew", key="b") == Reservation(Reserved.completed, "202")
    assert await reserve(worker, "anew", key="c") == IN_FLIGHT


async def test_that_comes_before_all_other_answers(worker: Living) -> None:
    """A stranger's, a refusal, a job that is there."""
    [there] = await put(worker.store, new_job(unique="daily"))
    jobs = [
        (completing("gone"), Placement.held),
        (completing("gone", unique="daily", on_duplicate=OnDuplicate.refuse), Placement.free),
        (completing("gone", id=there), Placement.free),
        (new_job(files=(new_file(),)), Placement.free),
    ]
    answers = await worker.store.enqueue(jobs, "nobody")
    assert answers == [Stored.unreserved] * 3 + [Stored.dropped]


@pytest.mark.parametrize("placement", list(Placement))
async def test_a_job_completes_a_key_however_it_is_stored(worker: Living, placement: Placement) -> None:
    await reserve(worker)
    job = completing()
    assert await worker.enqueue(job, new_job(), placement=placement) == [Stored.stored] * 2
    assert (await get(worker.store, job.id)).id == job.id
    assert await reserve(worker, "second") == Reservation(Reserved.completed, "202")


async def test_a_key_is_completed_though_the_job_is_there_or_leads_to_another(worker: Living) -> None:
    store = worker.store
    await reserve(worker)
    [there] = await put(store, new_job(unique="daily"))
    assert await store.enqueue([(completing(id=there), Placement.free)], None) == [Stored.stored]
    assert await reserve(worker, "second") == Reservation(Reserved.completed, "202")
    await reserve(worker, "third", key="k2")
    again = completing("third", "203", unique="daily")
    assert await store.enqueue([(again, Placement.free)], None) == [Stored.exists]
    assert await reserve(worker, "fourth", key="k2") == Reservation(Reserved.completed, "203")


async def test_a_repeated_call_completes_it_again_by_what_it_says(worker: Living) -> None:
    await reserve(worker)
    job = completing()
    for answer in ("202", "202", "another"):
        repeated = job._replace(completes=Completion("first", answer))
        assert await worker.enqueue(repeated) == [Stored.stored]
        assert await reserve(worker, "second") == Reservation(Reserved.completed, answer)


async def test_what_is_not_stored_completes_nothing(worker: Living) -> None:
    store = worker.store
    await reserve(worker)
    await put(store, new_job(unique="daily"))
    refused = completing(unique="daily", on_duplicate=OnDuplicate.refuse)
    assert await store.enqueue([(refused, Placement.free)], None) == [Stored.refused]
    assert await store.enqueue([(completing(), Placement.held)], "nobody") == [Stored.stranger]
    half = completing(files=(new_file(),))
    assert await store.enqueue([(half, Placement.free)], None) == [Stored.incomplete]
    assert await reserve(worker, "second") == IN_FLIGHT


async def test_the_answer_of_what_is_completed_can_be_amended(worker: Living) -> None:
    store = worker.store
    await reserve(worker)
    assert not await store.amend("first", "early")
    assert not await store.amend("unheard of", "nobody's")
    assert await reserve(worker, "second") == IN_FLIGHT
    await put(store, completing())
    for _ in range(2):
        assert await store.amend("first", "201")
    assert await reserve(worker, "second") == Reservation(Reserved.completed, "201")


async def test_what_is_completed_is_kept_for_a_day(place: Place, worker: Living) -> None:
    """Also when its job is forgotten; and then it is nobody's."""
    store = worker.store
    await reserve(worker)
    [job] = await put(store, completing())
    await store.cancel([job])
    place.clock.advance(DAY - 1)
    assert (await store.tidy({Status.cancelled: 60.0}, 10, 10)).pruned == 1
    assert await reserve(worker, "second") == Reservation(Reserved.completed, "202")
    place.clock.advance(2)
    await store.tidy({}, 10, 10)
    assert await reserve(worker, "second", fingerprint="g") == RESERVED


async def test_what_is_under_way_is_kept_however_long_that_takes(place: Place, worker: Living, other: Living) -> None:
    """That of a process that is gone is not, and stands in nobody's way."""
    await reserve(worker)
    await reserve(other, "theirs", key="k2")
    await other.store.leave(other.id)
    place.clock.advance(3 * DAY)
    await worker.store.tidy({}, 10, 10)
    assert await reserve(worker, "second") == IN_FLIGHT
    late = completing("theirs")
    assert await other.store.enqueue([(late, Placement.free)], None) == [Stored.unreserved]


async def test_so_many_are_forgotten_at_once(place: Place, worker: Living) -> None:
    store = worker.store
    names = [new_id() for _ in range(5)]
    for name in names:
        await reserve(worker, name, key=name)
    await put(store, *(completing(name) for name in names))
    place.clock.advance(DAY + 1)
    while (await store.tidy({}, 2, 10)).more:
        pass
    assert [await reserve(worker, new_id(), key=name) for name in names] == [RESERVED] * 5


async def test_of_many_that_want_a_key_at_once_one_has_it(place: Place, worker: Living) -> None:
    stores: list[Store] = [await place.open() for _ in range(3)]
    asked = [store.reserve(new_id(), "s", "k", "f", worker.id) for store in stores for _ in range(5)]
    states = [(await answer).state for answer in asked]
    assert sorted(states) == [Reserved.in_flight] * 14 + [Reserved.reserved]


async def test_of_many_that_want_the_key_of_a_dead_one_one_has_it(place: Place, worker: Living, other: Living) -> None:
    await reserve(other)
    await other.store.leave(other.id)
    stores: list[Store] = [await place.open() for _ in range(3)]
    asked = [store.reserve(new_id(), "ada POST /send", "k", "f", worker.id) for store in stores for _ in range(5)]
    states = [answer.state for answer in await asyncio.gather(*asked)]
    assert sorted(states) == [Reserved.in_flight] * 14 + [Reserved.reserved]
