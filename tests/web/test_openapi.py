"""The routes keep what OpenAPI says of them, whatever a client sends: no 500, and no answer that is not described."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi_checks

from afterward import Afterward, BackgroundTasks, JobHandle
from tests.support.desk import Desk, Report, is_admin, user
from tests.support.waiting import wait_until

# What makes the requests draws from `random` as well, which Hypothesis seeds.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

of_any, of_openapi = cast("Any", checks), cast("Any", openapi_checks)  # what they take is unknown to their types
CHECKS = [
    of_any.not_a_server_error,
    of_openapi.status_code_conformance,
    of_openapi.content_type_conformance,
    of_openapi.response_headers_conformance,
    of_openapi.response_schema_conformance,
]
OPERATIONS = [
    ("POST", "/reports/{year}"),
    ("GET", "/jobs"),
    ("GET", "/jobs/{id}"),
    ("POST", "/jobs/{id}/cancel"),
    ("POST", "/jobs/{id}/retry"),
    ("GET", "/jobs/{id}/events"),
]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """An app with all routes, shared, for nothing is to go wrong whatever was done before."""
    app, tasks = FastAPI(), Afterward(f"sqlite:///{tmp_path_factory.mktemp('openapi')}/jobs.db")
    tasks.install(app)
    app.state.desk = desk = Desk(tasks)
    app.include_router(tasks.router(owner=user, admin=is_admin, max_wait=0.01))

    @app.post("/reports/{year}", status_code=202)
    async def create(year: int, background_tasks: BackgroundTasks) -> JobHandle[Report]:
        return background_tasks.add_task(desk.make.options(owner="ada"), year)

    return app


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def ids(client: TestClient, app: FastAPI) -> list[str]:
    """Jobs that have succeeded and failed."""
    paths: list[str] = []
    for breaks in (False, True):
        if breaks:
            app.state.desk.fail()
        path = client.post("/reports/2026").headers["location"]
        wait_until(lambda path=path: client.get(path).json()["done"], "it has ended")
        paths.append(path)
    return [path.rpartition("/")[2] for path in paths]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_the_routes_keep_what_openapi_says(
    app: FastAPI, client: TestClient, ids: list[str], method: str, path: str
) -> None:
    """For whatever fits the schema, and with ids of jobs that there are."""
    operation = cast("Any", schemathesis.openapi.from_dict(app.openapi()))[path][method]

    @settings(
        max_examples=40, derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(operation.as_strategy(), st.sampled_from([None, *ids]))
    def keep(case: Any, id_: str | None) -> None:
        if id_ is not None and "id" in case.path_parameters:
            case.path_parameters["id"] = id_
        answer = client.request(case.method, case.formatted_path, params=case.query, headers=dict(case.headers))
        case.validate_response(answer, checks=CHECKS)

    keep()


def test_all_routes_are_described(app: FastAPI) -> None:
    """And so all of them are tested here."""
    described = {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}
    assert described == set(OPERATIONS)
