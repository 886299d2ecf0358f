"""Whose a job is, and which request made it: kept with the job, whatever way it is added."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any
from uuid import UUID

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool
from starlette.types import ASGIApp, Receive, Scope, Send

from afterward import Afterward, BackgroundTasks, ConfigurationError, Job, NotInARequest, Task, TaskError, origin
from tests.support.desk import user
from tests.support.opening import opened


@pytest.fixture
def note(tasks: Afterward) -> Task[[str], None]:
    @tasks.task
    def note(what: str) -> None: ...

    return note


@pytest.fixture
def kept(client: TestClient, tasks: Afterward) -> Callable[[], dict[str, Job]]:
    """The jobs in the store, by what they note."""

    def kept() -> dict[str, Job]:
        assert client.portal is not None
        return {json.loads(job.arguments)["what"]: job for job in client.portal.call(tasks.list)}

    return kept


Kept = Callable[[], dict[str, Job]]


def owners(kept: Kept) -> dict[str, str | None]:
    return {what: job.owner for what, job in kept().items()}


def test_the_jobs_of_a_request_are_its_callers(
    app: FastAPI, client: TestClient, tasks: Afterward, note: Task[[str], None], kept: Kept
) -> None:
    """Added, enqueued, and added by a dependency that comes before; but not what names another, or was made apart."""

    def early(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "early")

    @app.post("/", dependencies=[Depends(early)])
    def create(who: Annotated[str, Depends(tasks.owned_by(user))], background_tasks: BackgroundTasks) -> str:
        background_tasks.add_task(note, "added")
        background_tasks.add_task(note.options(owner="bob"), "another's")
        note.enqueue_sync("enqueued")
        return who

    assert client.post("/").json() == "ada"
    assert client.portal is not None
    client.portal.call(note.enqueue, "apart")
    client.portal.call(note.options(owner="carl").enqueue, "carl's")
    assert owners(kept) == {
        "early": "ada", "added": "ada", "another's": "bob", "enqueued": "ada", "apart": None, "carl's": "carl",
    }  # fmt: skip


class User(BaseModel):
    id: int


def some_user() -> User:
    return User(id=7)


def number() -> int:
    return 7


def uuid() -> UUID:
    return UUID(int=7)


def nobody() -> User | None:
    return None


Options = dict[str, Callable[[Any], Any]]

KEYS: list[tuple[Callable[..., Any], Options, str | None]] = [
    (some_user, {"key": lambda user: f"user-{user.id}"}, "user-7"),
    (number, {}, "7"),
    (uuid, {}, "00000000-0000-0000-0000-000000000007"),
    (nobody, {}, None),
]


@pytest.mark.parametrize(("dependency", "options", "owner"), KEYS)
def test_the_text_by_which_an_owner_is_kept(  # noqa: PLR0917 - fixtures
    app: FastAPI, client: TestClient, tasks: Afterward, note: Task[[str], None], kept: Kept,
    dependency: Callable[..., Any], options: dict[str, Any], owner: str | None,
) -> None:  # fmt: skip
    """What `key` says, or the number, the text, the UUID itself; nobody is nobody."""

    @app.post("/", dependencies=[Depends(tasks.owned_by(dependency, **options))])
    async def create(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "added")

    client.post("/")
    assert owners(kept) == {"added": owner}


NO_KEYS: list[tuple[Callable[..., Any], Options, str]] = [
    (some_user, {}, r"gives a User.*key=lambda"),
    (number, {"key": lambda _: ""}, "1 to 500 characters"),
    (number, {"key": lambda _: "x" * 501}, "1 to 500 characters"),
    (number, {"key": lambda _: "a\0b"}, "can be stored"),
    (number, {"key": lambda number: number}, "is a text"),
]


@pytest.mark.parametrize(("dependency", "options", "message"), NO_KEYS)
def test_what_cannot_be_an_owner_is_refused(
    app: FastAPI, tasks: Afterward, dependency: Callable[..., Any], options: dict[str, Any], message: str
) -> None:
    """A job that nobody could find again, or everybody: refused, with the mend."""

    @app.post("/", dependencies=[Depends(tasks.owned_by(dependency, **options))])
    async def create() -> None: ...

    with TestClient(app) as client, pytest.raises(ConfigurationError, match=message):
        client.post("/")


def test_an_option_that_cannot_be_an_owner_is_refused(note: Task[[str], None]) -> None:
    with pytest.raises(TaskError, match="an owner is a text"):
        note.options(owner="")


def test_overrides_are_heeded(
    app: FastAPI, client: TestClient, tasks: Afterward, note: Task[[str], None], kept: Kept
) -> None:
    """As for any dependency, in tests."""

    @app.post("/", dependencies=[Depends(tasks.owned_by(user))])
    async def create(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "added")

    app.dependency_overrides[user] = lambda: "eve"
    client.post("/")
    assert owners(kept) == {"added": "eve"}


def test_a_middleware_can_say_whose_a_request_is(app: FastAPI, tasks: Afterward, note: Task[[str], None]) -> None:
    """A pure ASGI one, that knows no dependencies."""

    class Names:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                tasks.set_owner(scope, "ada")
            await self._app(scope, receive, send)

    app.add_middleware(Names)

    @app.post("/")
    async def create(background_tasks: BackgroundTasks) -> str:
        return background_tasks.add_task(note, "added").id

    with TestClient(app) as client:
        job = client.post("/").json()
        assert client.portal is not None
        stored = client.portal.call(tasks.get, job)
        assert stored is not None
        assert stored.owner == "ada"


def test_a_scope_that_is_not_known_here_has_no_owner(tasks: Afterward) -> None:
    """As that of an app that the tasks are not installed on."""
    with pytest.raises(NotInARequest, match="install"):
        tasks.set_owner({"type": "http"}, "ada")


def test_the_jobs_of_a_websocket(
    app: FastAPI, client: TestClient, tasks: Afterward, note: Task[[str], None], kept: Kept
) -> None:
    """Stored at once, and its caller's."""

    @app.websocket("/ws")
    async def talk(
        socket: WebSocket, background_tasks: BackgroundTasks, who: Annotated[str, Depends(tasks.owned_by(user))]
    ) -> None:
        await socket.accept()
        background_tasks.add_task(note, "said")
        await socket.send_text("noted")
        await socket.close()

    with client.websocket_connect("/ws") as socket:
        assert socket.receive_text() == "noted"
    assert owners(kept) == {"said": "ada"}
    assert json.loads(kept()["said"].origin or "")["path"] == "/ws"


