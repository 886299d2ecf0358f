"""A task: a function, its name, its options."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeAlias, TypeVar, cast, overload

from afterward.apps import Apps
from afterward.arguments import ArgumentCodec
from afterward.codec import DEFAULT_MAX_BYTES
from afterward.dependencies import Needs, Unresolvable, dependencies_of
from afterward.errors import TaskError
from afterward.executors import Executor, check_importable, executor_of, memory_of
from afterward.handle import JobHandle, Jobs
from afterward.identity import new_id
from afterward.job import NewJob
from afterward.naming import importable_name
from afterward.options import (
    UNSAID,
    CallOptions,
    Joinable,
    Seconds,
    Unsaid,
    checked,
    checked_owner,
    on_duplicate_of,
    seconds,
    timeout_of,
)
from afterward.result import ResultCodec
from afterward.retry import RetryPolicy
from afterward.uploads import DEFAULT_MAX_FILE_BYTES
from afterward.yielding import ItemCodec, exhausting, yields, yields_in_loop

Yielding: TypeAlias = AsyncIterator[Any] | Iterator[Any]
"""What a generator function is annotated with: its items are said while it runs, and its result is None."""

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What is said of a task once, where it is declared. `timeout` is in seconds, for each attempt.

    `on_success`, `on_failure`: tasks that are called with an `EndedJob` when a job has ended so.
    `executor`: where it runs; None leaves that to its function. `memory`: what an attempt may take.
    """

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: float | None = None
    on_success: Task[..., Any] | None = None
    on_failure: Task[..., Any] | None = None
    executor: Executor | None = None
    memory: int | str | None = None


class Owner(Jobs, Protocol):
    """What a task needs of the `Afterward` it belongs to."""

    @property
    def apps(self) -> Apps: ...

    def foreign_task(self, thing: Any, /) -> Task[..., Any] | None: ...

    def capture_context(self) -> str | None: ...

    def restore_context(self, stored: str) -> None: ...

    def hear_of_direct_call(self, task: str) -> None: ...

    async def enqueue_many(
        self, jobs: Iterable[NewJob], *, transaction: Joinable | None = None
    ) -> list[JobHandle[Any]]: ...

    def enqueue_many_sync(
        self, jobs: Iterable[NewJob], *, transaction: Joinable | None = None
    ) -> list[JobHandle[Any]]: ...


