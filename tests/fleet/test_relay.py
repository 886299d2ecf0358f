"""A job for Celery is published by whatever process runs jobs, and handed over once the broker has confirmed it."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from afterward import Afterward, BackgroundTasks
from afterward.celery.messages import Message, task_id_of
from afterward.celery.relay import Relay
from afterward.engine.worker import Worker, WorkerOptions
from afterward.errors import ConfigurationError
from afterward.executors import FOREIGN
from afterward.job import Job, Lease, NewEvent, Placement, Status, Succeeded
from afterward.reasons import Cause
from afterward.stores.base import Store
from afterward.stores.handing import Start
from servers.ports import free_port
from tests.support import hosted
from tests.support.celery_workers import Place
from tests.support.fleet import count, proxied, take
from tests.support.processes import Starter
from tests.support.stores import new_job
from tests.support.waiting import soon, told

pytestmark = pytest.mark.anyio


class Site:
    """An application whose tasks run on Celery workers, on a database of its own. `ran`: what ran here all the same."""

    def __init__(self, database: Path, broker: str | None, **options: Any) -> None:
        self.tasks = tasks = Afterward(f"sqlite:///{database}", celery=broker, **options)
        self.ran: list[str] = []

        @tasks.task(name="shop:pack", executor="celery", timeout=30)
        async def pack(parcel: str) -> None:
            self.ran.append(parcel)

        @tasks.task(name="shop:send", executor="celery", queue="sending", priority=4)
        def send(parcel: str) -> None:
            self.ran.append(parcel)

        @tasks.task(name="shop:note")
        async def note(parcel: str) -> None:
            self.ran.append(f"noted {parcel}")

        self.pack, self.send, self.note = pack, send, note

    @property
    def store(self) -> Store:
        return self.tasks.store

    async def job(self, id_: str) -> Job:
        found = await self.tasks.get(id_)
        assert found is not None
        return found

    async def handed_over(self, id_: str) -> Job:
        """The job, once it is."""

        async def look() -> Job | None:
            job = await self.job(id_)
            return None if job.handed_at is None else job

        job = await told(look, f"job {id_} is handed over", 20)
        assert job is not None
        return job

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncGenerator[Worker]:
        """With a worker, and with a relay."""
        async with self.tasks.running(WorkerOptions(**options)) as worker:
            assert worker is not None
            yield worker


def relay_of(worker: Worker) -> Relay:
    assert isinstance(worker.elsewhere, Relay)
    return worker.elsewhere


@pytest.fixture
def site(tmp_path: Path, broker_url: str) -> Site:
    return Site(tmp_path / "jobs.db", broker_url)


async def test_what_an_endpoint_adds_is_published_and_handed_over(site: Site, broker_url: str) -> None:
    """The message names the job, its attempt and who sent it; whoever begins it has the rest from the store."""
    app = FastAPI()
    site.tasks.install(app)

    @app.post("/parcels/{parcel}", status_code=202)
    async def add(parcel: str, background_tasks: BackgroundTasks) -> dict[str, str]:
        background_tasks.add_task(site.note, parcel)
        return {"job": background_tasks.add_task(site.pack, parcel).id}

    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app), base_url="http://shop") as client,
    ):
        id_ = (await client.post("/parcels/books")).json()["job"]
        job = await site.handed_over(id_)
        await soon(lambda: site.ran)
        [found] = take(broker_url)
        [process] = await site.store.processes()
        assert found.start == Start(id_, 1, process.id)
        assert "books" not in str(found)
        assert (job.status, job.attempt, job.process) == (Status.queued, 1, None)
        [lease] = await site.store.begin(process.id, [found.start])
        assert lease is not None
        assert (lease.attempt, lease.arguments) == (1, '{"parcel":"books"}')
    assert site.ran == ["noted books"]


async def test_what_is_said_of_a_task_is_said_to_celery(site: Site, broker_url: str) -> None:
    """The default queue leads where Celery's own routes lead; the time limit there ends what ours could not."""
    site.tasks.celery.conf.task_routes = {"shop:*": {"queue": "packing"}}
    async with site.running():
        jobs = [await site.pack.enqueue("one"), await site.send.enqueue("two")]
        for job in jobs:
            await site.handed_over(job.id)
    [packed], [sent] = take(broker_url, "packing"), take(broker_url, "sending")
    assert (packed.headers["task"], packed.headers["id"]) == ("shop:pack", jobs[0].id)
    assert packed.headers["timelimit"] == [90, None]
    assert packed.headers["ignore_result"] is True
    assert sent.headers["timelimit"] == [None, None]
    assert sent.properties["priority"] == (4 if broker_url.startswith("amqp") else 0)


