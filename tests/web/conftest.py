"""What the tests of the web share: an app whose tasks are durable, and a list of what happened."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from afterward import Afterward
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
