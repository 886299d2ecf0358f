"""Who may see the dashboard, and what browsers are told about its pages."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.testclient import TestClient

from afterward import Afterward, ConfigurationError
from tests.support.documents import Document
from tests.support.visiting import Visitor

PATHS = ["", "/jobs", "/jobs/x", "/failures", "/queues", "/workers", "/bulk", "/changes", "/static/dashboard.css"]


def app_of(tasks: Afterward, *, debug: bool = False, **options: Any) -> FastAPI:
    app = FastAPI(debug=debug)
    tasks.install(app, worker=False)
    app.include_router(tasks.dashboard(**options))
    return app


def refusal(
    app: FastAPI,
    path: str = "",
    *,
    address: str = "127.0.0.1",
    host: str = "localhost",
    header: str = "",
    value: str = "x",
) -> str:
    """The words in which somebody was refused."""
    headers = {header: value} if header else {}
    answer = TestClient(app, base_url=f"http://{host}", client=(address, 1), headers=headers).get(f"/tasks{path}")
    assert answer.status_code == 403, answer.text
    return Document(answer.text).one("main").text


@pytest.mark.parametrize("path", PATHS)
def test_it_is_closed_where_nobody_said_who_may_come_in(tasks: Afterward, path: str) -> None:
    assert "tasks.dashboard(admin=…)" in refusal(app_of(tasks), path)


def test_nothing_of_the_store_is_looked_at_for_somebody_who_may_not_come_in(tasks: Afterward, tmp_path: Path) -> None:
    refusal(app_of(tasks))
    assert not (tmp_path / "jobs.db").exists()


def test_actions_are_closed_as_well(tasks: Afterward) -> None:
    for path in ("/jobs/x/cancel", "/jobs/x/requeue", "/queues/pause", "/queues/resume", "/bulk"):
        assert Visitor(app_of(tasks)).post(path, {}).status_code == 403


@pytest.mark.parametrize("opens", ["debug", "AFTERWARD_ENV"])
def test_in_development_it_is_open_to_who_is_at_the_same_machine(
    tasks: Afterward, monkeypatch: pytest.MonkeyPatch, opens: str
) -> None:
    if opens == "AFTERWARD_ENV":
        monkeypatch.setenv("AFTERWARD_ENV", "development")
    Visitor(app_of(tasks, debug=opens == "debug")).get()


@pytest.mark.parametrize("address", ["10.0.0.7", "192.168.1.2", "::ffff:10.0.0.7", "testclient", ""])
def test_in_development_it_is_closed_to_other_machines(tasks: Afterward, development: None, address: str) -> None:
    assert "loopback" in refusal(app_of(tasks), address=address)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1"])
def test_any_loopback_address_is_the_same_machine(tasks: Afterward, development: None, address: str) -> None:
    client = TestClient(app_of(tasks), base_url="http://localhost", client=(address, 1))
    assert client.get("/tasks").status_code == 200


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Via"])
def test_in_development_it_is_closed_behind_a_proxy(tasks: Afterward, development: None, header: str) -> None:
    assert header.lower() in refusal(app_of(tasks), header=header)


@pytest.mark.parametrize("host", ["dashboard.example.com", "localhost.example.com", "127.0.0.1.example.com"])
def test_in_development_a_name_that_was_made_to_lead_here_is_refused(
    tasks: Afterward, development: None, host: str
) -> None:
    """A page of somebody else's whose name leads to 127.0.0.1 by now would be shown everything."""
    assert "localhost" in refusal(app_of(tasks), host=host)


@pytest.mark.parametrize("host", ["", "[bad", "localhost:80@example.com", "example.com#@localhost", "exämple.com"])
def test_in_development_what_is_no_name_of_this_machine_is_refused(
    tasks: Afterward, development: None, host: str
) -> None:
    """It is the client's word that counts, never the server's own address in its place."""
    client = TestClient(app_of(tasks), base_url="http://127.0.0.1", client=("127.0.0.1", 1))
    assert client.get("/tasks", headers={b"Host": host.encode("latin-1")}).status_code == 403


