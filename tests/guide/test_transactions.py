"""Jobs in the app's own transaction: stored together with what else it commits, or not at all.

On PostgreSQL, and there with every sort of session and connection.
"""

import asyncio
import gc
import io
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, LiteralString

import psycopg
import pytest
import sqlalchemy
from fastapi import Depends, FastAPI, HTTPException, Response, UploadFile, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from afterward import (
    Afterward,
    BackgroundTasks,
    ConfigurationError,
    DuplicateJob,
    EndedJob,
    JobHandle,
    Status,
    Task,
    TaskError,
)
from afterward.stores.postgres import PostgresStore
from servers.postgres import Server
from tests.support.opening import opened
from tests.support.sessions import SORTS, Sort, Uniform
from tests.support.waiting import soon, wait_until


class Shop:
    """An app with durable tasks, and with a table of its own in their database."""

    def __init__(self, url: str, app: FastAPI, tasks: Afterward, ending: ExitStack) -> None:
        self.url, self.app, self.tasks, self._ending = url, app, tasks, ending
        self.happened: list[str] = []
        self.engine = create_async_engine(url.replace("postgresql", "postgresql+asyncpg", 1), poolclass=NullPool)

        @tasks.task
        async def ship(item: str) -> None:
            self.happened.append(item)

        self.ship = ship

    @cached_property
    def client(self) -> TestClient:
        """From its first use on, the app lives, and its worker."""
        return self._ending.enter_context(TestClient(self.app, raise_server_exceptions=False))

    async def get_session(self) -> AsyncIterator[AsyncSession]:
        """As the documentation of FastAPI has it: the endpoint commits."""
        async with AsyncSession(self.engine) as session:
            yield session

    def endpoint(self, work: Callable[[AsyncSession, BackgroundTasks], Awaitable[Any]]) -> None:
        """`POST /orders`, with a session that its tasks join."""
        self._add_endpoint(self.tasks.joining(self.get_session), work)

    def endpoint_with(
        self, sort: Sort, joined: Callable[..., Any], work: Callable[[Uniform, BackgroundTasks], Awaitable[Any]]
    ) -> None:
        """The same, with any sort of session; in a thread, where that blocks."""

        async def awaiting(session: Any, background_tasks: Any) -> Any:
            return await work(Uniform(session, sort), background_tasks)

        def blocking(session: Any, background_tasks: Any) -> Any:
            return asyncio.run(awaiting(session, background_tasks))

        self._add_endpoint(joined, awaiting if sort.is_async else blocking)

    def _add_endpoint(self, joined: Callable[..., Any], work: Callable[..., Any]) -> None:
        annotations = {"session": Annotated[Any, Depends(joined)], "background_tasks": BackgroundTasks}
        work.__annotations__ = annotations
        self.app.post("/orders", response_model=None)(work)

    def rows(self) -> list[str]:
        """What is committed of the app's own."""
        return self._column("SELECT item FROM orders")

    def jobs(self) -> list[str]:
        """The arguments of all jobs that are committed, as the server has them."""
        return self._column(
            "SELECT arguments FROM afterward.jobs UNION ALL SELECT arguments FROM afterward.finished ORDER BY 1"
        )

    def chunks(self) -> int:
        """How much of files the server has."""
        return len(self._column("SELECT file FROM afterward.chunks"))

    def _column(self, query: LiteralString) -> list[str]:
        with psycopg.connect(self.url) as connection:
            return [row[0] for row in connection.execute(query)]


