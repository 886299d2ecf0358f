"""Declaring tasks: what a function must be, and what is said of it, to be one."""

from __future__ import annotations

import inspect
import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar, cast, overload

from afterward.apps import Apps
from afterward.calls import is_answered
from afterward.carrier import Carrier
from afterward.errors import TaskError
from afterward.executors import Executor
from afterward.hooks import Hook, check_hooks
from afterward.looking import Looking
from afterward.naming import name_of
from afterward.observe import emit
from afterward.options import CallOptions, Seconds, checked, seconds, timeout_of
from afterward.retry import RetryPolicy, RetryRule
from afterward.task import AsyncTask, Task, TaskOptions, is_async

P = ParamSpec("P")
R = TypeVar("R")


class Declaring(Looking):
    """What an `Afterward` is to those who declare tasks, and to the tasks."""

    apps: Apps
    _carrier: Carrier
    _max_bytes: int
    _max_file_bytes: int

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        *,
        name: str | None = None,
        queue: str = "default",
        priority: int = 0,
        max_attempts: int = 5,
        timeout: Seconds | None = None,
        backoff: Seconds = 1.0,
        max_backoff: Seconds = 600.0,
        retry_on: type[BaseException] | Sequence[type[BaseException]] | RetryRule = (Exception,),
        give_up_on: type[BaseException] | Sequence[type[BaseException]] = (),
        on_success: Hook | None = None,
        on_failure: Hook | None = None,
        run_on_error: bool = False,
        executor: Executor | None = None,
        memory: int | str | None = None,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...
    def task(  # pyright: ignore[reportInconsistentOverload] - P and R are its result's own; a Hook is a Task
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        queue: str = "default",
        priority: int = 0,
        max_attempts: int = 5,
        timeout: Seconds | None = None,
        backoff: Seconds = 1.0,
        max_backoff: Seconds = 600.0,
        retry_on: type[BaseException] | Sequence[type[BaseException]] | RetryRule = (Exception,),
        give_up_on: type[BaseException] | Sequence[type[BaseException]] = (),
        on_success: Task[..., Any] | None = None,
        on_failure: Task[..., Any] | None = None,
        run_on_error: bool = False,
        executor: Executor | None = None,
        memory: int | str | None = None,
    ) -> Any:
        """Make a function durable: by saying so, its author allows it to run more than once.

        `name`: what it is stored under, by default `module:function`; give one before you rename or move a function
        that has jobs waiting. `max_attempts`: failures after which a job is failed for good. `timeout`: seconds for
        each attempt. `backoff`, `max_backoff`: the n-th failure waits a random part of
        `min(max_backoff, backoff * 2**(n-1))` seconds. `retry_on`, `give_up_on`: which exceptions are worth another
        attempt; or, as `retry_on`, a function of the number of failures so far and the exception, which answers False,
        True, or the seconds to wait. `on_success`, `on_failure`: tasks that take an `EndedJob`, stored together with
        the end of a job that has succeeded, or failed for good. `run_on_error`: keep it though the request ends in an
        exception before its response. `executor`: where it runs: "loop" (an `async def` does by itself), "thread" (a
        `def` does), "process": a child process, which keeps a processor busy for itself and can be killed, or "celery":
        a Celery worker, by way of the broker of `Afterward(celery=…)`.
        `memory`: what an attempt in a child process may take, with all that it starts: bytes, or "512MB".
        Raises `TaskError`.
        """

        def declare(function: Callable[..., Any]) -> Task[..., Any]:
            label = name or name_of(function)
            if max_attempts < 1:
                raise TaskError(f"task {label}: max_attempts={max_attempts} must be 1 or more")
            policy = RetryPolicy(
                max_attempts, seconds(backoff), seconds(max_backoff), _rule(retry_on, label), _kinds(give_up_on, label)
            )
            self._check_hooks(label, on_success, on_failure)
            options = TaskOptions(policy, timeout_of(timeout, label), on_success, on_failure, executor, memory)
            calls = checked(CallOptions(queue=queue, priority=priority, run_on_error=run_on_error), label)
            return self._register(function, label, options, calls)

        return declare if function is None else declare(function)

    def _register(
        self, function: Callable[..., Any], name: str, options: TaskOptions, call_options: CallOptions
    ) -> Task[..., Any]:
        if isinstance(function, Task):
            raise TaskError(f"task {name} is declared twice; one @tasks.task is enough")
        there = self.tasks.get(name)
        if there is not None:
            _check_replacement(there.function, function, name)
        kind = AsyncTask[..., Any] if is_async(function) else Task[..., Any]
        task = kind(self, function, name, options, call_options, self._max_bytes, self._max_file_bytes)
        self.tasks[name] = task
        return task

    def _check_hooks(self, name: str, on_success: Task[..., Any] | None, on_failure: Task[..., Any] | None) -> None:
        for hook in cast("tuple[object, ...]", (on_success, on_failure)):
            if hook is not None and (not isinstance(hook, Task) or hook.owner is not self):
                raise TaskError(
                    f"task {name}: on_success= and on_failure= take tasks of the same Afterward, not {hook!r}"
                )
        check_hooks(name, on_success, on_failure)

    @abstractmethod
    def answer_with(self, job: str, /) -> bool:
        """If the calling code runs in a request: let its response, if it is this id, become the status of the job."""

    @abstractmethod
    def foreign_task(self, thing: Any, /) -> Task[..., Any] | None:
        """A Celery task, or a signature of one, as a task to be added; None where nothing is handed over to Celery."""

    def check(self) -> None:
        """Raise `TaskError` for a task that cannot work, though it could be declared."""
        for task in self.tasks.values():
            task.arguments.check()
            task.result.check()
            if task.items is not None:
                task.items.check()
            check_hooks(task.name, task.task_options.on_success, task.task_options.on_failure)

    def capture_context(self) -> str | None:
        """The declared context variables as they are now, as text to store with a job."""
        return self._carrier.capture()

    def restore_context(self, stored: str) -> None:
        """Set the context variables that were stored with a job."""
        self._carrier.restore(stored)

    def hear_of_direct_call(self, task: str) -> None:
        """A task was called like a function: right anywhere but where FastAPI's own BackgroundTasks did it."""
        if is_answered():
            emit(
                logging.WARNING,
                "task.run_by_stock",
                task=task,
                reason="it was called after the response, as fastapi.BackgroundTasks does: in memory only, not stored, "
                "not retried; import BackgroundTasks from afterward",
            )


