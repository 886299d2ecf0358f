"""Why a job is not done, asked of every kind of store. What there is to be said: tests/unit/test_why.py."""

import pytest

from afterward.explaining import explain
from afterward.job import Succeeded
from afterward.reasons import Cause
from afterward.stores.base import Store
from afterward.stores.seen import Served
from tests.support.stores import Living, new_job, put

pytestmark = pytest.mark.anyio

SERVED = Served({"app:send": "v1", "app:pack": "v1"}, ["default", "mail"], 2, 1, "1.5.0", {"app:pack"})


async def causes(store: Store, job: str) -> list[Cause]:
    return [reason.cause for reason in await explain(store, job)]


async def test_it_is_known_who_lives_and_what_was_said_and_served(store: Store, worker: Living, other: Living) -> None:
    job = new_job()
    await put(store, job)
    assert await causes(store, job.id) == [Cause.no_worker]

    await worker.store.describe(worker.id, Served({"app:resize": "v1"}, None, 1, 1))
    [never] = await explain(store, job.id)
    assert never.text.endswith("no worker ever has")

    await other.store.describe(other.id, SERVED)
    assert await causes(store, job.id) == [Cause.soon]

    await store.pause("default", "ada")
    assert await causes(store, job.id) == [Cause.paused]

    await other.store.leave(other.id)
    paused, unknown = await explain(store, job.id)
    assert (paused.cause, unknown.cause) == (Cause.paused, Cause.unknown_task)
    assert unknown.text.endswith("in version 1.5.0")


async def test_only_what_could_be_begun_in_its_place_stands_before_it(
    store: Store, worker: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs and waits in threads, or in queues that are paused or another's, is nothing to one in the loop."""
    monkeypatch.setattr("afterward.explaining._PAGE", 1)
    await worker.store.describe(worker.id, SERVED)
    await worker.leased(new_job())
    await worker.leased(new_job(task="app:pack"))
    others = [new_job(task="app:pack"), new_job(task="app:resize"), new_job(queue="slow"), new_job(queue="mail")]
    await put(store, *others, new_job(), job := new_job())
    await store.pause("mail", "ada")

    [soon] = await explain(store, job.id)
    await worker.leased(new_job())
    [busy] = await explain(store, job.id)

    there = "1 job stands before it, and"
    assert soon.text.startswith(f"it should start any moment: {there} 1 of 2 places in the loop is free")
    assert busy.text.startswith(f"the workers are full: {there} none of 2 places in the loop is free, on ")


async def test_who_runs_a_job_is_known_until_it_has_ended(store: Store, worker: Living) -> None:
    lease = await worker.leased(new_job())
    assert await causes(store, lease.id) == [Cause.running]
    await store.cancel([lease.id])
    assert await causes(store, lease.id) == [Cause.running, Cause.asked_to_end]
    await store.finish([(lease, Succeeded())])
    assert await causes(store, lease.id) == [Cause.ended]


@pytest.mark.parametrize("job", ["unknown", "", "\udcff", "\0"])
async def test_what_is_unknown_is_said_to_be(store: Store, job: str) -> None:
    assert await causes(store, job) == [Cause.unknown]
