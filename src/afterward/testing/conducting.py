"""What the application and the store tell a test, and what it has run then."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from starlette.types import Message, Receive, Scope, Send

from afterward.app import Afterward
from afterward.calls import is_in_a_request
from afterward.errors import AfterwardError
from afterward.faults import Crash
from afterward.job import NewJob
from afterward.testing.failures import Failures
from afterward.testing.lives import Audience, Lives
from afterward.testing.running import Runner, has_loop, is_in_a_job


class NoAnswer(AfterwardError, ConnectionError):
    """The process of the application crashed before the client had its answer."""


class Conducting(Audience):
    """Has jobs run when they may, unless `manual`, and the call that had them run raise what they raised."""

    def __init__(self, tasks: Afterward, lives: Lives, runner: Runner, failures: Failures, *, manual: bool) -> None:
        self._tasks = tasks
        self._lives = lives
        self._runner = runner
        self._failures = failures
        self._manual = manual

    async def conduct(
        self, serve: Callable[[Scope, Receive, Send], Awaitable[None]], scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._runner.remember_loop()
        is_answered = False

        async def send_seen(message: Message) -> None:
            nonlocal is_answered
            await send(message)
            is_answered = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            if self._runs_by_itself():
                await self._serve_and_settle(serve, scope, receive, send_seen)
            else:
                await serve(scope, receive, send_seen)
        except Crash:
            if not is_answered:
                raise NoAnswer("the process crashed before the client had its answer") from None
        finally:
            self._lives.start_again_if_dead()

    async def _serve_and_settle(
        self, serve: Callable[[Scope, Receive, Send], Awaitable[None]], scope: Scope, receive: Receive, send: Send
    ) -> None:
        with self._failures.told():
            try:
                await serve(scope, receive, send)
            finally:
                await self._runner.settle()

    async def hear_of_wait(self) -> None:
        if self._runs_by_itself():
            await self._runner.settle()

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        self._runner.remember_loop()
        with self._runner.staying_here():
            if self._runs_by_itself():
                with self._failures.told():
                    await self._runner.settle()
            yield

    def hear_of_jobs(self, jobs: Sequence[NewJob]) -> None:
        # Without their files, which are read from the store and not from where they came from.
        self._lives.new |= {job.id: job._replace(files=()) for job in jobs}

    async def hear_of_start(self) -> None:
        if self._runs_by_itself():
            await self._runner.settle()

    async def hear_of_put(self) -> None:
        if self._runs_by_itself() and not is_in_a_request(self._tasks):
            with self._failures.told():
                await self._runner.settle()
                self._lives.start_again_if_dead()

    def hear_of_put_sync(self) -> None:
        if not has_loop():
            self._runner.run_sync(self.hear_of_put())

    def _runs_by_itself(self) -> bool:
        return not self._manual and not is_in_a_job()