def _rule(errors: Any, name: str) -> tuple[type[BaseException], ...] | RetryRule:
    if callable(errors) and not isinstance(errors, type):
        return cast("RetryRule", errors)
    return _kinds(errors, name)


def _kinds(errors: Any, name: str) -> tuple[type[BaseException], ...]:
    kinds: tuple[Any, ...] = (errors,) if isinstance(errors, type) else tuple(errors)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TaskError(f"task {name}: retry_on= and give_up_on= take exception classes, not {kind!r}")
    return kinds


def _check_replacement(there: Callable[..., Any], function: Callable[..., Any], name: str) -> None:
    """A module that is loaded again, and a factory of apps that is called again, declare the same tasks again."""
    if _place(there) != _place(function):
        raise TaskError(f"two functions are declared as task {name!r}; give one of them another name=…")
    if _are_of_two_objects(there, function):
        raise TaskError(
            f"a method of two objects is declared as task {name!r}, and a job could not tell which of them is meant; "
            f"give one of them another name=…"
        )
    if "<locals>" in getattr(function, "__qualname__", "") and not _close_over_the_same(there, function):
        emit(
            logging.WARNING,
            "task.replaced",
            task=name,
            reason="the function that declares it has been called again, with other values: every job, also of the "
            "first, runs the newest; if that is not what you want, give each a name=…",
        )


def _place(function: Callable[..., Any]) -> object:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code is not None else id(function)


def _are_of_two_objects(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Are these methods bound to objects that differ, by more than that their class has been loaded again?"""
    first, second = getattr(one, "__self__", None), getattr(other, "__self__", None)
    kinds = [value if isinstance(value, type) else type(value) for value in (first, second)]
    is_loaded_again = kinds[0] is not kinds[1] and len({(kind.__module__, kind.__qualname__) for kind in kinds}) == 1
    return first is not second and not is_loaded_again


def _close_over_the_same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Have these functions the same values of what is around them? A function at module level has none."""
    cells = [getattr(inspect.unwrap(function), "__closure__", None) for function in (one, other)]
    try:
        return bool(cells[0] == cells[1])  # cells compare by what is in them
    except Exception:  # noqa: BLE001 - whatever a user's type raises while it is compared
        return False