@pytest.mark.anyio
async def test_in_development_it_is_closed_to_proxies_that_say_nothing_of_themselves(
    tasks: Afterward, development: None
) -> None:
    """Some pass requests on by HTTP/1.0, from a loopback address, with a host that they make up."""
    app = app_of(tasks)

    async def by_proxy(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "http_version": "1.0"}, receive, send)

    transport = httpx.ASGITransport(by_proxy, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        answer = await client.get("/tasks")
    assert answer.status_code == 403
    assert "HTTP/1.0" in answer.text


def named(x_user: Annotated[str, Header()] = "") -> Any:
    """Who is asking; some mistakes that such a dependency could make, too."""
    if x_user == "stranger":
        raise HTTPException(401, "who are you?", {"WWW-Authenticate": "Basic"})
    return {"nobody": None, "no": False, "yes": True, "id": 7, "empty": ""}.get(x_user, x_user)


def test_admin_says_who_is_asking(tasks: Afterward) -> None:
    page = Document(Visitor(app_of(tasks, admin=named), **{"X-User": "ana"}).get().text)
    assert page.one("p", class_="who").text.endswith("ana")


def test_what_admin_raises_is_the_answer(tasks: Afterward) -> None:
    answer = Visitor(app_of(tasks, admin=named), **{"X-User": "stranger"}).get(status=401)
    assert answer.headers["www-authenticate"] == "Basic"


@pytest.mark.parametrize("user", ["nobody", "no", "yes", "id", "empty"])
def test_who_is_not_named_by_a_text_is_nobody(tasks: Afterward, development: None, user: str) -> None:
    assert "as a str" in refusal(app_of(tasks, admin=named), header="X-User", value=user)


def test_admin_counts_also_in_development(tasks: Afterward, development: None) -> None:
    Visitor(app_of(tasks, admin=named), **{"X-User": "stranger"}).get(status=401)


def test_dependencies_say_who_may_come_in(tasks: Afterward) -> None:
    app = app_of(tasks, dependencies=[Depends(named)])
    Visitor(app, **{"X-User": "stranger"}).get(status=401)
    TestClient(app, client=("10.0.0.7", 1), headers={"X-User": "ana"}).get("/tasks").raise_for_status()


def test_an_empty_list_of_dependencies_opens_nothing(tasks: Afterward) -> None:
    refusal(app_of(tasks, dependencies=[]))


@pytest.mark.parametrize("path", PATHS[:-2])
def test_browsers_are_told_to_load_nothing_from_elsewhere(tasks: Afterward, development: None, path: str) -> None:
    answer = Visitor(app_of(tasks)).client.get(f"/tasks{path}")
    parts = [part.strip().partition(" ") for part in answer.headers["content-security-policy"].split(";")]
    policy = {name: value for name, _, value in parts}
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] in {"'self'", "'none'"}
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    page = Document(answer.text)
    assert not [one for one in page.elements if "style" in one.attributes]
    assert not [name for one in page.elements for name in one.attributes if name.startswith("on")]
    addresses = [one.attributes.get("src", one.attributes.get("href", "/")) for one in page.elements]
    assert all(address.startswith(("/tasks", "#main")) or address == "/" for address in addresses)
    for script in page.all("script"):
        assert not script.text
    for style in page.all("style"):
        assert f"'nonce-{style.attributes['nonce']}'" in policy["style-src"]


def test_files_are_kept_by_browsers_as_long_as_they_are_the_same(tasks: Afterward, development: None) -> None:
    visitor = Visitor(app_of(tasks))
    named = visitor.see().one("link", rel="stylesheet").attributes["href"]
    assert "immutable" in visitor.client.get(named).headers["cache-control"]
    assert visitor.get("/static/dashboard.css?v=old").headers["cache-control"] == "no-cache"
    visitor.get("/static/..%2fguard.py", 404)
    visitor.get("/static/other.css", 404)


def test_it_is_no_part_of_the_schema(tasks: Afterward) -> None:
    assert not [path for path in app_of(tasks).openapi()["paths"] if path.startswith("/tasks")]


def test_a_store_that_is_away_is_told_in_words(
    tasks: Afterward, development: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    visitor = Visitor(app_of(tasks))
    (tmp_path / "jobs.db").mkdir()
    with caplog.at_level(logging.WARNING, "afterward"):
        answer = visitor.get(status=503)
    assert answer.headers["retry-after"] == "5"
    assert "The store does not answer" in Document(answer.text).one("h1").text
    assert "dashboard.unavailable" in caplog.text


def test_without_jinja_the_mend_is_named(tasks: Afterward, monkeypatch: pytest.MonkeyPatch) -> None:
    from afterward.web.dashboard.rendering import environment

    environment.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'afterward\[dashboard\]'"):
        tasks.dashboard()


def mounted(inner: FastAPI) -> tuple[FastAPI, str]:
    outer = FastAPI()
    outer.mount("/inner", inner)
    return outer, "/inner/tasks"


def at_root_path(inner: FastAPI) -> tuple[FastAPI, str]:
    inner.root_path = "/api"
    return inner, "/tasks"


def at_a_parameter(inner: FastAPI) -> tuple[FastAPI, str]:
    return inner, "/a%20b/tasks"


def at_the_root(inner: FastAPI) -> tuple[FastAPI, str]:
    return inner, "/"


@pytest.mark.parametrize(
    ("prefix", "put", "base"),
    [
        ("/tasks", mounted, "/inner/tasks"),
        ("/tasks", at_root_path, "/api/tasks"),
        ("/{tenant}/tasks", at_a_parameter, "/a%20b/tasks"),
        ("", at_the_root, ""),
    ],
)
def test_links_lead_to_where_it_is(
    tasks: Afterward, prefix: str, put: Callable[[FastAPI], tuple[FastAPI, str]], base: str
) -> None:
    app, path = put(app_of(tasks, debug=True, prefix=prefix))
    page = Visitor(app, path).see()
    links = [one.attributes["href"] for one in page.all("a") if "href" in one.attributes]
    assert f"{base}/jobs" in links
    assert page.one("body").attributes["data-changes"] == f"{base}/changes"
