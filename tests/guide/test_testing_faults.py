"""Faults that a user's own tests can inject: `afterward.testing.Bench`'s crashes, lost leases and restarts."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal, get_args

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from afterward import Afterward, BackgroundTasks, Status, Task, current_job
from afterward.testing import Bench, Crash, NoAnswer, Point
from afterward.testing.mortal import POINTS
from tests.support.processes import REPOSITORY
from tests.support.said import events_of

RUNS: dict[str, list[int]] = {
    "added": [],
    "inserted": [],
    "stored": [1],
    "answered": [1],
    "claimed": [2],
    "started": [2],
    "ended": [1, 2],
    "finished": [1],
}
"""The attempts whose function has run in the end, by the point of the crash."""

LEFT: dict[str, list[Status]] = {"added": [], "inserted": [], "finished": [Status.succeeded]}
"""What is stored after the crash, where that is not one job that waits to be run."""


@pytest.fixture
def bench(tasks: Afterward) -> Iterator[Bench]:
    """A bench for `tasks`."""
    with Bench(tasks) as bench:
        yield bench


@pytest.fixture(params=["async def", "def"])
def charge(request: pytest.FixtureRequest, tasks: Afterward, attempts: list[int]) -> Task[[str], Any]:
    """A task that notes each of its attempts."""
    if request.param == "def":

        @tasks.task
        def charge_in_thread(order: str) -> str:
            attempts.append(current_job().attempt)
            return order

        return charge_in_thread

    @tasks.task
    async def charge(order: str) -> str:
        attempts.append(current_job().attempt)
        return order

    return charge


@pytest.fixture
def attempts() -> list[int]:
    """The attempts whose function has run."""
    return []


@pytest.fixture
def shop(app: FastAPI, charge: Task[[str], Any]) -> FastAPI:
    """An app that charges for orders; one of its endpoints has a dependency that looks on."""

    async def looking_on() -> AsyncIterator[None]:
        yield

    @app.post("/orders/{order}", status_code=202)
    async def order(order: str, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(charge, order)

    @app.post("/watched/{order}", status_code=202)
    async def watched(order: str, background_tasks: BackgroundTasks, _: Annotated[None, Depends(looking_on)]) -> None:
        background_tasks.add_task(charge, order)

    return app


@pytest.mark.parametrize("has_lifespan", [False, True])
@pytest.mark.parametrize("path", ["/orders/1", "/watched/1"])
@pytest.mark.parametrize("point", get_args(Point))
def test_a_crash_at_each_point(
    bench: Bench, shop: FastAPI, attempts: list[int], *, point: Point, path: str, has_lifespan: bool
) -> None:
    """What the client has seen, what has run, and what is left to run after the process has started again."""
    client = TestClient(shop)
    if has_lifespan:
        client.__enter__()
    try:
        answers: list[int] = []
        with bench.crash_after(point):
            answers.append(client.post(path).status_code)
        assert answers == ([] if point in ("added", "inserted", "stored") else [202])

        assert [job.status for job in bench.jobs] == LEFT.get(point, [Status.queued])
        bench.drain_sync()
        assert attempts == RUNS[point]
        assert [job.status for job in bench.jobs] == [Status.succeeded] * bool(RUNS[point])
        deaths = [job.deaths for job in bench.jobs]
        assert deaths == ([] if not RUNS[point] else [1] if 2 in RUNS[point] else [0])

        client.post(path)  # the application lives on
        assert attempts == [*RUNS[point], 1]
    finally:
        if has_lifespan:
            client.__exit__()


@pytest.mark.anyio
@pytest.mark.parametrize("point", get_args(Point))
async def test_a_crash_at_each_point_with_an_asynchronous_client(
    bench: Bench, shop: FastAPI, point: Point, attempts: list[int]
) -> None:
    """All on one loop."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(shop), base_url="http://test") as client:
        answers: list[int] = []
        with bench.crash_after(point):
            answers.append((await client.post("/orders/1")).status_code)
        assert answers == ([] if point in ("added", "inserted", "stored") else [202])
        await bench.drain()
        assert attempts == RUNS[point]