async def test_jobs_wait_in_the_store_while_the_broker_is_not_there(tmp_path: Path) -> None:
    site = Site(tmp_path / "jobs.db", f"amqp://127.0.0.1:{free_port()}//")
    async with site.running() as worker:
        job = await site.pack.enqueue("books")
        await (await site.note.enqueue("books")).result(timeout=10)
        await soon(lambda: relay_of(worker).publisher.trouble)

        async def why() -> str:
            [reason] = await site.tasks.why(job.id)
            return reason.text if reason.cause is Cause.no_broker else ""

        assert "Connection refused" in await told(why)
        assert (await site.job(job.id)).attempt == 0


async def test_they_are_published_as_soon_as_it_is(tmp_path: Path, broker_url: str) -> None:
    with proxied(broker_url) as (proxy, url):
        site = Site(tmp_path / "jobs.db", url)
        proxy.reset()
        async with site.running() as worker:
            job = await site.pack.enqueue("books")
            await soon(lambda: relay_of(worker).publisher.trouble)
            proxy.heal()
            assert (await site.handed_over(job.id)).attempt == 1
    assert count(broker_url) == 1


async def test_what_was_not_confirmed_is_published_again_as_another_attempt(tmp_path: Path, broker_url: str) -> None:
    """At no cost; and the message that has arrived all the same begins nothing."""
    with proxied(broker_url) as (proxy, url):
        site = Site(tmp_path / "jobs.db", url)
        async with site.running():
            await site.handed_over((await site.pack.enqueue("first")).id)
            proxy.lose_answer()
            job = await site.handed_over((await site.pack.enqueue("books")).id)
            assert (job.attempt, job.failures, job.deaths) == (2, 0, 0)
            assert [attempt.note for attempt in job.attempts] == [
                "not published: the connection to the broker was lost before it was confirmed"
            ]
            starts = [found.start for found in take(broker_url) if found.start.id == job.id]
            assert [start.attempt for start in starts] == [1, 2]
            begun = await site.store.begin(starts[0].sender, starts)
            assert [lease is not None for lease in begun] == [False, True]


@pytest.fixture
def soon_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked after messages in less time than usual."""
    monkeypatch.setattr("afterward.celery.relay.FIRST_LOOK_SECONDS", 0.2)
    monkeypatch.setattr("afterward.celery.again.FIRST_LOOK_SECONDS", 0.2)
    monkeypatch.setattr("afterward.celery.relay.LOOK_SECONDS", 0.1)


@pytest.mark.usefixtures("soon_looked_at")
async def test_a_message_that_is_lost_is_published_again(site: Site, broker_url: str) -> None:
    """With the same attempt: whichever of them is begun first, the other begins nothing."""
    async with site.running():
        job = await site.handed_over((await site.pack.enqueue("books")).id)
        [lost] = take(broker_url)
        await soon(lambda: count(broker_url))

        async def again() -> bool:
            return (await site.job(job.id)).handed_at not in {job.handed_at, None}

        await told(again)
        assert (await site.job(job.id)).attempt == 1
        [found] = take(broker_url)
        assert found.start == lost.start
        assert found.headers["id"] == lost.headers["id"]
        begun = await site.store.begin(found.start.sender, [lost.start, found.start])
        assert begun[0] is not None


@pytest.mark.usefixtures("soon_looked_at")
async def test_one_that_still_waits_is_not_published_again_before_it_has_for_long(
    site: Site, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.running() as worker:
        job = await site.handed_over((await site.pack.enqueue("books")).id)
        looks = looks_of(relay_of(worker), monkeypatch)
        await soon(lambda: len(looks) >= 2)
        assert (await site.job(job.id)).handed_at in {job.handed_at, None}
        assert count(broker_url) == 1
        monkeypatch.setattr("afterward.celery.again.CERTAIN_SECONDS", 0.1)
        await soon(lambda: count(broker_url) == 2)


def looks_of(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages are looked at, each time that some are."""
    looks: list[int] = []
    look = relay.publisher.backlog

    async def counted(messages: Any) -> list[int | None]:
        looks.append(len(messages))
        return await look(messages)

    monkeypatch.setattr(relay.publisher, "backlog", counted)
    return looks


