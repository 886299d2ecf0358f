"""In a websocket a task is stored and started at once: there is no end of a request to wait for.

With a real server and a real client. Every test runs twice: with the dependency that this FastAPI is served by, and
with the one made by public means.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from afterward import Afterward, BackgroundTasks, StoreUnavailable, Task
from afterward.background import provide, provide_with_yield
from afterward.job import NewJob, Placement
from afterward.job import Stored as Stored_
from afterward.stores.base import Answer
from afterward.stores.sqlite import SQLiteStore
from tests.support.disk import Row
from tests.support.obstacles import locked
from tests.support.opening import opened
from tests.support.serving import Address, served
from tests.support.waiting import soon, wait_until

pytestmark = pytest.mark.parametrize("app", [provide, provide_with_yield], indirect=True)

Stored = Callable[[], list[Row]]


@pytest.fixture
def note(tasks: Afterward, happened: list[str]) -> Task[[str], None]:
    """A durable task that writes down that it has run."""

    @tasks.task
    def note(what: str) -> None:
        happened.append(what)

    return note


def url(server: Address, path: str = "") -> str:
    return f"ws://{server.host}:{server.port}/{path}"


def test_a_task_is_stored_before_the_next_message_leaves_and_runs_while_the_connection_is_open(
    app: FastAPI, note: Task[[str], None], happened: list[str], stored: Stored
) -> None:
    """A client that has read the next message can rely on it."""

    def dependency(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "dependency")

    @app.websocket("/", dependencies=[Depends(dependency)])
    async def endpoint(websocket: WebSocket, background_tasks: BackgroundTasks) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            job = background_tasks.add_task(note, text)
            await websocket.send_text(job.id)

    with served(app) as server, connect(url(server)) as connection:
        assert len(stored()) == 1
        wait_until(lambda: happened == ["dependency"])
        for what in ("first", "second"):
            connection.send(what)
            assert connection.recv() in {job.id for job in stored()}
            wait_until(lambda what=what: happened[-1] == what)


def test_a_connection_that_only_listens_has_its_tasks_run_too(
    app: FastAPI, note: Task[[str], None], happened: list[str]
) -> None:
    """No message need be sent for it; and however many tasks it adds, it keeps none of them in memory."""
    kept: list[int] = []

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, background_tasks: BackgroundTasks) -> None:
        await websocket.accept()
        [call] = websocket.scope["afterward.calls"].values()
        async for text in websocket.iter_text():
            background_tasks.add_task(note, text)
            kept.append(len(call._storing or ()))

    with served(app) as server, connect(url(server)) as connection:
        for number in range(50):
            connection.send(str(number))
            wait_until(lambda number=number: len(happened) == number + 1)
    assert sorted(happened, key=int) == [str(number) for number in range(50)]
    assert max(kept) < 10


def test_what_is_added_in_a_websocket_is_kept_however_it_ends(
    app: FastAPI, note: Task[[str], None], happened: list[str]
) -> None:
    """A client that hangs up, an exception in the endpoint or in a dependency: what was added was promised."""

    async def dependency(background_tasks: BackgroundTasks) -> AsyncIterator[None]:
        try:
            yield
        finally:
            background_tasks.add_task(note, "dependency")

    @app.websocket("/hang-up")
    async def hang_up(
        websocket: WebSocket, background_tasks: BackgroundTasks, _: Annotated[None, Depends(dependency)]
    ) -> None:
        await websocket.accept()
        try:
            await websocket.receive_text()
        except WebSocketDisconnect:
            background_tasks.add_task(note, "hung up")
            raise

    @app.websocket("/fail")
    async def fail(
        websocket: WebSocket, background_tasks: BackgroundTasks, _: Annotated[None, Depends(dependency)]
    ) -> None:
        await websocket.accept()
        background_tasks.add_task(note, "failed")
        raise ValueError

    @app.websocket("/refuse")
    async def refuse(websocket: WebSocket, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(note, "refused")
        await websocket.close()

    with served(app) as server:
        with connect(url(server, "hang-up")) as connection:
            pass
        wait_until(lambda: sorted(happened) == ["dependency", "hung up"])
        happened.clear()

        with connect(url(server, "fail")) as connection, pytest.raises(ConnectionClosed):
            connection.recv()
        wait_until(lambda: sorted(happened) == ["dependency", "failed"])
        happened.clear()

        with pytest.raises(Exception, match="403"), connect(url(server, "refuse")):
            pass
        wait_until(lambda: happened == ["refused"])


def test_tasks_may_be_added_from_other_threads(app: FastAPI, note: Task[[str], None], happened: list[str]) -> None:
    """`asyncio.to_thread`, for one."""

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, background_tasks: BackgroundTasks) -> None:
        await websocket.accept()
        await asyncio.to_thread(background_tasks.add_task, note, "from a thread")
        await websocket.receive_text()

    with served(app) as server, connect(url(server)):
        wait_until(lambda: happened == ["from a thread"])


@pytest.mark.parametrize("added", [1, 2])
def test_while_the_store_is_down_no_message_leaves_and_no_task_is_forgotten(
    app: FastAPI, database: Path, happened: list[str], added: int
) -> None:
    """The next message fails in its place; the tasks are kept, and stored when it is possible again."""
    told, is_unlocked = threading.Event(), threading.Event()
    with opened(Afterward(store=SQLiteStore(database, patience=0.2))) as tasks:
        another = FastAPI()
        another.dependency_overrides = app.dependency_overrides
        tasks.install(another)

        @tasks.task
        def note(what: str) -> None:
            happened.append(what)

        @another.websocket("/")
        async def endpoint(websocket: WebSocket, background_tasks: BackgroundTasks) -> None:
            await websocket.accept()
            [call] = websocket.scope["afterward.calls"].values()
            await websocket.receive_text()
            for number in range(added):
                background_tasks.add_task(note, str(number))
                await soon(lambda number=number: not call._pending or len(call._storing or ()) > number)
            try:
                await websocket.send_text("stored")
            except Exception as error:
                happened.append(type(error).__name__)
            told.set()
            await asyncio.to_thread(is_unlocked.wait, 5)

        with served(another) as server, connect(url(server)) as connection:
            with locked(database):
                connection.send("now")
                assert told.wait(5)
            is_unlocked.set()
            with pytest.raises(ConnectionClosed):
                connection.recv()
            wait_until(lambda: len(happened) == added + 1)
        assert sorted(happened) == [*(str(number) for number in range(added)), "StoreUnavailable"]


class FailsFirst(SQLiteStore):
    """A store whose first `enqueue` fails, in a while."""

    refusals = 0

    def enqueue(self, jobs: Sequence[tuple[NewJob, Placement]], process: str | None) -> Answer[list[Stored_]]:
        if self.refusals:
            return super().enqueue(jobs, process)
        self.refusals += 1
        loop = asyncio.get_running_loop()
        answer: Answer[list[Stored_]] = loop.create_future()
        loop.call_later(0.05, answer.set_exception, StoreUnavailable("the disk is full"))
        return answer


def test_a_message_that_is_given_up_forgets_no_task(app: FastAPI, database: Path, happened: list[str]) -> None:
    """Who sends with a timeout, for one, while the store is slow, and about to fail."""
    store = FailsFirst(database)
    with opened(Afterward(store=store)) as tasks:
        another = FastAPI()
        another.dependency_overrides = app.dependency_overrides
        tasks.install(another)

        @tasks.task
        def note(what: str) -> None:
            happened.append(what)

        @another.websocket("/")
        async def endpoint(websocket: WebSocket, background_tasks: BackgroundTasks) -> None:
            await websocket.accept()
            background_tasks.add_task(note, "added")
            sending = asyncio.create_task(websocket.send_text("never sent"))
            await soon(lambda: store.failures, "the task is being stored")
            sending.cancel()
            await asyncio.wait({sending})

        with served(another) as server, connect(url(server)) as connection, pytest.raises(ConnectionClosed):
            connection.recv()
        wait_until(lambda: happened == ["added"])
