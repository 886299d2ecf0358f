"""Pages that are open hear of what changes."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import httpx
import pytest
from fastapi import FastAPI

from afterward import Afterward
from afterward.job import EventKind, NewEvent, Process, Report
from afterward.stores.base import Wanted
from afterward.stores.sqlite import SQLiteStore
from afterward.web.dashboard import pulse as module
from afterward.web.dashboard.pulse import pulse
from afterward.web.tail import Tail
from tests.support.serving import served
from tests.support.stores import new_job, put

pytestmark = pytest.mark.anyio

CHANGED = b"event: changed\ndata: \n\n"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here waits for long."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(module, "PACE_SECONDS", 0.01)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(str(tmp_path / "jobs.db"))
    await store.open()
    yield store
    await store.close()


class Listener:
    """What one page hears."""

    def __init__(self, store: SQLiteStore, job: str | None = None) -> None:
        self.tail = Tail(store)
        self._stream = pulse(store, self.tail, job)

    async def __aenter__(self) -> Self:
        assert (await anext(self._stream)).startswith(b"retry: ")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stream.aclose()

    async def quiet(self) -> None:
        """It is told nothing, but that all is well."""
        assert await anext(self._stream) == b": \n\n"

    async def changes(self) -> None:
        """It is told of a change, sooner or later."""
        async with asyncio.timeout(5):
            while await anext(self._stream) != CHANGED:
                pass

    async def ends(self) -> None:
        async with asyncio.timeout(5):
            assert [word async for word in self._stream if word == CHANGED] == []


async def test_it_is_told_when_any_job_changes_and_only_then(store: SQLiteStore) -> None:
    await put(store, new_job())
    async with Listener(store) as page:
        await page.quiet()
        [id_] = await put(store, new_job())
        await page.changes()
        await page.quiet()
        await store.cancel([id_])
        await page.changes()
        await page.quiet()


async def test_it_is_told_when_a_queue_is_paused_and_when_a_worker_comes(store: SQLiteStore) -> None:
    async with Listener(store) as page:
        await page.quiet()
        await store.pause("default", "ana")
        await page.changes()
        await store.join(Process("worker", 1, "example"))
        await page.changes()
        await page.quiet()
    await store.leave("worker")


async def test_the_page_of_a_job_is_told_of_that_job_alone(store: SQLiteStore) -> None:
    mine, other = await put(store, new_job(), new_job())
    await store.join(Process("worker", 1, "example"))
    async with Listener(store, mine) as page:
        await page.quiet()
        await store.cancel([other])
        await page.quiet()
        [lease] = (await store.claim("worker", [Wanted(["app:send"], 1)], "token")).leases
        await page.changes()
        await page.quiet()
        for number in (1, 2):
            said = NewEvent(EventKind.item, json.dumps(number))
            assert await store.report([(lease, Report(number, (said,)))]) == [True]
            await page.changes()
            await page.quiet()
    await store.leave("worker")


async def test_a_job_that_is_forgotten_is_seldom_looked_for(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of it may be open for days."""
    waited: list[float] = []

    async def ended(seconds: float) -> bool:
        waited.append(seconds)
        return False

    monkeypatch.setattr(module, "LOOK_SECONDS", 5.0)  # in which the store answers, though it is never waited for
    async with Listener(store, new_job().id) as page:
        monkeypatch.setattr(page.tail, "ended", ended)
        await page.quiet()
        await page.quiet()
        assert waited.count(module.LOOK_SECONDS) == waited.count(module.PACE_SECONDS) > 7


async def test_it_ends_when_the_server_does(store: SQLiteStore) -> None:
    [id_] = await put(store, new_job())
    for job in (None, id_):
        async with Listener(store, job) as page:
            await page.quiet()
            page.tail.end()
            await page.ends()


async def test_it_ends_after_a_while_and_where_the_store_is_away(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Listener(store) as page:
        await page.quiet()
        await store.close()
        await page.ends()
    await store.open()
    monkeypatch.setattr(module, "LONGEST_SECONDS", 0.0)
    async with Listener(store) as page:
        await page.ends()


async def test_a_server_stops_though_pages_are_open(tmp_path: Path, development: None) -> None:
    tasks, app = Afterward(f"sqlite:///{tmp_path / 'jobs.db'}"), FastAPI()
    tasks.install(app, worker=False)
    app.include_router(tasks.dashboard())
    async with httpx.AsyncClient(timeout=30) as client:
        with served(app) as address:
            async with client.stream("GET", f"{address.url}/tasks/changes") as stream:
                assert stream.headers["content-type"].startswith("text/event-stream")
                words = stream.aiter_bytes()
                assert (await anext(words)).startswith(b"retry: ")
                tasks.tails.end()  # as the signal does
                async with asyncio.timeout(10):
                    async for _ in words:
                        pass
            began = time.monotonic()
        assert time.monotonic() - began < 4, "it waited for the streams"