def test_a_task_may_depend_on_what_gives_its_owner(tasks: Afterward) -> None:
    """In a task it is the dependency inside, as there is no request to own."""

    def fixed() -> str:
        return "ada"

    @tasks.task
    def greet(who: Annotated[str, Depends(tasks.owned_by(fixed))]) -> str:
        return who

    assert [name for name, _ in greet.dependencies] == ["who"]


def session_of(url: str) -> Callable[..., Any]:
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"), poolclass=NullPool)

    async def session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session, session.begin():
            yield session

    return session


def test_jobs_that_join_a_transaction_have_an_owner_too(postgres_url: str) -> None:
    """If it is known by then; else the request is refused, for it is too late when they are written."""
    app = FastAPI()
    with opened(Afterward(postgres_url)) as tasks:

        @tasks.task
        def note(what: str) -> None: ...

        joined = Depends(tasks.joining(session_of(postgres_url), scope="function"))
        owned = Depends(tasks.owned_by(user))

        def early(background_tasks: BackgroundTasks) -> None:
            background_tasks.add_task(note, "early")

        @app.post("/", dependencies=[owned, joined])
        async def create(background_tasks: BackgroundTasks) -> str:
            return background_tasks.add_task(note, "joined").id

        @app.post("/late", dependencies=[joined, Depends(early), owned])
        async def create_late() -> None: ...

        tasks.install(app, worker=False)
        with TestClient(app) as client:
            job = client.post("/").json()
            assert client.portal is not None
            stored = client.portal.call(tasks.get, job)
            assert stored is not None
            assert (stored.owner, json.loads(stored.origin or "")["path"]) == ("ada", "/")
            with pytest.raises(ConfigurationError, match="come before what adds tasks"):
                client.post("/late")


