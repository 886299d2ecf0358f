"""`Idempotency-Key`: a request that is sent again is answered as before, and what it asked for is done once."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import apsw
import httpx
import pytest
from fastapi import Body, Depends, FastAPI, Header, HTTPException, Request, Response, UploadFile
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterward import Afterward, BackgroundTasks, JobHandle, Task
from afterward.faults import armed
from afterward.idempotency import MAX_ANSWER_BYTES
from afterward.received import MAX_AHEAD_BYTES
from afterward.stores.sqlite import SQLiteStore
from tests.support.disk import jobs_on_disk
from tests.support.obstacles import locked
from tests.support.opening import opened
from tests.support.waiting import soon, wait_until

KEY = {"Idempotency-Key": "8e03978e-40d5-43e8-bc93-6894a57f9324"}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where the jobs of a test are kept."""
    return tmp_path / "jobs.db"


@pytest.fixture
def tasks(database: Path) -> Iterator[Afterward]:
    """Durable tasks whose store gives up soon."""
    with opened(Afterward(store=SQLiteStore(database, patience=0.3))) as tasks:
        yield tasks


@pytest.fixture
def note(tasks: Afterward) -> Task[[str], None]:
    @tasks.task
    def note(what: str) -> None: ...

    return note


@pytest.fixture
def app(tasks: Afterward) -> FastAPI:
    app = FastAPI()
    tasks.install(app)
    return app


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """A client of the app, while its lifespan lasts. Endpoints may be added to the app after."""
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def noted(database: Path) -> Callable[[], list[str]]:
    """The arguments of the jobs on the disk, now."""
    return lambda: [job.arguments for job in jobs_on_disk(database)]


@pytest.fixture
def orders(app: FastAPI, tasks: Afterward, note: Task[[str], None]) -> list[str]:
    """`POST` and `PUT /orders/{item}`, which heed a key and add a job; and the items that they were asked for."""
    asked: list[str] = []

    @app.put("/orders/{item}", status_code=202, dependencies=[Depends(tasks.idempotent())])
    @app.post("/orders/{item}", status_code=202, dependencies=[Depends(tasks.idempotent())])
    async def order(
        item: str, background_tasks: BackgroundTasks, response: Response, wishes: Annotated[Any, Body()] = None
    ) -> dict[str, Any]:
        asked.append(item)
        job = background_tasks.add_task(note, item)
        response.headers["Location"] = f"/jobs/{job.id}"
        return {"job": job.id, "number": len(asked), "wishes": wishes}

    return asked


def assert_replayed(again: Any, first: Any) -> None:
    """It is the answer that was given before, and says so."""
    assert "idempotency-replayed" not in first.headers
    headers = dict(again.headers)
    assert headers.pop("idempotency-replayed") == "true"
    assert (again.status_code, headers, again.content) == (first.status_code, dict(first.headers), first.content)


def forget_the_last(database: Path) -> None:
    """As a standby has the store that took over before the last transaction reached it."""
    connection = apsw.Connection(str(database))
    connection.set_busy_timeout(5000)  # the worker is yet to write how the last has ended
    connection.execute("DELETE FROM jobs; UPDATE reservations SET answer = NULL, completed_at = NULL")
    connection.close()