async def test_one_that_was_confirmed_as_its_process_died_is_published_again_as_another_attempt(
    tmp_path: Path, starter: Starter, valkey_url: str
) -> None:
    """It died before it could hand the job over; whoever has the first message begins nothing by it."""
    place = Place(f"sqlite:///{tmp_path}/jobs.db", valkey_url)
    tasks = hosted.front(place.store, place.broker)
    async with tasks.running(None):
        [job] = await tasks.enqueue_many([hosted.fail.prepare()])
        dying = starter.start(
            "afterward",
            *("worker", "tests.support.hosted:tasks"),
            environment={**place.environment, "AFTERWARD_CRASH": "after_publish:1"},
            output=tmp_path / "log",
        )
        assert await asyncio.to_thread(dying.wait) == -signal.SIGKILL
    async with tasks.running(WorkerOptions()):

        async def handed_over() -> bool:
            found = await tasks.get(job.id)
            return found is not None and found.handed_at is not None

        await told(handed_over, seconds=20)
        first, second = (found.start for found in take(valkey_url))
        assert [first.attempt, second.attempt] == [1, 2]
        begun = await tasks.store.begin(second.sender, [first, second])
        assert [lease is not None for lease in begun] == [False, True]


async def test_several_processes_publish_each_job_once(tmp_path: Path, broker_url: str) -> None:
    """As the workers of one server do, on one database."""
    sites = [Site(tmp_path / "jobs.db", broker_url) for _ in range(3)]
    async with sites[0].running(), sites[1].running(), sites[2].running():
        handles = await sites[0].tasks.enqueue_many([sites[0].pack.prepare(f"{n}") for n in range(600)])
        for handle in handles:
            await sites[0].handed_over(handle.id)
    assert sorted(found.start.id for found in take(broker_url)) == sorted(handle.id for handle in handles)


async def test_only_queues_that_are_served_here_are_published_here(site: Site, broker_url: str) -> None:
    async with site.running(queues={"sending"}):
        passed_over = await site.pack.enqueue("one")
        await site.handed_over((await site.send.enqueue("two")).id)
        assert (await site.job(passed_over.id)).attempt == 0
    assert count(broker_url, "sending") == 1


