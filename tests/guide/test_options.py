"""Options of a task and of one call: when, how often, for how long, once only, and what follows."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from textwrap import dedent
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.testclient import TestClient
from pydantic import BaseModel, ConfigDict

from afterward import (
    Afterward,
    AfterwardError,
    BackgroundTasks,
    DuplicateJob,
    EndedJob,
    GiveUp,
    JobFailed,
    JobHandle,
    Retry,
    Status,
)
from afterward.engine.worker import WorkerOptions
from afterward.errors import TaskError
from tests.support.disk import Row
from tests.support.waiting import soon, wait_until

pytestmark = pytest.mark.anyio


# How often, and for how long


async def failures_of(tasks: Afterward, handle: JobHandle) -> int:
    """How often the job failed until it failed for good."""
    async with tasks.running(WorkerOptions()):
        with pytest.raises(JobFailed):
            await handle.result(timeout=20)
        job = await handle.job()
    assert job is not None
    return job.failures


async def test_one_call_may_have_more_attempts_than_its_task(tasks: Afterward) -> None:
    @tasks.task(max_attempts=2, backoff=0)
    async def fail() -> None:
        raise ValueError

    assert await failures_of(tasks, await fail.options(max_attempts=4).enqueue()) == 4
    assert await failures_of(tasks, await fail.enqueue()) == 2


@pytest.mark.parametrize("durable", [True, False])
def test_one_call_may_have_another_timeout(
    tasks: Afterward, app: FastAPI, client: TestClient, happened: list[str], durable: bool
) -> None:
    """Also where it is leased to this process as it is stored, and where it is claimed."""

    @tasks.task(max_attempts=1)
    async def sleep() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            happened.append("cancelled")
            raise

    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks) -> str:
        brief = sleep.options(timeout=0.05)
        return background_tasks.add_task(brief).id if durable else (await brief.enqueue()).id

    handle = sleep.handle(client.post("/").json())
    with pytest.raises(JobFailed, match=r"AttemptTimedOut: the attempt took longer than its timeout of 0\.05 s"):
        handle.result_sync(timeout=10)
    assert happened == ["cancelled"]


async def test_a_task_may_say_when_to_try_it_again(tasks: Afterward) -> None:
    """`raise Retry(in_=…)` is a failure as any other, but for the time of the next attempt."""

    @tasks.task(backoff=1000)
    async def busy() -> None:
        raise Retry("the line is busy", in_=timedelta(hours=1))

    async with tasks.running(WorkerOptions()):
        handle = await busy.enqueue()
        job = await soon(lambda: _failed_once(tasks, handle))
    assert job.status is Status.queued
    assert timedelta(minutes=59) < job.run_at - datetime.now(UTC) <= timedelta(hours=1)
    assert job.failure is not None
    assert (job.failure.kind, job.failure.message) == ("afterward.errors.Retry", "the line is busy")


def _failed_once(tasks: Afterward, handle: JobHandle) -> Any:
    job = tasks.run_sync(tasks.get(handle.id))
    return job if job is not None and job.failures else None


async def test_retry_at_once_counts_against_max_attempts(tasks: Afterward) -> None:
    @tasks.task(max_attempts=3)
    async def busy() -> None:
        raise Retry(in_=0)

    assert await failures_of(tasks, await busy.enqueue()) == 3


async def test_a_task_may_give_up(tasks: Afterward) -> None:
    """`raise GiveUp(…)`: no attempt that is left would help."""

    @tasks.task
    async def hopeless() -> None:
        raise GiveUp("the account is closed")

    assert await failures_of(tasks, await hopeless.enqueue()) == 1


async def test_a_function_may_decide_by_the_failures_and_the_error(tasks: Afterward) -> None:
    """False or None: give up. True: after the usual back-off. A number or a timedelta: after that long."""
    asked: list[tuple[int, str]] = []

    def decide(failures: int, error: BaseException) -> bool | float | timedelta | None:
        asked.append((failures, str(error)))
        return [True, 0.0, timedelta(0), None][failures - 1]

    @tasks.task(backoff=0, retry_on=decide)
    async def fail() -> None:
        raise ValueError("oops")

    assert await failures_of(tasks, await fail.enqueue()) == 4
    assert asked == [(1, "oops"), (2, "oops"), (3, "oops"), (4, "oops")]


async def test_a_function_that_fails_to_decide_leaves_it_at_the_usual(tasks: Afterward) -> None:
    def decide(failures: int, error: BaseException) -> bool:
        raise RuntimeError

    @tasks.task(backoff=0, max_attempts=3, retry_on=decide)
    async def fail() -> None:
        raise ValueError("oops")

    assert await failures_of(tasks, await fail.enqueue()) == 3


async def test_an_answer_that_is_no_span_leaves_it_at_the_usual_and_is_told(tasks: Afterward) -> None:
    nonsense: Any = "soon"

    @tasks.task(backoff=0, max_attempts=2, retry_on=lambda failures, error: nonsense)
    async def fail() -> None:
        raise ValueError("oops")

    handle = await fail.enqueue()
    assert await failures_of(tasks, handle) == 2
    job = await handle.job()
    assert job is not None
    assert job.attempts[0].failure is not None
    assert job.attempts[0].failure.message.startswith("oops (retry_on= answered a str that is no span of time")


async def test_a_retry_that_makes_no_sense_is_a_failure_as_any_other(tasks: Afterward) -> None:
    nonsense: Any = "soon"

    @tasks.task(backoff=0, max_attempts=2)
    async def fail() -> None:
        raise Retry(in_=nonsense)

    handle = await fail.enqueue()
    assert await failures_of(tasks, handle) == 2
    job = await handle.job()
    assert job is not None
    assert job.failure is not None
    assert (job.failure.kind, "takes a timedelta, or a number of seconds" in job.failure.message) == (
        "ValueError",
        True,
    )


# Once only


async def test_a_call_may_take_the_place_of_one_that_waits(tasks: Afterward, happened: list[str]) -> None:
    """Of many changes in a row, the last one counts."""

    @tasks.task
    async def index(version: int) -> None:
        happened.append(f"version {version}")

    latest = index.options(unique="document 7", on_duplicate="replace", delay=0.01)
    handles = [await latest.enqueue(version) for version in range(5)]
    async with tasks.running(WorkerOptions()):
        await handles[-1].result(timeout=10)
    assert happened == ["version 4"]
    assert [job.status for job in await tasks.list()] == [Status.succeeded] + [Status.cancelled] * 4


async def test_a_call_may_be_refused_where_there_is_one_already(tasks: Afterward) -> None:
    @tasks.task
    def export() -> None: ...

    only = export.options(unique="export", on_duplicate="refuse")
    await only.enqueue()
    with pytest.raises(DuplicateJob, match="unique key 'export' already; nothing was stored"):
        await only.enqueue()
    with pytest.raises(DuplicateJob):
        await tasks.enqueue_many([export.prepare(), only.prepare()])
    assert len(await tasks.list()) == 1


def test_of_two_calls_of_one_request_the_later_replaces_the_earlier(
    app: FastAPI, tasks: Afterward, client: TestClient, happened: list[str]
) -> None:
    """Though there is room for both: none of them has begun before the request is over."""

    @tasks.task
    async def index(version: int) -> None:
        happened.append(f"version {version}")

    latest = index.options(unique="document 7", on_duplicate="replace")

    @app.post("/", status_code=202)
    async def endpoint(background_tasks: BackgroundTasks) -> list[str]:
        return [background_tasks.add_task(latest, version).id for version in range(3)]

    jobs = client.post("/").json()
    assert client.portal is not None
    ended = client.portal.call(tasks.ended, jobs, 10)
    assert [job and job.status for job in ended] == [Status.cancelled, Status.cancelled, Status.succeeded]
    assert happened == ["version 2"]


@pytest.mark.parametrize("looked_at", [True, False])
def test_a_request_that_asks_for_what_is_done_already_gets_a_409(
    tasks: Afterward, app: FastAPI, client: TestClient, stored: Callable[[], list[Row]], looked_at: bool
) -> None:
    """Nothing of it is stored, and its dependencies roll back; nobody is told to come again soon."""
    ended: list[str] = []

    async def session() -> Any:
        try:
            yield
        except BaseException:
            ended.append("rolled back")
            raise
        ended.append("committed")

    @tasks.task
    def export() -> None: ...

    from fastapi import Depends

    @app.post("/", status_code=202, dependencies=[Depends(session)] if looked_at else [])
    async def endpoint(background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(export.options(delay=60))
        background_tasks.add_task(export.options(unique="export", on_duplicate="refuse", delay=60))
        return "accepted"

    assert client.post("/").status_code == 202
    again = client.post("/")
    assert again.status_code == 409
    assert again.json() == {"detail": "The same is being done already."}
    assert "retry-after" not in again.headers
    assert len(stored()) == 2
    assert ended == (["committed", "rolled back"] if looked_at else [])


def test_a_409_can_be_read_by_pages_of_other_origins(app: FastAPI, tasks: Afterward) -> None:
    """It is said of the answer what the application's own middleware says of its responses."""
    app.add_middleware(CORSMiddleware, allow_origins=["https://pages.example"])

    @tasks.task
    def export() -> None: ...

    @app.post("/", status_code=202)
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(export.options(unique="export", on_duplicate="refuse", delay=60))

    origin = {"origin": "https://pages.example"}
    with TestClient(app) as client:
        assert client.post("/", headers=origin).status_code == 202
        refused = client.post("/", headers=origin)
    assert refused.status_code == 409
    assert refused.headers["access-control-allow-origin"] == "https://pages.example"
    assert refused.headers["vary"] == "Origin"
    assert refused.headers["content-length"] == str(len(refused.content))


