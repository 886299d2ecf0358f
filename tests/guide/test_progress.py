"""What a running task can say: how far it is, and what it has made so far. It is stored while the task runs.

How it is gathered and written: `tests/engine/test_reporter.py`.
"""

import asyncio
import dataclasses
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from decimal import Decimal
from textwrap import dedent
from typing import Any

import pytest
from pydantic import BaseModel

from afterward import Afterward, ArgumentError, NoCurrentJob, cancel_asked, check_cancelled, emit, progress
from afterward.engine.worker import WorkerOptions
from afterward.job import EventKind
from tests.support import speaking
from tests.support.said import events_of, items, said, suspect

pytestmark = pytest.mark.anyio


async def test_a_task_says_how_far_it_is(tasks: Afterward) -> None:
    """It is seen while the task runs, as part of its job."""
    go_on = asyncio.Event()

    @tasks.task
    async def bake(loaves: int) -> None:
        progress(1, loaves, "in the oven")
        await go_on.wait()

    async with tasks.running(WorkerOptions()):
        handle = await bake.enqueue(3)
        while not (job := await handle.job()) or job.progress is None:
            await tasks.store.watch([handle.id], 1)
        go_on.set()
        assert job.status == "running"
        assert job.progress == '{"current": 1, "total": 3, "message": "in the oven"}'
        await handle.result(timeout=10)


