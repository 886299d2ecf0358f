"""The example in `examples/reports`: reports that belong to whoever asked for them, by real HTTP and real tokens."""

import os
from collections.abc import Callable, Iterator
from typing import Any, cast

import httpx
import jwt
import pytest

from examples.reports.tokens import SettingsError, User, secret_from, token_of
from tests.support.example import LOOPBACK, Server
from tests.support.processes import REPOSITORY

SECRET = "a text of more than thirty-two bytes"
ADA, BOB, ROOT = User("user-1"), User("user-2"), User("user-0", is_admin=True)

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("AFTERWARD_", "REPORTS_"))} | {
    "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
}


class Desk:
    """The example, served; and clients that bring tokens."""

    def __init__(self, url: str) -> None:
        self.url = url

    def client(self, user: User | None) -> httpx.Client:
        headers = {} if user is None else {"Authorization": f"Bearer {token_of(user, SECRET)}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=30)


@pytest.fixture(scope="module", params=["app", "middleware"])
def desk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """With the token validated in a dependency, and in a middleware."""
    folder = tmp_path_factory.mktemp(request.param)
    server = Server(
        ["-m", "uvicorn", f"examples.reports.{request.param}:app", "--host", LOOPBACK, "--port", "0"],
        ENVIRONMENT
        | {"REPORTS_SECRET": SECRET, "REPORTS_SECONDS": "0.2", "AFTERWARD_URL": f"sqlite:///{folder}/jobs.db"},
        folder / "output.txt",
        r"running on http://127\.0\.0\.1:(\d+)",
    )
    try:
        yield Desk(f"http://{LOOPBACK}:{server.port}")
    finally:
        server.stop()
    assert "Traceback" not in server.output()


def test_whoever_asks_for_a_report_gets_it(desk: Desk) -> None:
    """202 with the job, which shows how far it is, and the report in the end."""
    with desk.client(ADA) as ada:
        answer = ada.post("/reports/2026")
        assert (answer.status_code, answer.json()["done"]) == (202, False)
        done = ada.get(answer.headers["location"], params={"wait": 20}).json()
        assert done["progress"] == {"current": 12, "total": 12, "message": "2026-12"}
        assert done["result"]["year"] == 2026
        assert ada.get("/jobs").json()["jobs"][0]["id"] == done["id"]


def test_a_client_that_prefers_to_wait_gets_the_report_at_once(desk: Desk) -> None:
    """In one request."""
    with desk.client(ADA) as ada:
        answer = ada.post("/reports/2025", headers={"Prefer": "wait=20"})
        assert (answer.status_code, answer.json()["result"]["year"]) == (200, 2025)


def test_others_get_404(desk: Desk) -> None:
    """As if there were no such job; administrators see it."""
    with desk.client(ADA) as ada, desk.client(BOB) as bob, desk.client(ROOT) as root:
        path = ada.post("/reports/2024").headers["location"]
        assert bob.get(path).status_code == bob.post(f"{path}/cancel").status_code == 404
        assert bob.get("/jobs").json()["jobs"] == []
        assert root.get(path).status_code == 200


def ids_of_jobs(client: httpx.Client) -> list[str]:
    return [job["id"] for job in client.get("/jobs", params={"limit": 100}).json()["jobs"]]


def tokens() -> dict[str, str]:
    encode: Callable[..., str] = cast("Any", jwt).encode
    now_and_then = {"iss": "reports", "sub": "user-1", "exp": 4_000_000_000}
    return {
        "expired": encode({**now_and_then, "exp": 1_000_000_000}, SECRET),
        "of another secret": encode(now_and_then, "another text of thirty-two bytes and more"),
        "of another issuer": encode({**now_and_then, "iss": "another"}, SECRET),
        "without an end": encode({"iss": "reports", "sub": "user-1"}, SECRET),
        "unsigned": encode(now_and_then, None, algorithm="none"),
        "no token": "x",
    }


@pytest.mark.parametrize("token", tokens().values(), ids=tokens().keys())
def test_a_token_that_is_not_valid_opens_nothing(desk: Desk, token: str) -> None:
    """401 on each route, and nothing is made."""
    with desk.client(None) as nobody, desk.client(ROOT) as root:
        before = ids_of_jobs(root)
        nobody.headers["Authorization"] = f"Bearer {token}"
        for method, path in [("POST", "/reports/2026"), ("GET", "/jobs"), ("GET", "/jobs/0190")]:
            answer = nobody.request(method, path)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert ids_of_jobs(root) == before


def test_without_a_token_nothing_is_opened(desk: Desk) -> None:
    """Only what describes the app."""
    with desk.client(None) as nobody:
        assert nobody.get("/jobs").status_code == nobody.post("/reports/2026").status_code == 401
        assert nobody.get("/openapi.json").status_code == 200


def test_a_login_is_answered_a_token(desk: Desk) -> None:
    """Where the app has one: the middleware's leaves that to whoever issues tokens."""
    with desk.client(None) as nobody:
        if "/token" not in nobody.get("/openapi.json").json()["paths"]:
            return
        for name, password in [("ada", "builder"), ("nobody", "countess")]:
            assert nobody.post("/token", data={"username": name, "password": password}).status_code == 401
        token = nobody.post("/token", data={"username": "ada", "password": "countess"}).json()["access_token"]
        assert nobody.get("/jobs", headers={"Authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.parametrize("environment", [{}, {"REPORTS_SECRET": "short"}])
def test_without_a_secret_nothing_is_served(environment: dict[str, str]) -> None:
    """The message names the setting."""
    with pytest.raises(SettingsError, match="REPORTS_SECRET"):
        secret_from(environment)
