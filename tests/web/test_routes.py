"""The routes of `tasks.router()`: one job, what can be asked of it, and the list."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient
from starlette.types import Receive, Scope, Send

from afterward import Afterward, BackgroundTasks, ConfigurationError, accepted
from afterward.stores.sqlite import SQLiteStore
from tests.support.desk import Desk, as_user, begun, ended, is_admin, user
from tests.support.obstacles import locked
from tests.support.opening import opened
from tests.support.serving import served
from tests.support.waiting import wait_until


@pytest.fixture
def desk(tasks: Afterward, app: FastAPI) -> Desk:
    """A desk whose jobs are their owners', shown at `/jobs`; `POST /reports/{year}` makes one."""
    desk = Desk(tasks)
    app.include_router(tasks.router(owner=user, admin=is_admin, max_wait=100))

    @app.post("/reports/{year}", status_code=202, dependencies=[Depends(tasks.owned_by(user))])
    async def create(year: int, background_tasks: BackgroundTasks, delay: float = 0) -> Any:
        return accepted(background_tasks.add_task(desk.make.options(delay=delay, queue="press"), year))

    return desk


def made(client: TestClient, **query: Any) -> str:
    """Where a new job is found."""
    answer = client.post("/reports/2026", params=query)
    assert answer.status_code == 202, answer.text
    return answer.headers["location"]


# One job


def test_a_job_is_shown_whatever_has_become_of_it(client: TestClient, desk: Desk) -> None:
    """200 while it is known: scheduled, running, and done."""
    scheduled = client.get(made(client, delay=60))
    assert scheduled.status_code == 200
    assert (scheduled.json()["status"], scheduled.json()["detail"]) == ("queued", "scheduled")
    assert scheduled.headers["retry-after"] == "30"
    with desk.closed():
        path = made(client)
        assert desk.started.wait(10)
        wait_until(lambda: client.get(path).json()["progress"], "what it says is stored")
        running = client.get(path)
        assert running.json()["progress"] == {"current": 1, "total": 2, "message": "half of it"}
        assert (running.json()["done"], running.headers["retry-after"]) == (False, "1")
    done = ended(client, path)
    assert done["result"] == {"year": 2026, "numberOfPages": 12}
    assert "retry-after" not in client.get(path).headers


def test_a_failure_is_shown_and_its_traceback_to_administrators_alone(client: TestClient, desk: Desk) -> None:
    """The message is for whoever owns the job."""
    desk.fail()
    path = made(client)
    failed = ended(client, path)
    assert failed["status"] == "failed"
    assert failed["error"]["detail"] == "the printer is out of paper"
    assert failed["error"]["kind"] == "afterward.errors.GiveUp"
    assert failed["error"]["traceback"] is None
    seen = client.get(path, headers={"X-Admin": "true"}).json()
    assert "desk.py" in seen["error"]["traceback"]


@pytest.mark.parametrize("id_", ["0190", "x" * 2000, "%00", "..", "a%2Fb", "01a227d2-1576-7637-8913-A796CC11E09F"])
@pytest.mark.parametrize(("method", "tail"), [("GET", ""), ("POST", "/cancel"), ("POST", "/retry"), ("GET", "/events")])
def test_what_is_not_there_is_404(client: TestClient, desk: Desk, id_: str, method: str, tail: str) -> None:
    """Also what could never be an id."""
    assert client.request(method, f"/jobs/{id_}{tail}").status_code == 404


# ETag, and waiting for a change


def test_a_client_that_knows_how_a_job_stands_is_not_told_again(client: TestClient, desk: Desk) -> None:
    """304 for the tag of the document, in whatever list, weak or not; and 200 when something has changed."""
    with desk.closed():
        path = made(client)
        assert desk.started.wait(10)
        wait_until(lambda: client.get(path).json()["progress"], "what it says is stored")
        known = client.get(path)
        tag = known.headers["etag"]
        assert known.headers["cache-control"] == "private, no-cache"
        for sent in (tag, f'"another", {tag}', tag.removeprefix("W/"), "*"):
            answer = client.get(path, headers={"If-None-Match": sent})
            assert (answer.status_code, answer.content) == (304, b"")
            assert answer.headers["etag"] == tag
        assert client.get(path, headers={"If-None-Match": '"another"'}).status_code == 200
    ended(client, path)
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 200


