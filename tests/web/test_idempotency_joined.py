"""`Idempotency-Key` where tasks join a transaction of the application's own: that uses up the key.

On PostgreSQL. What is committed is done once, though the answer is known only after the commit.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from functools import cached_property
from typing import Annotated, Any, LiteralString

import psycopg
import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

from afterward import Afterward, BackgroundTasks, StoreUnavailable
from afterward.idempotency import answer_naming
from tests.support.opening import opened
from tests.support.sessions import SORTS, Sort, Uniform

KEY = {"Idempotency-Key": "8e03978e-40d5-43e8-bc93-6894a57f9324"}
Work = Callable[[Any, BackgroundTasks], Awaitable[Any]]


class Shop:
    """An app with durable tasks, which no worker runs, and with a table of its own in their database."""

    def __init__(self, url: str, tasks: Afterward, ending: ExitStack) -> None:
        self.url, self.tasks, self._ending = url, tasks, ending
        self.app = FastAPI()
        tasks.install(self.app, worker=False)
        self.engine = create_async_engine(url.replace("postgresql", "postgresql+asyncpg", 1), poolclass=NullPool)

        @tasks.task
        async def ship(item: str) -> None: ...

        self.ship = ship

    @cached_property
    def client(self) -> TestClient:
        return self._ending.enter_context(TestClient(self.app, raise_server_exceptions=False))

    async def get_session(self) -> AsyncIterator[AsyncSession]:
        async with AsyncSession(self.engine) as session:
            yield session

    def endpoint(self, work: Work, joined: Callable[..., Any] | None = None, *, is_async: bool = True) -> None:
        """`POST /orders`, which heeds a key, with a session that its tasks join; in a thread, where that blocks."""
        joined = joined or self.tasks.joining(self.get_session)

        async def awaiting(session: Any, background_tasks: Any) -> Any:
            return await work(session, background_tasks)

        def blocking(session: Any, background_tasks: Any) -> Any:
            return asyncio.run(awaiting(session, background_tasks))

        path = awaiting if is_async else blocking
        path.__annotations__ = {"session": Annotated[Any, Depends(joined)], "background_tasks": BackgroundTasks}
        idempotent = Depends(self.tasks.idempotent())
        self.app.post("/orders", status_code=202, response_model=None, dependencies=[idempotent])(path)

    def order(self) -> Any:
        return self.client.post("/orders", headers=KEY)

    def jobs(self) -> list[str]:
        """The ids of all jobs that are committed."""
        return self._column("SELECT id FROM afterward.jobs ORDER BY id")

    def rows(self) -> list[str]:
        """What is committed of the app's own."""
        return self._column("SELECT item FROM orders")

    def keys(self) -> int:
        """How many keys are reserved, or used up."""
        return len(self._column("SELECT id FROM afterward.reservations"))

    def _column(self, query: LiteralString) -> list[str]:
        with psycopg.connect(self.url) as connection:
            return [row[0] for row in connection.execute(query)]


@pytest.fixture
def shop(postgres_url: str) -> Iterator[Shop]:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE orders (item text NOT NULL)")
    with opened(Afterward(postgres_url)) as tasks, ExitStack() as ending:
        yield Shop(postgres_url, tasks, ending)


@pytest.mark.parametrize("name", SORTS)
@pytest.mark.parametrize("scope", ["endpoint", "function"])
def test_what_is_committed_is_done_once_and_answered_as_before(shop: Shop, name: str, scope: str) -> None:
    """Where the endpoint commits, and where a dependency does before the response."""
    sort = SORTS[name]
    commits = scope == "endpoint"

    async def work(raw: Any, background_tasks: BackgroundTasks) -> dict[str, str]:
        session = Uniform(raw, sort)
        if commits:
            await session.begin()
        await session.order("lamp")
        job = background_tasks.add_task(shop.ship, "lamp").id
        if commits:
            await background_tasks.flush()
            await session.commit()
        return {"shipped by": job}

    shop.endpoint(work, _joined(shop, sort, commits=commits), is_async=sort.is_async)
    first, again = shop.order(), shop.order()
    assert (first.status_code, again.status_code) == (202, 202)
    assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")
    assert (shop.rows(), shop.jobs()) == (["lamp"], [first.json()["shipped by"]])


def _joined(shop: Shop, sort: Sort, *, commits: bool) -> Callable[..., Any]:
    if commits:
        return shop.tasks.joining(sort.opener(shop.url))
    return shop.tasks.joining(sort.committer(shop.url), scope="function")


@pytest.mark.parametrize("how", ["rolls back", "raises", "returns an error", "does not commit"])
def test_what_is_not_committed_leaves_the_key_free(shop: Shop, how: str) -> None:
    asked: list[str] = []

    async def work(session: AsyncSession, background_tasks: BackgroundTasks) -> Any:
        job = background_tasks.add_task(shop.ship, "lamp").id
        asked.append(job)
        if len(asked) > 1:
            await session.commit()
            return {"job": job}
        if how == "rolls back":
            await session.rollback()
        if how == "returns an error":
            await session.flush()
            await background_tasks.flush()
            return JSONResponse({}, 409)
        if how == "raises":
            raise HTTPException(409)
        return {"job": job}

    shop.endpoint(work)
    assert shop.order().status_code == {"rolls back": 202, "does not commit": 500}.get(how, 409)
    assert shop.jobs() == []
    answers = [shop.order()]
    while answers[-1].status_code == 409:  # what an open transaction locks is dropped when that is over
        answers.append(shop.order())
    assert answers[-1].json() == {"job": asked[1]}
    assert shop.jobs() == [asked[1]]
    assert len(asked) == 2


