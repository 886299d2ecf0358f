"""Real Celery workers, which run the tasks of `tests.support.hosted`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec

from afterward import Afterward, JobHandle
from afterward.job import EventKind
from afterward.task import Task
from tests.support.processes import Process, Starter, environment_of_users
from tests.support.waiting import wait_until

P = ParamSpec("P")

_SMALL = ["--without-gossip", "--without-mingle", "--without-heartbeat"]


@dataclass(frozen=True)
class Place:
    """Where a worker finds its jobs: a store, and a broker."""

    store: str
    broker: str

    @property
    def environment(self) -> dict[str, str]:
        return {**environment_of_users(), "AFTERWARD_URL": self.store, "AFTERWARD_CELERY_URL": self.broker}


@contextmanager
def worker(
    starter: Starter, place: Place, pool: str, output: Path, slots: int = 2, *, options: Sequence[str] = ()
) -> Generator[Process]:
    """A worker that is ready; killed in the end, with its children."""
    process = starter.start(
        "celery",
        *("-A", "tests.support.hosted:celery", "worker", "--pool", pool, "--concurrency", str(slots)),
        *("--loglevel", "info", *_SMALL, *options),
        environment=place.environment,
        output=output,
    )
    try:
        wait_until(lambda: " ready." in process.output(), f"the worker is ready:\n{process.output()}", 30)
        yield process
    finally:
        process.kill()


@contextmanager
def on_page(app: str, *options: str) -> Generator[None]:
    """A worker of the app that a page of the documentation makes, for its proof; killed in the end."""
    command = [sys.executable, "-m", "celery", "-A", app, "worker", "--pool", "threads", *_SMALL, *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


@dataclass(frozen=True)
class Fleet:
    """A worker, and what adds jobs for it and passes them on."""

    place: Place
    worker: Process
    tasks: Afterward

    async def add(self, task: Task[P, Any], *args: P.args, **kwargs: P.kwargs) -> JobHandle[Any]:
        """A job of one of the tasks of `hosted`; its handle looks at this store."""
        [added] = await self.tasks.enqueue_many([task.prepare(*args, **kwargs)])
        return JobHandle(added.id, task.name, self.tasks, task.result)

    async def said(self, job: JobHandle[Any]) -> list[Any]:
        """What it has emitted so far."""
        [stream] = await self.tasks.store.events([(job.id, 0)], 100)
        assert stream is not None
        return [json.loads(event.data) for event in stream.events if event.kind is EventKind.item]

    async def until_said(self, job: JobHandle[Any], count: int = 1) -> list[Any]:
        """The same, once it is so much: as it runs."""
        heard: list[Any] = []
        async with asyncio.timeout(30):
            while len(heard) < count:
                heard = await self.said(job)
        return heard