def assert_problem(answer: Any, status: int, detail: str) -> None:
    """It is a problem as RFC 9457 has it, and its detail names the mend."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem.keys() == {"type", "title", "status", "detail"}
    assert problem["status"] == status
    assert detail in problem["detail"]


# The same again


def test_the_same_request_is_answered_as_before_and_done_once(
    client: TestClient, orders: list[str], noted: Callable[[], list[str]]
) -> None:
    first = client.post("/orders/tea?n=2", json={"milk": False}, headers=KEY)
    assert first.status_code == 202
    again = client.post("/orders/tea?n=2", json={"milk": False}, headers=KEY)
    assert_replayed(again, first)
    assert again.headers["location"] == f"/jobs/{first.json()['job']}"
    assert orders == ["tea"]
    assert len(noted()) == 1


def test_the_key_means_the_same_in_quotes(client: TestClient, orders: list[str]) -> None:
    """As the draft has it: a structured string."""
    first = client.post("/orders/tea", headers={"Idempotency-Key": '"one"'})
    assert_replayed(client.post("/orders/tea", headers={"Idempotency-Key": "one"}), first)


def test_a_request_without_a_key_or_with_another_is_a_request_of_its_own(client: TestClient, orders: list[str]) -> None:
    for headers in ({}, {}, {"Idempotency-Key": "1"}, {"Idempotency-Key": "2"}):
        answer = client.post("/orders/tea", headers=headers)
        assert answer.status_code == 202
        assert "idempotency-replayed" not in answer.headers
    assert len(orders) == 4


@pytest.mark.parametrize(
    "other",
    [
        {"json": {"milk": True}},
        {"params": {"n": "2"}},
        {"content": b"{}", "headers": KEY | {"Content-Type": "application/vnd.shop+json"}},
    ],
)
def test_another_request_with_the_same_key_is_refused(client: TestClient, orders: list[str], other: Any) -> None:
    """So the client learns of its mistake, in place of getting the answer to something else."""
    assert client.post("/orders/tea", json={}, headers=KEY).status_code == 202
    assert_problem(client.post("/orders/tea", **({"headers": KEY} | other)), 422, "send a new key with a new request")
    assert orders == ["tea"]


def test_the_same_key_for_another_path_or_method_is_another(client: TestClient, orders: list[str]) -> None:
    for method, path in (("POST", "/orders/tea"), ("POST", "/orders/milk"), ("PUT", "/orders/tea")):
        assert client.request(method, path, headers=KEY).status_code == 202
    assert orders == ["tea", "milk", "tea"]


async def user(x_user: Annotated[str, Header()]) -> str:
    return x_user


@pytest.mark.parametrize("how", ["owner", "owned by", "set for the request"])
def test_nobody_is_shown_what_another_was_answered(
    app: FastAPI, tasks: Afterward, note: Task[[str], None], client: TestClient, how: str
) -> None:
    """`owner=` says whose the key is, or whoever has said before whose the request is."""

    async def set_owner(request: Request, x_user: Annotated[str, Header()]) -> None:
        tasks.set_owner(request.scope, x_user)

    said = {
        "owner": [Depends(tasks.idempotent(owner=user))],
        "owned by": [Depends(tasks.owned_by(user)), Depends(tasks.idempotent())],
        "set for the request": [Depends(set_owner), Depends(tasks.idempotent())],
    }

    @app.post("/", dependencies=said[how])
    async def endpoint(background_tasks: BackgroundTasks) -> str:
        return background_tasks.add_task(note, "task").id

    ada = client.post("/", headers=KEY | {"X-User": "ada"})
    bob = client.post("/", headers=KEY | {"X-User": "bob"})
    assert ada.json() != bob.json()
    assert_replayed(client.post("/", headers=KEY | {"X-User": "ada"}), ada)


@pytest.mark.parametrize("first", [None, "key"])
def test_a_key_that_is_reserved_before_it_is_known_whose_it_is_is_a_mistake(
    app: FastAPI, tasks: Afterward, note: Task[[str], None], noted: Callable[[], list[str]], first: str | None
) -> None:
    """Unless it is said whose the key is."""
    key = Depends(tasks.idempotent(owner=user if first else None))

    @app.post("/", dependencies=[key, Depends(tasks.owned_by(user))])
    async def endpoint(background_tasks: BackgroundTasks) -> str:
        return background_tasks.add_task(note, "task").id

    with TestClient(app) as client:
        if first:
            assert client.post("/", headers=KEY | {"X-User": "ada"}).status_code == 200
        else:
            with pytest.raises(Exception, match=r"say tasks.idempotent\(owner=…\)"):
                client.post("/", headers=KEY | {"X-User": "ada"})
            assert noted() == []


# What is refused


def test_a_request_without_a_key_is_refused_where_one_is_required(
    app: FastAPI, client: TestClient, tasks: Afterward
) -> None:
    @app.post("/", dependencies=[Depends(tasks.idempotent(required=True))])
    async def endpoint() -> None: ...

    assert_problem(client.post("/"), 400, "send a random UUID")
    assert client.post("/", headers=KEY).status_code == 200


@pytest.mark.parametrize(
    "headers", [[("Idempotency-Key", "a b")], [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]]
)
def test_what_is_no_key_is_refused(client: TestClient, orders: list[str], headers: Any) -> None:
    assert_problem(client.post("/orders/tea", headers=headers), 400, "send")
    assert orders == []


def test_the_header_is_in_the_openapi_document(app: FastAPI, client: TestClient, orders: list[str]) -> None:
    [parameter] = [
        parameter
        for parameter in client.get("/openapi.json").json()["paths"]["/orders/{item}"]["post"]["parameters"]
        if parameter["in"] == "header"
    ]
    assert (parameter["name"], parameter["required"]) == ("Idempotency-Key", False)


def test_a_key_is_free_again_when_the_store_has_lost_that_it_was_used_up(
    client: TestClient, tasks: Afterward, orders: list[str], database: Path
) -> None:
    """It is no request's that is under way here: the next heartbeat finds that."""
    assert client.post("/orders/tea", headers=KEY).status_code == 202
    forget_the_last(database)
    asyncio.run(tasks.life.liveness.beat())
    assert client.post("/orders/tea", headers=KEY).status_code == 202
    assert orders == ["tea", "tea"]
    assert client.post("/orders/tea", headers=KEY).headers["idempotency-replayed"] == "true"