@pytest.mark.parametrize("how", ["raises", "cannot keep its answer"])
def test_where_the_answer_is_not_kept_the_same_request_is_told_of_the_jobs(
    shop: Shop, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are committed, whatever happened then."""

    async def work(session: AsyncSession, background_tasks: BackgroundTasks) -> Any:
        jobs = [background_tasks.add_task(shop.ship, item).id for item in ("lamp", "vase")]
        await session.commit()
        if how == "raises":
            raise RuntimeError("raised by the endpoint")
        return {"shipped by": jobs}

    async def fail(reservation: str, answer: str) -> bool:
        raise StoreUnavailable("the store went away")

    if how == "cannot keep its answer":
        monkeypatch.setattr(shop.tasks.store, "amend", fail)
    shop.endpoint(work)
    first, again = shop.order(), shop.order()
    assert first.status_code == (500 if how == "raises" else 202)
    kept = answer_naming(shop.jobs())
    assert (again.status_code, again.content, again.headers["idempotency-replayed"]) == (kept.status, kept.body, "true")
    assert len(shop.jobs()) == 2


def test_an_error_that_is_answered_after_the_commit_is_kept(shop: Shop) -> None:
    async def work(session: AsyncSession, background_tasks: BackgroundTasks) -> Any:
        background_tasks.add_task(shop.ship, "lamp")
        await session.commit()
        raise HTTPException(402, "no money")

    shop.endpoint(work)
    first, again = shop.order(), shop.order()
    assert (again.status_code, again.json()) == (first.status_code, first.json()) == (402, {"detail": "no money"})
    assert len(shop.jobs()) == 1


def test_who_has_lost_the_key_commits_nothing(shop: Shop) -> None:
    """As a process that was taken for dead: the commit fails, and the client is told to ask again."""

    async def work(session: AsyncSession, background_tasks: BackgroundTasks) -> None:
        await Uniform(session, SORTS["AsyncSession on asyncpg"]).order("lamp")
        background_tasks.add_task(shop.ship, "lamp")
        with psycopg.connect(shop.url) as connection:
            connection.execute("UPDATE afterward.reservations SET id = 'of another'")
        await session.commit()

    shop.endpoint(work)
    answer = shop.order()
    assert (answer.status_code, shop.rows(), shop.jobs()) == (409, [], [])


@pytest.mark.parametrize("how", ["by itself", "by itself before", "by another", "enqueued", "after the commit"])
def test_a_second_way_to_store_tasks_is_refused(shop: Shop, how: str) -> None:
    """A part of them could be lost: the key is used up by the other."""

    async def early(background_tasks: BackgroundTasks) -> None:
        if how == "by itself before":
            background_tasks.add_task(shop.ship, "vase")

    shop.app.router.dependencies.append(Depends(early))

    async def work(session: AsyncSession, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(shop.ship, "lamp")
        if how == "by itself":
            background_tasks.add_task(shop.ship.options(transaction=None), "vase")
        if how == "by another":
            async with AsyncSession(shop.engine) as other:
                background_tasks.add_task(shop.ship.options(transaction=other), "vase")
        if how == "enqueued":
            await shop.ship.options(transaction=None).enqueue("vase")
        await session.commit()
        background_tasks.add_task(shop.ship, "vase")

    shop.endpoint(work)
    with pytest.raises(Exception, match="Idempotency-Key"), TestClient(shop.app) as strict:
        strict.post("/orders", headers=KEY)
    assert len(shop.jobs()) == (1 if how == "after the commit" else 0)


def test_what_is_enqueued_in_the_transaction_is_of_the_request(shop: Shop) -> None:
    """`options(transaction=…)` says it as well as `tasks.joining`."""

    async def work(session: AsyncSession, background_tasks: BackgroundTasks) -> str:
        handle = await shop.ship.options(transaction=session).enqueue("lamp")
        await session.commit()
        return handle.id

    shop.endpoint(work, shop.get_session)
    first, again = shop.order(), shop.order()
    assert (again.status_code, again.json(), shop.jobs()) == (202, first.json(), [first.json()])


def test_a_task_that_was_added_before_the_key_was_reserved_is_refused(shop: Shop) -> None:
    async def early(
        session: Annotated[AsyncSession, Depends(shop.tasks.joining(shop.get_session))],
        background_tasks: BackgroundTasks,
    ) -> None:
        background_tasks.add_task(shop.ship, "lamp")

    @shop.app.post("/", dependencies=[Depends(early), Depends(shop.tasks.idempotent())])
    async def endpoint() -> None: ...

    with pytest.raises(Exception, match=r"put tasks.idempotent\(…\) before"), TestClient(shop.app) as strict:
        strict.post("/", headers=KEY)
    assert shop.keys() == 0
