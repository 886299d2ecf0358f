"""`list` by a text, and by the signature of a failure."""

from dataclasses import replace

import pytest

from afterward.job import Died, Failed, Failure, Retry, Ruling, Status, Succeeded
from afterward.stores import base
from afterward.stores.base import Store
from tests.support.stores import OOPS, Living, get, ids, ids_of, new_job, put

pytestmark = pytest.mark.anyio

SIGNED = replace(OOPS, signature="oops")


async def fail(worker: Living, failure: Failure = SIGNED, **changes: str) -> str:
    """A job that has failed for good."""
    lease = await worker.leased(new_job(**changes))
    assert await worker.store.finish([(lease, Failed(failure))]) == [True]
    return lease.id


@pytest.mark.parametrize("text", ["Ada@Example", "ada@example", "ADA", '"name":', "é", "100%", "a_b", "\\\\", "'"])
async def test_a_text_is_found_in_arguments(store: Store, text: str) -> None:
    """Whatever the case of ASCII letters; nothing in it means anything but itself."""
    arguments = '{"to":"ada@EXAMPLE.org","name":"André é","of":"100% a_b \\\\ \'"}'
    [wanted, _] = await put(store, new_job(arguments=arguments), new_job(arguments='{"to":"100 aXb"}'))
    assert await ids_of(store, text=text) == [wanted]


@pytest.mark.parametrize("text", ["nobody", "ada_example", "ada%", "É", "\0", ".*"])
async def test_a_text_that_is_nowhere_is_not_found(store: Store, text: str) -> None:
    await put(store, new_job(arguments='{"to":"ada@example.org","name":"André é"}'))
    assert await store.list(text=text) == []


FAILURE = Failure("shop.OutOfStock", 'none left of "blue\nhats" for José', "Traceback: deeply(hidden)", "blue")


@pytest.mark.parametrize("text", ["outofstock", "NONE LEFT", '"blue', "blue\nhats", "José"])
async def test_a_text_is_found_in_the_kind_and_message_of_a_failure(worker: Living, text: str) -> None:
    wanted = await fail(worker, FAILURE)
    await fail(worker)
    assert await ids_of(worker.store, text=text) == [wanted]


@pytest.mark.parametrize("text", ["deeply", "message", "kind", "traceback", "jos\u00c9", '", "'])
async def test_what_else_is_stored_of_a_failure_is_not_searched(worker: Living, text: str) -> None:
    await fail(worker, FAILURE)
    assert await worker.store.list(text=text) == []


async def test_a_failure_that_will_be_tried_again_is_searched_as_well(worker: Living) -> None:
    lease = await worker.leased(new_job())
    await worker.store.finish([(lease, Retry(FAILURE, 60))])
    assert await ids_of(worker.store, text="none left") == [lease.id]


async def test_a_text_is_looked_for_in_the_newest_of_what_else_is_asked_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many are searched, and no more."""
    monkeypatch.setattr(base, "SEARCHED", 3)
    jobs = await put(
        store, *(new_job(arguments=f'{{"n":{n}}}', queue="xy"[n % 2], owner="ab"[n % 2]) for n in range(6))
    )
    assert await ids_of(store, text='"n":3') == [jobs[3]]
    assert await ids_of(store, text='"n":2') == []
    assert await ids_of(store, text='"n":0', queue="x") == [jobs[0]]
    assert await ids_of(store, text='"n":0', owner="a") == [jobs[0]]
    assert await ids_of(store, text='"n":1', owner="a") == []
    assert await ids_of(store, text='"n":', limit=2) == jobs[:3:-1]
    assert await ids_of(store, text='"n":2', before=jobs[5]) == [jobs[2]]


async def test_a_signature_is_that_of_what_failed_for_good_or_is_tried_again(worker: Living) -> None:
    """Not of what a person tries again, or what was cancelled; and its attempts have it too."""
    store = worker.store
    failed = await fail(worker)
    died = await worker.leased(new_job())
    await store.finish([(died, Died(SIGNED, 0, final=True))])
    again, running = await worker.leased(new_job()), await worker.leased(new_job())
    await store.finish([(again, Retry(SIGNED, 60)), (running, Retry(SIGNED, 0))])
    assert ids((await worker.claim()).leases) == [running.id]
    retried = await fail(worker)
    assert await store.retry([retried]) == [Ruling.done]
    cancelled = await worker.leased(new_job())
    await store.finish([(cancelled, Retry(SIGNED, 60))])
    assert await store.cancel([cancelled.id]) == [Ruling.done]
    await fail(worker, replace(OOPS, signature="another"))
    assert await ids_of(store, signature="oops") == [running.id, again.id, died.id, failed]
    assert await ids_of(store, signature="oops", limit=1) == [running.id]
    assert await ids_of(store, signature="oops", before=again.id, limit=1) == [died.id]
    assert await ids_of(store, signature="oops", before=died.id) == [failed]
    assert await ids_of(store, signature="oops", status=Status.queued) == [again.id]
    assert await ids_of(store, signature="oops", status=[Status.running, Status.failed]) == [
        running.id,
        died.id,
        failed,
    ]
    assert await ids_of(store, signature="oops", status=Status.cancelled) == []
    assert await ids_of(store, signature="oops", task="app:other") == []
    assert await ids_of(store, signature="unheard of") == []
    for job in await store.get([failed, died.id, again.id, running.id, retried, cancelled.id]):
        assert job is not None
        assert job.failure == SIGNED
        assert [attempt.failure for attempt in job.attempts] == [SIGNED]


async def test_the_signature_is_that_of_the_last_failure(worker: Living) -> None:
    """Also when a later attempt has none."""
    store = worker.store
    for ends in ([Retry(SIGNED, 0), Failed(OOPS)], [Retry(OOPS, 0), Failed(SIGNED)], [Retry(SIGNED, 0), Succeeded()]):
        lease = await worker.leased(new_job())
        for end in ends:
            assert await store.finish([(lease, end)]) == [True]
            if isinstance(end, Retry):
                [lease] = (await worker.claim()).leases
    jobs = await store.list()
    assert [job.failure and job.failure.signature for job in jobs] == ["oops", "oops", ""]
    assert await ids_of(store, signature="oops") == [jobs[1].id]


async def test_signature_text_and_owner_are_asked_for_together(worker: Living) -> None:
    store = worker.store
    wanted = await fail(worker, owner="ada", arguments='{"n":"seven"}')
    await fail(worker, owner="grace", arguments='{"n":"seven"}')
    await fail(worker, owner="ada", arguments='{"n":"eight"}')
    await fail(worker, FAILURE, owner="ada", arguments='{"n":"seven"}')
    await put(store, new_job(owner="ada", arguments='{"n":"seven"}'))
    again = await worker.leased(new_job(owner="ada", arguments='{"n":"seven"}'))
    await store.finish([(again, Retry(SIGNED, 60))])
    assert await ids_of(store, owner="ada", signature="oops", text="SEVEN") == [again.id, wanted]
    assert await ids_of(store, owner="ada", signature="oops", status=Status.queued) == [again.id]
    assert len(await ids_of(store, signature="oops", text="seven")) == 3
    assert len(await ids_of(store, owner="ada", text="seven")) == 4
    assert (await get(store, wanted)).owner == "ada"
