"""What a request is answered that makes a job: where it is found, and its status as the store holds it.

The order of things, where a client waits for the end (`Prefer: wait`):

    endpoint returns → response is held back → dependencies exit, transactions are committed → the job is stored
    → it starts → it ends, or the time is over → the response leaves

- The application fails after its response: nothing is stored, and the client gets 500.
- The store refuses: 503, as for any request.
- The client goes away while it waits: the job is stored, and goes on.
- The store cannot tell of a job that it has stored: 202 without a document, for a refusal would be a lie.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.testclient import TestClient
from pydantic import BaseModel
from pydantic.errors import PydanticSchemaGenerationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.routing import Route

from afterward import Afterward, BackgroundTasks, ConfigurationError, JobHandle, NotInARequest, accepted
from afterward.faults import armed
from afterward.stores.sqlite import SQLiteStore
from afterward.testing import Bench
from tests.support.desk import Desk, Report, as_user, documented, ended, user
from tests.support.disk import jobs_on_disk
from tests.support.obstacles import locked
from tests.support.opening import opened
from tests.support.serving import served
from tests.support.waiting import soon, wait_until

WAIT = {"Prefer": "wait=20"}


@pytest.fixture
def desk(tasks: Afterward, app: FastAPI) -> Desk:
    """A desk whose jobs are shown to whoever knows their ids; they are made in three ways."""
    desk = Desk(tasks)
    app.include_router(tasks.router(public=True, max_wait=20))

    @app.post("/handle", status_code=202)
    async def handle(background_tasks: BackgroundTasks) -> JobHandle[Report]:
        return background_tasks.add_task(desk.make, 2026)

    @app.post("/accepted")
    def accept(background_tasks: BackgroundTasks) -> Any:
        return accepted(background_tasks.add_task(desk.make, 2026), headers={"X-Desk": "1"})

    @app.post("/enqueued")
    async def enqueued() -> JobHandle[Report]:
        return await desk.make.enqueue(2026)

    return desk


WAYS = pytest.mark.parametrize("path", ["/handle", "/accepted", "/enqueued"])


@WAYS
def test_the_answer_tells_of_the_job(client: TestClient, desk: Desk, path: str, database: Path) -> None:
    """202, where it is found, when to ask again, and the document that is found there."""
    with desk.closed():
        answer = client.post(path)
        [stored] = jobs_on_disk(database)
        assert answer.status_code == 202
        assert answer.headers["location"] == f"/jobs/{stored.id}"
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["cache-control"] == "no-store"
        assert "preference-applied" not in answer.headers
        document = answer.json()
        assert document.keys() == client.get(answer.headers["location"]).json().keys()
        assert (document["id"], document["done"]) == (stored.id, False)
        assert document["status"] in {"queued", "running"}
    assert ended(client, answer.headers["location"])["result"] == {"year": 2026, "numberOfPages": 12}


@WAYS
def test_a_client_that_waits_gets_the_result(client: TestClient, desk: Desk, path: str) -> None:
    """200, in one request."""
    answer = client.post(path, headers=WAIT)
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=20"
    assert "retry-after" not in answer.headers
    assert answer.json()["result"] == {"year": 2026, "numberOfPages": 12}


def test_what_failed_in_time_is_answered_as_well(client: TestClient, desk: Desk) -> None:
    """The request was carried out; the document says that the job failed."""
    desk.fail()
    answer = client.post("/handle", headers=WAIT)
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("respond-async", "respond-async"),
        ("respond-async, wait=1", "respond-async, wait=1"),
        ("wait=0", None),
        ("return=minimal", None),
    ],
)
def test_what_has_not_ended_in_time_is_202(client: TestClient, desk: Desk, prefer: str, applied: str | None) -> None:
    """And the answer says which of the preferences was heeded."""
    with desk.closed():
        answer = client.post("/handle", headers={"Prefer": prefer})
    assert answer.status_code == 202
    assert answer.headers.get("preference-applied") == applied


def test_a_client_waits_no_longer_than_the_router_allows(tasks: Afterward, app: FastAPI) -> None:
    """And is told for how long it was."""
    desk = Desk(tasks)
    app.include_router(tasks.router(public=True, max_wait=0.05))

    @app.post("/")
    async def create(background_tasks: BackgroundTasks) -> JobHandle[Report]:
        return background_tasks.add_task(desk.make, 2026)

    with TestClient(app) as client, desk.closed():
        answer = client.post("/", headers={"Prefer": "wait=3600"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=0.05")


def test_the_headers_of_the_endpoint_are_kept(app: FastAPI, client: TestClient, desk: Desk) -> None:
    """Those of the response, and those of a dependency."""

    @app.post("/cookies", status_code=202)
    async def cookies(background_tasks: BackgroundTasks, response: Response) -> JobHandle[Report]:
        response.set_cookie("seen", "1")
        response.headers["Cache-Control"] = "private"
        return background_tasks.add_task(desk.make, 2026)

    answer = client.post("/cookies")
    assert answer.headers["set-cookie"].startswith("seen=1")
    assert answer.headers["cache-control"] == "private"
    assert client.post("/accepted").headers["x-desk"] == "1"


# After the last (P2)


@pytest.mark.parametrize("prefer", [{}, WAIT])
def test_a_job_starts_when_the_transaction_of_its_request_is_committed(
    tasks: Afterward, app: FastAPI, client: TestClient, happened: list[str], prefer: dict[str, str]
) -> None:
    """Also when somebody waits for it: the response is held back, and not the end of the request."""

    @tasks.task
    async def look() -> None:
        happened.append("task")

    async def session() -> AsyncIterator[None]:
        yield
        await asyncio.sleep(0.05)
        happened.append("committed")

    app.include_router(tasks.router(public=True))

    @app.post("/", dependencies=[Depends(session)])
    async def create(background_tasks: BackgroundTasks) -> JobHandle[None]:
        happened.append("endpoint")
        return background_tasks.add_task(look)

    answer = client.post("/", headers=prefer)
    assert answer.status_code == (200 if prefer else 202)
    wait_until(lambda: len(happened) == 3)
    assert happened == ["endpoint", "committed", "task"]


def test_a_commit_that_fails_while_somebody_waits_leaves_nothing(
    tasks: Afterward, app: FastAPI, client: TestClient, desk: Desk, database: Path
) -> None:
    """Nothing has left by then: the client gets 500, and the job is not stored."""

    async def session() -> AsyncIterator[None]:
        yield
        raise OSError("the database is gone")

    @app.post("/", dependencies=[Depends(session)])
    async def create(background_tasks: BackgroundTasks) -> JobHandle[Report]:
        return background_tasks.add_task(desk.make, 2026)

    answer = client.post("/", headers=WAIT)
    assert answer.status_code == 500
    assert jobs_on_disk(database) == []


def test_an_error_after_the_handle_was_made_is_answered(app: FastAPI, client: TestClient, desk: Desk) -> None:
    """By what the endpoint says, and not by a job that it gave up."""

    @app.post("/")
    async def create(background_tasks: BackgroundTasks) -> Any:
        accepted(background_tasks.add_task(desk.make, 2026))
        raise HTTPException(418, "x" * 25)  # as long as an id, by chance

    answer = client.post("/", headers=WAIT)
    assert (answer.status_code, answer.json()) == (418, {"detail": "x" * 25})


def test_a_client_that_goes_away_while_it_waits_harms_nothing(
    app: FastAPI, tasks: Afterward, desk: Desk, database: Path
) -> None:
    """The job is stored, and runs to its end."""
    with served(app) as address:
        with desk.closed():
            with suppress(httpx.ReadTimeout):
                httpx.post(f"{address.url}/handle", headers=WAIT, timeout=0.5)
            assert desk.started.wait(10)
            [job] = jobs_on_disk(database)
        answer = httpx.get(f"{address.url}/jobs/{job.id}", params={"wait": 20}, timeout=30)
        assert answer.json()["status"] == "succeeded"


def test_what_runs_in_memory_holds_back_no_answer(app: FastAPI, desk: Desk) -> None:
    """The answer leaves, and the function runs after it; the job after both."""
    answered = threading.Event()

    @app.post("/")
    async def create(background_tasks: BackgroundTasks) -> JobHandle[Report]:
        background_tasks.add_task(answered.wait, 20)
        return background_tasks.add_task(desk.make, 2026)

    with served(app) as address:
        assert httpx.post(f"{address.url}/", timeout=10).status_code == 202
        assert not desk.started.is_set()
        answered.set()
        assert desk.started.wait(10)


# What else answers


def test_an_id_that_is_no_handle_is_left_alone(app: FastAPI, client: TestClient, desk: Desk) -> None:
    """An endpoint may answer the id, and nothing more."""

    @app.post("/")
    async def create(background_tasks: BackgroundTasks) -> str:
        return background_tasks.add_task(desk.make, 2026).id

    answer = client.post("/")
    assert answer.status_code == 200
    assert client.get(f"/jobs/{answer.json()}").status_code == 200


def test_the_one_that_is_returned_is_told_of(app: FastAPI, client: TestClient, desk: Desk) -> None:
    """Of several jobs, and of several answers that an endpoint prepares."""

    @app.post("/")
    async def create(background_tasks: BackgroundTasks) -> Any:
        first, second = (background_tasks.add_task(desk.make, year) for year in (2025, 2026))
        answer = accepted(second)
        accepted(first)
        return answer

    answer = client.post("/", headers=WAIT)
    assert answer.json()["result"]["year"] == 2026


def test_a_handle_of_a_job_that_is_not_there_is_404(app: FastAPI, client: TestClient, desk: Desk) -> None:
    """Pruned, or never stored."""

    @app.get("/")
    async def find() -> JobHandle[Report]:
        return desk.make.handle("01a227d2-1576-7637-8913-a796cc11e09f")

    answer = client.get("/")
    assert (answer.status_code, answer.json()) == (404, {"detail": "No such job."})


def test_a_handle_of_a_job_that_is_done_is_200(app: FastAPI, client: TestClient, desk: Desk) -> None:
    """There is nothing left to be accepted."""

    @app.get("/{id}")
    async def find(id: str) -> JobHandle[Report]:  # noqa: A002 - its name in the path
        return desk.make.handle(id)

    job = client.post("/handle", headers=WAIT).json()
    assert client.get(f"/{job['id']}").status_code == 200


@pytest.mark.anyio
async def test_a_request_that_is_cancelled_while_it_waits_harms_nothing(
    app: FastAPI, tasks: Afterward, desk: Desk, database: Path
) -> None:
    """As some servers do when a client goes away: the job was let go before, and goes on."""
    async with app.router.lifespan_context(app):
        with desk.closed():
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                asking = asyncio.create_task(client.post("/handle", headers=WAIT))
                await soon(desk.started.is_set, "the job runs")
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
        [job] = jobs_on_disk(database)
        assert [found and found.status for found in await tasks.ended([job.id], timeout=20)] == ["succeeded"]


# Around it


def gzip(app: FastAPI) -> None:
    app.add_middleware(GZipMiddleware)


def based(app: FastAPI) -> None:
    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["X-Seen"] = "1"
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)


@pytest.mark.parametrize("around", [gzip, based])
@pytest.mark.parametrize("prefer", [{}, WAIT])
def test_with_middleware_around(
    app: FastAPI, desk: Desk, around: Callable[[FastAPI], None], prefer: dict[str, str]
) -> None:
    """Its headers are kept, and the document is whole."""
    around(app)
    with TestClient(app) as client:
        answer = client.post("/handle", headers=prefer)
        assert answer.status_code == (200 if prefer else 202)
        assert answer.json()["task"] == desk.make.name
        assert around is not based or answer.headers["x-seen"] == "1"


def test_in_plain_starlette(tasks: Afterward) -> None:
    """`accepted` is a response."""
    desk = Desk(tasks)

    async def create(request: Request) -> Response:
        return accepted(BackgroundTasks().add_task(desk.make, 2026))

    app = Starlette(routes=[Route("/", create, methods=["POST"])], middleware=[Middleware(GZipMiddleware)])
    shown = FastAPI()
    shown.include_router(tasks.router(public=True))
    app.mount("/shown", shown)
    tasks.install(app)
    with TestClient(app) as client:
        answer = client.post("/", headers=WAIT)
        assert (answer.status_code, answer.headers["location"][:12]) == (200, "/shown/jobs/")


# Whose it is


@pytest.fixture
def counter(tasks: Afterward, app: FastAPI) -> Desk:
    """A desk where one report is made at a time, for whoever asks first; and where any job can be asked about."""
    desk = Desk(tasks)
    app.include_router(tasks.router(owner=user, max_wait=20))
    owned = Depends(tasks.owned_by(user))
    one = desk.make.options(unique="the report")

    @app.post("/mine", status_code=202, dependencies=[owned])
    async def mine(background_tasks: BackgroundTasks) -> JobHandle[Report]:
        return background_tasks.add_task(one, 2026)

    @app.post("/enqueued", status_code=202, dependencies=[owned])
    async def enqueued() -> JobHandle[Report]:
        return await one.enqueue(2026)

    @app.post("/once", status_code=202, dependencies=[Depends(tasks.idempotent(owner=user)), owned])
    async def once(background_tasks: BackgroundTasks) -> JobHandle[Report]:
        return background_tasks.add_task(one, 2026)

    @app.post("/given/{owner}", status_code=202, dependencies=[Depends(tasks.idempotent(owner=user))])
    async def give(owner: str, background_tasks: BackgroundTasks) -> JobHandle[Report]:
        return background_tasks.add_task(one.options(owner=owner), 2026)

    @app.get("/any/{job}", dependencies=[owned])
    async def any_job(job: str) -> JobHandle[Report]:
        return desk.make.handle(job)

    return desk


@pytest.mark.parametrize("prefer", [{}, {"Prefer": "wait=5"}])
@pytest.mark.parametrize("path", ["/mine", "/enqueued", "/once"])
def test_nobody_is_told_of_the_job_of_another_that_has_the_same_unique_key(
    client: TestClient, counter: Desk, path: str, prefer: dict[str, str]
) -> None:
    """Nothing was stored for them: 409, at once, and again when a request with a key is sent again."""
    with counter.closed():
        first = client.post("/mine").json()
        headers = as_user("bob") | prefer | {"Idempotency-Key": "a"}
        for answer in (client.post(path, headers=headers), client.post(path, headers=headers)):
            assert answer.status_code == 409
            assert first["id"] not in answer.text
            assert "location" not in answer.headers


@pytest.mark.parametrize("path", ["/mine", "/enqueued", "/once"])
def test_an_owner_is_told_of_their_job_that_has_the_same_unique_key(
    client: TestClient, counter: Desk, path: str
) -> None:
    key = {"Idempotency-Key": "a"}
    with counter.closed():
        first = client.post("/mine").json()["id"]
        answers = [client.post(path, headers=key) for _ in range(2)]
        assert [answer.json().get("id", answer.text) for answer in answers] == [first, first]


def test_who_makes_a_job_for_another_is_told_of_it(client: TestClient, counter: Desk) -> None:
    """The endpoint has said whose it is, and shows it."""
    with counter.closed():
        first = client.post("/given/bob").json()["id"]
        assert client.get(f"/jobs/{first}", headers=as_user("bob")).status_code == 200
        answers = [client.post("/given/bob", headers={"Idempotency-Key": "a"}) for _ in range(2)]
        assert [answer.json()["id"] for answer in answers] == [first, first]
        assert client.post("/given/cleo").status_code == 409


def test_a_handle_of_another_owners_job_is_404(client: TestClient, counter: Desk) -> None:
    """As on the routes of jobs."""
    id_ = client.post("/mine").json()["id"]
    assert client.get(f"/any/{id_}").status_code in {200, 202}
    answer = client.get(f"/any/{id_}", headers=as_user("bob"))
    unknown = client.get("/any/x", headers=as_user("bob"))
    assert (answer.status_code, answer.content, answer.headers) == (404, unknown.content, unknown.headers)


# When it cannot be told


def test_without_a_router_there_is_nowhere_to_look(app: FastAPI, tasks: Afterward) -> None:
    """The message names the mend."""
    desk = Desk(tasks)

    @app.post("/")
    async def create(background_tasks: BackgroundTasks) -> Any:
        return accepted(background_tasks.add_task(desk.make, 2026))

    with TestClient(app) as client, pytest.raises(ConfigurationError, match=r"include_router\(tasks\.router"):
        client.post("/")


def test_outside_of_a_request_there_is_nobody_to_answer(tasks: Afterward) -> None:
    with pytest.raises(NotInARequest, match="install"):
        accepted(Desk(tasks).make.handle("0190"))


def test_a_handle_within_something_else_is_refused_when_the_route_is_declared(app: FastAPI) -> None:
    """With the mend: only by itself can it become a document."""
    with pytest.raises(PydanticSchemaGenerationError, match=r"handle\.id"):

        class Answer(BaseModel):  # pyright: ignore[reportUnusedClass]
            job: JobHandle[Report]


@pytest.mark.parametrize("prefer", [{}, WAIT])
def test_a_store_that_refuses_is_503(tmp_path: Path, prefer: dict[str, str]) -> None:
    """As for any request that adds tasks."""
    app = FastAPI()
    with opened(Afterward(store=SQLiteStore(tmp_path / "jobs.db", patience=0.2))) as tasks:
        desk = Desk(tasks)
        tasks.install(app, worker=False)
        app.include_router(tasks.router(public=True))

        @app.post("/")
        async def create(background_tasks: BackgroundTasks) -> JobHandle[Report]:
            return background_tasks.add_task(desk.make, 2026)

        with TestClient(app, raise_server_exceptions=False) as client:
            client.get("/jobs/0190")
            with locked(tmp_path / "jobs.db"):
                answer = client.post("/", headers=prefer)
            assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
            assert jobs_on_disk(tmp_path / "jobs.db") == []


def test_what_is_stored_is_never_refused(
    client: TestClient, tasks: Afterward, desk: Desk, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store takes the job, and cannot tell of it then: 202, where it will be found, and no document."""
    from afterward.errors import StoreUnavailable

    async def fail(job: str) -> None:
        raise StoreUnavailable("it is not there")

    with armed("after_store", lambda: monkeypatch.setattr(tasks, "get", fail)):
        answer = client.post("/handle")
    assert (answer.status_code, answer.content) == (202, b"")
    assert answer.headers["location"] == f"/jobs/{jobs_on_disk(database)[0].id}"


