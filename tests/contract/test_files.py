"""The files of jobs: stored in chunks before their job, there while it may run, freed a few chunks at a time."""

import pytest

from afterward.job import Failed, OnDuplicate, Placement, Retry, Status, Stored, Succeeded
from afterward.stores.base import Store, Tidied
from tests.support.stores import (
    OOPS,
    Living,
    Place,
    content_of,
    get,
    new_file,
    new_job,
    put,
    put_file,
    sweep,
)

pytestmark = pytest.mark.anyio

EVERY_BYTE = bytes(range(256))


async def test_a_file_is_read_as_it_was_stored(worker: Living, other: Living) -> None:
    """Every chunk, in order, by any process, once it is a job's or before."""
    chunks = [EVERY_BYTE * 1024, EVERY_BYTE, b"\0"]
    file = await put_file(worker, *chunks)
    assert await content_of(other.store, file) == chunks
    await put(worker.store, new_job(files=(file,)))
    assert await content_of(other.store, file) == chunks
    assert await other.store.get_chunk(file.id, 3) is None


async def test_a_file_may_be_empty(worker: Living) -> None:
    file = await put_file(worker, b"")
    await put(worker.store, new_job(files=(file,)))
    assert await content_of(worker.store, file) == [b""]


@pytest.mark.parametrize("id_", ["nobody", "", "\0", "\ud800", "../jobs.db"])
async def test_what_is_not_there_has_no_chunks(store: Store, id_: str) -> None:
    assert await store.get_chunk(id_, 0) is None


async def test_a_file_that_is_not_whole_cannot_be_read(worker: Living) -> None:
    """A reader would take for all of it what is only a beginning."""
    file = new_file()
    assert await worker.store.put_chunk(file.id, 0, b"a", worker.id, is_last=False)
    assert await worker.store.get_chunk(file.id, 0) is None


async def test_nothing_is_stored_in_the_name_of_a_stranger(worker: Living, store: Store) -> None:
    """Nobody would ever free it."""
    file = new_file()
    assert not await store.put_chunk(file.id, 0, b"a", "nobody", is_last=True)
    assert await store.get_chunk(file.id, 0) is None


async def test_nothing_is_added_in_the_name_of_a_process_that_was_taken_for_dead(worker: Living, other: Living) -> None:
    """Of what it stored before, some may be freed already."""
    file = new_file()
    assert await worker.store.put_chunk(file.id, 0, b"a", worker.id, is_last=False)
    await other.store.reap([(worker.id, None)], 2, 1.0)
    assert not await worker.store.put_chunk(file.id, 1, b"b", worker.id, is_last=True)


async def test_a_file_can_be_begun_anew(worker: Living, other: Living) -> None:
    """By a process with a new identity, say; the longer one that was there does not shine through."""
    file = await put_file(worker, b"a", b"b", b"c")
    assert await other.store.put_chunk(file.id, 0, b"A", other.id, is_last=False)
    assert await content_of(other.store, file) is None
    assert await other.store.put_chunk(file.id, 1, b"B", other.id, is_last=True)
    assert await content_of(other.store, file) == [b"A", b"B"]
    await worker.store.leave(worker.id)
    await sweep(other.store)
    assert await content_of(other.store, file) == [b"A", b"B"]


async def test_a_file_of_a_job_cannot_be_begun_anew(worker: Living) -> None:
    file = await put_file(worker, b"a")
    await put(worker.store, new_job(files=(file,)))
    assert not await worker.store.put_chunk(file.id, 0, b"b", worker.id, is_last=True)
    assert await content_of(worker.store, file) == [b"a"]


@pytest.mark.parametrize("placement", Placement)
async def test_a_job_is_stored_only_when_its_files_are_whole(worker: Living, placement: Placement) -> None:
    """One that is not there, one that is half there, one of another job: the job would run without it."""
    whole, half, taken = await put_file(worker, b"a"), new_file(), await put_file(worker, b"b")
    await worker.store.put_chunk(half.id, 0, b"a", worker.id, is_last=False)
    await put(worker.store, new_job(files=(taken,)))
    for wrong in (new_file(), half, taken):
        job = new_job(files=(whole, wrong))
        assert await worker.enqueue(job, placement=placement) == [Stored.incomplete]
        assert await worker.store.get([job.id]) == [None]
    good = new_job(files=(whole,))
    assert await worker.enqueue(good, placement=placement) == [Stored.stored]