@pytest.mark.anyio
async def test_while_the_first_is_under_way_the_second_is_refused(
    app: FastAPI, tasks: Afterward, note: Task[[str], None]
) -> None:
    """It is told when to come again."""
    goes_on = asyncio.Event()

    @app.post("/", status_code=202, dependencies=[Depends(tasks.idempotent())])
    async def endpoint(background_tasks: BackgroundTasks) -> str:
        await goes_on.wait()
        return background_tasks.add_task(note, "task").id

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=KEY) as client:
        sending = [asyncio.create_task(client.post("/")) for _ in range(5)]
        await soon(lambda: sum(each.done() for each in sending) == 4, "all but one are answered")
        goes_on.set()
        answers = sorted(await asyncio.gather(*sending), key=lambda answer: answer.status_code)
        for answer in answers[1:]:
            assert_problem(answer, 409, "when it is over")
            assert int(answer.headers["retry-after"]) > 0
        assert answers[0].status_code == 202
        assert_replayed(await client.post("/"), answers[0])


# When the key is free again


@pytest.mark.parametrize("how", ["raises", "is refused", "returns an error", "adds nothing", "does not fit"])
def test_a_request_that_fails_or_adds_no_job_gives_up_its_key(
    app: FastAPI, client: TestClient, tasks: Afterward, note: Task[[str], None], how: str
) -> None:
    """The next with the same key is carried out, whatever it asks for."""
    times: list[int] = []

    @app.post("/", status_code=202, dependencies=[Depends(tasks.idempotent())], response_model=None)
    async def endpoint(background_tasks: BackgroundTasks, n: int) -> Any:
        times.append(n)
        if len(times) > 1:
            return background_tasks.add_task(note, "task").id
        if how == "returns an error":
            return JSONResponse({}, 409)
        if how == "adds nothing":
            return "nothing to be done"
        background_tasks.add_task(note, "not wanted")
        raise HTTPException(429) if how == "is refused" else RuntimeError("raised by the endpoint")

    if how == "does not fit":
        times.append(0)
        assert client.post("/?n=x", headers=KEY).status_code == 422
    else:
        client.post("/?n=1", headers=KEY)
    first = client.post("/?n=2", headers=KEY)
    assert first.status_code == 202
    assert_replayed(client.post("/?n=2", headers=KEY), first)


def test_an_error_that_is_returned_with_a_job_is_kept(
    app: FastAPI, client: TestClient, tasks: Afterward, note: Task[[str], None]
) -> None:
    """Its tasks run, so it must not be carried out again."""

    @app.post("/", dependencies=[Depends(tasks.idempotent())])
    async def endpoint(background_tasks: BackgroundTasks) -> Response:
        background_tasks.add_task(note, "task")
        return JSONResponse({"error": "half of it"}, 409)

    first = client.post("/", headers=KEY)
    assert_replayed(client.post("/", headers=KEY), first)


