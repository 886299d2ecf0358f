"""Where a task runs, and how much memory it may take: what is said of it, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from afterward import Afterward, TaskError
from tests.support import heavy


@pytest.fixture
def tasks(tmp_path: Path) -> Afterward:
    """Nothing is opened before it is needed."""
    return Afterward(f"sqlite:///{tmp_path}/jobs.db")


def compute() -> None: ...


async def wait() -> None: ...


@pytest.mark.parametrize(
    ("function", "said", "executor"),
    [
        (compute, None, "thread"),
        (compute, "thread", "thread"),
        (compute, "process", "process"),
        (wait, None, "loop"),
        (wait, "loop", "loop"),
        (wait, "process", "process"),
    ],
)
def test_a_function_runs_where_it_is_said_or_where_it_can(
    tasks: Afterward, function: Callable[[], Any], said: Any, executor: str
) -> None:
    task = tasks.task(executor=said)(function)
    assert (task.executor, task.options(delay=1).executor, task.memory) == (executor, executor, None)


@pytest.mark.parametrize(
    ("memory", "size"), [(1024, 1024), ("512MB", 512_000_000), ("1.5 GiB", 1_610_612_736), ("64kB", 64_000)]
)
def test_memory_is_a_number_of_bytes_or_a_size_in_words(tasks: Afterward, memory: int | str, size: int) -> None:
    assert tasks.task(executor="process", memory=memory)(compute).memory == size


def test_what_cannot_work_is_refused_as_it_is_declared(tasks: Afterward, monkeypatch: pytest.MonkeyPatch) -> None:
    def inside() -> None: ...

    refused: list[tuple[Callable[[], Any], dict[str, Any], str]] = [
        (compute, {"executor": "loop"}, "'loop' is for an `async def`.* leave executor= out"),
        (wait, {"executor": "thread"}, "'thread' is for a `def`.* leave executor= out"),
        (wait, {"executor": "server"}, "must be one of 'loop', 'thread', 'process' and 'celery'"),
        (inside, {"executor": "process"}, "defined inside another.* define it at the top of a module"),
        (compute, {"memory": "1GB"}, "memory= .* say executor='process' with it"),
        *[
            (compute, {"executor": "process", "memory": size}, "is no size; give bytes, or a text like '512MB'")
            for size in (0, -1, "", "much", "12 bananas", True, 1.5)
        ],
    ]
    for function, options, message in refused:
        with pytest.raises(TaskError, match=message):
            tasks.task(**options)(function)

    def finds_nothing(name: str) -> None: ...

    monkeypatch.setattr("importlib.util.find_spec", finds_nothing)
    with pytest.raises(TaskError, match=r"needs psutil.*afterward\[process\]"):
        tasks.task(executor="process", memory=1)(compute)


def test_a_task_that_was_declared_so_can_be_called_as_any_function() -> None:
    """In the calling process."""
    assert heavy.leave("nothing") == "nothing"