async def test_with_a_job_that_lacks_a_file_nothing_is_stored(worker: Living) -> None:
    """All of one `enqueue`, or none: who asked for it stores the file again, and asks again. Others go on."""
    plain, whole = new_job(), new_job(files=(await put_file(worker, b"a"),))
    unique, lacking = new_job(unique="k"), new_job(files=(new_file(),))
    answers = worker.store.enqueue([(job, Placement.free) for job in (plain, whole, unique, lacking)], None)
    other = worker.store.enqueue([(new_job(), Placement.free)], None)
    assert await answers == [Stored.dropped, Stored.dropped, Stored.dropped, Stored.incomplete]
    assert await other == [Stored.stored]
    assert await worker.enqueue(plain, whole, unique, placement=Placement.free) == [Stored.stored] * 3


async def test_the_content_is_there_at_every_attempt(worker: Living, place: Place) -> None:
    """After a failure, a death, a final failure, and when a person has it tried again."""
    file = await put_file(worker, b"a", b"b")
    [job] = await put(worker.store, new_job(files=(file,)))
    await worker.store.finish([(await worker.claim_one(), Retry(OOPS, 0))])
    await sweep(worker.store)
    assert await content_of(worker.store, file) == [b"a", b"b"]

    dying = await place.process("dying")
    await dying.claim_one()
    await worker.store.reap([(dying.id, None)], 2, 1.0)
    await sweep(worker.store)
    assert await content_of(worker.store, file) == [b"a", b"b"]

    await worker.store.finish([(await worker.claim_one(), Failed(OOPS))])
    await sweep(worker.store)
    assert await content_of(worker.store, file) == [b"a", b"b"]

    await worker.store.retry([job])
    await worker.claim_one()
    assert await content_of(worker.store, file) == [b"a", b"b"]


async def test_the_content_of_a_job_that_succeeded_is_freed(worker: Living) -> None:
    """Nobody can run it again; the job itself is kept."""
    file = await put_file(worker, b"a", b"b")
    [job] = await put(worker.store, new_job(files=(file,)))
    lease = await worker.claim_one()
    assert await sweep(worker.store) == 0
    assert await worker.store.finish([(lease, Succeeded(files=(file.id,)))]) == [True]
    assert await sweep(worker.store) == 2
    assert await content_of(worker.store, file) is None
    assert (await get(worker.store, job)).status is Status.succeeded


async def test_a_success_that_is_refused_frees_nothing(worker: Living, other: Living) -> None:
    """The attempt that has the job by now needs its file."""
    file = await put_file(worker, b"a")
    await put(worker.store, new_job(files=(file,)))
    zombie = await worker.claim_one()
    await other.store.reap([(worker.id, None)], 2, 1.0)
    lease = await other.claim_one()
    assert await worker.store.finish([(zombie, Succeeded(files=(file.id,)))]) == [False]
    await sweep(other.store)
    assert await content_of(other.store, file) == [b"a"]
    assert await other.store.finish([(lease, Succeeded(files=(file.id,)))]) == [True]


async def test_a_success_frees_no_file_of_another_job(worker: Living) -> None:
    mine, theirs = await put_file(worker, b"a"), await put_file(worker, b"b")
    await put(worker.store, new_job(files=(mine,)))
    await put(worker.store, new_job(files=(theirs,), task="app:other"))
    await worker.store.finish([(await worker.claim_one(), Succeeded(files=(mine.id, theirs.id)))])
    await sweep(worker.store)
    assert await content_of(worker.store, mine) is None
    assert await content_of(worker.store, theirs) == [b"b"]


@pytest.mark.parametrize("status", [Status.failed, Status.cancelled])
async def test_no_content_stays_when_its_job_is_pruned(worker: Living, place: Place, status: Status) -> None:
    file = await put_file(worker, b"a", b"b")
    [job] = await put(worker.store, new_job(files=(file,)))
    if status is Status.failed:
        await worker.store.finish([(await worker.claim_one(), Failed(OOPS))])
    else:
        await worker.store.cancel([job])
    assert await sweep(worker.store) == 0
    place.clock.advance(60)
    assert await worker.store.tidy({status: 30}, 10, 10) == Tidied(0, 1, 2, more=False)
    assert await content_of(worker.store, file) is None


@pytest.mark.parametrize("swept", [0, 1])
async def test_killed_after_it_has_pruned_a_job_another_frees_its_content(
    place: Place, worker: Living, swept: int
) -> None:
    """Before it freed any of it, or in the middle of that. What jobs that have not ended need, or will need, stays."""
    waits, runs, comes = await put_file(worker, b"d"), await put_file(worker, b"e"), await put_file(worker, b"f")
    await put(worker.store, new_job(files=(waits,)))
    await worker.leased(new_job(files=(runs,)))
    file = await put_file(worker, b"a", b"b", b"c")
    [job] = await put(worker.store, new_job(files=(file,)))
    await worker.store.cancel([job])
    place.clock.advance(60)

    dying = place.other_process()
    dying.call("open")
    assert dying.call("tidy", {Status.cancelled: 30}, 10, swept) == Tidied(0, 1, swept, more=True)
    dying.kill()

    assert await worker.store.get_chunk(file.id, 2) == (None if swept else (b"c", True))
    assert await sweep(worker.store) == 3 - swept
    assert await content_of(worker.store, file) is None
    assert [await content_of(worker.store, one) for one in (waits, runs, comes)] == [[b"d"], [b"e"], [b"f"]]


