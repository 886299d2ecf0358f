"""The program: its tasks, and the endpoints that add them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from afterward.cli.doctor.finding import Finding, ok, refusal, warning
from afterward.cli.target import Program
from afterward.endpoints import stock_endpoints
from afterward.errors import TaskError
from afterward.sizes import many
from afterward.task import Task


def examine_program(program: Program) -> Iterator[Finding]:
    """What a target has named."""
    tasks = [task for afterward in program.afterwards for task in afterward.tasks.values()]
    wrong = [finding for task in tasks for finding in examine_task(task)]
    yield from wrong
    if not wrong:
        yield ok("tasks", f"{many(len(tasks), 'task')}, each of which can be stored and found")
    for app in program.apps:
        yield endpoints(stock_endpoints(app))


def examine_task(task: Task[..., Any]) -> Iterator[Finding]:
    """Its annotations can be stored, and a child process finds it."""
    try:
        task.arguments.check()
    except TaskError as error:
        yield refusal("tasks", error, "annotate the arguments with what can be stored")
    module, _, path = task.name_in_code.partition(":")
    if "<locals>" in path:
        said = f"task {task.name} cannot be found by a child process: a job whose worker died twice has failed then"
        yield warning("tasks", said, "define it at module level, in a module that can be imported")
    elif not _is_found(module, path):
        said = f"task {task.name} is not found as {task.name_in_code}, where a child process would look for it"
        yield warning("tasks", said, "keep it in the module under the name of its function")


def _is_found(module: str, path: str) -> bool:
    try:
        found: Any = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except Exception:  # noqa: BLE001 - whatever the import of a user's module raises
        return False
    return isinstance(found, Task)


def endpoints(stock: list[str]) -> Finding:
    """Those that take FastAPI's own class keep tasks in memory."""
    if not stock:
        return ok("endpoints", "none takes fastapi.BackgroundTasks")
    said = f"{', '.join(stock)}: fastapi.BackgroundTasks is taken, and a task added there would run in memory only"
    return warning("endpoints", said, "import BackgroundTasks from afterward")
