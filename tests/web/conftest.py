"""What the tests of the web share: an app whose tasks are durable, and a list of what happened."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from afterward import Afterward
from tests.support.gallery import Gallery, gallery
from tests.support.opening import opened
from tests.support.visiting import Visitor


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
def app(tasks: Afterward) -> FastAPI:
    """An app that `tasks` are installed on."""
    app = FastAPI()
    tasks.install(app)
    return app


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """A client of the app, while its lifespan lasts. Endpoints may be added to the app after."""
    with TestClient(app, raise_server_exceptions=False, headers={"X-User": "ada"}) as client:
        yield client


@pytest.fixture
def happened() -> list[str]:
    """What tasks, endpoints and dependencies did, in order; they append to it."""
    return []


@pytest.fixture
def development(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dashboard is open to developers."""
    monkeypatch.setenv("AFTERWARD_ENV", "development")


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """A store with jobs of every kind, for tests that only look."""
    with gallery(tmp_path_factory.mktemp("gallery") / "jobs.db", day=60) as painted:
        yield painted


@pytest.fixture
def visitor(painted: Gallery, development: None) -> Iterator[Visitor]:
    """Who looks at it."""
    tasks = Afterward(painted.url)
    app = FastAPI()
    tasks.install(app, worker=False)
    app.include_router(tasks.dashboard())
    visitor = Visitor(app)
    with visitor.client:
        yield visitor