def test_what_administrators_are_shown_has_another_tag(client: TestClient, desk: Desk) -> None:
    """A failure with its traceback is another document."""
    desk.fail()
    path = made(client)
    ended(client, path)
    mine, theirs = client.get(path), client.get(path, headers={"X-Admin": "true"})
    assert mine.headers["etag"] != theirs.headers["etag"]


def test_a_client_can_wait_for_the_end(client: TestClient, desk: Desk) -> None:
    """The answer comes when the job has ended, and not before."""
    with desk.closed():
        path = made(client)
        answer = begun(lambda: client.get(path, params={"wait": 20}))
        assert desk.started.wait(10)
        assert not client.get(path, params={"wait": 0.05}).json()["done"]
    assert answer().json()["status"] == "succeeded"


def test_a_client_can_wait_for_any_change(client: TestClient, desk: Desk) -> None:
    """One that says what it knows is told the next, though it is not the end."""
    path = made(client, delay=60)
    tag = client.get(path).headers["etag"]
    answer = begun(lambda: client.get(path, params={"wait": 20}, headers={"If-None-Match": tag}))
    client.post(f"{path}/cancel")
    assert answer().json()["status"] == "cancelled"


def test_a_client_is_kept_waiting_no_longer_than_is_allowed(app: FastAPI, tasks: Afterward, desk: Desk) -> None:
    """Whatever it asks for; and without a change, one that knows is told that there is none."""
    app.include_router(tasks.router(owner=user, max_wait=0.05, prefix="/impatient"))
    with TestClient(app) as client:
        path = made(client, delay=60).replace("/jobs/", "/impatient/")
        assert client.get(path, params={"wait": 3600}).json()["status"] == "queued"
        tag = client.get(path).headers["etag"]
        assert client.get(path, params={"wait": 3600}, headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize("wait", ["-1", "nan", "inf", "soon"])
def test_a_wait_that_makes_no_sense_is_refused(client: TestClient, desk: Desk, wait: str) -> None:
    """As FastAPI refuses what does not fit."""
    assert client.get(made(client), params={"wait": wait}).status_code == 422


def test_a_shutdown_ends_the_waiting(app: FastAPI, tasks: Afterward, desk: Desk) -> None:
    """A server that waits for its requests before all else is not kept up by one that waits for a job.

    They would wait for longer than this test does.
    """
    import httpx

    answers: list[Any] = []
    with served(app) as address, httpx.Client(base_url=address.url, trust_env=False, timeout=120) as client:
        path = client.post("/reports/2026", params={"delay": 60}).headers["location"]
        answers.append(begun(lambda: httpx.get(f"{address.url}{path}", params={"wait": 100}, timeout=120)))
        answers.append(
            begun(
                lambda: httpx.post(
                    f"{address.url}/reports/2026", params={"delay": 60}, headers={"Prefer": "wait=100"}, timeout=120
                )
            )
        )
        wait_until(lambda: len(client.get("/jobs").json()["jobs"]) == 2, "the second is stored")
        tasks.tails.end()  # as a signal does, where the main thread serves
        assert [answer().status_code for answer in answers] == [200, 202]


# Cancel and retry


def test_a_job_that_waits_is_cancelled_at_once(client: TestClient, desk: Desk) -> None:
    """200, with the document; and again, for it is what was asked for."""
    path = made(client, delay=60)
    for _ in range(2):
        answer = client.post(f"{path}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        assert answer.headers["cache-control"] == "no-store"


def test_a_job_that_runs_is_asked_to_end(client: TestClient, desk: Desk) -> None:
    """202: it is not cancelled before it has ended, and shows that it was asked."""
    with desk.closed():
        path = made(client)
        assert desk.started.wait(10)
        answer = client.post(f"{path}/cancel")
        assert answer.status_code == 202
        assert answer.json()["status"] == "running" or answer.json()["status"] == "cancelled"
        assert ended(client, path)["status"] == "cancelled"


def test_what_has_ended_cannot_be_cancelled(client: TestClient, desk: Desk) -> None:
    """409, and it says why."""
    path = made(client)
    ended(client, path)
    answer = client.post(f"{path}/cancel")
    assert (answer.status_code, answer.json()["detail"]) == (
        409,
        "The job has succeeded; it cannot be cancelled any more.",
    )


def test_a_failed_job_is_tried_again_when_asked(client: TestClient, desk: Desk) -> None:
    """202, and it runs; when it has succeeded, no more."""
    desk.fail()
    path = made(client)
    assert ended(client, path)["links"]["retry"] == f"{path}/retry"
    answer = client.post(f"{path}/retry")
    assert answer.status_code == 202
    assert answer.json()["status"] in {"queued", "running", "succeeded"}
    assert ended(client, path)["status"] == "succeeded"
    answer = client.post(f"{path}/retry")
    assert (answer.status_code, answer.json()["detail"]) == (
        409,
        "The job has succeeded; only one that failed or was cancelled is retried.",
    )


def test_a_retry_gives_way_to_another_job_of_the_same_key(client: TestClient, desk: Desk, tasks: Afterward) -> None:
    """409: another does the same by now."""

    async def enqueue() -> str:
        job = await desk.make.options(unique="report", delay=60, owner="ada").enqueue(2026)
        return job.id

    assert client.portal is not None
    first = client.portal.call(enqueue)
    client.post(f"/jobs/{first}/cancel")
    client.portal.call(enqueue)
    answer = client.post(f"/jobs/{first}/retry")
    assert (answer.status_code, answer.json()["detail"]) == (409, "Another job is doing the same by now.")


# The list


def test_the_list_goes_page_by_page_from_the_newest(client: TestClient, desk: Desk) -> None:
    """Each page says where the next is, in its body and in its head; the last does not."""
    made_first = [made(client, delay=60) for _ in range(5)]
    seen: list[str] = []
    path: str | None = "/jobs?limit=2&status=queued"
    pages = 0
    while path is not None:
        page = client.get(path)
        assert page.headers["cache-control"] == "no-store"
        seen += [job["links"]["self"] for job in page.json()["jobs"]]
        assert all("result" not in job for job in page.json()["jobs"])
        path = page.json()["next"]
        assert page.links.get("next", {}).get("url") == path
        pages += 1
    assert seen == made_first[::-1]
    assert pages == 3


def test_the_list_is_filtered(client: TestClient, desk: Desk) -> None:
    """By status, task and queue, and by what came before."""
    waiting, older = made(client, delay=60), made(client)
    ended(client, older)
    paths = {waiting: {"status": "queued"}, older: {"status": "succeeded"}}

    def listed(**query: str) -> list[str]:
        return [job["links"]["self"] for job in client.get("/jobs", params=query).json()["jobs"]]

    for path, query in paths.items():
        assert listed(**query) == [path]
        assert listed(**query, task=desk.make.name, queue="press") == [path]
        assert listed(**query, queue="default") == []
        assert listed(**query, task="another") == []
    assert listed(before=older.rpartition("/")[2]) == [waiting]
    assert listed(before="\0") == listed(task="\0") == listed(queue="a\0b") == []


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"status": "later"},
        *({name: "a" * 1001} for name in ("task", "queue", "before")),
    ],
)  # fmt: skip
def test_a_filter_that_makes_no_sense_is_refused(client: TestClient, desk: Desk, query: dict[str, str]) -> None:
    """As FastAPI refuses what does not fit."""
    assert client.get("/jobs", params=query).status_code == 422


