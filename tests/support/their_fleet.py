"""Real Celery workers that run `tests.support.theirs`, and an application that hands tasks over to them."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from afterward import Afterward, BackgroundTasks, JobHandle
from afterward.job import TERMINAL, EventKind, Job
from tests.support import theirs
from tests.support.processes import Process, Starter, environment_of_users
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Brokerage:
    """Where a fleet takes messages from, and where it keeps results."""

    broker: str
    results: str

    @property
    def environment(self) -> dict[str, str]:
        return {**environment_of_users(), "BROKER": self.broker, "RESULTS": self.results}


@contextmanager
def worker(
    starter: Starter, place: Brokerage, output: Path, pool: str = "prefork", slots: int = 2
) -> Generator[Process]:
    """A worker that is ready; killed in the end, with its children."""
    process = starter.start(
        "celery",
        *("-A", "tests.support.theirs", "worker", "--pool", pool, "--concurrency", str(slots)),
        *("--loglevel", "info", "--without-gossip", "--without-mingle", "--without-heartbeat"),
        environment=place.environment,
        output=output,
    )
    try:
        wait_until(lambda: " ready." in process.output(), f"the worker is ready:\n{process.output()}", 30)
        yield process
    finally:
        process.kill()


def module_on(place: Brokerage) -> ModuleType:
    """The module of the fleet as an application at this place imports it, which others do not see."""
    spec = importlib.util.find_spec(theirs.__name__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = {name: os.environ.get(name) for name in ("BROKER", "RESULTS")}
    os.environ.update(BROKER=place.broker, RESULTS=place.results)
    try:
        spec.loader.exec_module(module)
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
    return module


class Shop:
    """An application with a store of its own; `theirs`: the module of the fleet, as it imports it."""

    def __init__(self, database: Path, place: Brokerage, **options: Any) -> None:
        self.theirs: Any = module_on(place)
        self.tasks = Afterward(f"sqlite:///{database}", celery=self.theirs.app, **options)
        self.app = FastAPI()
        self.tasks.install(self.app)
        self._adding: tuple[Any, tuple[Any, ...], dict[str, Any]] | None = None

        @self.app.post("/add", status_code=202)
        async def add(background_tasks: BackgroundTasks) -> dict[str, str]:
            assert self._adding is not None
            task, args, kwargs = self._adding
            handle = cast("JobHandle[Any]", background_tasks.add_task(task, *args, **kwargs))
            return {"job": handle.id}

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[AsyncClient]:
        async with (
            self.app.router.lifespan_context(self.app),
            AsyncClient(transport=ASGITransport(self.app), base_url="http://shop") as client,
        ):
            self.client = client
            yield client

    async def add(self, task: Any, *args: Any, **kwargs: Any) -> str:
        """What an endpoint adds: the id of the job."""
        self._adding = task, args, kwargs
        return str((await self.client.post("/add")).raise_for_status().json()["job"])

    async def job(self, id_: str) -> Job:
        found = await self.tasks.get(id_)
        assert found is not None
        return found

    async def ended(self, id_: str, seconds: float = 20) -> Job:
        [job] = await self.tasks.ended([id_], timeout=seconds)
        assert job is not None
        assert job.status in TERMINAL
        return job

    async def lines(self, id_: str) -> list[str]:
        """What the log of a job tells."""
        [stream] = await self.tasks.store.events([(id_, 0)], 100)
        assert stream is not None
        return [json.loads(event.data)["message"] for event in stream.events if event.kind is EventKind.log]
