"""Lines that a job writes to the standard `logging` are stored with it, and shown with it.

Everybody else has them as before: nothing is taken away from the log, and nothing is set up.
"""

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from afterward import Afterward
from afterward.engine import lines
from afterward.engine.worker import WorkerOptions
from tests.support.said import said

pytestmark = pytest.mark.anyio

log = logging.getLogger("shop.oven")


@pytest.fixture(autouse=True)
def lets_pass() -> Iterator[None]:
    """The application lets lines of this level pass."""
    log.setLevel(logging.DEBUG)
    yield
    log.setLevel(logging.NOTSET)


async def lines_of(tasks: Afterward, work: Any) -> list[dict[str, str]]:
    """The lines that a job which does this has written."""
    task = tasks.task(name="bake", max_attempts=1)(work)
    async with tasks.running(WorkerOptions()):
        handle = await task.enqueue()
        await tasks.ended([handle.id], timeout=10)
        return await said(tasks, handle)


async def test_a_line_is_stored_with_the_job_that_wrote_it(tasks: Afterward) -> None:
    async def bake() -> None:
        log.info("loaf %s of %d", "one", 3)

    assert await lines_of(tasks, bake) == [{"level": "INFO", "logger": "shop.oven", "message": "loaf one of 3"}]


async def test_each_job_has_its_own_and_nobody_elses(tasks: Afterward) -> None:
    """Whatever runs at the same time; in threads as well, and in those that a job begins with its context."""
    both, first = threading.Barrier(2), asyncio.Event()

    @tasks.task
    def in_thread(name: str) -> None:
        both.wait(10)
        log.info("%s", name)

    @tasks.task
    async def in_loop() -> None:
        await asyncio.to_thread(log.info, "in a thread of the loop's")
        first.set()

    async with tasks.running(WorkerOptions()):
        handles = [await in_thread.enqueue("rye"), await in_thread.enqueue("wheat"), await in_loop.enqueue()]
        await first.wait()
        log.info("nobody's")
        await tasks.results(handles, timeout=10)
        found = [[line["message"] for line in await said(tasks, handle)] for handle in handles]
    assert found == [["rye"], ["wheat"], ["in a thread of the loop's"]]


async def test_an_exception_is_stored_as_text(tasks: Afterward) -> None:
    def bake() -> None:
        try:
            raise OSError("the oven is cold")
        except OSError:
            log.exception("no loaf")

    [line] = await lines_of(tasks, bake)
    assert line["message"].startswith("no loaf\nTraceback (most recent call last):\n")
    assert line["message"].endswith("OSError: the oven is cold")


async def test_a_line_is_bounded(tasks: Afterward) -> None:
    """So is its traceback, of which the end counts."""

    def bake() -> None:
        try:
            raise OSError(2 * lines.MAX_LINE * "e" + "!")
        except OSError:
            log.exception(2 * lines.MAX_LINE * "m")

    [line] = await lines_of(tasks, bake)
    message, _, traceback = line["message"].partition("\n")
    assert message == lines.MAX_LINE * "m"
    assert traceback == (lines.MAX_LINE - 1) * "e" + "!"


async def test_the_names_in_a_line_are_bounded(tasks: Afterward) -> None:
    """Of its logger, and of its level."""
    oven = logging.getLogger(2 * lines.MAX_NAME * "o")

    def bake() -> None:
        record = oven.makeRecord(oven.name, logging.INFO, "", 0, "baked", (), None)
        record.levelname = 2 * lines.MAX_NAME * "L"
        oven.handle(record)

    [line] = await lines_of(tasks, bake)
    assert line == {"logger": lines.MAX_NAME * "o", "level": lines.MAX_NAME * "L", "message": "baked"}


@pytest.mark.parametrize(("level", "kept"), [(logging.INFO, ["info", "error"]), (logging.ERROR, ["error"]), (None, [])])
async def test_from_which_level_on_is_said_once(tmp_path: Path, level: int | None, kept: list[str]) -> None:
    """`Afterward(log_level=…)`; None stores no lines."""

    async def bake() -> None:
        log.debug("debug")
        log.info("info")
        log.error("error")

    tasks = Afterward(f"sqlite:///{tmp_path}/jobs.db", log_level=level)
    assert [line["message"] for line in await lines_of(tasks, bake)] == kept


