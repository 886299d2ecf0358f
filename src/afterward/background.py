"""Where jobs are born: what an endpoint or a dependency adds tasks to, and how it gets it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar, overload

from fastapi import BackgroundTasks as StockBackgroundTasks
from fastapi import Depends
from fastapi.requests import HTTPConnection
from starlette.background import BackgroundTask as StockBackgroundTask

from afterward.calls import CALLS, call_of, calls_in, durable_of
from afterward.foreign import CeleryTaskLike, SignatureLike
from afterward.handle import JobHandle
from afterward.onlookers import Participant
from afterward.request import Call
from afterward.task import Owner, Task, Yielding

P = ParamSpec("P")
R = TypeVar("R")


class BackgroundTasks(StockBackgroundTask, Participant):
    """What an endpoint or a dependency adds tasks to, in place of `fastapi.BackgroundTasks`.

    A task made durable by `@tasks.task` is stored before the response starts and runs after the request is over.
    Any other function behaves exactly as with `fastapi.BackgroundTasks`. Made by hand, it can be given to a response
    as its `background`, for Starlette's sake.
    """

    _calls: dict[Owner, Call] | None = None

    def __init__(self, tasks: Sequence[StockBackgroundTask] | None = None) -> None:
        self._stock = StockBackgroundTasks(tasks)

    @property
    def tasks(self) -> list[StockBackgroundTask]:
        """The functions that run in memory, without durability."""
        return self._stock.tasks

    def runs_in_memory(self) -> bool:
        return bool(self._stock.tasks)

    @overload
    def add_task(self, func: Task[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]: ...
    @overload
    def add_task(self, func: Task[P, Yielding], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[None]: ...
    @overload
    def add_task(self, func: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]: ...
    @overload
    def add_task(self, func: CeleryTaskLike | SignatureLike, /, *args: Any, **kwargs: Any) -> JobHandle[Any]: ...
    @overload
    def add_task(self, func: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
    def add_task(self, /, *args: Any, **kwargs: Any) -> JobHandle[Any] | None:
        """Run `func` after the response, with these arguments.

        For a durable task: its handle, with the id under which the job can be found. So it is for a task of the Celery
        app that `Afterward(celery=…)` was given, and for a signature of one. Raises `ArgumentError` when the arguments
        do not fit the function or cannot be stored, `NotInARequest` outside of one.
        """
        # No parameter of its own has a name, for the function may have one of the same: `func`, too.
        func: Any = args[0] if args else kwargs.get("func")
        task = durable_of(func, self._calls)
        if task is None:
            self._stock.add_task(*args, **kwargs)
            return None
        if not args:
            del kwargs["func"]
        return call_of(task, self._calls).add(task, args[1:], kwargs, self)

    async def __call__(self) -> None:
        """Run what runs in memory; what is durable has been stored."""
        await self._stock()

    async def flush(self) -> None:
        """Write now what was added to transactions of the application's own; they are yet to be committed.

        A session has it written when it commits. A connection that is awaited needs this, before it commits, unless it
        comes from a dependency with `scope="function"` that `tasks.joining` knows of.
        """
        for call in (self._calls or CALLS.get({})).values():
            await call.write_joined()

    def inject(self, calls: dict[Owner, Call] | None, stock: StockBackgroundTasks) -> None:
        self._calls, self._stock = calls, stock

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """The request's dependencies exit: an error discards what was added here and is not yet stored."""
        if error is not None and self._calls is not None:
            for call in self._calls.values():
                call.discard(self)


class BackgroundTask(StockBackgroundTask, Participant):
    """One task, made by hand and given to a response as its `background`; as `starlette.background.BackgroundTask`."""

    if TYPE_CHECKING:

        def __init__(self, func: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> None: ...

        job: JobHandle[Any] | None
    else:

        def __init__(self, /, *args: Any, **kwargs: Any) -> None:
            self.job = None
            func = args[0] if args else kwargs.get("func")
            task = durable_of(func, None)
            if task is None:
                super().__init__(*args, **kwargs)
                return
            if not args:
                del kwargs["func"]
            super().__init__(task)
            self.args, self.kwargs = args[1:], kwargs
            self.job = call_of(task, None).add(task, self.args, kwargs, self)

    def runs_in_memory(self) -> bool:
        return self.job is None

    async def __call__(self) -> None:
        if self.job is None:
            await super().__call__()


async def provide(connection: HTTPConnection, stock: StockBackgroundTasks) -> BackgroundTasks:
    """The dependency behind the public name `BackgroundTasks`.

    It learns of an error from FastAPI's own stack of exits, as a dependency with `yield` would, at a fraction of the
    cost. (`provide_with_yield` serves a FastAPI that keeps no such stack.)
    """
    tasks = BackgroundTasks.__new__(BackgroundTasks)  # without a container of its own
    tasks.inject(calls_in(connection.scope), stock)
    connection.scope[_EXITS].push(tasks)
    return tasks


async def provide_with_yield(connection: HTTPConnection, stock: StockBackgroundTasks) -> Any:
    """`provide`, by public means alone."""
    tasks = BackgroundTasks.__new__(BackgroundTasks)  # without a container of its own
    tasks.inject(calls_in(connection.scope), stock)
    try:
        yield tasks
    except BaseException as error:
        tasks.__exit__(type(error), error, None)
        raise


_EXITS = "fastapi_inner_astack"


def _keeps_exits() -> bool:
    """Does this FastAPI put its stack of exits into the scope? (It has since 0.106.)"""
    import fastapi.routing

    codes = [fastapi.routing.request_response.__code__]
    for code in codes:
        if _EXITS in code.co_consts:
            return True
        codes += [constant for constant in code.co_consts if hasattr(constant, "co_consts")]
    return False


Injected = Annotated[BackgroundTasks, Depends(provide if _keeps_exits() else provide_with_yield, scope="request")]