@pytest.fixture
def tasks(postgres_url: str) -> Iterator[Afterward]:
    """Durable tasks, kept in the database that the app has its own table in."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE orders (item text NOT NULL)")
    with opened(Afterward(postgres_url)) as tasks:
        yield tasks


@pytest.fixture
def shop(postgres_url: str, app: FastAPI, tasks: Afterward) -> Iterator[Shop]:
    with ExitStack() as ending:
        yield Shop(postgres_url, app, tasks, ending)


@pytest.fixture(params=SORTS)
def sort(request: pytest.FixtureRequest) -> Sort:
    """Every sort of session and connection."""
    return SORTS[request.param]


# In short


def test_a_task_is_stored_by_the_transaction_of_the_request(shop: Shop) -> None:
    """One declaration for the app: `Depends(tasks.joining(get_session))` in place of `Depends(get_session)`."""
    session_dep = Depends(shop.tasks.joining(shop.get_session))

    @shop.app.post("/orders/{item}", status_code=202)
    async def place_order(
        item: str, session: Annotated[AsyncSession, session_dep], background_tasks: BackgroundTasks
    ) -> None:
        await session.execute(sqlalchemy.text("INSERT INTO orders VALUES (:item)"), {"item": item})
        background_tasks.add_task(shop.ship, item)
        await session.commit()

    assert shop.client.post("/orders/lamp").status_code == 202

    assert shop.rows() == ["lamp"]
    wait_until(lambda: shop.happened == ["lamp"])


# Together, or not at all: with every sort of session


def test_what_is_committed_is_there_together(shop: Shop, sort: Sort) -> None:
    """Until then neither is to be seen by anybody; the handle has its id before."""

    async def work(session: Uniform, background_tasks: BackgroundTasks) -> list[str]:
        await session.begin()
        await session.order("lamp")
        handle = background_tasks.add_task(shop.ship, "lamp")
        await background_tasks.flush()
        before = shop.rows() + shop.jobs()
        await session.commit()
        assert handle.id
        return before

    shop.endpoint_with(sort, shop.tasks.joining(sort.opener(shop.url)), work)
    assert shop.client.post("/orders").json() == []

    assert shop.rows() == ["lamp"]
    wait_until(lambda: shop.happened == ["lamp"])


def test_what_is_rolled_back_leaves_nothing(shop: Shop, sort: Sort) -> None:
    """A response may well follow: whoever rolls back has decided so."""

    async def work(session: Uniform, background_tasks: BackgroundTasks) -> str:
        await session.begin()
        await session.order("lamp")
        background_tasks.add_task(shop.ship, "lamp")
        await background_tasks.flush()
        await session.rollback()
        return "sorry"

    shop.endpoint_with(sort, shop.tasks.joining(sort.opener(shop.url)), work)

    assert shop.client.post("/orders").text == '"sorry"'
    assert shop.rows() + shop.jobs() == []


def test_an_exception_leaves_nothing(shop: Shop, sort: Sort) -> None:
    """The dependency rolls back, as it does for the rest."""

    async def work(session: Uniform, background_tasks: BackgroundTasks) -> None:
        await session.order("lamp")
        background_tasks.add_task(shop.ship, "lamp")
        raise HTTPException(409)

    shop.endpoint_with(sort, shop.tasks.joining(sort.committer(shop.url)), work)

    assert shop.client.post("/orders").status_code == 409
    assert shop.rows() + shop.jobs() == []


def test_a_commit_after_the_yield_comes_before_the_response_in_function_scope(shop: Shop, sort: Sort) -> None:
    """What was added is written before the dependency commits; nothing more is to be done."""

    async def work(session: Uniform, background_tasks: BackgroundTasks) -> None:
        await session.order("lamp")
        background_tasks.add_task(shop.ship, "lamp")

    shop.endpoint_with(sort, shop.tasks.joining(sort.committer(shop.url), scope="function"), work)

    assert shop.client.post("/orders").status_code == 200
    assert shop.rows() == ["lamp"]
    wait_until(lambda: shop.happened == ["lamp"])


def test_a_response_that_would_start_before_the_commit_is_an_error(
    shop: Shop, sort: Sort, caplog: pytest.LogCaptureFixture
) -> None:
    """The dependency would commit after it, if nothing fails by then. The log names the mends; all is rolled back."""

    async def work(session: Uniform, background_tasks: BackgroundTasks) -> None:
        await session.order("lamp")
        background_tasks.add_task(shop.ship, "lamp")

    shop.endpoint_with(sort, shop.tasks.joining(sort.committer(shop.url)), work)

    assert shop.client.post("/orders").status_code == 500
    assert "commit in the endpoint" in caplog.text
    assert 'scope="function"' in caplog.text
    assert shop.rows() + shop.jobs() == []


@pytest.mark.anyio
async def test_without_a_request(shop: Shop, sort: Sort) -> None:
    """`enqueue` joins what `options(transaction=…)` says; the job is stored when that is committed."""
    async with _opened(sort, shop.url) as session:
        await session.begin()
        handle = await shop.ship.options(transaction=session.raw).enqueue("lamp")
        assert shop.jobs() == []
        assert await handle.job() is None
        await session.commit()

    assert shop.jobs() == ['{"item":"lamp"}']
    job = await handle.job()
    assert job is not None
    assert (job.status, job.process) == (Status.queued, None)


@pytest.mark.anyio
async def test_many_at_once(shop: Shop, sort: Sort) -> None:
    """As one, in one transaction."""
    async with _opened(sort, shop.url) as session:
        await session.begin()
        calls = [shop.ship.prepare("lamp"), shop.ship.prepare("vase")]
        await shop.tasks.enqueue_many(calls, transaction=session.raw)
        await session.rollback()
        await session.begin()
        await shop.tasks.enqueue_many([shop.ship.prepare("chair"), shop.ship.prepare("table")], transaction=session.raw)
        await session.commit()

    assert shop.jobs() == ['{"item":"chair"}', '{"item":"table"}']


@asynccontextmanager
async def _opened(sort: Sort, url: str) -> AsyncGenerator[Uniform]:
    opener = sort.opener(url)()
    try:
        yield Uniform(await anext(opener) if sort.is_async else next(opener), sort)
    finally:
        await opener.aclose() if sort.is_async else opener.close()


@pytest.mark.parametrize("name", [name for name, sort in SORTS.items() if not sort.is_async])
def test_plain_code(shop: Shop, name: str) -> None:
    """`enqueue_sync` on a session, or a connection, that blocks."""
    for session in SORTS[name].opener(shop.url)():
        shop.ship.options(transaction=session).enqueue_sync("lamp")
        shop.tasks.enqueue_many_sync([shop.ship.prepare("vase")], transaction=session)
        assert shop.jobs() == []
        session.commit()

    assert shop.jobs() == ['{"item":"lamp"}', '{"item":"vase"}']


def test_plain_code_cannot_await_a_connection(shop: Shop) -> None:
    """It is told what can."""

    async def try_it() -> None:
        connection = await psycopg.AsyncConnection.connect(shop.url)
        try:
            with pytest.raises(ConfigurationError, match=r"await task\.options"):
                await asyncio.to_thread(shop.ship.options(transaction=connection).enqueue_sync, "lamp")
        finally:
            await connection.close()

    asyncio.run(try_it())


# What a session says counts, however it says it


def test_a_block_commits_at_its_end(shop: Shop) -> None:
    """`session.begin()`; what is added before it belongs to it."""

    async def work(session: AsyncSession, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(shop.ship, "lamp")
        async with session.begin():
            background_tasks.add_task(shop.ship, "vase")

    shop.endpoint(work)
    assert shop.client.post("/orders").status_code == 200
    assert shop.jobs() == ['{"item":"lamp"}', '{"item":"vase"}']


def test_a_savepoint_that_is_rolled_back_takes_its_jobs_along(shop: Shop) -> None:
    """And no others; those of one that was released are of what is around it."""

    async def work(session: AsyncSession, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(shop.ship, "1: kept")
        async with session.begin_nested():
            background_tasks.add_task(shop.ship, "2: kept")
        savepoint = await session.begin_nested()
        background_tasks.add_task(shop.ship, "3: gone")
        async with session.begin_nested():
            background_tasks.add_task(shop.ship, "4: gone")
        await savepoint.rollback()
        savepoint = await session.begin_nested()
        background_tasks.add_task(shop.ship, "5: kept")
        await background_tasks.flush()
        await savepoint.commit()
        savepoint = await session.begin_nested()
        background_tasks.add_task(shop.ship, "6: gone")
        await background_tasks.flush()
        await savepoint.rollback()
        await session.commit()

    shop.endpoint(work)
    assert shop.client.post("/orders").status_code == 200
    assert [job[9:10] for job in shop.jobs()] == ["1", "2", "5"]


@pytest.mark.anyio
async def test_what_was_written_within_a_savepoint_is_written_again_when_that_is_rolled_back(shop: Shop) -> None:
    """It was added before, so it is none of the savepoint's."""
    async with AsyncSession(shop.engine) as session:
        await session.execute(sqlalchemy.text("SELECT 1"))
        await shop.ship.options(transaction=session).enqueue("lamp")
        outer = await session.begin_nested()
        async with session.begin_nested():  # when it is released, all is written
            pass
        await outer.rollback()
        await session.commit()

    assert shop.jobs() == ['{"item":"lamp"}']