@pytest.mark.parametrize("point", ["claimed", "started", "ended", "finished"])
def test_a_crash_in_a_drain_ends_it(
    tasks: Afterward, charge: Task[[str], Any], point: Literal["claimed", "started", "ended", "finished"],
    attempts: list[int],
) -> None:  # fmt: skip
    """And its block: what it would have returned is never known."""
    with Bench(tasks, manual=True) as bench:
        first, second = charge.enqueue_sync("1"), charge.enqueue_sync("2")
        drained = False
        with bench.crash_after(point):
            bench.drain_sync()
            drained = True
        assert not drained
        ran = [job.id for job in bench.drain_sync()]
        assert ran == ([second.id] if point == "finished" else [first.id, second.id])
        assert attempts == [*RUNS[point], 1]


def test_the_nth_pass(tasks: Afterward, charge: Task[[str], Any], attempts: list[int]) -> None:
    """Of three jobs, the second is cut short."""
    with Bench(tasks, manual=True) as bench:
        tasks.enqueue_many_sync(charge.prepare(order) for order in "abc")
        with bench.crash_after("ended", nth=2):
            bench.drain_sync()
        assert [job.status for job in bench.jobs] == [Status.succeeded, Status.queued, Status.queued]
        bench.drain_sync()
        assert [job.attempt for job in bench.jobs] == [1, 2, 1]
        assert sorted(attempts) == [1, 1, 1, 2]


def test_a_crash_that_never_came_fails_the_test(bench: Bench, charge: Task[[str], Any]) -> None:
    """A test that has not tested what it says must not pass."""
    with pytest.raises(AssertionError, match="'stored' was come to 0 times"), bench.crash_after("stored"):
        charge.enqueue_sync("no request stores it")
    with pytest.raises(AssertionError, match="'ended' was come to 1 times"), bench.crash_after("ended", nth=2):
        charge.enqueue_sync("only once")
    with pytest.raises(ValueError, match="another"), bench.crash_after("stored"):
        raise ValueError("another")


def test_a_crash_as_a_job_is_stored_without_a_request(
    bench: Bench, tasks: Afterward, charge: Task[[str], Any], attempts: list[int]
) -> None:
    """Nobody was told that it is stored, and it is not; neither is what waited to be stored with it."""
    with bench.crash_after("inserted"):
        charge.enqueue_sync("it")
    assert (bench.jobs, attempts) == ([], [])
    with bench.crash_after("inserted"):
        tasks.enqueue_many_sync(charge.prepare(order) for order in "abc")
    assert (bench.jobs, bench.drain_sync()) == ([], [])


def test_dying_in_the_middle_of_a_task(bench: Bench, tasks: Afterward, happened: list[str]) -> None:
    """`crash` can stand in for whatever is to be the last thing it does; nothing that handles errors goes on."""

    class Bank:
        def transfer(self, amount: int) -> None:
            happened.append(f"transferred {amount}")

    bank = Bank()

    @tasks.task
    async def pay(amount: int) -> None:
        happened.append("begin")
        try:
            bank.transfer(amount)
        except Exception:
            happened.append("handled")
        happened.append("end")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bank, "transfer", bench.crash)
        handle = pay.enqueue_sync(3)
    assert happened == ["begin"]
    assert asyncio.run(handle.job()) == bench.jobs[0]  # the process has started again
    assert [job.status for job in bench.jobs] == [Status.queued]
    [job] = bench.drain_sync()
    assert happened == ["begin", "begin", "transferred 3", "end"]
    assert (job.status, job.attempt, job.deaths, job.failures) == (Status.succeeded, 2, 1, 0)


def test_dying_in_the_middle_of_a_request(bench: Bench, app: FastAPI, charge: Task[[str], Any]) -> None:
    """The client gets no answer, and nothing that was not yet promised to it is kept."""

    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(charge, "never")
        bench.crash()

    with TestClient(app) as client:
        for _ in range(2):
            with pytest.raises(NoAnswer):
                client.post("/")
    assert bench.jobs == []
    with pytest.raises(Crash):
        bench.crash()


def test_a_process_that_dies_and_dies(bench: Bench, charge: Task[[str], Any], attempts: list[int]) -> None:
    """After its second death a job waits for a second, as in production; after any number it is there still."""
    with bench.crash_after("ended"):
        charge.enqueue_sync("it")
    for _ in range(3):
        with bench.crash_after("ended"):
            bench.clock.advance(1)
            bench.drain_sync()
    assert bench.drain_sync() == []
    bench.clock.advance(1)
    assert [job.status for job in bench.drain_sync()] == [Status.succeeded]
    assert attempts == [1, 2, 3, 4, 5]