def test_a_task_that_is_refused_as_a_duplicate_leaves_the_key_free(
    app: FastAPI, client: TestClient, tasks: Afterward, note: Task[[str], None]
) -> None:
    sent: list[int] = []

    @app.post("/", dependencies=[Depends(tasks.idempotent())])
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        sent.append(1)
        once = note.options(unique="one", on_duplicate="refuse", delay=60)
        background_tasks.add_task(once, "task")

    assert client.post("/").status_code == 200
    for _ in range(2):
        assert client.post("/", headers=KEY).json() == {"detail": "The same is being done already."}
    assert len(sent) == 3


@pytest.mark.parametrize("how", ["returns an error", "adds nothing", "is a duplicate"])
def test_the_key_is_free_when_the_answer_leaves(
    app: FastAPI, tasks: Afterward, note: Task[[str], None], database: Path, how: str
) -> None:
    """Who comes again at once is not told that the first is still under way."""
    reserved: list[object] = []

    async def looked_at(scope: Scope, receive: Receive, send: Send) -> None:
        async def look(message: Message) -> None:
            if message["type"] == "http.response.start":
                reserved.extend(apsw.Connection(str(database)).execute("SELECT key FROM reservations"))
            await send(message)

        await app(scope, receive, look)

    @app.post("/", dependencies=[Depends(tasks.idempotent())])
    async def endpoint(background_tasks: BackgroundTasks) -> Response:
        reserved.extend(apsw.Connection(str(database)).execute("SELECT key FROM reservations"))
        if how == "is a duplicate":
            for _ in range(2):
                background_tasks.add_task(note.options(unique="one", on_duplicate="refuse"), "task")
        return Response(status_code=422 if how == "returns an error" else 200)

    with TestClient(looked_at) as client:
        assert client.post("/", headers=KEY).status_code == {"adds nothing": 200, "is a duplicate": 409}.get(how, 422)
    assert reserved == [(KEY["Idempotency-Key"],)]


@pytest.mark.anyio
async def test_a_request_that_is_cancelled_before_it_has_stored_gives_up_its_key(
    app: FastAPI, tasks: Afterward, note: Task[[str], None]
) -> None:
    """As when its client goes away, under a middleware that cancels then."""
    is_there = asyncio.Event()

    @app.post("/", dependencies=[Depends(tasks.idempotent())])
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "task")
        if not is_there.is_set():
            is_there.set()
            await asyncio.Event().wait()

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=KEY) as client:
        going_away = asyncio.create_task(client.post("/"))
        await is_there.wait()
        assert (await client.post("/")).status_code == 409
        going_away.cancel()
        await asyncio.wait({going_away})
        assert (await client.post("/")).status_code == 200


# What stands around


def test_what_is_answered_again_passes_the_middleware_anew(app: FastAPI, orders: list[str]) -> None:
    """What a middleware says is of this request; nothing of it is said twice."""
    numbers = iter(range(10))

    async def number(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers.append("X-Request", str(next(numbers)))
        response.set_cookie("seen", "yes")
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=number)
    app.add_middleware(GZipMiddleware, minimum_size=1)
    app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"])
    headers = KEY | {"Origin": "https://shop.example"}
    with TestClient(app) as client:
        first = client.post("/orders/tea", headers=headers)
        again = client.post("/orders/tea", headers=headers | {"Accept-Encoding": "identity"})
        other = client.post("/orders/tea?n=2", headers=headers)
    assert first.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in again.headers
    assert (again.status_code, again.json()) == (202, first.json())
    for number_, answer in enumerate((first, again, other)):
        assert answer.headers.get_list("x-request") == [str(number_)]
        assert answer.headers.get_list("access-control-allow-origin") == ["https://shop.example"]
        assert len(answer.headers.get_list("set-cookie")) == 1
    assert_problem(other, 422, "send a new key")


def test_no_cookie_is_kept(app: FastAPI, client: TestClient, tasks: Afterward, note: Task[[str], None]) -> None:
    """It is a secret of one client, and may be old by then."""

    @app.post("/", dependencies=[Depends(tasks.idempotent())])
    async def endpoint(background_tasks: BackgroundTasks, response: Response) -> str:
        response.set_cookie("session", "secret")
        return background_tasks.add_task(note, "task").id

    first, again = (client.post("/", headers=KEY) for _ in range(2))
    assert again.json() == first.json()
    assert "set-cookie" in first.headers
    assert "set-cookie" not in again.headers