@pytest.mark.anyio
async def test_a_commit_of_all_while_a_savepoint_is_open(shop: Shop) -> None:
    """It commits the savepoint, too."""
    async with AsyncSession(shop.engine) as session:
        joining = shop.ship.options(transaction=session)
        await joining.enqueue("lamp")
        await session.begin_nested()
        await joining.enqueue("vase")
        await session.commit()
        await session.commit()

    assert shop.jobs() == ['{"item":"lamp"}', '{"item":"vase"}']


@pytest.mark.anyio
async def test_one_transaction_after_the_other(shop: Shop) -> None:
    """A job belongs to the one that is under way when it is added, or that begins next; also if nothing else does."""
    async with AsyncSession(shop.engine) as session:
        joining = shop.ship.options(transaction=session)
        await joining.enqueue("gone")
        await session.rollback()
        await joining.enqueue("lamp")
        await session.commit()
        assert shop.jobs() == ['{"item":"lamp"}']
        await session.execute(sqlalchemy.text("SELECT 1"))
        await joining.enqueue("gone")
        await session.rollback()
        await joining.enqueue("gone")
        await session.close()
        await joining.enqueue("vase")
        await session.commit()

    assert shop.jobs() == ['{"item":"lamp"}', '{"item":"vase"}']


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    item: Mapped[str] = mapped_column(primary_key=True)


