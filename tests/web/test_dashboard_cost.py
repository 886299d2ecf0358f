"""What a page costs the store: a few looks, however many jobs there are."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from afterward import Afterward
from afterward.stores.sqlite import SQLiteStore
from tests.support.gallery import Gallery
from tests.support.stores import new_job, put
from tests.support.visiting import Visitor


class Counting(SQLiteStore):
    """Notes each look at the store."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.looks = 0

    def _look(self, *args: Any, **kwargs: Any) -> Any:
        self.looks += 1
        return super()._look(*args, **kwargs)

    def _survey(self, *args: Any, **kwargs: Any) -> Any:
        self.looks += 1
        return super()._survey(*args, **kwargs)


@pytest.fixture
def counted(painted: Gallery, development: None) -> Iterator[tuple[Visitor, Counting]]:
    store = Counting(str(painted.file))
    tasks, app = Afterward(store=store), FastAPI()
    tasks.install(app, worker=False)
    app.include_router(tasks.dashboard())
    visitor = Visitor(app)
    with visitor.client:
        visitor.get("/queues")
        yield visitor, store


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("", 6),
        ("/jobs", 3),
        ("/jobs?status=failed&q=refused", 3),
        ("/failures", 1),
        ("/queues", 3),
        ("/workers", 2),
        ("/jobs/@failed", 2),
        ("/jobs/@running", 6),
        ("/jobs/@queued", 8),
        ("/jobs/@failed/requeue", 1),
        ("/bulk?action=cancel", 1),
    ],
)
def test_a_page_takes_a_few_looks(counted: tuple[Visitor, Counting], painted: Gallery, path: str, most: int) -> None:
    visitor, store = counted
    where, _, rest = path.partition("@")
    name, _, more = rest.partition("/")
    path = where + painted.jobs[name] + (f"/{more}" if more else "") if name else path
    before = store.looks
    visitor.client.get(f"/tasks{path}")
    assert 0 < store.looks - before <= most


def test_a_page_of_jobs_takes_no_more_looks_for_more_jobs(tmp_path: Path, development: None) -> None:
    store = Counting(str(tmp_path / "jobs.db"))

    async def fill() -> None:
        await store.open()
        await put(store, *(new_job() for _ in range(400)))
        await store.close()

    asyncio.run(fill())
    tasks, app = Afterward(store=store), FastAPI()
    tasks.install(app, worker=False)
    app.include_router(tasks.dashboard())
    visitor = Visitor(app)
    with visitor.client:
        visitor.get("/queues")
        before = store.looks
        visitor.get("/jobs")
        assert store.looks - before == 3