async def test_what_is_under_way_when_it_stops_is_queued_again(
    tmp_path: Path, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afterward.celery.publisher.LONGEST_SECONDS", 2.0)
    with proxied(broker_url) as (proxy, url):
        site = Site(tmp_path / "jobs.db", url)
        async with site.running():
            await site.handed_over((await site.pack.enqueue("first")).id)
            proxy.blackhole()
            job = await site.pack.enqueue("books")

            async def runs() -> bool:
                return (await site.job(job.id)).status is Status.running

            await told(runs)
        stopped = await site.job(job.id)
        assert (stopped.status, stopped.process, stopped.handed_at) == (Status.queued, None, None)
        await site.tasks.life.liveness.stop()


async def test_a_process_says_what_it_publishes_and_what_its_trouble_is(tmp_path: Path, broker_url: str) -> None:
    with proxied(broker_url) as (proxy, url):
        site = Site(tmp_path / "jobs.db", url)

        async def says(trouble: str) -> bool:
            [served] = [one.served for one in await site.store.processes()]
            ours = [] if served is None else [name for name in served.relays if not name.startswith(FOREIGN)]
            if served is None or ours != ["shop:pack", "shop:send"]:  # whatever else the process has for Celery
                return False
            return trouble in served.broker_trouble if trouble else not served.broker_trouble

        async with site.running():
            await told(lambda: says(""))
            proxy.reset()
            await told(lambda: says(f"127.0.0.1:{proxy.port}"))
            proxy.heal()
            await told(lambda: says(""))


@dataclass
class Theirs:
    """A task of somebody else's, as it is published."""

    is_followed: bool = True
    republishes: bool = False
    republish_after: float | None = None
    ended: Succeeded | None = None
    fingerprint: str = ""

    def end(self, lease: Lease) -> Succeeded | None:
        return self.ended

    def line(self, lease: Lease) -> NewEvent | None:
        return None

    def message(self, lease: Lease) -> Message:
        return Message("theirs.pack", [lease.queue], {}, task_id_of(lease.id, lease.attempt), {"queue": "theirs"})


def publish(site: Site, theirs: Theirs) -> None:
    """Let that be what is published."""
    site.tasks.published = lambda: {"celery:theirs.pack": theirs}  # type: ignore[method-assign]


async def add_theirs(site: Site) -> str:
    """A job of a task of somebody else's."""
    job = new_job(task="celery:theirs.pack")
    await site.store.enqueue([(job, Placement.free)], None)
    return job.id


async def test_a_task_of_somebody_else_s_is_published_by_its_own_message_and_followed(
    site: Site, broker_url: str
) -> None:
    publish(site, Theirs())
    async with site.running():
        job = await add_theirs(site)
        await site.handed_over(job)
        [followed] = await site.store.followed(["celery:theirs.pack"], "", 10)
    assert (followed.id, followed.process) == (job, None)
    [found] = take(broker_url, "theirs")
    assert (found.headers["task"], found.headers["id"]) == ("theirs.pack", job)


async def test_one_of_which_nothing_more_is_heard_has_succeeded_once_it_is_confirmed(
    site: Site, broker_url: str
) -> None:
    publish(site, Theirs(is_followed=False, ended=Succeeded()))
    async with site.running():
        [ended] = await site.tasks.ended([await add_theirs(site)], timeout=10)
    assert ended is not None
    assert ended.status is Status.succeeded
    assert count(broker_url, "theirs") == 1


async def test_one_that_has_no_message_is_tried_again_later(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = Theirs()
    publish(site, theirs)

    def refuse(lease: Lease) -> Message:
        raise ValueError("there is no such task any more")

    monkeypatch.setattr(theirs, "message", refuse)
    async with site.running():
        job = await add_theirs(site)

        async def has_ended() -> bool:
            return bool((await site.job(job)).attempts)

        await told(has_ended)
        found = await site.job(job)
    assert found.note == "not published: ValueError: there is no such task any more"
    assert 1 < (found.run_at - found.attempts[0].ended_at).total_seconds() < 3


async def test_an_app_does_not_start_without_a_broker_for_its_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AFTERWARD_CELERY_URL", raising=False)
    site = Site(tmp_path / "jobs.db", None)
    with pytest.raises(ConfigurationError, match=r"task shop:pack has executor='celery': .*AFTERWARD_CELERY_URL"):
        async with site.running():
            pass
    async with site.tasks.running(None):  # who only stores needs none
        await site.pack.enqueue("books")


def not_found(_: str) -> None: ...


async def test_nor_without_celery(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", not_found)
    with pytest.raises(ConfigurationError, match=r'not installed: pip install "afterward\[celery\]"'):
        async with site.running():
            pass


async def test_the_environment_can_say_the_broker(
    tmp_path: Path, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFTERWARD_CELERY_URL", broker_url)
    site = Site(tmp_path / "jobs.db", None)
    async with site.running():
        await site.handed_over((await site.pack.enqueue("books")).id)
    assert count(broker_url) == 1