def test_on_a_mounted_app(app: FastAPI, client: TestClient, tasks: Afterward, note: Task[[str], None]) -> None:
    """Which handles exceptions by itself; and the same path of another app is another."""
    asked: list[str] = []

    def mounted(name: str) -> FastAPI:
        inner = FastAPI()

        @inner.post("/", status_code=202, dependencies=[Depends(tasks.idempotent())])
        async def endpoint(background_tasks: BackgroundTasks) -> str:
            asked.append(name)
            return background_tasks.add_task(note, name).id

        return inner

    app.mount("/a", mounted("a"))
    app.mount("/b", mounted("b"))
    first = client.post("/a/", headers=KEY)
    assert_replayed(client.post("/a/", headers=KEY), first)
    assert_problem(client.post("/a/?n=1", headers=KEY), 422, "send a new key")
    assert client.post("/b/", headers=KEY).status_code == 202
    assert asked == ["a", "b"]


def test_what_other_dependencies_have_begun_is_rolled_back(
    app: FastAPI, client: TestClient, tasks: Afterward, note: Task[[str], None], noted: Callable[[], list[str]]
) -> None:
    """A request that is answered in place of its endpoint has done nothing, and adds nothing."""
    ended: list[str] = []

    async def session(background_tasks: BackgroundTasks) -> AsyncIterator[None]:
        background_tasks.add_task(note, "of the dependency")
        try:
            yield
        except BaseException:
            ended.append("rolled back")
            raise
        ended.append("committed")

    @app.post("/", dependencies=[Depends(session), Depends(tasks.idempotent())])
    async def endpoint() -> str:
        return "done"

    first = client.post("/", headers=KEY)
    assert_replayed(client.post("/", headers=KEY), first)
    assert_problem(client.post("/?n=1", headers=KEY), 422, "send a new key")
    assert ended == ["committed", "rolled back", "rolled back"]
    assert len(noted()) == 1


# Bodies


def test_an_upload_is_the_same_though_its_boundary_is_another(
    app: FastAPI, client: TestClient, tasks: Afterward, note: Task[[str], None]
) -> None:
    """It is larger than what is kept in memory, and is not read ahead."""

    @app.post("/", dependencies=[Depends(tasks.idempotent())])
    async def endpoint(file: UploadFile, background_tasks: BackgroundTasks) -> str:
        return background_tasks.add_task(note, str(len(await file.read()))).id

    content = b"x" * (MAX_AHEAD_BYTES + 1)
    first = client.post("/", files={"file": content}, headers=KEY)
    assert first.status_code == 200
    again = client.post("/", files={"file": content}, headers=KEY)
    assert first.request.headers["content-type"] != again.request.headers["content-type"]
    assert_replayed(again, first)
    assert_problem(client.post("/", files={"file": content + b"y"}, headers=KEY), 422, "send a new key")


@pytest.mark.parametrize("how", ["body", "stream"])
def test_a_body_that_the_endpoint_reads_by_itself_is_read_before(
    app: FastAPI, client: TestClient, tasks: Afterward, note: Task[[str], None], how: str
) -> None:
    """Whole, for it says whether the request is the same; so it must not be too large."""
    asked: list[bytes] = []

    @app.post("/", dependencies=[Depends(tasks.idempotent())])
    async def endpoint(request: Request, background_tasks: BackgroundTasks) -> str:
        asked.append(await request.body() if how == "body" else b"".join([part async for part in request.stream()]))
        return background_tasks.add_task(note, "task").id

    def pieces() -> Iterator[bytes]:
        yield from (b"a", b"", b"b")

    first = client.post("/", content=pieces(), headers=KEY)
    assert_replayed(client.post("/", content=b"ab", headers=KEY), first)
    assert_problem(client.post("/", content=b"abc", headers=KEY), 422, "send a new key")
    large = b"x" * (MAX_AHEAD_BYTES + 1)
    assert_problem(client.post("/", content=large, headers={"Idempotency-Key": "large"}), 413, "send less")
    assert client.post("/", content=large).status_code == 200
    assert asked == [b"ab", large]


