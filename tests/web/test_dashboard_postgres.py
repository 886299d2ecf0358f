"""The dashboard on PostgreSQL: each page asks what that store answers too."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from afterward import Afterward, Status, Task
from tests.support.opening import opened
from tests.support.visiting import Visitor
from tests.support.waiting import wait_until


@pytest.fixture
def tasks(postgres_url: str) -> Iterator[Afterward]:
    with opened(Afterward(postgres_url)) as tasks:
        yield tasks


@pytest.fixture
def fail(tasks: Afterward) -> Task[[str], None]:
    @tasks.task(name="shop:fail", max_attempts=1)
    def fail(email: str) -> None:
        raise ValueError(email)

    return fail


@pytest.fixture
def visitor(tasks: Afterward, fail: Any, development: None) -> Iterator[Visitor]:
    app = FastAPI()
    tasks.install(app)
    app.include_router(tasks.dashboard())
    visitor = Visitor(app)
    with visitor.client:
        yield visitor


def test_every_page_is_there_and_every_action_done(visitor: Visitor, tasks: Afterward, fail: Task[[str], None]) -> None:
    def status(id_: str) -> Status:
        job = tasks.run_sync(tasks.get(id_))
        assert job is not None
        return job.status

    failed = fail.enqueue_sync("ana@example.com").id
    later = fail.options(delay=3600, queue="mail").enqueue_sync("bea@example.com").id
    wait_until(lambda: status(failed) is Status.failed)
    for path in ("", "?range=24h", "/jobs", "/workers", "/queues", f"/jobs/{failed}/requeue", "/bulk?action=retry"):
        visitor.see(path)
    assert [row["failed"] for row in visitor.see("/failures").rows()] == ["1"]
    assert len(visitor.see("/jobs?q=ANA@&status=failed").rows()) == 1
    assert "ValueError" in visitor.see(f"/jobs/{failed}").one("main").text
    assert "Why is it not running?" in visitor.see(f"/jobs/{later}").one("main").text
    wait_until(lambda: visitor.see("/workers").rows()[0]["serves"] == "all queues", "its process says what it runs")
    visitor.do("/bulk?action=cancel&queue=mail", "/bulk", word="cancel")
    assert status(later) is Status.cancelled
    page = visitor.post("/queues/pause", visitor.see("/queues").form("/tasks/queues/pause") | {"queue": "mail"})
    assert page.headers["location"].endswith("said=paused")
    visitor.do(f"/jobs/{later}", f"/jobs/{later}/retry")
    assert "mail" in visitor.see().one("h1").text