@pytest.mark.parametrize("looked_at", [True, False])
def test_what_is_to_run_on_an_error_runs_after_a_409_too(
    app: FastAPI, tasks: Afterward, client: TestClient, happened: list[str], looked_at: bool
) -> None:
    async def session() -> Any:
        yield

    @tasks.task
    def export() -> None: ...

    @tasks.task
    def audit(what: str) -> None:
        happened.append(what)

    from fastapi import Depends

    @app.post("/{what}", status_code=202, dependencies=[Depends(session)] if looked_at else [])
    async def endpoint(what: str, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(audit.options(run_on_error=True), what)
        background_tasks.add_task(audit, "never")
        background_tasks.add_task(export.options(unique="export", on_duplicate="refuse", run_on_error=True, delay=60))

    export.options(unique="export", delay=60).enqueue_sync()
    assert client.post("/refused").status_code == 409
    wait_until(lambda: happened == ["refused"])


# Not too late


async def test_what_nobody_took_in_time_is_cancelled(tasks: Afterward, happened: list[str]) -> None:
    @tasks.task
    async def remind() -> None:
        happened.append("reminded")

    handle = await remind.options(expires=0.01).enqueue()
    await asyncio.sleep(0.02)
    async with tasks.running(WorkerOptions()):
        [job] = await tasks.ended([handle.id], 10)
    assert job is not None
    assert (job.status, job.note, happened) == (Status.cancelled, "expired", [])


# What follows


async def test_what_follows_is_called_with_what_has_ended(tasks: Afterward) -> None:
    """Stored in the transaction that ends the job: whoever sees that it has ended can count on it."""
    told: list[EndedJob] = []

    @tasks.task
    async def tell(ended: EndedJob) -> None:
        told.append(ended)

    @tasks.task(on_success=tell, on_failure=tell, max_attempts=2, backoff=0)
    def divide(number: int, by: int = 2) -> float:
        return number / by

    async with tasks.running(WorkerOptions()):
        well, ill = await divide.enqueue(3), await divide.enqueue(1, by=0)
        assert await well.result(timeout=10) == 1.5
        with pytest.raises(JobFailed):
            await ill.result(timeout=10)
        await soon(lambda: len(told) == 2)
    by_id = {ended.id: ended for ended in told}
    assert by_id[well.id] == EndedJob(well.id, divide.name, Status.succeeded, 1, {"number": 3}, 1.5, None)
    failed = by_id[ill.id]
    assert (failed.status, failed.attempt, failed.arguments) == (Status.failed, 2, {"number": 1, "by": 0})
    assert failed.failure is not None
    assert failed.failure.kind == "ZeroDivisionError"


async def test_what_follows_is_not_refused_for_the_size_of_what_has_ended(tasks: Afterward) -> None:
    told: list[int] = []

    @tasks.task
    async def tell(ended: EndedJob) -> None:
        told.append(len(ended.arguments["text"]) + len(ended.result))

    @tasks.task(on_success=tell)
    async def repeat(text: str) -> str:
        return text

    async with tasks.running(WorkerOptions()):
        await (await repeat.enqueue("x" * 200_000)).result(timeout=10)
        await soon(lambda: told == [400_000])


def test_what_follows_must_be_a_task_of_the_same_afterward(tasks: Afterward) -> None:
    def plain(ended: EndedJob) -> None: ...

    for hook in (plain, Afterward().task(name="other")(plain)):
        with pytest.raises(TaskError, match="take tasks of the same Afterward"):
            tasks.task(on_failure=hook)(test_what_follows_must_be_a_task_of_the_same_afterward)  # type: ignore[arg-type]


def test_what_follows_must_take_an_ended_job(tasks: Afterward) -> None:
    """Refused where it is declared, with the names of both and the mend."""

    async def nothing() -> None: ...

    async def text(job: str) -> None: ...

    async def more(ended: EndedJob, address: str) -> None: ...

    def work() -> None: ...

    mend = "annotate its first parameter EndedJob"
    hooks: list[Any] = [tasks.task(nothing), tasks.task(text), tasks.task(more)]
    for hook in hooks:
        with pytest.raises(TaskError, match=rf"task shop: on_success={hook.name} cannot be called .*{mend}"):
            tasks.task(name="shop", on_success=hook)(work)
        with pytest.raises(TaskError, match=rf"task shop: on_failure={hook.name} cannot be called .*{mend}"):
            tasks.task(name="shop", on_failure=hook)(work)


def test_what_follows_can_not_refuse_to_be_stored(tasks: Afterward) -> None:
    """Nobody waits for an answer there."""

    @tasks.task
    def refresh(ended: EndedJob) -> None: ...

    with pytest.raises(TaskError, match=r'on_success=.*refresh has on_duplicate="refuse"'):

        @tasks.task(on_success=refresh.options(unique="page", on_duplicate="refuse"))
        def publish() -> None: ...


def test_what_follows_is_checked_at_the_start_where_its_types_come_later(tasks: Afterward) -> None:
    module: dict[str, Any] = {"__name__": "shop", "tasks": tasks, "EndedJob": EndedJob}
    declared = dedent("""
        @tasks.task
        def well(ended: 'Later'): ...

        @tasks.task
        def ill(text: 'Text'): ...

        @tasks.task(on_success=well)
        def work(): ...

        @tasks.task(on_failure=ill)
        def work_ill(): ...

        Later, Text = EndedJob, str
    """)
    exec(declared, module)
    with pytest.raises(TaskError, match=r"task shop:work_ill: on_failure=shop:ill cannot be called"):
        tasks.check()


class Reading(BaseModel):
    """JSON has no word for an infinite one; this model has."""

    model_config = ConfigDict(ser_json_inf_nan="constants")
    value: float


async def test_a_job_ends_though_what_follows_cannot_be_stored(
    tasks: Afterward, caplog: pytest.LogCaptureFixture
) -> None:
    @tasks.task
    async def tell(ended: EndedJob) -> None: ...

    @tasks.task(on_success=tell)
    async def read(first: Reading) -> Reading:
        return first

    infinite = Reading(value=float("inf"))
    async with tasks.running(WorkerOptions()):
        assert await (await read.enqueue(infinite)).result(timeout=10) == infinite
    [event] = [record for record in caplog.records if "job.follow_up_refused" in record.message]
    assert event.levelname == "ERROR"
    fields: dict[str, object] = vars(event)["afterward"]
    assert (fields["task"], fields["then"]) == (read.name, tell.name)
    assert "cannot be stored" in str(fields["reason"])


# Many at once


async def test_ten_thousand_in_one_call(tasks: Afterward) -> None:
    """One transaction: all of them or none."""

    @tasks.task
    async def count(number: int) -> None: ...

    handles = await tasks.enqueue_many([count.prepare(number) for number in range(10_000)])
    assert len({handle.id for handle in handles}) == 10_000
    newest = await tasks.list(limit=3)
    assert [job.arguments for job in newest] == ['{"number":9999}', '{"number":9998}', '{"number":9997}']


# What makes no sense

SENSELESS: dict[str, dict[str, Any]] = {
    "no attempts": {"max_attempts": 0},
    "a negative timeout": {"timeout": -1},
    "expired at once": {"expires": 0},
    "expired before it is due": {"expires": 10, "delay": 20},
    "expired before its time": {
        "expires": datetime(2030, 1, 1, tzinfo=UTC),
        "run_at": datetime(2030, 1, 2, tzinfo=UTC),
    },
    "an expiry without a zone": {"expires": datetime.fromisoformat("2030-01-01T00:00")},
    "a duplicate of nothing": {"on_duplicate": "replace"},
    "an unknown word": {"unique": "key", "on_duplicate": "drop"},
}


@pytest.mark.parametrize("options", SENSELESS.values(), ids=SENSELESS.keys())
def test_options_that_make_no_sense_are_refused_where_they_are_said(tasks: Afterward, options: dict[str, Any]) -> None:
    @tasks.task
    def nothing() -> None: ...

    with pytest.raises(AfterwardError, match=r"task tests\.guide\.test_options:|span of"):
        nothing.options(**options)