# Who may see what


def test_others_see_nothing_of_a_job(client: TestClient, desk: Desk) -> None:
    """404 on each route, as if it were not there, and nothing is done; to administrators it is there."""
    path = made(client, delay=60)
    bob = as_user("bob")
    for method, tail in [("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/retry")]:
        theirs = client.request(method, f"{path}{tail}", headers=bob)
        nobodys = client.request(method, f"/jobs/0190{tail}", headers=bob)
        assert (theirs.status_code, theirs.content) == (nobodys.status_code, nobodys.content)
        assert theirs.status_code == 404
    assert client.get("/jobs", headers=bob).json() == {"jobs": [], "next": None}
    assert client.get(path).json()["status"] == "queued"
    admin = {**bob, "X-Admin": "true"}
    assert client.get(path, headers=admin).status_code == 200
    assert len(client.get("/jobs", headers=admin).json()["jobs"]) == 1
    assert client.post(f"{path}/cancel", headers=admin).status_code == 200


def test_nothing_is_shown_unless_somebody_said_to_whom(tasks: Afterward) -> None:
    """Closed by default; the message names the mends, also where only administrators are known."""
    with pytest.raises(ConfigurationError, match=r"owner=.*dependencies=.*public=True"):
        tasks.router()
    with pytest.raises(ConfigurationError):
        tasks.router(admin=is_admin)


