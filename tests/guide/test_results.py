"""What comes of a job: waited for, looked at, from any process, typed as the task returns it."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from afterward import (
    Afterward,
    BackgroundTasks,
    GiveUp,
    JobCancelled,
    JobFailed,
    JobUnknown,
    ResultTimeout,
    Ruling,
    Status,
)
from afterward.engine.worker import WorkerOptions

pytestmark = pytest.mark.anyio


@dataclass
class Report:
    """What a task returns."""

    lines: int
    made_at: datetime


async def test_a_result_is_what_the_task_returned(tasks: Afterward) -> None:
    """As its annotation says: a dataclass comes back as one, a time as a time."""
    made_at = datetime(2030, 1, 2, tzinfo=UTC)

    @tasks.task
    async def make_report(lines: int) -> Report:
        return Report(lines, made_at)

    async with tasks.running(WorkerOptions()):
        handle = await make_report.enqueue(3)
        assert await handle.result(timeout=10) == Report(3, made_at)
        assert await make_report.handle(handle.id).result() == Report(3, made_at)
        job = await handle.job()
    assert job is not None
    assert job.status is Status.succeeded


async def test_a_task_that_returns_nothing_has_the_result_none(tasks: Afterward) -> None:
    @tasks.task
    def nothing() -> None: ...

    async with tasks.running(WorkerOptions()):
        assert (await (await nothing.enqueue()).result(timeout=10)) is None  # type: ignore[func-returns-value]


async def test_a_failed_job_raises_with_the_error_of_its_task_as_text(tasks: Afterward) -> None:
    """Not the exception itself: it may have been raised in another process, and nothing is unpickled."""

    @tasks.task(max_attempts=1)
    async def fail() -> int:
        raise ValueError("no such account")

    async with tasks.running(WorkerOptions()):
        handle = await fail.enqueue()
        with pytest.raises(JobFailed, match=f"{handle.id} of task .*: ValueError: no such account") as failed:
            await handle.result(timeout=10)
    assert (failed.value.job, failed.value.kind) == (handle.id, "ValueError")
    assert 'raise ValueError("no such account")' in failed.value.traceback


def get_account() -> str:
    raise ValueError("no such account")


@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.parametrize("kind", ["async def", "def", "dependency"])
async def test_the_traceback_of_a_failure_begins_in_the_code_of_its_task(
    tasks: Afterward, kind: str, timeout: float | None
) -> None:
    async def fail_in_loop() -> None:
        get_account()

    def fail_in_thread() -> None:
        get_account()

    def depend(account: str = Depends(get_account)) -> None: ...

    function: Callable[[], Any] = {"async def": fail_in_loop, "def": fail_in_thread, "dependency": depend}[kind]
    task = tasks.task(max_attempts=1, timeout=timeout)(function)
    async with tasks.running(WorkerOptions()):
        with pytest.raises(JobFailed) as failed:
            await (await task.enqueue()).result(timeout=10)
    head, first, *_ = failed.value.traceback.splitlines()
    assert head == "Traceback (most recent call last):"
    assert f'File "{__file__}"' in first


async def test_what_is_no_error_of_the_code_of_its_task_has_a_text_alone(tasks: Afterward) -> None:
    @tasks.task(max_attempts=1, timeout=0.01)
    async def wait() -> None:
        await asyncio.Event().wait()

    async with tasks.running(WorkerOptions()):
        with pytest.raises(JobFailed) as failed:
            await (await wait.enqueue()).result(timeout=10)
    assert failed.value.traceback == (
        "afterward.errors.AttemptTimedOut: the attempt took longer than its timeout of 0.01 s\n"
    )


async def test_waiting_has_an_end_and_the_job_goes_on(tasks: Afterward) -> None:
    go = asyncio.Event()

    @tasks.task
    async def wait() -> str:
        await go.wait()
        return "done"

    async with tasks.running(WorkerOptions()):
        handle = await wait.enqueue()
        with pytest.raises(ResultTimeout, match=r"0\.05 s"):
            await handle.result(timeout=timedelta(seconds=0.05))
        waiting = asyncio.ensure_future(handle.result())
        go.set()
        assert await waiting == "done"


async def test_a_timeout_of_nothing_asks_whether_it_has_ended(tasks: Afterward) -> None:
    @tasks.task
    async def double(number: int) -> int:
        return 2 * number

    handle = await double.enqueue(4)
    others = await tasks.enqueue_many([double.options(delay=60).prepare(number) for number in range(2)])
    with pytest.raises(ResultTimeout, match=f"^job {handle.id} had not ended after 0 s; it goes on$"):
        await handle.result(timeout=0)
    async with tasks.running(WorkerOptions()):
        assert await handle.result(timeout=10) == 8
    assert await handle.result(timeout=0) == 8
    assert await tasks.results([handle, handle], timeout=0) == [8, 8]
    with pytest.raises(ResultTimeout, match=r"^2 of 3 jobs had not ended after 0\.01 s; they go on$"):
        await tasks.results([others[0], handle, *others], timeout=0.01)
    with pytest.raises(ResultTimeout, match=r"^1 of 2 jobs had not ended after 0 s; it goes on$"):
        await tasks.results([others[0], handle], timeout=0)


async def test_what_was_cancelled_and_what_is_unknown_have_no_result(tasks: Afterward) -> None:
    @tasks.task
    def later() -> int:
        return 1

    handle = await later.options(delay=60).enqueue()
    assert await tasks.cancel(handle.id) is Ruling.done
    assert await tasks.cancel(handle.id) is Ruling.forbidden
    with pytest.raises(JobCancelled, match="cancelled"):
        await handle.result()
    with pytest.raises(JobUnknown, match="no job nothing"):
        await later.handle("nothing").result()
    assert await later.handle("nothing").job() is None
    assert await tasks.cancel("nothing") is Ruling.unknown


async def test_several_are_waited_for_together(tasks: Afterward) -> None:
    """In the order of the handles, whichever ends first."""

    @tasks.task
    async def double(number: int) -> int:
        if number < 0:
            raise GiveUp("negative")
        await asyncio.sleep(0.01 * (3 - number))
        return 2 * number

    async with tasks.running(WorkerOptions()):
        handles = await tasks.enqueue_many([double.prepare(number) for number in range(3)])
        assert await tasks.results(handles, timeout=10) == [0, 2, 4]
        assert await tasks.results([handles[0], handles[0]]) == [0, 0]
        assert await tasks.results([]) == []
        with pytest.raises(JobFailed, match="negative"):
            await tasks.results([handles[0], await double.enqueue(-1)], timeout=10)


async def test_a_handle_whose_unique_key_was_taken_leads_to_the_job_that_has_it(tasks: Afterward) -> None:
    @tasks.task
    def once() -> str:
        return "done"

    first = await once.options(unique="key").enqueue()
    second = await once.options(unique="key").enqueue()
    assert first != second
    async with tasks.running(WorkerOptions()):
        assert await tasks.results([second, first], timeout=10) == ["done", "done"]


async def test_a_failed_job_can_be_tried_again(tasks: Afterward) -> None:
    broken = True

    @tasks.task(max_attempts=1)
    async def mend() -> str:
        if broken:
            raise ValueError
        return "mended"

    async with tasks.running(WorkerOptions()):
        handle = await mend.enqueue()
        with pytest.raises(JobFailed, match=f"^job {handle.id} of task {mend.name} failed: ValueError$"):
            await handle.result(timeout=10)
        broken = False
        assert await tasks.retry(handle.id) is Ruling.done
        assert await handle.result(timeout=10) == "mended"
        assert await tasks.retry(handle.id) is Ruling.forbidden


def test_from_plain_code(tasks: Afterward, app: FastAPI, client: TestClient) -> None:
    """`result_sync` blocks. A handle is good for as long as the job is kept."""

    @tasks.task
    def double(number: int) -> int:
        return 2 * number

    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks) -> str:
        return background_tasks.add_task(double, 4).id

    assert double.handle(client.post("/").json()).result_sync(timeout=10) == 8
    assert double.enqueue_sync(5).result_sync(timeout=10) == 10


def test_from_another_process(tmp_path: Path) -> None:
    """It waits in this one for what a worker does in that one."""
    (tmp_path / "shop.py").write_text(
        dedent("""
        from afterward import Afterward
        tasks = Afterward("sqlite:///jobs.db")

        @tasks.task
        def double(number: int) -> int:
            return 2 * number
        """)
    )
    ask = "import shop; print(shop.double.enqueue_sync(4).result_sync(timeout=30))"
    worker = subprocess.Popen([sys.executable, "-m", "afterward", "worker", "shop:tasks"], cwd=tmp_path)
    try:
        asked = subprocess.run(
            [sys.executable, "-c", ask], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
        )
    finally:
        worker.terminate()
        assert worker.wait(20) == 0
    assert asked.stdout == "8\n", asked.stderr