# Answers


def test_what_is_streamed_is_sent_when_all_of_it_is_stored(
    app: FastAPI, client: TestClient, tasks: Afterward, note: Task[[str], None], noted: Callable[[], list[str]]
) -> None:
    """With a job that is added before its last chunk."""
    on_disk: list[int] = []

    @app.post("/", dependencies=[Depends(tasks.idempotent())])
    async def endpoint(background_tasks: BackgroundTasks) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield "first,"
            background_tasks.add_task(note, "task")
            on_disk.append(len(noted()))
            yield "last"

        return StreamingResponse(body(), media_type="text/csv")

    first = client.post("/", headers=KEY)
    assert (first.text, on_disk, len(noted())) == ("first,last", [0], 1)
    again = client.post("/", headers=KEY)
    assert (again.text, again.headers["content-type"]) == ("first,last", first.headers["content-type"])
    assert len(noted()) == 1


@pytest.mark.parametrize("with_middleware", [False, True])
def test_an_answer_that_is_too_large_to_be_kept_is_refused_and_nothing_is_stored(
    *,
    app: FastAPI,
    tasks: Afterward,
    note: Task[[str], None],
    noted: Callable[[], list[str]],
    with_middleware: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log names the mend."""

    @app.post("/{size}", dependencies=[Depends(tasks.idempotent())])
    async def endpoint(size: int, background_tasks: BackgroundTasks) -> Response:
        background_tasks.add_task(note, "task")
        return Response(b"x" * size)

    if with_middleware:
        app.add_middleware(CORSMiddleware, allow_origins=["*"])
    with TestClient(app, raise_server_exceptions=False) as client:
        for _ in range(2):
            assert client.post(f"/{MAX_ANSWER_BYTES + 1}", headers=KEY).status_code == 500
        assert "answer with the id of the job" in caplog.text
        assert noted() == []
        assert client.post(f"/{MAX_ANSWER_BYTES + 1}").status_code == 200
        first = client.post(f"/{MAX_ANSWER_BYTES}", headers=KEY)
        assert_replayed(client.post(f"/{MAX_ANSWER_BYTES}", headers=KEY), first)


# Answers that are the status of the job


@pytest.fixture
def reports(app: FastAPI, tasks: Afterward) -> threading.Event:
    """`POST /reports`, answered with the status of a job that ends once this is set."""
    may_end = threading.Event()

    @tasks.task
    def draw() -> str:
        assert may_end.wait(5)
        return "a drawing"

    @app.post("/reports", status_code=202, dependencies=[Depends(tasks.idempotent())])
    async def order(background_tasks: BackgroundTasks) -> JobHandle[str]:
        return background_tasks.add_task(draw)

    app.include_router(tasks.router(public=True))
    return may_end


def test_the_status_of_the_job_is_given_as_it_is_by_then(
    app: FastAPI, tasks: Afterward, reports: threading.Event
) -> None:
    """Of the same job: what was true at first would be a lie later."""
    with TestClient(app) as client:
        first = client.post("/reports", headers=KEY)
        assert (first.status_code, first.json()["done"]) == (202, False)
        again = client.post("/reports", headers=KEY)
        assert (again.status_code, again.headers["location"]) == (202, first.headers["location"])
        reports.set()
        wait_until(lambda: client.get(first.headers["location"]).json()["done"], "it has ended")
        last = client.post("/reports", headers=KEY)
    assert (last.status_code, last.json()["id"], last.json()["result"]) == (200, first.json()["id"], "a drawing")
    assert (again.headers["idempotency-replayed"], last.headers["idempotency-replayed"]) == ("true", "true")


def test_who_prefers_to_wait_waits_for_the_same_job(
    app: FastAPI, tasks: Afterward, reports: threading.Event, noted: Callable[[], list[str]]
) -> None:
    """`Prefer: wait`, the first time and again; while the first waits, its key is used up."""
    with TestClient(app) as client, ThreadPoolExecutor() as threads:
        first = threads.submit(client.post, "/reports", headers=KEY | {"Prefer": "wait=20"})
        wait_until(lambda: len(noted()) == 1, "its job is stored")
        assert client.post("/reports", headers=KEY).status_code == 202
        again = threads.submit(client.post, "/reports", headers=KEY | {"Prefer": "wait=20"})
        reports.set()
        assert (first.result().status_code, first.result().json()["result"]) == (200, "a drawing")
        assert again.result().json() == first.result().json()
    assert len(noted()) == 1


# When the store fails


def test_where_the_key_cannot_be_reserved_the_client_gets_a_503(
    client: TestClient, orders: list[str], database: Path
) -> None:
    """And nothing is done. It comes again, and all is well."""
    with locked(database):
        answer = client.post("/orders/tea", headers=KEY)
    assert_problem(answer, 503, "try again later")
    assert int(answer.headers["retry-after"]) > 0
    assert orders == []
    wait_until(lambda: client.post("/orders/tea", headers=KEY).status_code == 202, "the key is free")
    assert orders == ["tea"]


def test_where_the_job_cannot_be_stored_the_client_gets_a_503_and_may_come_again(
    client: TestClient, orders: list[str], database: Path, noted: Callable[[], list[str]]
) -> None:
    """The store fails after the key was reserved."""
    with ExitStack() as until_answered:
        with armed("before_store", lambda: until_answered.enter_context(locked(database))):
            assert client.post("/orders/tea", headers=KEY).status_code == 503
        assert noted() == []
    wait_until(lambda: client.post("/orders/tea", headers=KEY).status_code == 202, "the key is free")
    first, again = (client.post("/orders/tea", headers=KEY) for _ in range(2))
    assert first.content == again.content
    assert len(noted()) == 1


# Mistakes


def test_two_of_these_dependencies_are_a_mistake(
    app: FastAPI, client: TestClient, tasks: Afterward, caplog: pytest.LogCaptureFixture
) -> None:
    @app.post("/", dependencies=[Depends(tasks.idempotent()), Depends(tasks.idempotent(required=True))])
    async def endpoint() -> None: ...

    assert client.post("/", headers=KEY).status_code == 500
    with pytest.raises(Exception, match="depend on one"), TestClient(app) as strict:
        strict.post("/", headers=KEY)


def test_a_key_that_a_middleware_adds_is_a_mistake(app: FastAPI, orders: list[str]) -> None:
    """The request was not watched from its start."""

    class AddKey:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                scope["headers"] = [*scope["headers"], (b"idempotency-key", b"one")]
            await self._app(scope, receive, send)

    app.add_middleware(AddKey)
    with pytest.raises(Exception, match="have the client send it"), TestClient(app) as strict:
        strict.post("/orders/tea")
    assert orders == []


def test_an_owner_that_is_no_text_is_a_mistake(app: FastAPI, client: TestClient, tasks: Afterward) -> None:
    @app.post("/", dependencies=[Depends(tasks.idempotent(owner=lambda: None))])
    async def endpoint() -> None: ...

    with pytest.raises(Exception, match="have it give the user's id as text"), TestClient(app) as strict:
        strict.post("/", headers=KEY)


def test_an_app_without_the_tasks_is_a_mistake(tasks: Afterward) -> None:
    app = FastAPI()

    @app.post("/", dependencies=[Depends(tasks.idempotent())])
    async def endpoint() -> None: ...

    with pytest.raises(Exception, match=r"call tasks.install\(app\)"), TestClient(app) as strict:
        strict.post("/", headers=KEY)


@pytest.mark.parametrize("blocks", [False, True])
def test_what_is_enqueued_at_once_is_refused_in_a_request_with_a_key(
    app: FastAPI, client: TestClient, tasks: Afterward, note: Task[[str], None], blocks: bool
) -> None:
    """It would not be known when the request is sent again."""

    async def awaiting() -> str:
        return (await note.enqueue("task")).id

    def blocking() -> str:
        return note.enqueue_sync("task").id

    app.post("/", dependencies=[Depends(tasks.idempotent())])(blocking if blocks else awaiting)
    assert client.post("/").status_code == 200
    with pytest.raises(Exception, match="use add_task of BackgroundTasks"), TestClient(app) as strict:
        strict.post("/", headers=KEY)