@pytest.mark.parametrize("open_to", ["dependencies", "public"])
def test_without_owners_the_jobs_of_nobody_are_shown(app: FastAPI, tasks: Afterward, open_to: str) -> None:
    """What has an owner is that one's, though a router knows no owners. Ids open a public router; it has no list."""
    desk = Desk(tasks)

    def refuse(nobody: bool = False) -> None:
        if nobody:
            raise HTTPException(401)

    options: dict[str, Any] = {"public": True} if open_to == "public" else {"dependencies": [Depends(refuse)]}
    app.include_router(tasks.router(**options))
    with TestClient(app) as client:
        assert client.portal is not None
        nobodys = client.portal.call(desk.make.options(delay=60).enqueue, 1)
        somebodys = client.portal.call(desk.make.options(delay=60, owner="ada").enqueue, 2)
        assert client.get(f"/jobs/{nobodys.id}").status_code == 200
        assert client.get(f"/jobs/{somebodys.id}").status_code == 404
        listed = client.get("/jobs")
        if open_to == "public":
            assert listed.status_code in {404, 405}
        else:
            assert [job["id"] for job in listed.json()["jobs"]] == [nobodys.id]
            assert client.get(f"/jobs/{nobodys.id}?nobody=true").status_code == 401


def test_pages_of_nobodys_jobs_pass_over_those_of_others(app: FastAPI, tasks: Afterward) -> None:
    """However many lie between."""
    desk = Desk(tasks)
    app.include_router(tasks.router(dependencies=[Depends(user)]))

    async def enqueue(owners: list[str | None]) -> list[str]:
        made = [desk.make.options(delay=60, owner=owner).prepare(1) for owner in owners]
        return [job.id for job in await tasks.enqueue_many(made)]

    with TestClient(app) as client:
        assert client.portal is not None
        ids = client.portal.call(enqueue, [None, *["ada"] * 30, None, "ada"])
        page = client.get("/jobs?limit=1").json()
        assert [job["id"] for job in page["jobs"]] == [ids[31]]
        found: list[str] = []
        while page["next"] is not None:
            page = client.get(page["next"]).json()
            found += [job["id"] for job in page["jobs"]]
        assert found == [ids[0]]


def nobody() -> str:
    return ""


def number() -> int:
    return 7


@pytest.mark.parametrize("options", [{"owner": nobody}, {"owner": number}, {"owner": user, "admin": user}])
def test_an_answer_that_is_no_owner_opens_nothing(app: FastAPI, tasks: Afterward, options: dict[str, Any]) -> None:
    """A user object is true, and an empty text is nobody's: neither is taken for an answer."""
    app.include_router(tasks.router(**options))
    with TestClient(app) as client, pytest.raises(ConfigurationError, match="answered a"):
        client.get("/jobs")


# Where the router stands


def test_the_router_is_one_of_fastapis(tasks: Afterward) -> None:
    """What else `APIRouter` takes is passed on."""
    router = tasks.router(public=True, prefix="/work", tags=["work"], include_in_schema=False)
    assert isinstance(router, APIRouter)
    assert (router.prefix, router.tags, router.include_in_schema) == ("/work", ["work"], False)