@pytest.mark.anyio
@pytest.mark.parametrize("moment", ["before_commit", "before_flush", "after_flush", "after_flush_postexec"])
async def test_what_the_commit_itself_adds_is_of_it(shop: Shop, moment: str) -> None:
    """As those do who announce what has changed by SQLAlchemy's events."""
    announced: list[str] = []

    def announce(blocking: Session, *_: Any) -> None:
        if not announced:
            announced.append(shop.ship.options(transaction=blocking).enqueue_sync("vase").id)

    async with AsyncSession(shop.engine) as session:
        session.add(Order(item="lamp"))
        await shop.ship.options(transaction=session).enqueue("lamp")
        event.listen(session.sync_session, moment, announce)
        await session.commit()

    assert shop.rows() == ["lamp"]
    assert shop.jobs() == ['{"item":"lamp"}', '{"item":"vase"}']


@pytest.mark.anyio
@pytest.mark.parametrize("is_first", [True, False])
async def test_what_is_added_after_the_commit_is_of_the_next_transaction(shop: Shop, is_first: bool) -> None:
    """Also by those who are called by SQLAlchemy's event, before or after afterward is."""
    added: list[str] = []

    def announce(blocking: Session) -> None:
        if not added:
            added.append(shop.ship.options(transaction=blocking).enqueue_sync("vase").id)

    async with AsyncSession(shop.engine) as session:
        if is_first:
            event.listen(session.sync_session, "after_commit", announce)
        await shop.ship.options(transaction=session).enqueue("lamp")
        event.listen(session.sync_session, "after_commit", announce)
        await session.commit()
        assert shop.jobs() == ['{"item":"lamp"}']
        await session.commit()

    assert shop.jobs() == ['{"item":"lamp"}', '{"item":"vase"}']