async def test_what_a_dead_process_was_storing_is_freed(worker: Living, other: Living) -> None:
    """Whole or not: its job was never stored. What the living store is left alone."""
    whole, half, theirs = await put_file(worker, b"a"), new_file(), await put_file(other, b"b")
    await worker.store.put_chunk(half.id, 0, b"a", worker.id, is_last=False)
    assert await sweep(other.store) == 0
    await other.store.reap([(worker.id, None)], 2, 1.0)
    assert await sweep(other.store) == 2
    assert await content_of(other.store, whole) is None
    assert await content_of(other.store, theirs) == [b"b"]


async def test_what_a_living_process_does_not_know_to_be_storing_is_freed(worker: Living) -> None:
    """Its request was refused, or has failed: the next heartbeat tells of it. What it knows of stays."""
    known, unknown = await put_file(worker, b"a"), await put_file(worker, b"b")
    await worker.store.give_back(worker.id, [], (await worker.look()).files - {known.id})
    assert await sweep(worker.store) == 1
    assert await content_of(worker.store, known) == [b"a"]
    assert await content_of(worker.store, unknown) is None


async def test_a_process_gives_back_no_file_of_a_job(worker: Living) -> None:
    file = await put_file(worker, b"a")
    await put(worker.store, new_job(files=(file,)))
    await worker.give_all_back()
    assert await sweep(worker.store) == 0
    assert await content_of(worker.store, file) == [b"a"]


async def test_a_file_that_is_partly_freed_is_no_job_s_any_more(worker: Living, other: Living) -> None:
    """A process that was taken for dead comes back for it: the job is not stored, and it begins anew."""
    file = await put_file(worker, b"a", b"b", b"c")
    await other.store.reap([(worker.id, None)], 2, 1.0)
    assert (await other.store.tidy({}, 1, 1)).freed == 1
    assert await content_of(other.store, file) is None
    assert await other.enqueue(new_job(files=(file,))) == [Stored.incomplete]


async def test_a_whole_file_of_a_process_taken_for_dead_can_still_be_a_job_s(worker: Living, other: Living) -> None:
    file = await put_file(worker, b"a")
    await other.store.reap([(worker.id, None)], 2, 1.0)
    assert await other.enqueue(new_job(files=(file,))) == [Stored.stored]
    assert await sweep(other.store) == 0
    assert await content_of(other.store, file) == [b"a"]


async def test_a_tidying_frees_no_more_than_it_may(worker: Living) -> None:
    """Nobody waits long for it, however large the files are."""
    for _ in range(3):
        await put_file(worker, *[b"a"] * 5)
    await worker.give_all_back()
    freed: list[int] = []
    more = True
    while more:
        tidied = await worker.store.tidy({}, 1, 4)
        freed.append(tidied.freed)
        more = tidied.more
    assert freed == [4, 4, 4, 3]


@pytest.mark.parametrize("on_duplicate", [OnDuplicate.keep, OnDuplicate.refuse])
async def test_the_files_of_a_duplicate_are_not_kept(worker: Living, on_duplicate: OnDuplicate) -> None:
    """The job that is there has its own."""
    first, second = await put_file(worker, b"a"), await put_file(worker, b"b")
    await put(worker.store, new_job(files=(first,), unique="k"))
    [answer] = await worker.enqueue(new_job(files=(second,), unique="k", on_duplicate=on_duplicate))
    assert answer is (Stored.exists if on_duplicate is OnDuplicate.keep else Stored.refused)
    await worker.give_all_back()
    await sweep(worker.store)
    assert await content_of(worker.store, first) == [b"a"]
    assert await content_of(worker.store, second) is None


async def test_many_uploads_at_once_leave_room_for_others(worker: Living) -> None:
    """What moves much data goes a few at a time, and everything is stored in the end."""
    files = [new_file() for _ in range(30)]
    chunks = [worker.store.put_chunk(f.id, 0, EVERY_BYTE * 1024, worker.id, is_last=True) for f in files]
    job = new_job()
    enqueued = worker.store.enqueue([(job, Placement.free)], None)
    assert await enqueued == [Stored.stored]
    assert not all(chunk.done() for chunk in chunks)
    assert [await chunk for chunk in chunks] == [True] * len(files)
    assert [await content_of(worker.store, file) for file in files] == [[EVERY_BYTE * 1024]] * len(files)