def test_a_restart(tasks: Afterward, charge: Task[[str], Any], attempts: list[int]) -> None:
    """Whatever was stored is there after it."""
    with Bench(tasks, manual=True) as bench:
        bench.restart()
        charge.enqueue_sync("it")
        charge.options(delay=60, unique="later").enqueue_sync("later")
        store = tasks.store
        bench.restart()
        assert tasks.store is not store
        assert [job.status for job in bench.jobs] == [Status.queued] * 2
        bench.drain_sync()
        assert attempts == [1]
        bench.clock.advance(60)
        bench.drain_sync()
        assert [(job.status, job.deaths) for job in bench.jobs] == [(Status.succeeded, 0)] * 2


@pytest.mark.parametrize("of", ["task", "job", "id"])
def test_a_lost_lease(tasks: Afterward, charge: Task[[str], Any], attempts: list[int], of: str) -> None:
    """The function runs to its end, what it comes to is refused, and the job is run again."""
    with Bench(tasks, manual=True) as bench:
        other, handle = charge.enqueue_sync("other"), charge.enqueue_sync("it")
        wanted = {"task": charge, "job": handle, "id": handle.id}[of]
        with bench.lose_lease(wanted):
            ran = bench.drain_sync()
        losing = other.id if of == "task" else handle.id
        jobs = {job.id: job for job in bench.jobs}
        assert [(job.id, job.status) for job in ran if job.id == losing] == [
            (losing, Status.queued),
            (losing, Status.succeeded),
        ]
        assert (jobs[losing].attempt, jobs[losing].deaths) == (2, 1)
        assert sorted(attempts) == [1, 1, 2]
        charge.enqueue_sync("the process has a new identity, and goes on")
        assert [job.status for job in bench.drain_sync()] == [Status.succeeded]


def test_a_failure_after_a_lost_lease_is_not_counted(tasks: Afterward) -> None:
    """P4: what a worker says that was taken for dead is refused, whatever it says. The test is told of it."""

    @tasks.task(max_attempts=1)
    def fail_at_first() -> None:
        if current_job().attempt == 1:
            raise OSError("unheard")

    with Bench(tasks) as bench:
        with bench.lose_lease(fail_at_first), pytest.raises(OSError, match="unheard"):
            fail_at_first.enqueue_sync()
        [job] = bench.jobs
        assert (job.status, job.attempt, job.failures) == (Status.succeeded, 2, 0)


def test_a_lease_that_was_not_lost_fails_the_test(bench: Bench, charge: Task[[str], Any]) -> None:
    """A test that has not tested what it says must not pass."""
    with pytest.raises(AssertionError, match="no lease was lost"), bench.lose_lease(charge):
        pass
    charge.enqueue_sync("and none is lost after it")
    assert [job.attempt for job in bench.jobs] == [1]


def test_every_crash_point_of_a_job_has_a_name_for_tests() -> None:
    """But those of the store's own keeping, and of those who pass it on to Celery."""
    source = "".join(path.read_text() for path in (REPOSITORY / "src").rglob("*.py"))
    points = set(re.findall(r'crash_point\("(\w+)"\)', source))
    of_celery = {"after_publish", "after_hand_over", "after_follower_begin", "after_follower_finish"}
    of_stores = {"after_chunk", "in_reap", "in_prune", "in_sweep", "in_migration"}
    assert set(POINTS.values()) == points - of_stores - of_celery
    assert set(POINTS) == set(get_args(Point)) == set(RUNS)


@pytest.mark.parametrize("point", ["ended", "finished"])
def test_what_a_job_has_said_before_a_crash_is_there_after_it(bench: Bench, tasks: Afterward, point: Point) -> None:
    """All of it, if the end of its attempt was stored; else what was by then, and the whole of the next attempt."""

    @tasks.task
    async def words() -> AsyncIterator[str]:
        for word in ("one", "two", "three"):
            yield word

    with bench.crash_after(point):
        words.enqueue_sync()
    bench.drain_sync()
    [job] = bench.jobs
    events = tasks.run_sync(events_of(tasks, words.handle(job.id)))
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    last = [event.data for event in events if event.attempt == job.attempt]
    assert last == ['"one"', '"two"', '"three"']
    assert job.attempt == (2 if point == "ended" else 1)


def test_a_job_that_is_cancelled_while_it_runs(bench: Bench, tasks: Afterward) -> None:
    """Here by itself: nothing else runs at the same time."""

    @tasks.task
    async def regret() -> None:
        await tasks.cancel(current_job().id)
        await asyncio.sleep(60)

    regret.enqueue_sync()
    assert [job.status for job in bench.jobs] == [Status.cancelled]