@pytest.fixture
def elsewhere(tasks: Afterward) -> Desk:
    return Desk(tasks)


def reporting(desk: Desk) -> FastAPI:
    app = FastAPI()

    @app.post("/reports", status_code=202)
    async def create(background_tasks: BackgroundTasks) -> Any:
        return accepted(background_tasks.add_task(desk.make.options(delay=60), 2026))

    return app


def assert_reached_at(client: TestClient, path: str, prefix: str = "", strip: str = "") -> None:
    """A job made at `path` is found by all its links, which begin with `prefix`; `strip` is taken off by a proxy."""
    location = client.post(path).headers["location"]
    assert location.startswith(f"{prefix}/")
    document = client.get(location.removeprefix(strip)).json()
    assert document["links"]["self"] == location
    assert client.head(document["links"]["events"].removeprefix(strip)).status_code == 200
    assert client.post(document["links"]["cancel"].removeprefix(strip)).json()["links"]["self"] == location


def test_links_of_a_router_in_a_mounted_app(tasks: Afterward, elsewhere: Desk) -> None:
    """Mounted twice, by a name of its own."""
    app, middle, inner = FastAPI(), FastAPI(), reporting(elsewhere)
    inner.include_router(tasks.router(public=True), prefix="/v1")
    middle.mount("/inner", inner, name="inner")
    app.mount("/middle", middle, name="middle")
    tasks.install(app)
    with TestClient(app) as client:
        assert_reached_at(client, "/middle/inner/reports", "/middle/inner/v1/jobs")


def test_links_to_a_router_in_another_app(tasks: Afterward, elsewhere: Desk) -> None:
    """Jobs are made in a mounted app, and shown by the one around it."""
    app, inner = FastAPI(), reporting(elsewhere)
    app.mount("/shop", inner)
    app.include_router(tasks.router(public=True))
    tasks.install(app)
    with TestClient(app) as client:
        assert_reached_at(client, "/shop/reports", "/jobs")