class Task(Generic[P, R_co]):
    """A registered function. Calling it calls the function, here and now; `add_task` and `enqueue` make it durable.

    Made by `@tasks.task`, never by hand.
    """

    __name__: str

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        owner: Owner,
        function: Callable[P, R_co],
        name: str,
        options: TaskOptions,
        call_options: CallOptions,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_file_bytes: int = DEFAULT_MAX_FILE_BYTES,
    ) -> None:
        functools.update_wrapper(self, function)
        for mine in dir(type(self)):  # also where the function has an attribute of that name
            if not mine.startswith("__"):
                self.__dict__.pop(mine, None)
        self.owner = owner
        self.function = function
        self.name = name
        self.name_in_code = importable_name(function)
        self.is_async = is_async(function) or yields_in_loop(function)
        self._executor: Executor = executor_of(options.executor, name, is_async=self.is_async)
        self._memory = memory_of(options.memory, self._executor, name)
        if self._executor == "process":
            check_importable(self.name_in_code, name)
        self.items = ItemCodec(function, name) if yields(function) else None
        self.body = function if self.items is None else exhausting(function, self.items)
        self.task_options = options
        self.has_hooks = options.on_success is not None or options.on_failure is not None
        self.call_options = call_options
        self.max_bytes, self.max_file_bytes = max_bytes, max_file_bytes
        self.result = ResultCodec(function, name, max_bytes, yields=self.items is not None)
        with contextlib.suppress(Unresolvable):  # by what stands further down in its module: looked at when it is used
            self.arguments  # noqa: B018 - built and kept

    @property
    def executor(self) -> Executor:
        """Where its function runs: `loop`, `thread`, `process` or `celery`."""
        return self._executor

    @property
    def is_threaded(self) -> bool:
        """Does it take a thread of the process that runs it?"""
        return self._executor == "thread" or (self._executor == "celery" and not self.is_async)

    @property
    def memory(self) -> int | None:
        """What an attempt may take, in bytes; None for as much as there is."""
        return self._memory

    @cached_property
    def dependencies(self) -> Needs:
        """The parameters that are not given with a call, but by where it runs. Raises `TaskError`."""
        return dependencies_of(self.function, self.name)

    @cached_property
    def arguments(self) -> ArgumentCodec:
        """The parameters that are given with a call. Raises `TaskError`."""
        names = frozenset(name for name, _ in self.dependencies)
        return ArgumentCodec(self.function, self.name, self.max_bytes, names, self.max_file_bytes)

    def dependencies_now(self) -> Needs:
        """`dependencies`, with what the applications override at this moment."""
        overrides = self.owner.apps.overrides()
        return dependencies_of(self.function, self.name, overrides) if overrides else self.dependencies

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        self.owner.hear_of_direct_call(self.name)
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def options(
        self,
        *,
        delay: Seconds | None = None,
        run_at: datetime | None = None,
        queue: str | None = None,
        priority: int | None = None,
        unique: str | None = None,
        on_duplicate: Literal["keep", "replace", "refuse"] | None = None,
        expires: Seconds | datetime | None = None,
        max_attempts: int | None = None,
        timeout: Seconds | None = None,
        run_on_error: bool | None = None,
        transaction: Joinable | Unsaid | None = UNSAID,
        owner: str | None = None,
    ) -> Task[P, R_co]:
        """A copy of this task with other options, for one call or for many.

        - `delay` or `run_at` (with a time zone): not before then. `priority`: larger is more urgent.
        - `unique`: a key that one unfinished job of this task can have. `on_duplicate`: what to do when it is taken:
          `"keep"` stores nothing, and the handle leads to the job that is there; `"replace"` cancels the one that waits
          (one that runs is not tried again); `"refuse"` raises `DuplicateJob`, or answers the request with 409.
        - `expires`: no attempt begins after so many seconds, or after that time; the job is cancelled then.
        - `max_attempts`, `timeout`: in place of what the task says.
        - `run_on_error`: keep the task though the request ends in an exception before its response.
        - `transaction`: a session of SQLAlchemy or SQLModel, or a connection of asyncpg or psycopg: the job is stored
          together with what it commits, or not at all. None: by itself, whatever the request joins.
        - `owner`: whose the job is, whoever makes the request; see `Afterward.owned_by`.

        Raises `TaskError` for what makes no sense.
        """
        if delay is not None and run_at is not None:
            raise TaskError(f"task {self.name}: delay= and run_at= exclude each other")
        changes: dict[str, Any] = {
            "delay": None if delay is None else seconds(delay),
            "run_at": run_at,
            "queue": queue,
            "priority": priority,
            "unique": unique,
            "on_duplicate": None if on_duplicate is None else on_duplicate_of(on_duplicate, self.name),
            "expires": expires if expires is None or isinstance(expires, datetime) else seconds(expires),
            "max_attempts": max_attempts,
            "timeout": timeout_of(timeout, self.name),
            "run_on_error": run_on_error,
            "owner": None if owner is None else checked_owner(owner),
        }
        given = {name: value for name, value in changes.items() if value is not None}
        if delay is not None or run_at is not None:  # the one said last counts
            given |= {"delay": changes["delay"], "run_at": run_at}
        if transaction is not UNSAID:
            given["transaction"] = transaction
        copy: Task[P, R_co] = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.call_options = checked(replace(self.call_options, **given), self.name)
        return copy

    def prepare(self, /, *args: P.args, **kwargs: P.kwargs) -> NewJob:
        """One call of this task, checked and ready to be stored by `enqueue_many`.

        Raises `ArgumentError` when the arguments do not fit the function or cannot be stored.
        """
        if self.joins_one_transaction:
            raise TaskError(
                f"task {self.name}: what is prepared joins no transaction by itself; "
                f"give that to `enqueue_many(…, transaction=…)`"
            )
        return self.new_job(args, kwargs)

    @property
    def joins_one_transaction(self) -> bool:
        """Do its options name the transaction that its calls join?"""
        return self.call_options.transaction is not None and self.call_options.transaction is not UNSAID

    def new_job(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, limited: bool = True, origin: str | None = None
    ) -> NewJob:
        """`prepare`, for arguments that are at hand as a tuple and a dict. `limited`: of the size that is allowed.

        `origin`: the request that makes the call.
        """
        options = self.call_options
        arguments, files = self.arguments.pack(args, kwargs, limited=limited)
        return NewJob(
            new_id(),
            self.name,
            options.queue,
            options.priority,
            arguments,
            self.owner.capture_context(),
            options.delay,
            options.run_at,
            options.unique,
            options.on_duplicate,
            options.expires,
            options.max_attempts,
            options.timeout,
            files,
            options.owner,
            origin,
        )

    @overload
    def handle(self: Task[P, Coroutine[Any, Any, R]], job: str) -> JobHandle[R]: ...
    @overload
    def handle(self: Task[P, Yielding], job: str) -> JobHandle[None]: ...
    @overload
    def handle(self, job: str) -> JobHandle[R_co]: ...
    def handle(self, job: str) -> JobHandle[Any]:
        """A handle of the job of this id, which is one of this task; from whatever process it came."""
        return JobHandle(job, self.name, self.owner, self.result)

    @overload
    async def enqueue(self: Task[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]: ...
    @overload
    async def enqueue(self: Task[P, Yielding], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[None]: ...
    @overload
    async def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R_co]: ...
    async def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[Any]:
        """Store one call of this task now; it is on stable storage when this returns.

        Raises `ArgumentError`, `DuplicateJob`, and `StoreUnavailable` when it could not be stored.
        """
        return (await self.owner.enqueue_many([self.new_job(args, kwargs)], transaction=self._transaction))[0]

    @overload
    def enqueue_sync(self: Task[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]: ...
    @overload
    def enqueue_sync(self: Task[P, Yielding], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[None]: ...
    @overload
    def enqueue_sync(self, /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R_co]: ...
    def enqueue_sync(self, /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[Any]:
        """`enqueue` for code without an event loop. It blocks until the job is stored."""
        return self.owner.enqueue_many_sync([self.new_job(args, kwargs)], transaction=self._transaction)[0]

    @property
    def _transaction(self) -> Joinable | None:
        return self.call_options.transaction if self.joins_one_transaction else None


class AsyncTask(Task[P, R_co]):
    """A task whose function is `async def`: frameworks that look see a coroutine function."""

    # What it returns is what its base says it returns: R_co is the coroutine.
    async def __call__(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, /, *args: P.args, **kwargs: P.kwargs
    ) -> Any:
        self.owner.hear_of_direct_call(self.name)
        return await cast("Awaitable[Any]", self.function(*args, **kwargs))


def is_async(function: Callable[..., Any]) -> bool:
    """Does calling `function` give a coroutine?"""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