# On a bench


def test_on_a_bench_the_job_has_run_when_its_client_waits(tasks: Afterward, app: FastAPI, desk: Desk) -> None:
    """It runs by itself; and without a wish to wait, after the answer, as ever."""
    with Bench(tasks), TestClient(app) as client:
        assert client.post("/handle", headers=WAIT).json()["result"]["year"] == 2026
        answer = client.post("/handle")
        assert (answer.status_code, answer.json()["status"]) == (202, "queued")
        assert client.get(answer.headers["location"]).json()["status"] == "succeeded"


def test_on_a_bench_where_nothing_runs_by_itself_nobody_waits(tasks: Afterward, app: FastAPI, desk: Desk) -> None:
    """A delayed job neither."""
    with Bench(tasks, manual=True), TestClient(app) as client:
        assert client.post("/handle", headers=WAIT).status_code == 202


# With a key


def test_a_request_that_is_sent_again_is_told_of_the_same_job(
    app: FastAPI, client: TestClient, tasks: Afterward, desk: Desk, database: Path
) -> None:
    """As it stands by then."""

    @app.post("/once", status_code=202, dependencies=[Depends(tasks.idempotent())])
    async def create(background_tasks: BackgroundTasks) -> JobHandle[Report]:
        return background_tasks.add_task(desk.make, 2026)

    key = {"Idempotency-Key": "8e03978e-40d5-43e8-bc93-6894a57f9324"}
    with desk.closed():
        first = client.post("/once", headers=key)
        assert first.status_code == 202
        again = client.post("/once", headers=key)
        assert again.headers["idempotency-replayed"] == "true"
        assert (again.status_code, again.headers["location"]) == (202, first.headers["location"])
    last = client.post("/once", headers={**key, **WAIT})
    assert (last.status_code, last.json()["result"]["year"]) == (200, 2026)
    assert len(jobs_on_disk(database)) == 1