async def test_total_and_message_may_be_left_out(tasks: Afterward) -> None:
    """A number may be of any type."""

    @tasks.task
    def bake() -> None:
        progress(Decimal("0.5"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    async with tasks.running(WorkerOptions()):
        handle = await bake.enqueue()
        await handle.result(timeout=10)
    assert await said(tasks, handle) == [{"current": 0.5, "total": None, "message": None}]


async def test_of_what_is_said_in_quick_succession_the_last_counts(tasks: Afterward) -> None:
    """The last that is said is stored together with the end: nobody sees a job that is done and not at its end."""

    @tasks.task
    async def bake() -> None:
        for loaf in range(1_000):
            progress(loaf + 1, 1_000)

    async with tasks.running(WorkerOptions()):
        handle = await bake.enqueue()
        await handle.result(timeout=10)
    progresses = await said(tasks, handle)
    assert len(progresses) <= 2
    assert progresses[-1]["current"] == 1_000


class Loaf(BaseModel):
    """Something that Pydantic knows."""

    name: str
    made_at: datetime


@dataclasses.dataclass
class Crumb:
    """So is a dataclass."""

    weight: Decimal


async def test_a_task_says_what_it_has_made_so_far(tasks: Afterward) -> None:
    """Whatever Pydantic can write as JSON, in order."""
    at = datetime(2030, 1, 2, tzinfo=UTC)

    @tasks.task
    def bake() -> str:
        for what in ("a loaf", Loaf(name="rye", made_at=at), [Crumb(Decimal("0.10"))], {at.date(): b"\0"}, None):
            emit(what)
        return "all baked"

    async with tasks.running(WorkerOptions()):
        handle = await bake.enqueue()
        assert await handle.result(timeout=10) == "all baked"
    assert await items(tasks, handle) == [
        "a loaf",
        {"name": "rye", "made_at": "2030-01-02T00:00:00Z"},
        [{"weight": "0.10"}],
        {"2030-01-02": "AA=="},
        None,
    ]


async def test_it_can_be_said_from_whatever_the_task_calls(tasks: Afterward) -> None:
    """In asyncio tasks of its own, and in threads that have its context."""

    def in_thread() -> None:
        emit(threading.current_thread().name)

    @tasks.task
    async def bake() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(in_thread))
            group.create_task(asyncio.sleep(0))
        emit("in the loop")

    async with tasks.running(WorkerOptions()):
        handle = await bake.enqueue()
        await handle.result(timeout=10)
    thread, loop = await items(tasks, handle)
    assert thread != threading.current_thread().name
    assert loop == "in the loop"


async def test_it_can_be_said_in_a_child_process(tasks: Afterward) -> None:
    """There a job runs whose worker has died of it twice. Lines of its log are stored as well."""
    speak = tasks.task(name=speaking.speak.name)(speaking.speak.function)
    async with tasks.running(None):
        handle = await speak.enqueue(3)
        await suspect(tasks, handle)
        async with tasks.running(WorkerOptions()):
            assert await handle.result(timeout=20) == 3
    line, item, *_, last = await said(tasks, handle)
    assert line == {"level": "WARNING", "logger": "shop", "message": f"job {handle.id}"}
    assert item["pid"] != os.getpid()
    assert last == {"current": 3, "total": 3, "message": None}


async def test_the_next_attempt_goes_on_with_the_numbers(tasks: Afterward) -> None:
    """What the one before has said stays, and each event says whose it is."""
    failures = [OSError("the oven is cold"), None]

    @tasks.task(backoff=0)
    async def bake() -> None:
        progress(1, 2)
        emit("dough")
        if failure := failures.pop(0):
            raise failure

    async with tasks.running(WorkerOptions()):
        handle = await bake.enqueue()
        await handle.result(timeout=10)
    events = await events_of(tasks, handle)
    assert [(event.number, event.attempt, event.kind) for event in events] == [
        (1, 1, EventKind.progress),
        (2, 1, EventKind.item),
        (3, 2, EventKind.progress),
        (4, 2, EventKind.item),
    ]


# Refused, where it is said


@pytest.mark.parametrize(
    ("say", "told"),
    [
        (lambda: progress("half"), "current must be a number, not 'half'"),  # type: ignore[arg-type]
        (lambda: progress(1, float("nan")), "total must be a number, not nan"),
        (lambda: progress(10**400), "current must be a number"),
        (lambda: progress(10**5000), "current must be a number, not this int, which cannot be shown"),
        (lambda: emit(threading.Lock()), "this lock cannot"),
        (lambda: emit("x" * 65_536), "at most 65,536 bytes"),
        (lambda: emit("\ud800"), "this str cannot"),
        (lambda: progress(1, message="x" * 65_536), "progress(): one event takes at most"),
    ],
)
async def test_what_cannot_be_said_is_refused_with_the_reason(tasks: Afterward, say: Any, told: str) -> None:
    """The rest of the task can go on."""

    @tasks.task
    async def bake() -> str:
        with pytest.raises(ArgumentError) as refused:
            say()
        return str(refused.value)

    async with tasks.running(WorkerOptions()):
        handle = await bake.enqueue()
        assert told in await handle.result(timeout=10)
    assert await said(tasks, handle) == []


async def test_a_message_may_hold_any_characters(tasks: Afterward) -> None:
    """A name of a file, say, of which nobody knows the encoding."""

    @tasks.task
    async def read() -> None:
        progress(1, message="a\0b\udcff")

    async with tasks.running(WorkerOptions()):
        handle = await read.enqueue()
        await handle.result(timeout=10)
    assert await said(tasks, handle) == [{"current": 1, "total": None, "message": "a\\0b\\udcff"}]


@pytest.mark.parametrize(
    ("function", "arguments"), [(progress, (1,)), (emit, (1,)), (cancel_asked, ()), (check_cancelled, ())]
)
def test_outside_of_a_job_there_is_nobody_to_say_it_for(function: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(NoCurrentJob, match=rf"{function.__name__}\(\) was called outside of a job"):
        function(*arguments)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system knows no fork")
def test_a_process_that_is_forked_from_the_jobs_cannot_speak_for_it() -> None:
    """It has a copy of what is gathered, which nobody reports: it is told so, and not kept waiting."""
    program = """
        import asyncio, logging, os, tempfile
        from afterward import Afterward, NoCurrentJob, emit
        from afterward.engine.worker import WorkerOptions

        logging.basicConfig(handlers=[logging.NullHandler()])
        tasks = Afterward(f"sqlite:///{tempfile.mkdtemp()}/jobs.db")

        @tasks.task(name="fork")
        def fork() -> int:
            emit("before")
            if not (child := os.fork()):
                logging.warning("a line")
                try:
                    emit("in the child")
                except NoCurrentJob:
                    os._exit(7)
                os._exit(1)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        async def main() -> None:
            async with tasks.running(WorkerOptions()):
                handle = await fork.enqueue()
                code = await handle.result(timeout=20)
                [stream] = await tasks.store.events([(handle.id, 0)], 10)
                print(code, [event.data for event in stream.events])

        asyncio.run(main())
    """
    output = subprocess.run([sys.executable, "-c", dedent(program)], capture_output=True, text=True, check=True)
    assert output.stdout == "7 ['\"before\"']\n"
