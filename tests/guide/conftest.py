"""What the pages of the guide share: an app whose tasks are durable, its database, and a list of what happened."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from afterward import Afterward
from afterward.background import Injected
from tests.support.disk import Row, jobs_on_disk
from tests.support.example import World
from tests.support.opening import opened


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where the jobs of a test are kept."""
    return tmp_path / "jobs.db"


@pytest.fixture
def tasks(database: Path) -> Iterator[Afterward]:
    """Durable tasks, kept in `database`."""
    with opened(Afterward(f"sqlite:///{database}")) as tasks:
        yield tasks


@pytest.fixture
def app(tasks: Afterward, request: pytest.FixtureRequest) -> FastAPI:
    """An app that `tasks` are installed on; a parameter is a dependency to inject `BackgroundTasks` by."""
    app = FastAPI()
    tasks.install(app)
    provider: Callable[..., Any] | None = getattr(request, "param", None)
    if provider is not None:
        _, injected = get_args(Injected)
        app.dependency_overrides[injected.dependency] = provider
    return app


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """A client of the app, while its lifespan lasts. Endpoints may be added to the app after."""
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def happened() -> list[str]:
    """What tasks, endpoints and dependencies did, in order; they append to it."""
    return []


@pytest.fixture
def stored(database: Path) -> Callable[[], list[Row]]:
    """The jobs on the disk, now."""
    return lambda: jobs_on_disk(database)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world whose processes are ended with the test, however it ends. When it fails, pytest shows what they said."""
    with ExitStack() as processes:
        yield World(tmp_path, processes)
    for output in sorted(tmp_path.glob("output-*.txt")):
        print(f"--- {output}\n{output.read_text()}")
