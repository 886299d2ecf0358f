"""What Celery's result back ends keep of tasks, read as it is kept; and jobs that are followed by it."""

import asyncio
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from afterward import Afterward
from afterward.celery.backend import UNREADABLE, Meta, Results, meta_of, silence_of
from afterward.celery.told import end_of, failure_of, is_begun
from afterward.engine.worker import WorkerOptions
from afterward.job import Cancelled, Job, Status, Succeeded
from afterward.reasons import Cause
from servers.valkey import Valkey
from tests.support.waiting import told

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),  # by Celery
]


@pytest.fixture(params=["redis", "database", "files"])
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Celery:
    """An app whose results are kept there."""
    match request.param:
        case "redis":
            backend = str(request.getfixturevalue("valkey_url"))
        case "database":
            backend = f"db+sqlite:///{tmp_path}/results.db"
        case _:
            (tmp_path / "results").mkdir()
            backend = f"file://{tmp_path}/results"
    return Celery("shop", backend=backend, set_as_current=False)


def keep(app: Celery, id_: str, state: str, result: Any, traceback: str | None = None) -> None:
    """As a worker does."""
    store: Any = app.backend.store_result
    store(id_, result, state, traceback=traceback)


def test_all_is_read_at_once_that_a_back_end_keeps(app: Celery) -> None:
    assert silence_of(app) is None
    app.backend.ensure_chords_allowed()
    keep(app, "one", "SUCCESS", {"n": 1})
    keep(app, "two", "STARTED", {"pid": 7})
    keep(app, "three", "FAILURE", ValueError("bad", 3), "Traceback …\nValueError: bad")
    keep(app, "four", "RETRY", OSError("later"))
    one, none, two, three, four = Results(app).read(["one", "none", "two", "three", "four"])
    assert none is None
    assert [meta.state for meta in (one, two, three, four) if meta] == ["SUCCESS", "STARTED", "FAILURE", "RETRY"]
    assert one is not None
    assert three is not None
    end = end_of(one, "shop.pack", 1000)
    assert end is not None
    if one.is_readable:  # older versions keep what they keep in a database as a pickle
        assert end.outcome == Succeeded('{"n":1}')
    failure = failure_of(three, "shop.pack")
    assert failure.kind == "ValueError"
    assert failure.message in {"bad, 3", "bad"}


class Bomb:
    """What must not be made of a pickle."""

    def __reduce__(self) -> Any:
        return os.abort, ()


def test_a_pickle_is_not_read(valkey_url: str) -> None:
    assert meta_of(pickle.dumps({"status": "SUCCESS", "result": Bomb()})) is UNREADABLE
    assert is_begun(UNREADABLE)
    app = Celery("shop", backend=valkey_url, set_as_current=False)
    app.conf.result_serializer = "pickle"
    assert silence_of(app) == "results are kept as pickle, and not as JSON"


@pytest.mark.parametrize(
    ("backend", "why"),
    [(None, "no result back end"), ("rpc://", "whoever has published it alone"), ("cache+memory://", "")],
)
def test_a_back_end_that_tells_nothing_is_known(backend: str | None, why: str) -> None:
    said = silence_of(Celery("shop", backend=backend, set_as_current=False)) or ""
    assert why in said
    assert bool(said) is bool(why)


def test_what_was_revoked_is_cancelled() -> None:
    end = end_of(Meta("REVOKED", {"exc_type": "TaskRevokedError", "exc_message": ["terminated"]}), "shop.pack", 1000)
    assert end is not None
    assert isinstance(end.outcome, Cancelled)


def test_a_state_of_a_task_s_own_tells_that_it_runs() -> None:
    assert is_begun(Meta("PROGRESS", {"done": 3}))
    assert not is_begun(Meta("PENDING"))
    assert end_of(Meta("PROGRESS", {"done": 3}), "shop.pack", 1000) is None


@pytest.fixture
def results() -> Iterator[Valkey]:
    """A server of its own, that keeps what it has."""
    with Valkey(appendonly=True) as valkey:
        yield valkey


async def test_a_back_end_that_is_down_is_told_and_nothing_is_lost(
    valkey_url: str, results: Valkey, tmp_path: Path
) -> None:
    """And the event loop goes on meanwhile."""
    app: Any = Celery("shop", broker=valkey_url, backend=results.url(), set_as_current=False)
    tasks = Afterward(f"sqlite:///{tmp_path}/jobs.db", celery=app)
    task = tasks.celery_task("shop.pack")
    async with tasks.running(WorkerOptions()):
        job = (await task.enqueue("parcel")).id

        async def is_handed() -> Job | None:
            found = await tasks.get(job)
            return found if found is not None and found.handed_at is not None else None

        await told(is_handed, seconds=20)
        keep(app, job, "STARTED", {})

        async def is_running() -> bool:
            found = await tasks.get(job)
            return found is not None and found.status is Status.running

        await told(is_running, seconds=20)
        results.kill()

        async def is_told() -> bool:
            return any("result back end cannot be read" in reason.text for reason in await tasks.why(job))

        await told(is_told, seconds=20)
        assert Cause.running in {reason.cause for reason in await tasks.why(job)}
        results.start()
        await asyncio.to_thread(keep, app, job, "SUCCESS", "packed")
        [ended] = await tasks.ended([job], timeout=20)
        assert ended is not None
        assert (ended.status, ended.result) == (Status.succeeded, '"packed"')


async def test_jobs_are_followed_page_by_page(valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afterward.celery.follower.AT_ONCE", 10)
    app: Any = Celery("shop", broker=valkey_url, backend=valkey_url, set_as_current=False)
    tasks = Afterward(f"sqlite:///{tmp_path}/jobs.db", celery=app)
    task = tasks.celery_task("shop.pack")
    async with tasks.running(WorkerOptions()):
        jobs = [handle.id for handle in await tasks.enqueue_many([task.prepare(number) for number in range(35)])]
        for number, job in enumerate(jobs):
            keep(app, job, "SUCCESS", number)
        ended = await tasks.ended(jobs, timeout=30)
    assert [job.result for job in ended if job is not None] == [str(number) for number in range(35)]
