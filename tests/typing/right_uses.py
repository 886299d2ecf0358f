"""What type checkers must accept, and what they must take it for. Checked, not run."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Annotated, Any, assert_type

from celery import Celery, chain
from celery import Task as CeleryTask
from fastapi import APIRouter, Depends, FastAPI, UploadFile, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response

from afterward import (
    Afterward,
    BackgroundTask,
    BackgroundTasks,
    EndedJob,
    Failure,
    GiveUp,
    Job,
    JobHandle,
    Reason,
    Retry,
    Ruling,
    RunningJob,
    Status,
    Task,
    TaskCancelled,
    accepted,
    cancel_asked,
    check_cancelled,
    current_job,
    emit,
    finish,
    finish_sync,
    lifespan_state,
    progress,
)
from afterward.testing import Bench, Clock, fixture

app = FastAPI()
tenant: ContextVar[str] = ContextVar("tenant")
tasks = Afterward("sqlite:///jobs.db", lease=timedelta(seconds=5), context_variables=[tenant])
tasks.install(app)
quiet = Afterward(log_level=None, version="2030-01-02")
tasks.install(Starlette(), worker=False, queues={"mail"}, grace=3, children=2, jobs_per_child=50)


# Declaring


@tasks.task
def double(number: int, *, times: int = 1) -> int:
    return number * times


@tasks.task(max_attempts=3, timeout=timedelta(minutes=1), backoff=0.5, retry_on=[OSError], run_on_error=True)
async def send(email: str, message: str = "") -> bool:
    return bool(email and message)


@tasks.task(executor="process", memory="512MB")
def compute(number: int) -> int:
    return number


@tasks.task(name="varied")
def varied(first: int, /, *rest: str, **more: float) -> None: ...


class Shop:
    def sell(self, what: str) -> None: ...


def plain(what: str) -> int:
    return len(what)


async def waits(what: str) -> None: ...


def get_shop(state: Annotated[State, Depends(lifespan_state)]) -> Iterator[Shop]:
    yield state.shop


@tasks.task
def restock(what: str, shop: Shop = Depends(get_shop)) -> int:
    shop.sell(what)
    return 1


@tasks.task(timeout=3)
async def close(
    shop: Annotated[Shop, Depends(get_shop)] = Shop(), *, state: State = Depends(lifespan_state)
) -> None: ...


@tasks.task
async def digest(file: UploadFile, *, salt: str = "") -> str:
    return salt + str(await file.read())


@tasks.task
def join(files: list[UploadFile], cover: UploadFile | None = None, shop: Shop = Depends(get_shop)) -> int:
    return len(files)


@tasks.task
async def words(question: str, *, most: int = 10) -> AsyncIterator[str]:
    yield question
    progress(1, most, "of the words")
    emit({"any": [1, 2.5, None]})


@tasks.task(timeout=60)
def lines(file: str) -> Iterator[dict[str, int]]:
    if not cancel_asked():
        yield {file: 1}
    check_cancelled()


sell = tasks.task(Shop().sell)

assert_type(sell("a book"), None)
assert_type(double(4), int)
assert_type(double(4, times=2), int)
assert_type(double.options(delay=1)(4), int)
assert_type(double.name, str)

as_task: Task[[str], None] = sell
as_callable: Callable[[int], int] = double
as_async: Task[..., Coroutine[Any, Any, bool]] = send


# In requests


def dependency(background_tasks: BackgroundTasks, q: str | None = None) -> str | None:
    assert_type(background_tasks.add_task(plain, "text"), None)
    return q


async def with_yield(background_tasks: BackgroundTasks) -> AsyncIterator[BackgroundTasks]:
    yield background_tasks


router = APIRouter(dependencies=[Depends(dependency), Depends(with_yield)])


@router.post("/{email}")
async def endpoint(
    email: str,
    background_tasks: BackgroundTasks,
    same: Annotated[BackgroundTasks, Depends(with_yield)],
    q: Annotated[str | None, Depends(dependency)],
) -> dict[str, str]:
    job = background_tasks.add_task(send, email, message="some notification")
    assert_type(job, JobHandle[bool])
    assert_type(job.id, str)
    assert_type(background_tasks.add_task(double, 4, times=2), JobHandle[int])
    assert_type(background_tasks.add_task(varied, 1, "a", "b", x=1.0), JobHandle[None])
    assert_type(same.add_task(sell, what="a book"), JobHandle[None])
    assert_type(same.add_task(send.options(delay=60, run_on_error=False), email), JobHandle[bool])
    assert_type(background_tasks.add_task(restock, "a book"), JobHandle[int])
    assert_type(background_tasks.add_task(close.options(delay=1)), JobHandle[None])
    assert_type(background_tasks.add_task(words, "why", most=3), JobHandle[None])
    assert_type(background_tasks.add_task(lines.options(priority=1), "a.txt"), JobHandle[None])
    assert_type(background_tasks.add_task(plain, "text"), None)
    assert_type(background_tasks.add_task(waits, what="text"), None)
    assert_type(background_tasks.add_task(Shop().sell, "text"), None)
    assert_type(background_tasks.add_task(lambda: None), None)
    assert_type(background_tasks.add_task(print, "text", end=""), None)
    return {"job": job.id}


@router.post("/upload")
async def upload(file: UploadFile, files: list[UploadFile], background_tasks: BackgroundTasks) -> None:
    assert_type(background_tasks.add_task(digest, file, salt="salt"), JobHandle[str])
    assert_type(background_tasks.add_task(join, files, cover=file), JobHandle[int])
    assert_type(await join.enqueue([*files, UploadFile(file.file, filename="a.txt")]), JobHandle[int])


@router.get("/stream")
def stream(background_tasks: BackgroundTasks) -> StreamingResponse:
    return StreamingResponse(iter([""]), background=background_tasks)


@app.websocket("/")
async def websocket(websocket: WebSocket, background_tasks: BackgroundTasks) -> None:
    assert_type(background_tasks.add_task(double, 4), JobHandle[int])


def helper(background_tasks: BackgroundTasks, maybe: BackgroundTasks | None = None) -> None:
    background_tasks.add_task(double, 4)
    if maybe is not None:
        maybe.add_task(double, 4)


# By hand


async def in_starlette(request: Request) -> Response:
    single = BackgroundTask(send, "ada@example.com", message="hello")
    assert_type(single.job, JobHandle[Any] | None)
    several = BackgroundTasks([single, BackgroundTask(plain, "text"), BackgroundTask(double, number=4)])
    several.add_task(double, number=4)
    helper(several)
    await several()
    if request.url.path == "/":
        return Response(background=single)
    return JSONResponse({}, background=several)


# Without a request


async def without_a_request() -> None:
    assert_type(await send("ada@example.com"), bool)
    assert_type(await send.enqueue("ada@example.com", message="hello"), JobHandle[bool])
    assert_type(double.enqueue_sync(4, times=2), JobHandle[int])
    later = send.options(run_at=datetime.now(UTC), queue="mail", priority=3, unique="key", run_on_error=True)
    assert_type(await later.enqueue("ada@example.com"), JobHandle[bool])
    prepared = [send.prepare("ada@example.com"), double.prepare(4)]
    assert_type(await close.enqueue(), JobHandle[None])
    assert_type(await words.enqueue("why", most=3), JobHandle[None])
    assert_type(lines.enqueue_sync("a.txt"), JobHandle[None])
    assert_type(words.handle("id"), JobHandle[None])
    assert_type(words("called"), AsyncIterator[str])
    assert_type(restock("a book", Shop()), int)
    assert_type(await tasks.enqueue_many(prepared), list[JobHandle[Any]])
    assert_type(tasks.enqueue_many_sync(double.prepare(number) for number in range(3)), list[JobHandle[Any]])
    assert_type(await tasks.get("id"), Job | None)
    assert_type(await tasks.list(status=Status.failed, limit=3), list[Job])
    assert_type(current_job(), RunningJob)
    assert_type(current_job().attempt, int)
    assert_type(current_job().idempotency_key, str)


# What became of a job


async def ends(background_tasks: BackgroundTasks) -> None:
    handle = await send.enqueue("ada@example.com")
    assert_type(await handle.result(timeout=10), bool)
    assert_type(double.enqueue_sync(4).result_sync(timeout=timedelta(seconds=1)), int)
    assert_type(await background_tasks.add_task(double, 4).result(), int)
    assert_type(await send.handle("id").result(), bool)
    assert_type(await double.handle("id").job(), Job | None)
    assert_type(await tasks.results([await double.enqueue(1), await double.enqueue(2)]), list[int])
    assert_type(await tasks.cancel("id"), Ruling)
    assert_type(await tasks.retry("id"), Ruling)
    assert_type(await tasks.why("id"), list[Reason])
    assert_type(await handle.why(), list[Reason])
    bare: JobHandle = handle
    assert_type(bare.id, str)


# Existing Celery tasks

fleet = Celery("fleet", broker="amqp://broker")
handed = Afterward(celery=fleet)


@fleet.task
def measure(what: str) -> int:
    return len(what)


@fleet.task(bind=True, max_retries=3)
def measure_again(self: CeleryTask[Any, Any], what: str) -> int:
    return len(what)


async def to_a_fleet(background_tasks: BackgroundTasks) -> JobHandle[Any]:
    job: JobHandle[Any] = background_tasks.add_task(measure, "a book")
    job = background_tasks.add_task(measure_again, "a book")
    job = background_tasks.add_task(measure.s("a book").set(queue="measures", countdown=60))
    job = background_tasks.add_task(chain(measure.s("a book"), measure.si("another")))
    declared = handed.celery_task("fleet.measure", republish_after=timedelta(hours=1))
    job = background_tasks.add_task(declared.options(unique="a book"), "a book")
    assert_type(await handed.celery_task(measure).options(delay=60).enqueue("a book"), JobHandle[Any])
    BackgroundTask(measure, "a book")
    return job


# All options


def wait_longer(failures: int, error: BaseException) -> float | bool:
    return failures * 60.0 if isinstance(error, OSError) else False


@tasks.task
async def tell(ended: EndedJob) -> None:
    assert_type(ended.failure, Failure | None)


@tasks.task
def tell_shop(ended: EndedJob, loudly: bool = True, *, shop: Shop = Depends(get_shop)) -> int:
    return len(ended.arguments)


@tasks.task(on_success=tell_shop, on_failure=tell_shop.options(queue="slow"))
def told() -> None: ...


@tasks.task(retry_on=wait_longer, on_success=tell, on_failure=tell)
def careful(number: int) -> int:
    if number < 0:
        raise GiveUp("negative")
    if number == 2:
        raise TaskCancelled("asked")
    if number == 0:
        raise Retry("later", in_=timedelta(minutes=1))
    return number


careful.options(unique="one", on_duplicate="replace", expires=60, max_attempts=2, timeout=timedelta(seconds=5))
careful.options(expires=datetime.now(UTC))


# In a transaction of the app's own


async def get_session() -> AsyncIterator[AsyncSession]:
    async with AsyncSession() as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(tasks.joining(get_session))]
FunctionSessionDep = Annotated[AsyncSession, Depends(tasks.joining(get_session, scope="function"))]


async def in_a_transaction(session: SessionDep, background_tasks: BackgroundTasks) -> None:
    assert_type(background_tasks.add_task(double.options(transaction=session), 4), JobHandle[int])
    assert_type(await double.options(transaction=None).enqueue(4), JobHandle[int])
    assert_type(await tasks.enqueue_many([double.prepare(4)], transaction=session), list[JobHandle[Any]])
    await background_tasks.flush()
    await finish(session, result=5)


def in_a_blocking_transaction(session: Session) -> None:
    assert_type(double.options(transaction=session).enqueue_sync(4), JobHandle[int])
    finish_sync(session)


# In tests

bench_fixture = fixture(tasks, autouse=True, scope="module")


async def in_tests() -> None:
    with Bench(tasks, now=datetime.now(UTC), raise_failures=False) as bench:
        assert_type(bench.assert_enqueued(double), Job)
        assert_type(bench.assert_enqueued(double, 4, times=2), Job)
        bench.assert_not_enqueued(send.options(delay=60), "ada@example.com")
        bench.assert_enqueued(restock, "a book")
        bench.assert_enqueued(digest, UploadFile(BytesIO(b"text"), filename="a.txt"))
        assert_type(bench.jobs, list[Job])
        assert_type(bench.clock, Clock)
        assert_type(await bench.drain(), list[Job])
        with bench.crash_after("ended", nth=2), bench.lose_lease(double):
            assert_type(bench.drain_sync(), list[Job])
        assert_type(bench.enqueued(send, "ada@example.com"), list[Job])
        assert_type(bench.drain_sync(), list[Job])
        with bench.crash_after("ended", nth=2), bench.lose_lease(double):
            bench.clock.advance(timedelta(days=1))
    async with Bench(tasks, manual=True) as bench:
        assert_type(await bench.drain(), list[Job])


# Over HTTP


def current_user_id() -> str:
    return "ada"


assert_type(tasks.router(owner=current_user_id, admin=lambda: False, max_wait=timedelta(seconds=5)), APIRouter)
assert_type(tasks.router(public=True, prefix="/work", tags=["work"]), APIRouter)


@app.post("/doubles", status_code=202, dependencies=[Depends(tasks.owned_by(current_user_id))])
async def order_double(background_tasks: BackgroundTasks) -> JobHandle[int]:
    return background_tasks.add_task(double.options(owner="ada"), 4)


@app.post("/halves", dependencies=[Depends(tasks.owned_by(current_user_id, key=lambda user: user.lower()))])
async def order_half(request: Request) -> Response:
    tasks.set_owner(request.scope, "ada")
    return accepted(await double.enqueue(2), headers={"X-Half": "1"})