# The request that made it


def test_the_request_is_kept_with_its_jobs(
    app: FastAPI, client: TestClient, tasks: Afterward, note: Task[[str], None], kept: Kept
) -> None:
    """Its method, the path of its route, the id that it came with, and from where: no value of the path, no query."""

    @app.put("/send/{email}")
    async def send(email: str, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "added")
        await note.enqueue("enqueued")

    client.put("/send/ada@example.com?token=secret", headers={"X-Request-ID": "42"})
    for job in kept().values():
        assert json.loads(job.origin or "") == {
            "method": "PUT", "path": "/send/{email}", "request_id": "42", "client": "testclient",
        }  # fmt: skip


def test_the_path_of_an_included_and_of_a_mounted_route(
    app: FastAPI, client: TestClient, tasks: Afterward, note: Task[[str], None], kept: Kept
) -> None:
    """With the prefix of its router, and of the app that it is in."""
    router, inner = APIRouter(prefix="/v1"), FastAPI()

    @router.post("/{what}")
    async def create(what: str, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, what)

    inner.include_router(router, prefix="/api")
    app.include_router(router, prefix="/api")
    app.mount("/shop", inner)
    client.post("/api/v1/included")
    client.post("/shop/api/v1/mounted")
    paths = {what: json.loads(job.origin or "")["path"] for what, job in kept().items()}
    assert paths == {"included": "/api/v1/{what}", "mounted": "/shop/api/v1/{what}"}


def test_what_a_middleware_adds_before_there_is_a_route_has_its_path_all_the_same(
    app: FastAPI, tasks: Afterward, note: Task[[str], None]
) -> None:
    """And no value of the path: what has made the job is told when it is stored."""

    class Notes:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                BackgroundTasks().add_task(note, "early")
            await self._app(scope, receive, send)

    app.add_middleware(Notes)

    @app.put("/send/{email}")
    async def send(email: str) -> None: ...

    with TestClient(app) as client:
        client.put("/send/ada@example.com")
        assert client.portal is not None
        [job] = client.portal.call(tasks.list)
        assert json.loads(job.origin or "")["path"] == "/send/{email}"


def test_a_job_without_a_request_has_no_origin(client: TestClient, note: Task[[str], None], kept: Kept) -> None:
    assert client.portal is not None
    client.portal.call(note.enqueue, "apart")
    assert kept()["apart"].origin is None


def test_whatever_a_client_sends_as_its_id_can_be_kept(
    app: FastAPI, client: TestClient, note: Task[[str], None], kept: Kept
) -> None:
    """However long and odd."""

    @app.post("/")
    async def create(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "added")

    client.post("/", headers=[(b"X-Request-ID", b"\xff" * 3000)])
    assert json.loads(kept()["added"].origin or "")["request_id"] == ("\xc3\xbf" * 250)


def test_no_more_of_what_a_client_sends_is_remembered_than_is_kept(
    app: FastAPI, client: TestClient, note: Task[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sends many long ids fills no memory by that."""
    remembered: list[str | bytes] = []

    def written(*parts: str | bytes) -> str:
        remembered.extend(parts)
        return "{}"

    monkeypatch.setattr(origin, "_written", written)

    @app.post("/")
    async def create(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "added")

    client.post("/", headers={"X-Request-ID": "a" * 30_000})
    assert b"a" * 500 in remembered
    assert max(map(len, remembered)) == 500