def test_a_second_transaction_counts_as_the_first(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """Added after the commit, and never committed: an error, though the first part is there."""

    async def work(session: AsyncSession, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(shop.ship, "lamp")
        await session.commit()
        background_tasks.add_task(shop.ship, "vase")

    shop.endpoint(work)
    assert shop.client.post("/orders").status_code == 500
    assert shop.jobs() == ['{"item":"lamp"}']


def test_a_session_that_is_closed_without_a_commit_has_forgotten_it(shop: Shop) -> None:
    """It said neither that all is to be kept nor that it is to be dropped."""

    async def work(session: AsyncSession, background_tasks: BackgroundTasks) -> None:
        await session.execute(sqlalchemy.text("SELECT 1"))
        background_tasks.add_task(shop.ship, "lamp")
        await session.close()

    shop.endpoint(work)
    assert shop.client.post("/orders").status_code == 500
    assert shop.jobs() == []


def test_a_response_that_tells_of_a_failure_promises_nothing(shop: Shop) -> None:
    """A 4xx may leave while the transaction is open; what becomes of the job is what becomes of that."""

    async def work(session: AsyncSession, background_tasks: BackgroundTasks) -> Response:
        background_tasks.add_task(shop.ship, "lamp")
        return JSONResponse({"detail": "sold out"}, status_code=410)

    shop.endpoint(work)
    assert shop.client.post("/orders").status_code == 410
    assert shop.jobs() == []


def test_a_stream_ends_after_the_commit(shop: Shop) -> None:
    """What is added while it lasts is committed before its last chunk leaves; the job may have run by then."""

    async def work(session: AsyncSession, background_tasks: BackgroundTasks) -> Response:
        async def body() -> AsyncIterator[str]:
            yield "a"
            background_tasks.add_task(shop.ship, "lamp")
            await session.commit()
            yield "b"

        return StreamingResponse(body())

    shop.endpoint(work)
    assert shop.client.post("/orders").text == "ab"
    assert shop.jobs() == ['{"item":"lamp"}']


def test_a_websocket_commits_as_it_goes(shop: Shop) -> None:
    """What is added is stored by the next commit, and runs."""

    @shop.app.websocket("/orders")
    async def take_orders(
        websocket: WebSocket,
        session: Annotated[AsyncSession, Depends(shop.tasks.joining(shop.get_session))],
        background_tasks: BackgroundTasks,
    ) -> None:
        await websocket.accept()
        async for item in websocket.iter_text():
            background_tasks.add_task(shop.ship, item)
            before = shop.jobs()
            await session.commit()
            await websocket.send_json(before)

    with shop.client.websocket_connect("/orders") as websocket:
        websocket.send_text("lamp")
        assert websocket.receive_json() == []
        wait_until(lambda: shop.happened == ["lamp"])


def test_a_job_may_start_at_the_commit(shop: Shop) -> None:
    """Before the response is sent: the transaction is over, and so is what it could wait for."""

    async def work(session: AsyncSession, background_tasks: BackgroundTasks) -> list[str]:
        background_tasks.add_task(shop.ship, "lamp")
        await session.commit()
        return list(await soon(lambda: shop.happened))

    shop.endpoint(work)
    assert shop.client.post("/orders").json() == ["lamp"]


@pytest.mark.parametrize("name", SORTS)
def test_workers_are_called_at_the_commit(shop: Shop, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a connection that does not tell of it: its transaction is asked for until it is over."""
    monkeypatch.setattr(PostgresStore, "reconcile_seconds", 60.0)
    sort = SORTS[name]

    async def work(session: Uniform, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(shop.ship, "lamp")

    shop.endpoint_with(sort, shop.tasks.joining(sort.committer(shop.url), scope="function"), work)
    assert shop.client.post("/orders").status_code == 200
    wait_until(lambda: shop.happened == ["lamp"])


# When the commit goes wrong


def test_a_commit_that_fails_stores_nothing(shop: Shop) -> None:
    """A constraint that is looked at then, say."""
    with psycopg.connect(shop.url) as connection:
        connection.execute("ALTER TABLE orders ADD UNIQUE (item) DEFERRABLE INITIALLY DEFERRED")

    async def work(session: AsyncSession, background_tasks: BackgroundTasks) -> None:
        await session.execute(sqlalchemy.text("INSERT INTO orders VALUES ('lamp'), ('lamp')"))
        background_tasks.add_task(shop.ship, "lamp")
        await session.commit()

    shop.endpoint(work)
    assert shop.client.post("/orders").status_code == 500
    assert shop.rows() + shop.jobs() == []


def test_a_commit_whose_answer_is_lost_stores_all(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client hears of an error; what was ordered is there, and so is the job, which runs."""
    commit = shop.engine.dialect.do_commit

    def commit_and_break_off(connection: Any) -> None:
        commit(connection)
        raise ConnectionResetError

    async def work(session: AsyncSession, background_tasks: BackgroundTasks) -> None:
        await session.execute(sqlalchemy.text("INSERT INTO orders VALUES ('lamp')"))
        background_tasks.add_task(shop.ship, "lamp")
        monkeypatch.setattr(shop.engine.dialect, "do_commit", commit_and_break_off)
        await session.commit()

    shop.endpoint(work)
    assert shop.client.post("/orders").status_code == 500
    assert shop.rows() == ["lamp"]
    wait_until(lambda: shop.happened == ["lamp"])


@pytest.mark.anyio
async def test_a_request_that_is_cancelled_in_mid_commit_stores_all_or_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its client goes away, or its server ends."""
    commit = shop.engine.dialect.do_commit

    def commit_cancelled(connection: Any) -> None:
        asyncio.get_running_loop().call_soon(committing.cancel)
        commit(connection)

    monkeypatch.setattr(shop.engine.dialect, "do_commit", commit_cancelled)
    async with AsyncSession(shop.engine) as session:
        await session.execute(sqlalchemy.text("INSERT INTO orders VALUES ('lamp')"))
        await shop.ship.options(transaction=session).enqueue("lamp")
        committing = asyncio.create_task(session.commit())
        with pytest.raises(asyncio.CancelledError):
            await committing

    assert (shop.rows(), shop.jobs()) in [([], []), (["lamp"], ['{"item":"lamp"}'])]


# The dependency


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_dependency_without_yield(shop: Shop, kind: str) -> None:
    """Whatever gives the session; it is the very one."""
    session = AsyncSession(shop.engine)

    async def get_session() -> AsyncSession:
        return session

    def get_session_in_a_thread() -> AsyncSession:
        return session

    joining = shop.tasks.joining(get_session if kind == "async" else get_session_in_a_thread)

    @shop.app.post("/orders")
    async def place_order(given: Annotated[Any, Depends(joining)], background_tasks: BackgroundTasks) -> bool:
        background_tasks.add_task(shop.ship, "lamp")
        await given.commit()
        return given is session

    assert shop.client.post("/orders").json() is True
    assert shop.jobs() == ['{"item":"lamp"}']


def test_the_session_is_that_of_the_request(shop: Shop) -> None:
    """Who depends on it by itself, or joins it by another declaration, has the same one."""

    @shop.app.post("/orders")
    async def place_order(
        session: Annotated[Any, Depends(shop.tasks.joining(shop.get_session))],
        again: Annotated[Any, Depends(shop.tasks.joining(shop.get_session))],
        itself: Annotated[Any, Depends(shop.get_session)],
        background_tasks: BackgroundTasks,
    ) -> bool:
        background_tasks.add_task(shop.ship, "lamp")
        await itself.commit()
        return session is itself and again is itself

    assert shop.client.post("/orders").json() is True
    assert shop.jobs() == ['{"item":"lamp"}']


def test_what_overrides_the_dependency_is_joined(shop: Shop) -> None:
    """As tests do it: `app.dependency_overrides[get_session]`."""
    used: list[AsyncSession] = []

    async def get_other_session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(shop.engine) as session:
            used.append(session)
            yield session

    async def work(session: AsyncSession, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(shop.ship, "lamp")
        await session.commit()

    shop.endpoint(work)
    shop.app.dependency_overrides[shop.get_session] = get_other_session
    assert shop.client.post("/orders").status_code == 200
    assert len(used) == 1
    assert shop.jobs() == ['{"item":"lamp"}']


def test_a_task_can_depend_on_it(shop: Shop) -> None:
    """There, it gives the session, and nothing joins it but what says so."""
    session_dep = Depends(shop.tasks.joining(shop.get_session))

    @shop.tasks.task
    async def restock(item: str, session: Annotated[Any, session_dep] = None) -> None:
        await session.execute(sqlalchemy.text("INSERT INTO orders VALUES (:item)"), {"item": item})
        await session.commit()

    assert shop.client.portal is not None
    shop.client.portal.call(restock.enqueue, "lamp")
    wait_until(lambda: shop.rows() == ["lamp"])


def test_a_request_without_it_is_as_before(shop: Shop) -> None:
    """Its tasks are stored as the response starts, and run after it, whatever becomes of the session."""

    @shop.app.post("/orders")
    async def place_order(
        session: Annotated[Any, Depends(shop.get_session)], background_tasks: BackgroundTasks
    ) -> None:
        background_tasks.add_task(shop.ship, "lamp")
        await session.rollback()

    assert shop.client.post("/orders").status_code == 200
    assert shop.jobs() == ['{"item":"lamp"}']


def test_one_call_can_opt_out(shop: Shop) -> None:
    """`transaction=None`: stored as usual. So is what is to be kept when the request fails."""

    async def work(session: AsyncSession, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(shop.ship, "gone")
        background_tasks.add_task(shop.ship.options(transaction=None), "kept")
        background_tasks.add_task(shop.ship.options(run_on_error=True), "kept, too")
        await session.rollback()

    shop.endpoint(work)
    assert shop.client.post("/orders").status_code == 200
    assert shop.jobs() == ['{"item":"kept"}', '{"item":"kept, too"}']


def test_two_sessions_in_one_request(shop: Shop) -> None:
    """The call has to say which is meant."""

    async def get_first() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(shop.engine) as session:
            yield session

    async def get_second() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(shop.engine) as session:
            yield session

    @shop.app.post("/orders")
    async def place_order(
        first: Annotated[Any, Depends(shop.tasks.joining(get_first))],
        second: Annotated[Any, Depends(shop.tasks.joining(get_second))],
        background_tasks: BackgroundTasks,
    ) -> None:
        with pytest.raises(ConfigurationError, match=r"ship.options\(transaction=session\)"):
            background_tasks.add_task(shop.ship, "lamp")
        background_tasks.add_task(shop.ship.options(transaction=first), "lamp")
        background_tasks.add_task(shop.ship.options(transaction=second), "vase")
        await first.rollback()
        await second.commit()

    assert shop.client.post("/orders").status_code == 200
    assert shop.jobs() == ['{"item":"vase"}']


# Options


@pytest.mark.anyio
async def test_a_unique_key(shop: Shop) -> None:
    """`keep`: the handle leads to the job that is there; `replace`: that one is cancelled, with the commit."""
    first = await shop.ship.options(unique="lamp").enqueue("first")
    async with AsyncSession(shop.engine) as session:
        joining = shop.ship.options(unique="lamp", transaction=session)
        kept = await joining.enqueue("second")
        await session.commit()
        replacing = await joining.options(on_duplicate="replace").enqueue("third")
        await session.rollback()
        assert [_status(job) for job in (await first.job(), await kept.job(), await replacing.job())] == [
            "queued", "queued", None
        ]  # fmt: skip
        replaced = await joining.options(on_duplicate="replace").enqueue("fourth")
        same = await joining.enqueue("fifth")
        await session.commit()

    jobs = [await handle.job() for handle in (first, kept, replaced, same)]
    assert [_status(job) for job in jobs] == ["cancelled", "cancelled", "queued", "queued"]
    assert [job.id for job in jobs if job is not None] == [first.id, first.id, replaced.id, replaced.id]


@pytest.mark.anyio
async def test_a_unique_key_that_may_not_be_taken(shop: Shop) -> None:
    """`refuse`: the commit raises, as it does for a unique column."""
    await shop.ship.options(unique="lamp").enqueue("first")
    async with AsyncSession(shop.engine) as session:
        await session.execute(sqlalchemy.text("INSERT INTO orders VALUES ('lamp')"))
        await shop.ship.options(unique="lamp", on_duplicate="refuse", transaction=session).enqueue("second")
        with pytest.raises(DuplicateJob):
            await session.commit()
        await session.rollback()

    assert shop.rows() == []
    assert shop.jobs() == ['{"item":"first"}']


def test_a_request_whose_commit_is_refused_is_answered_as_any_that_asks_for_what_is_there(shop: Shop) -> None:
    """With 409, unless the endpoint handles it."""

    async def work(session: AsyncSession, background_tasks: BackgroundTasks) -> None:
        await session.execute(sqlalchemy.text("INSERT INTO orders VALUES ('lamp')"))
        background_tasks.add_task(shop.ship.options(unique="lamp", on_duplicate="refuse", delay=60), "lamp")
        await session.commit()

    shop.endpoint(work)
    assert shop.client.post("/orders").status_code == 200
    assert shop.client.post("/orders").status_code == 409
    assert shop.rows() == ["lamp"]


@pytest.mark.anyio
async def test_an_expired_job_keeps_its_key_from_nobody(shop: Shop) -> None:
    """As without a transaction."""
    expired = await shop.ship.options(unique="lamp", expires=0.01).enqueue("first")
    await asyncio.sleep(0.02)
    async with AsyncSession(shop.engine) as session:
        handle = await shop.ship.options(unique="lamp", transaction=session).enqueue("second")
        await session.commit()

    jobs = await expired.job(), await handle.job()
    assert [_status(job) for job in jobs] == ["cancelled", "queued"]


@pytest.mark.anyio
async def test_two_transactions_that_want_the_same_key(shop: Shop) -> None:
    """The second waits for the first, and leads to its job; or has the key, where that is rolled back."""
    for end, same in (("commit", True), ("rollback", False)):
        async with AsyncSession(shop.engine) as one, AsyncSession(shop.engine) as other:
            first = await shop.ship.options(unique=end, transaction=one).enqueue("lamp")
            await _write(one)
            second = await shop.ship.options(unique=end, transaction=other).enqueue("vase")
            waiting = asyncio.create_task(other.commit())
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await getattr(one, end)()
            await waiting
        found = await second.job()
        assert found is not None
        assert found.id == (first.id if same else second.id)


async def _write(session: AsyncSession) -> None:
    """What has been added, before the commit."""
    savepoint = await session.begin_nested()
    await savepoint.commit()


@pytest.mark.anyio
async def test_options_are_stored_as_ever(shop: Shop) -> None:
    """A delay counts from when the job is written, by the server's clock."""
    async with AsyncSession(shop.engine) as session:
        later = shop.ship.options(transaction=session, delay=60, expires=120, priority=7, queue="slow", max_attempts=2)
        handle = await later.options(timeout=9).enqueue("lamp")
        await session.commit()

    job = await handle.job()
    assert job is not None
    assert job.expires_at is not None
    assert (job.run_at - job.created_at).total_seconds() == 60
    assert (job.expires_at - job.created_at).total_seconds() == 120
    assert (job.priority, job.queue, job.max_attempts, job.timeout) == (7, "slow", 2, 9)


def _status(job: Any) -> str | None:
    return None if job is None else job.status


# Files


def test_files_go_with_their_job(shop: Shop, sort: Sort) -> None:
    """What they contain is stored before, and is the job's with the commit."""

    @shop.tasks.task
    async def scan(file: UploadFile) -> None:
        shop.happened.append((await file.read()).decode())

    async def work(session: Uniform, background_tasks: BackgroundTasks) -> None:
        file = UploadFile(io.BytesIO(b"a scan"), filename="scan.txt")
        background_tasks.add_task(scan, file)

    shop.endpoint_with(sort, shop.tasks.joining(sort.committer(shop.url), scope="function"), work)
    assert shop.client.post("/orders").status_code == 200
    wait_until(lambda: shop.happened == ["a scan"])


@pytest.mark.anyio
async def test_files_of_a_transaction_that_is_rolled_back_are_freed(shop: Shop) -> None:
    """Until then they are in this process's name; and then nobody's."""

    @shop.tasks.task
    async def scan(file: UploadFile) -> None: ...

    def chunks() -> int:
        with psycopg.connect(shop.url) as connection:
            [[count]] = connection.execute("SELECT count(*) FROM afterward.chunks").fetchall()
            return count

    async with AsyncSession(shop.engine) as session:
        await scan.options(transaction=session).enqueue(UploadFile(io.BytesIO(b"a scan"), filename="scan.txt"))
        await shop.tasks._liveness.beat()  # pyright: ignore[reportPrivateUsage]
        await shop.tasks.store.tidy({}, 10, 10)
        assert chunks() == 1
        await session.rollback()
    await shop.tasks._liveness.beat()  # pyright: ignore[reportPrivateUsage]
    await shop.tasks.store.tidy({}, 10, 10)
    assert chunks() == 0


# What cannot work is refused, with the mend


def test_a_store_in_a_file_cannot_be_joined(tmp_path: Path) -> None:
    """SQLite's is afterward's own."""
    tasks = Afterward(f"sqlite:///{tmp_path}/jobs.db")

    @tasks.task
    async def ship(item: str) -> None: ...

    def get_session() -> None: ...

    with pytest.raises(ConfigurationError, match="PostgreSQL"):
        tasks.joining(get_session)
    with pytest.raises(ConfigurationError, match="PostgreSQL"):
        asyncio.run(_enqueue(ship, object()))


async def _enqueue(task: Task[[str], Any], transaction: object) -> JobHandle[Any]:
    return await task.options(transaction=transaction).enqueue("lamp")


@pytest.mark.parametrize("thing", [object(), "a URL"])
def test_what_has_no_transaction(shop: Shop, thing: object) -> None:
    """It is told what has."""
    with pytest.raises(ConfigurationError, match="session of SQLAlchemy"):
        asyncio.run(_enqueue(shop.ship, thing))


@pytest.mark.anyio
async def test_another_database(shop: Shop, sort: Sort, postgres_server: Server) -> None:
    """One without jobs, or with those of another store: what is committed there could not go with a job here."""
    with postgres_server.database() as elsewhere:
        for _ in range(2):
            async with _opened(sort, elsewhere) as session:
                await session.begin()
                with pytest.raises(ConfigurationError, match="connect to that database"):
                    await _enqueue_and_commit(shop, session)
            others = PostgresStore(elsewhere)
            await others.open()
            await others.close()
    assert shop.jobs() == []


async def _enqueue_and_commit(shop: Shop, session: Uniform) -> None:
    await shop.ship.options(transaction=session.raw).enqueue("lamp")
    await session.commit()


def test_what_is_prepared_joins_nothing_by_itself(shop: Shop) -> None:
    """It would be forgotten."""
    with pytest.raises(TaskError, match="enqueue_many"):
        shop.ship.options(transaction=object()).prepare("lamp")


def test_what_follows_a_job_joins_nothing(shop: Shop) -> None:
    """It is stored with the end of that job."""

    @shop.tasks.task
    def thank(ended: EndedJob) -> None: ...

    def place() -> None: ...

    with pytest.raises(TaskError, match="transaction="):
        shop.tasks.task(on_success=thank.options(transaction=object()))(place)


def test_what_is_kept_on_an_error_joins_nothing(shop: Shop) -> None:
    """A rollback would take it along."""
    with pytest.raises(TaskError, match="run_on_error"):
        shop.ship.options(transaction=object(), run_on_error=True)


def test_nothing_of_a_request_is_kept_alive(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """A session goes when its request does; some versions of its driver keep the last one until the next."""
    seen: list[weakref.ref[Any]] = []

    async def work(session: AsyncSession, background_tasks: BackgroundTasks) -> None:
        seen.append(weakref.ref(session.sync_session))
        background_tasks.add_task(shop.ship, "lamp")
        await session.commit()

    shop.endpoint(work)
    for _ in range(3):
        assert shop.client.post("/orders").status_code == 200
    gc.collect()
    assert [ref() for ref in seen[:-1]] == [None, None]