def test_links_behind_a_proxy_that_strips_a_prefix(tasks: Afterward, elsewhere: Desk) -> None:
    """The server, or what stands before the app, says what it is; the paths of requests are without."""
    app = reporting(elsewhere)
    app.include_router(tasks.router(public=True))
    tasks.install(app)

    async def stripped(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": "/api/v2"}, receive, send)

    with TestClient(stripped) as client:
        assert_reached_at(client, "/reports", "/api/v2/jobs", strip="/api/v2")


def test_links_behind_a_proxy_that_strips_nothing(tasks: Afterward, elsewhere: Desk) -> None:
    """A server that is told of a `root_path` has it in the paths of its requests."""
    app = reporting(elsewhere)
    app.include_router(tasks.router(public=True))
    tasks.install(app)
    with TestClient(app, root_path="/api") as client:
        assert_reached_at(client, "/api/reports", "/api/jobs")


def test_links_of_a_router_with_a_parameter_in_its_path(tasks: Afterward, elsewhere: Desk) -> None:
    """It is that of the request, encoded."""
    app = FastAPI()

    @app.post("/teams/{team}/reports", status_code=202)
    async def create(team: str, background_tasks: BackgroundTasks) -> Any:
        return accepted(background_tasks.add_task(elsewhere.make.options(delay=60), 2026))

    @app.post("/reports", status_code=202)
    async def create_without(background_tasks: BackgroundTasks) -> Any:
        return accepted(background_tasks.add_task(elsewhere.make.options(delay=60), 2026))

    app.include_router(tasks.router(public=True), prefix="/teams/{team}")
    tasks.install(app)
    with TestClient(app) as client:
        assert_reached_at(client, "/teams/r%C3%A9d%20one/reports", "/teams/r%C3%A9d%20one/jobs")
        with pytest.raises(ConfigurationError, match="has no 'team'"):
            client.post("/reports")


@pytest.mark.parametrize(
    ("convertor", "value", "base"),
    [("int", "7", "/7/jobs"), ("path", "a/b", "/a/b/jobs"), ("path", "/evil.example.com", "/.//evil.example.com/jobs")],
)
def test_links_of_a_router_with_a_parameter_of_some_sort(
    tasks: Afterward, elsewhere: Desk, convertor: str, value: str, base: str
) -> None:
    """They lead nowhere but here, whatever a client sends."""
    app = FastAPI()

    @app.post(f"/reports/{{where:{convertor}}}", status_code=202)
    async def create(background_tasks: BackgroundTasks) -> Any:
        return accepted(background_tasks.add_task(elsewhere.make.options(delay=60), 2026))

    app.include_router(tasks.router(public=True), prefix=f"/{{where:{convertor}}}")
    tasks.install(app)
    with TestClient(app) as client:
        answer = client.post(f"/reports/{value}")
        path = answer.headers["location"]
        assert path == answer.json()["links"]["self"] == f"{base}/{answer.json()['id']}"
        assert client.get(path).json()["links"]["self"] == path


def test_two_afterwards_have_their_own_routes(tmp_path: Path) -> None:
    """Each job is found by the router of its own tasks, though their routes have the same names."""
    app = FastAPI()
    with (
        opened(Afterward(f"sqlite:///{tmp_path}/1.db")) as first,
        opened(Afterward(f"sqlite:///{tmp_path}/2.db")) as second,
    ):
        for name, tasks in (("first", first), ("second", second)):
            app.include_router(tasks.router(public=True, prefix=f"/{name}"))
            app.mount(f"/make-{name}", reporting(Desk(tasks)))
            tasks.install(app)
        with TestClient(app) as client:
            assert_reached_at(client, "/make-first/reports", "/first")
            assert_reached_at(client, "/make-second/reports", "/second")


# When the store is down


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Afterward]:
    with opened(Afterward(store=SQLiteStore(tmp_path / "jobs.db", patience=0.2))) as tasks:
        yield tasks


def test_what_cannot_be_done_now_is_503(impatient: Afterward, tmp_path: Path) -> None:
    """With `Retry-After`; nothing was done, and the same works when the store is back."""
    app, desk = FastAPI(), Desk(impatient)
    app.include_router(impatient.router(public=True))
    impatient.install(app, worker=False)
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.portal is not None
        job = client.portal.call(desk.make.options(delay=60).enqueue, 1)
        with locked(tmp_path / "jobs.db"):
            answer = client.post(f"/jobs/{job.id}/cancel")
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
        assert client.post(f"/jobs/{job.id}/cancel").status_code == 200


@pytest.mark.parametrize("trouble", ["locked", "missing"])
def test_a_store_that_never_opens_is_503_for_each_route(tmp_path: Path, trouble: str) -> None:
    """Reading and listing as well; whatever it is that somebody has to mend."""
    (tmp_path / "locked").mkdir()
    app = FastAPI()
    with (
        locked(tmp_path / "locked" / "jobs.db"),
        opened(Afterward(store=SQLiteStore(tmp_path / trouble / "jobs.db", patience=0.1))) as tasks,
    ):
        app.include_router(tasks.router(owner=user))
        tasks.install(app, worker=False)
        client = TestClient(app, raise_server_exceptions=False)
        for path in ("/jobs", "/jobs/0190", "/jobs/0190/events"):
            answer = client.get(path)
            assert (answer.status_code, "retry-after" in answer.headers) == (503, True)


def test_nobody_waits_in_a_test_where_nothing_runs_by_itself(tasks: Afterward, desk: Desk, app: FastAPI) -> None:
    """On a bench, jobs have run by the end of a call: a request that would wait is answered at once."""
    from afterward.testing import Bench

    with Bench(tasks, manual=True) as bench, TestClient(app) as client:
        path = made(client)
        assert client.get(path, params={"wait": 15}).json()["status"] == "queued"
        bench.drain_sync()
        assert client.get(path, params={"wait": 15}).json()["status"] == "succeeded"
