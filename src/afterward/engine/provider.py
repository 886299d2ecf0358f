"""Gives the dependencies of a task to one attempt of it, and tears them down when the function has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any

from fastapi.params import Depends

from afterward.context import VOICE
from afterward.dependencies import Dependency, Kind, Needs
from afterward.engine.threads import Threads
from afterward.task import Task

_SET_UPS_AT_ONCE = 40
"""Threads in which `def` dependencies of `async def` tasks are set up: as many as FastAPI gives its endpoints."""


class Deadline:
    """The time up to which an attempt is heard."""

    has_passed = False


class Provider:
    """What the attempts of one worker share."""

    def __init__(self, threads: Threads) -> None:
        self.threads = threads
        self._set_ups = asyncio.Semaphore(_SET_UPS_AT_ONCE)
        self._at_once: dict[Depends, asyncio.Semaphore] = {}
        self._left: list[AsyncExitStack] = []

    async def run(
        self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], deadline: Deadline
    ) -> str | None:
        """Call the task's function with its dependencies; what it returned, as it is to be stored.

        Dependencies with `yield` are torn down before this ends. They see every exception, and may raise another in its
        place; one that swallows it changes nothing. `deadline`: after which nobody hears of the outcome.
        """
        async with AsyncExitStack() as stack:
            attempt = _Attempt(self, task, stack, deadline)
            values = await attempt.solve(task.dependencies_now())
            result = await attempt.call(task.body, args, {**kwargs, **values}, threaded=not task.is_async)
            attempt.refuse_if_late()
            return task.result.dump(result)  # while the session that it may be loaded from is open

    def set_up(self, *, is_async: bool) -> AbstractAsyncContextManager[Any]:
        """Wait for a thread to set up in; a `def` task has one for itself. Tearing down waits for none: it frees."""
        return self._set_ups if is_async else nullcontext()

    def turn(self, dependency: Dependency) -> AbstractAsyncContextManager[Any]:
        """Wait until no more of a dependency are in use than its `max_concurrency` allows."""
        if dependency.at_once is None:
            return nullcontext()
        return self._at_once.setdefault(dependency.marker, asyncio.Semaphore(dependency.at_once))

    def leave(self, stack: AsyncExitStack) -> None:
        """Tear nothing down that is on this stack: kept, for a generator that is forgotten is torn down at once."""
        self._left.append(stack.pop_all())


class _Attempt:
    """The dependencies of one attempt. Each is called once, unless it asks to be called anew."""

    def __init__(self, provider: Provider, task: Task[..., Any], stack: AsyncExitStack, deadline: Deadline) -> None:
        job = VOICE.get().job
        self._key = job.id, job.attempt
        self._provider = provider
        self._task = task
        self._stack = stack
        self._values: dict[Callable[..., Any], Any] = {}
        self._context = _ThreadContext()
        self._deadline = deadline

    def refuse_if_late(self) -> None:
        """Raise the cancellation that has come and was let pass, where nobody hears of the outcome any more.

        So nothing is kept of it, by the dependencies that have not ended yet.
        """
        if self._deadline.has_passed:
            raise asyncio.CancelledError

    async def solve(self, needs: Needs) -> dict[str, Any]:
        """The values of these parameters."""
        return {name: await self._value(dependency) for name, dependency in needs}

    async def _value(self, dependency: Dependency) -> Any:
        if dependency.marker.use_cache and dependency.key in self._values:
            return self._values[dependency.key]
        needs = await self.solve(dependency.needs)
        if dependency.kind in {Kind.generator, Kind.async_generator}:
            await self._stack.enter_async_context(self._provider.turn(dependency))
            value = await self._enter(dependency, needs)
        else:
            async with self._provider.turn(dependency):
                value = await self._called(dependency, needs)
        self._values.setdefault(dependency.key, value)
        return value

    async def _called(self, dependency: Dependency, needs: dict[str, Any]) -> Any:
        if dependency.kind is Kind.given:
            return self._task.owner.apps.lifespan_state()
        if dependency.kind is Kind.awaited:
            return await dependency.call(**needs)
        async with self._provider.set_up(is_async=self._task.is_async):
            return await self.call(dependency.call, (), needs, threaded=True)

    async def _enter(self, dependency: Dependency, needs: dict[str, Any]) -> Any:
        if dependency.kind is Kind.async_generator:
            in_loop = asynccontextmanager(dependency.call)(**needs)
            value = await in_loop.__aenter__()
            self._stack.push_async_exit(self._never_swallowing(in_loop.__aexit__))
            return value
        in_thread = contextmanager(dependency.call)(**needs)

        async def leave(*error: Any) -> None:
            await self._returned(in_thread.__exit__, error, {})

        async with self._provider.set_up(is_async=self._task.is_async):
            value, cancelled = await self._returned(in_thread.__enter__, (), {})
        self._stack.push_async_exit(self._never_swallowing(leave))
        if cancelled is not None:
            raise cancelled
        return value

    def _never_swallowing(self, leave: Callable[..., Any]) -> Callable[..., Any]:
        """Neither the exception that it is called with, nor the end of the attempt's time."""

        async def left(kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
            await leave(kind, error, at)
            if error is None:
                self.refuse_if_late()

        return left

    async def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, threaded: bool
    ) -> Any:
        """Call it here, or in a thread."""
        if not threaded:
            return await function(*args, **kwargs)
        result, cancelled = await self._returned(function, args, kwargs)
        if cancelled is not None:
            raise cancelled
        return result

    async def _returned(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, asyncio.CancelledError | None]:
        """What a call in a thread returned, and the cancellation that came meanwhile.

        A thread cannot be stopped, and what it is given must not be torn down under it: a cancellation waits. The end
        of the process waits for no thread: what was set up is then left as it is.
        """
        threads = self._provider.threads
        call = threads.call(self._key, self._context.now(), function, args, kwargs)
        cancelled: asyncio.CancelledError | None = None
        while not call.done():
            try:
                await asyncio.wait({call, threads.stopped}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError as error:
                cancelled = error
            if threads.stopped.done() and not call.done():
                self._provider.leave(self._stack)
                raise cancelled or asyncio.CancelledError
        result, error = call.result()
        if error is not None:
            raise cancelled or error
        return result, cancelled


class _ThreadContext:
    """The context variables of what one attempt calls in threads: what one call sets, the next one sees.

    What is set in the loop is seen in the threads as well.
    """

    def __init__(self) -> None:
        self._loop = copy_context()
        self._threads = self._loop.copy()

    def now(self) -> Context:
        """The context to make the next call in; one at a time."""
        loop = copy_context()
        for variable, value in loop.items():
            if self._loop.get(variable, _UNSET) is not value:
                self._threads.run(variable.set, value)
        self._loop = loop
        return self._threads


_UNSET: Any = object()