async def test_a_line_that_the_applications_loggers_do_not_let_pass_is_not_stored(tasks: Afterward) -> None:
    """The library sets no levels."""

    async def bake() -> None:
        log.setLevel(logging.ERROR)
        log.warning("not wanted")
        log.error("wanted")

    assert [line["message"] for line in await lines_of(tasks, bake)] == ["wanted"]


async def test_a_filter_of_a_logger_has_its_say(tasks: Afterward) -> None:
    """One that hides secrets, for one."""

    def hide(record: logging.LogRecord) -> bool:
        record.msg, record.args = "the key is ***", ()
        return True

    async def bake() -> None:
        log.addFilter(hide)
        try:
            log.info("the key is %s", "abc")
        finally:
            log.removeFilter(hide)

    assert [line["message"] for line in await lines_of(tasks, bake)] == ["the key is ***"]


async def test_the_librarys_own_lines_are_no_jobs(tasks: Afterward) -> None:
    """They tell of jobs, to whoever runs them."""

    @tasks.task(name="other")
    async def other() -> None: ...

    async def bake() -> None:
        logging.getLogger("afterward").error("an event")
        logging.getLogger("afterward.any").error("another")
        logging.getLogger("afterwards").error("of somebody else")
        await other.enqueue()

    assert [line["message"] for line in await lines_of(tasks, bake)] == ["of somebody else"]


async def test_a_line_whose_text_cannot_be_had_says_so(tasks: Afterward, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job goes on. What is no text is written out."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    monkeypatch.setattr(log, "propagate", False)  # pytest's own handler would raise
    monkeypatch.setattr(log, "handlers", [lines._LINES])  # pyright: ignore[reportPrivateUsage]

    async def bake() -> None:
        log.info("%d loaves", "many")
        log.info("a\0b\udcff")

    assert [line["message"] for line in await lines_of(tasks, bake)] == [
        "<its text could not be had: TypeError>",
        "a\\0b\\udcff",
    ]


async def test_nothing_of_it_is_left_when_no_worker_runs(tasks: Afterward) -> None:
    before = list(logging.root.handlers)

    async def bake() -> None:
        assert logging.root.handlers != before

    assert await lines_of(tasks, bake) == []
    assert logging.root.handlers == before


def test_python_prints_what_it_printed_without(tmp_path: Path) -> None:
    """Warnings go to standard error where nobody has set up anything, of jobs and of everybody else."""
    program = f"""
        import asyncio, logging
        from afterward import Afterward
        from afterward.engine.worker import WorkerOptions

        logging.getLogger("afterward").propagate = False
        tasks = Afterward("sqlite:///{tmp_path}/jobs.db")

        @tasks.task(name="bake")
        async def bake() -> None:
            logging.warning("of a job")
            logging.info("not shown")

        async def main() -> None:
            async with tasks.running(WorkerOptions()):
                await (await bake.enqueue()).result(timeout=20)
                logging.getLogger("any").warning("of nobody")
                logging.getLogger("other").addHandler(logging.NullHandler())
                logging.getLogger("other").warning("taken by its own handler")

        asyncio.run(main())
    """
    run = subprocess.run([sys.executable, "-c", dedent(program)], capture_output=True, text=True, check=True)
    assert run.stderr.splitlines() == ["of a job", "of nobody"]


async def test_handlers_of_the_application_have_their_lines_too(tasks: Afterward) -> None:
    seen = StringIO()
    handler = logging.StreamHandler(seen)
    log.addHandler(handler)

    async def bake() -> None:
        log.info("seen twice")

    try:
        assert len(await lines_of(tasks, bake)) == 1
    finally:
        log.removeHandler(handler)
    assert seen.getvalue() == "seen twice\n"