def test_a_request_with_a_key_can_wait(app: FastAPI, client: TestClient, tasks: Afterward, desk: Desk) -> None:
    """The key is completed with the job, the job starts after the request, and the answer has the result."""

    @app.post("/once", status_code=202, dependencies=[Depends(tasks.idempotent())])
    async def create(background_tasks: BackgroundTasks) -> JobHandle[Report]:
        return background_tasks.add_task(desk.make, 2026)

    answer = client.post("/once", headers={"Idempotency-Key": "a", **WAIT})
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")


# In OpenAPI


def test_the_model_of_the_result_is_in_openapi(app: FastAPI, tasks: Afterward, desk: Desk) -> None:
    """Of the endpoint, by its annotation; of the route that shows jobs, by the task, also of tasks declared later."""

    @tasks.task(name="count")
    def count() -> int:
        return 1

    @tasks.task(name="later")
    def later(): ...  # type: ignore[no-untyped-def]

    assert documented(app, "/handle", "post", "202") == {"$ref": "#/components/schemas/JobStatus_Report_"}
    shown = documented(app, "/jobs/{id}", "get")
    known, other = shown["anyOf"]
    models = app.openapi()["components"]["schemas"]
    assert known["discriminator"]["propertyName"] == "task"
    assert known["discriminator"]["mapping"].keys() == {desk.make.name, "count"}
    of_report = models[known["discriminator"]["mapping"][desk.make.name].rpartition("/")[2]]
    assert of_report["properties"]["result"]["anyOf"][0] == {"$ref": "#/components/schemas/Report"}
    assert "numberOfPages" in models["Report"]["properties"]
    assert other["$ref"].endswith("JobStatus_Any_")
