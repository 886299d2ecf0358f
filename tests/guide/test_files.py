"""Files: an `UploadFile` is given to a task as to an endpoint, and is there as long as the job may run.

Its content goes into the store before the response starts. What the file is called is data.
"""

import asyncio
import gzip
import hashlib
import io
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from textwrap import dedent
from typing import Annotated, Any, BinaryIO, cast

import apsw
import pytest
from fastapi import Depends, FastAPI, UploadFile, WebSocket
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.datastructures import UploadFile as StarletteUploadFile
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from afterward import (
    Afterward,
    ArgumentError,
    BackgroundTask,
    BackgroundTasks,
    EndedJob,
    FileTooLarge,
    GiveUp,
    JobFailed,
    StoreUnavailable,
    TaskError,
    current_job,
)
from afterward.contents import CHUNK_BYTES
from afterward.engine.files import IN_MEMORY_BYTES
from afterward.engine.worker import WorkerOptions
from afterward.faults import armed
from afterward.stores.sqlite import SQLiteStore
from afterward.uploads import give
from tests.support.disk import Row, heartbeats
from tests.support.obstacles import locked
from tests.support.opening import opened
from tests.support.processes import run_aside
from tests.support.waiting import soon, wait_until

pytestmark = pytest.mark.anyio

TEXT = b"one\ntwo\n"
SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, IN_MEMORY_BYTES + CHUNK_BYTES + 1]


def content(size: int) -> bytes:
    """Bytes of which no two chunks are the same."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


_made: list[UploadFile] = []


@pytest.fixture(autouse=True)
def closed_in_the_end() -> Iterator[None]:
    """As FastAPI closes the files of a request."""
    yield
    while _made:
        _made.pop().file.close()


def upload(data: bytes = TEXT, name: str | None = "notes.txt", type_: str = "text/plain", **more: Any) -> UploadFile:
    """A file as FastAPI gives it to an endpoint."""
    file = SpooledTemporaryFile(1024 * 1024)  # noqa: SIM115 - the file is what is wanted
    file.write(data)
    file.seek(0)
    said: dict[str, Any] = {"size": len(data), "headers": Headers({"content-type": type_})} | more
    _made.append(UploadFile(cast("BinaryIO", file), filename=name, **said))
    return _made[-1]


def chunks_on_disk(database: Path) -> int:
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        connection.set_busy_timeout(5000)
        return connection.execute("SELECT count(*) FROM chunks").get
    finally:
        connection.close()


class Seen(BaseModel):
    """What a task saw of its file."""

    name: str | None
    type: str | None
    size: int | None
    sha256: str
    headers: list[tuple[str, str]]


def seen(file: UploadFile, data: bytes) -> Seen:
    headers = file.headers.items()
    return Seen(
        name=file.filename,
        type=file.content_type,
        size=file.size,
        sha256=hashlib.sha256(data).hexdigest(),
        headers=headers,
    )


# What a task gets


@pytest.mark.parametrize("size", SIZES)
def test_an_uploaded_file_is_given_to_the_task_as_to_the_endpoint(
    app: FastAPI, client: TestClient, tasks: Afterward, size: int
) -> None:
    """Content, name, type, size and headers; for `async def` and `def` tasks, that may take the same upload."""

    @tasks.task
    async def in_the_loop(file: UploadFile) -> Seen:
        data = await file.read()
        await file.seek(0)
        assert await file.read(3) == data[:3]
        return seen(file, data)

    @tasks.task
    def in_a_thread(file: UploadFile) -> Seen:
        data = file.file.read()
        assert isinstance(file, UploadFile)
        return seen(file, data)

    @app.post("/")
    async def endpoint(file: UploadFile, background_tasks: BackgroundTasks) -> list[str]:
        return [background_tasks.add_task(task, file).id for task in (in_the_loop, in_a_thread)]

    data = content(size)
    part = {"x-more": "ä", "x-twice": "1"}
    ids = client.post("/", files={"file": ("notes.txt", data, "text/plain", part)}).json()
    [one, other] = [task.handle(id_).result_sync(timeout=10) for task, id_ in zip((in_the_loop, in_a_thread), ids)]  # noqa: B905
    assert one == other
    assert (one.name, one.type, one.size) == ("notes.txt", "text/plain", size)
    assert one.sha256 == hashlib.sha256(data).hexdigest()
    assert {"content-type", "content-disposition", "x-more", "x-twice"} <= dict(one.headers).keys()


async def test_files_are_taken_by_one_by_none_and_by_many(tasks: Afterward) -> None:
    """`UploadFile`, `UploadFile | None`, lists of them, `*files`; Starlette's class as well."""

    @tasks.task
    async def many(
        one: Annotated[UploadFile, "whatever else is said of it"],
        maybe: UploadFile | None,
        some: list[UploadFile],
        perhaps: list[StarletteUploadFile] | None = None,
        label: str = "",
        *rest: StarletteUploadFile,
    ) -> list[list[str]]:
        groups = [[one], [maybe] if maybe else [], some, perhaps or [], list(rest)]
        return [[(await file.read()).decode() for file in group] for group in groups]

    def file(text: str) -> UploadFile:
        return upload(text.encode())

    async with tasks.running(WorkerOptions()):
        few = await many.enqueue(file("a"), None, [])
        assert await few.result(timeout=10) == [["a"], [], [], [], []]
        star = StarletteUploadFile(io.BytesIO(b"f"))
        args = (file("a"), file("b"), [file("c"), file("d")], [file("e"), star], "label", file("g"), star)
        all_ = await many.enqueue(*args)
        assert await all_.result(timeout=10) == [["a"], ["b"], ["c", "d"], ["e", "f"], ["g", "f"]]
        by_name = await many.enqueue(one=file("x"), maybe=file("y"), some=[file("z")], label="label")
        assert await by_name.result(timeout=10) == [["x"], ["y"], ["z"], [], []]


async def test_every_attempt_gets_the_file_from_its_start(tasks: Afterward) -> None:
    """Also when the last one closed it, or wrote into it."""
    read: list[bytes] = []

    @tasks.task(max_attempts=4, backoff=0.01)
    async def fragile(file: UploadFile) -> None:
        read.append(await file.read())
        await file.write(b"of an earlier attempt")
        if current_job().attempt == 2:
            await file.close()
        if current_job().attempt < 4:
            raise OSError

    async with tasks.running(WorkerOptions()):
        await (await fragile.enqueue(upload())).result(timeout=10)
    assert read == [TEXT] * 4


async def test_the_file_is_closed_with_its_attempt(tasks: Afterward) -> None:
    """A task that keeps it keeps nothing."""
    kept: list[UploadFile] = []

    @tasks.task
    async def keep(file: UploadFile) -> None:
        kept.append(file)

    async with tasks.running(WorkerOptions()):
        await (await keep.enqueue(upload())).result(timeout=10)
        await soon(lambda: kept[0].file.closed)


async def test_a_task_that_runs_out_of_its_time_gets_the_file_again(tasks: Afterward) -> None:
    @tasks.task(timeout=0.1, max_attempts=2, backoff=0.01)
    async def slow(file: UploadFile) -> int:
        if current_job().attempt == 1:
            await asyncio.Event().wait()
        return len(await file.read())

    async with tasks.running(WorkerOptions()):
        assert await (await slow.enqueue(upload())).result(timeout=10) == len(TEXT)


async def test_a_file_is_not_closed_under_a_thread_that_outlasts_its_time(tasks: Afterward) -> None:
    may_read = threading.Event()
    kept: list[UploadFile] = []
    read: list[bytes] = []

    @tasks.task(timeout=0.1, max_attempts=1)
    def slow(file: UploadFile) -> None:
        kept.append(file)
        may_read.wait(10)
        read.append(file.file.read())

    async with tasks.running(WorkerOptions(threads=1)):
        with pytest.raises(JobFailed, match="AttemptTimedOut"):
            await (await slow.enqueue(upload())).result(timeout=10)
        may_read.set()
        await soon(lambda: read == [TEXT])
        await soon(lambda: kept[0].file.closed)
        assert await (await slow.options(timeout=10).enqueue(upload())).result(timeout=10) is None  # type: ignore[func-returns-value]


async def test_the_hook_of_a_failure_is_told_what_the_file_was_called(tasks: Afterward) -> None:
    """What stands in the arguments in its place; the content stays with the job that failed."""
    heard: list[dict[str, Any]] = []

    @tasks.task
    async def hear(ended: EndedJob) -> None:
        heard.append(ended.arguments)

    @tasks.task(on_failure=hear)
    async def fail(file: UploadFile) -> None:
        raise GiveUp(file.filename or "")

    async with tasks.running(WorkerOptions()):
        await fail.enqueue(upload(name="a\0b\ud800.txt"))
        await soon(lambda: heard)
    assert heard[0]["file"] | {"file": ""} == {
        "file": "",
        "filename": "a\0b\\ud800.txt",
        "size": len(TEXT),
        "headers": [["content-type", "text/plain"]],
        "exact": b"a\0b\xed\xa0\x80.txt".hex(),
    }


# Before the response


def test_the_content_is_in_the_store_before_the_response_starts(app: FastAPI, tasks: Afterward, database: Path) -> None:
    """A job without its file would be worth nothing."""
    on_disk: list[int] = []

    class Looking(Response):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def send_looking(message: Any) -> None:
                await send(message)
                if message["type"] == "http.response.start":
                    on_disk.append(chunks_on_disk(database))

            await super().__call__(scope, receive, send_looking)

    @tasks.task
    def later(file: UploadFile) -> None: ...

    @app.post("/")
    async def endpoint(file: UploadFile, background_tasks: BackgroundTasks) -> Response:
        background_tasks.add_task(later, file)
        return Looking()

    client = TestClient(app)  # without a lifespan: nothing runs
    assert client.post("/", files={"file": content(3 * CHUNK_BYTES)}).status_code == 200
    assert on_disk == [4]


async def test_the_endpoint_reads_on_where_it_was(tasks: Afterward) -> None:
    """The file is stored from its start wherever the endpoint is, and left there."""

    @tasks.task
    def later(file: UploadFile) -> str:
        return file.file.read().decode()

    async with tasks.running(WorkerOptions()):
        file = upload()
        await file.read(3)
        job = await later.enqueue(file)
        assert await file.read() == TEXT[3:]
        assert await job.result(timeout=10) == TEXT.decode()


async def test_one_upload_can_be_stored_by_many_at_once(tasks: Afterward) -> None:
    """Each reads all of it: none moves the other's place."""
    data = content(5 * CHUNK_BYTES)

    @tasks.task
    def later(file: UploadFile) -> str:
        return hashlib.sha256(file.file.read()).hexdigest()

    async with tasks.running(WorkerOptions()):
        file = upload(data)
        jobs = await asyncio.gather(*(later.enqueue(file) for _ in range(8)))
        results = await tasks.results(jobs, timeout=20)
    assert set(results) == {hashlib.sha256(data).hexdigest()}


async def test_many_calls_with_one_upload_take_one_descriptor(tasks: Afterward) -> None:
    """And none once they are stored."""

    @tasks.task
    def later(file: UploadFile) -> None: ...

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    file = upload(content(IN_MEMORY_BYTES + 1))
    before = descriptors()
    jobs = [later.prepare(file) for _ in range(50)]
    assert descriptors() == before + 1
    del jobs
    assert descriptors() == before


# Ways in


async def test_a_file_goes_in_by_every_way_there_is(tasks: Afterward) -> None:
    """`enqueue`, `enqueue_sync`, many at once."""

    @tasks.task
    async def read(file: UploadFile) -> str:
        return (await file.read()).decode()

    async with tasks.running(WorkerOptions()):
        jobs = [await read.enqueue(upload(b"a"))]
        jobs += [await asyncio.to_thread(read.enqueue_sync, upload(b"b"))]
        jobs += await tasks.enqueue_many([read.prepare(upload(text)) for text in (b"c", b"d")])
        assert await tasks.results(jobs, timeout=10) == ["a", "b", "c", "d"]


def test_a_file_goes_in_by_a_websocket(app: FastAPI, client: TestClient, tasks: Afterward) -> None:
    """What came over it, made a file by hand."""

    @tasks.task
    async def read(file: UploadFile) -> str:
        return (await file.read()).decode()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, background_tasks: BackgroundTasks) -> None:
        await websocket.accept()
        data = await websocket.receive_bytes()
        job = background_tasks.add_task(read, UploadFile(io.BytesIO(data)))
        await websocket.send_text(job.id)
        await websocket.close()

    with client.websocket_connect("/") as connection:
        connection.send_bytes(b"by websocket")
        job = connection.receive_text()
    assert read.handle(job).result_sync(timeout=10) == "by websocket"


def test_a_file_goes_in_by_plain_starlette_and_a_task_made_by_hand(tasks: Afterward) -> None:
    @tasks.task
    async def read(file: UploadFile) -> str:
        return (await file.read()).decode()

    async def endpoint(request: Request) -> Response:
        async with request.form() as form:  # which closes the file, before the response starts
            task = BackgroundTask(read, cast("UploadFile", form["file"]))
        assert task.job is not None
        return PlainTextResponse(task.job.id, background=task)

    app = Starlette(routes=[Route("/", endpoint, methods=["POST"])])
    tasks.install(app)
    with TestClient(app) as client:
        job = client.post("/", files={"file": b"by hand"}).text
        assert read.handle(job).result_sync(timeout=10) == "by hand"


def test_a_task_for_errors_has_its_file(app: FastAPI, client: TestClient, tasks: Afterward) -> None:
    """`run_on_error`: the request ends in an exception, and its file is kept all the same."""
    read: list[bytes] = []

    @tasks.task(run_on_error=True)
    def report(file: UploadFile) -> None:
        read.append(file.file.read())

    @app.post("/")
    async def endpoint(file: UploadFile, background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(report, file)
        raise RuntimeError

    assert client.post("/", files={"file": TEXT}).status_code == 500
    wait_until(lambda: read == [TEXT])


# What is refused


@pytest.fixture
def tasks_with(database: Path) -> Iterator[Callable[..., Afterward]]:
    """Makes durable tasks, kept in `database`, of which something else is said than of `tasks`."""
    with ExitStack() as stack:

        def make(**said: Any) -> Afterward:
            said = said if "store" in said else {"url": f"sqlite:///{database}"} | said
            return stack.enter_context(opened(Afterward(**said)))

        yield make


@contextmanager
def served_by(tasks: Afterward) -> Generator[tuple[FastAPI, TestClient]]:
    """An app of its own, and a client of it."""
    app = FastAPI()
    tasks.install(app)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield app, client


async def test_too_large_a_file_is_refused_at_the_call(tasks_with: Callable[..., Afterward]) -> None:
    """Its size is known: nothing is stored of it, and the error says what to do. The limit itself is allowed."""
    tasks = tasks_with(max_file_bytes=1000)

    @tasks.task(name="read")
    async def read(file: UploadFile, more: list[UploadFile] | None = None) -> None: ...

    await read.enqueue(upload(b"a" * 1000))
    with pytest.raises(
        FileTooLarge,
        match=r"task read: argument 'file' is a file of 1,001 bytes.* 1,000 are allowed; .*max_file_bytes",
    ):
        read.prepare(upload(b"a" * 1001))
    with pytest.raises(ArgumentError, match="argument 'more'"):
        await read.enqueue(upload(), [upload(), upload(b"a" * 1001)])


def test_64_mebibytes_are_allowed(tasks: Afterward) -> None:
    """Unless it is said otherwise."""

    @tasks.task
    async def read(file: UploadFile) -> None: ...

    read.prepare(upload(size=64 * 1024 * 1024))
    with pytest.raises(FileTooLarge):
        read.prepare(upload(size=64 * 1024 * 1024 + 1))


def test_too_large_a_file_whose_size_was_not_known_is_answered_413(tasks_with: Callable[..., Afterward]) -> None:
    """Nothing of the request is stored, and its dependencies roll back."""
    happened: list[str] = []

    async def session() -> AsyncIterator[None]:
        try:
            yield
        except FileTooLarge:
            happened.append("rolled back")
            raise

    tasks = tasks_with(max_file_bytes=2 * CHUNK_BYTES)
    with served_by(tasks) as (app, client):

        @tasks.task
        async def read(file: UploadFile) -> None:
            happened.append("run")

        @tasks.task
        async def other() -> None:
            happened.append("run")

        @app.post("/{size}", dependencies=[Depends(session)])
        async def endpoint(size: int, background_tasks: BackgroundTasks) -> None:
            background_tasks.add_task(other)
            background_tasks.add_task(read, UploadFile(io.BytesIO(content(size))))

        response = client.post(f"/{2 * CHUNK_BYTES + 1}")
        assert response.status_code == 413
        assert response.json() == {"detail": "The file is too large."}
        assert client.post(f"/{2 * CHUNK_BYTES}").status_code == 200
        wait_until(lambda: happened == ["rolled back", "run", "run"])


async def test_too_large_a_file_whose_size_was_not_known_is_refused_by_enqueue(
    tasks_with: Callable[..., Afterward],
) -> None:
    """None of what is enqueued with it is stored."""
    tasks = tasks_with(max_file_bytes=1000)

    @tasks.task
    async def read(file: UploadFile) -> None: ...

    jobs = [read.prepare(UploadFile(io.BytesIO(b"a" * size))) for size in (1000, 1001)]
    with pytest.raises(FileTooLarge):
        await tasks.enqueue_many(jobs)
    assert await tasks.list() == []


class Stream(io.RawIOBase):
    """A file that cannot go back to its start."""

    def seekable(self) -> bool:
        return False


def test_what_cannot_be_read_from_its_start_is_refused_at_the_call(tasks: Afterward) -> None:
    @tasks.task
    async def read(file: UploadFile) -> None: ...

    closed = upload()
    closed.file.close()
    with pytest.raises(ArgumentError, match=r"argument 'file' is a file that cannot be stored \(.*closed file"):
        read.prepare(closed)
    with pytest.raises(ArgumentError, match=r"argument 'file' .* it is a stream"):
        read.prepare(UploadFile(cast("BinaryIO", Stream())))


@pytest.mark.parametrize("size", [len(TEXT), IN_MEMORY_BYTES + 1])
def test_a_file_may_be_closed_once_it_is_added(app: FastAPI, client: TestClient, tasks: Afterward, size: int) -> None:
    """In memory or on the disk, what was given is what is stored."""

    @tasks.task
    async def read(file: UploadFile) -> str:
        return hashlib.sha256(await file.read()).hexdigest()

    @app.post("/")
    async def endpoint(file: UploadFile, background_tasks: BackgroundTasks) -> str:
        job = background_tasks.add_task(read, file)
        await file.close()
        return job.id

    job = client.post("/", files={"file": content(size)}).json()
    assert read.handle(job).result_sync(timeout=10) == hashlib.sha256(content(size)).hexdigest()


class Breaks(io.BytesIO):
    """A file that can only be read up to its third chunk."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() >= 2 * CHUNK_BYTES:
            raise OSError("the disk is broken")
        return super().read(size)


def test_a_file_that_cannot_be_read_when_it_is_stored_fails_the_request(
    app: FastAPI,
    client: TestClient,
    tasks: Afterward,
    stored: Callable[[], list[Row]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """500, and the log says why: it is no fault of the client's."""

    @tasks.task
    async def read(file: UploadFile) -> None: ...

    @app.post("/")
    async def endpoint(background_tasks: BackgroundTasks) -> None:
        background_tasks.add_task(read, UploadFile(Breaks(content(4 * CHUNK_BYTES))))

    assert client.post("/").status_code == 500
    assert stored() == []
    assert "the disk is broken" in caplog.text


async def test_a_file_of_another_kind_is_read_as_it_reads(tasks: Afterward) -> None:
    """A compressed one, whose descriptor leads to other bytes than it reads."""

    @tasks.task
    async def read(file: UploadFile) -> bytes:
        return await file.read()

    async with tasks.running(WorkerOptions()):
        with tempfile.TemporaryFile() as packed:
            packed.write(gzip.compress(TEXT))
            packed.seek(0)
            with gzip.GzipFile(fileobj=packed) as file:
                file.read(2)
                jobs = await asyncio.gather(*(read.enqueue(UploadFile(cast("BinaryIO", file))) for _ in range(3)))
                assert file.tell() == 2
        assert await tasks.results(jobs, timeout=10) == [TEXT] * 3


async def test_a_file_opened_as_text_is_refused(tasks: Afterward) -> None:
    """Its characters are not its content."""

    @tasks.task
    async def read(file: UploadFile) -> None: ...

    with pytest.raises(ArgumentError, match="argument 'file'"):
        await read.enqueue(UploadFile(cast("BinaryIO", io.StringIO("text"))))


class Form(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    file: UploadFile


@pytest.mark.parametrize("kind", [UploadFile, StarletteUploadFile], ids=["fastapi", "starlette"])
def test_a_file_anywhere_else_is_refused_with_the_mend(tasks: Afterward, kind: type[Any]) -> None:
    """Inside a model, a dict or a parameter annotated otherwise."""
    mend = "annotated UploadFile, UploadFile | None or list[UploadFile]"

    @tasks.task
    async def by_model(form: Form) -> None: ...

    @tasks.task
    async def by_dict(form: dict[str, Any]) -> None: ...

    @tasks.task
    async def by_anything(file: Any) -> None: ...

    file = kind(io.BytesIO(TEXT))
    with pytest.raises(ArgumentError) as refused:
        by_anything.prepare(file)
    assert "argument 'file'" in str(refused.value)
    assert mend in str(refused.value)
    with pytest.raises(ArgumentError) as refused:
        by_dict.prepare({"file": file})
    assert mend in str(refused.value)
    with pytest.raises(ArgumentError) as refused:
        by_model.prepare(Form(file=upload()))
    assert mend in str(refused.value)


def test_an_annotation_with_a_file_too_deep_inside_is_refused_at_the_declaration(tasks: Afterward) -> None:
    @tasks.task
    async def by_name(**files: StarletteUploadFile) -> None: ...

    with pytest.raises(TaskError, match="argument 'files' is annotated"):
        by_name.arguments.check()


@pytest.mark.parametrize("value", ["a path", b"bytes", {"file": "an id"}, [upload()], 3])
def test_what_is_no_file_is_refused(tasks: Afterward, value: Any) -> None:
    """Also what looks like that which is stored of one."""

    @tasks.task
    async def read(file: UploadFile) -> None: ...

    with pytest.raises(ArgumentError, match="argument 'file"):
        read.prepare(value)


def test_what_is_stored_of_a_file_cannot_be_given_in_its_place(tasks: Afterward) -> None:
    """A client that knows the id of another's file gets nothing for it."""

    @tasks.task
    async def read(file: UploadFile | dict[str, Any]) -> None: ...

    forged: dict[str, Any] = {"file": "id", "filename": None, "size": 1, "headers": [], "exact": None}
    with pytest.raises(ArgumentError):
        read.prepare(forged)


# When the store fails


def test_when_the_content_cannot_be_stored_the_client_is_told_so(
    tasks_with: Callable[..., Afterward], database: Path
) -> None:
    """503, as for any task; and no request waits for ever."""
    tasks = tasks_with(store=SQLiteStore(database, patience=0.2))

    @tasks.task
    async def read(file: UploadFile) -> int:
        return len(await file.read())

    with served_by(tasks) as (app, client):

        @app.post("/")
        async def endpoint(file: UploadFile, background_tasks: BackgroundTasks) -> str:
            return background_tasks.add_task(read, file).id

        client.post("/", files={"file": TEXT})
        with locked(database):
            assert client.post("/", files={"file": TEXT}).status_code == 503
            with pytest.raises(StoreUnavailable):
                read.enqueue_sync(upload())
        job = client.post("/", files={"file": TEXT})
        assert job.status_code == 200
        assert read.handle(job.json()).result_sync(timeout=10) == len(TEXT)


async def test_what_a_failed_request_has_stored_is_freed(tasks_with: Callable[..., Afterward], database: Path) -> None:
    """As what a refused one, or one that was cancelled in the middle: the next heartbeat sees that nobody wants it.

    Also in a process that runs no jobs.
    """
    tasks = tasks_with(lease=1.0)

    @tasks.task
    async def read(file: UploadFile) -> None: ...

    async with tasks.running(None):
        with pytest.raises(ArgumentError, match="the disk is broken"):
            await read.enqueue(UploadFile(Breaks(content(4 * CHUNK_BYTES))))
        assert chunks_on_disk(database) > 0
        await soon(lambda: chunks_on_disk(database) == 0)


class Slow(io.BytesIO):
    """A file whose reading can be waited for."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.is_read = threading.Event()
        self.may_go_on = threading.Event()

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() >= 2 * CHUNK_BYTES:
            self.is_read.set()
            self.may_go_on.wait(30)
        return super().read(size)


async def test_what_was_being_stored_when_it_was_cancelled_is_freed(
    tasks_with: Callable[..., Afterward], database: Path
) -> None:
    """The client has gone, say: nobody was told that the job is stored, and it is not."""
    tasks = tasks_with(lease=1.0)

    @tasks.task
    async def read(file: UploadFile) -> None: ...

    file = Slow(content(4 * CHUNK_BYTES))
    async with tasks.running(None):
        storing = asyncio.ensure_future(read.enqueue(UploadFile(file)))
        await soon(file.is_read.is_set)
        assert chunks_on_disk(database) == 2
        storing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await storing
        file.may_go_on.set()
        assert await tasks.list() == []
        await soon(lambda: chunks_on_disk(database) == 0)


async def test_what_is_being_stored_for_long_is_not_taken_for_unwanted(
    tasks_with: Callable[..., Afterward], database: Path
) -> None:
    """A client that sends slowly outlasts many a heartbeat."""
    tasks = tasks_with(lease=0.5)

    @tasks.task
    async def read(file: UploadFile) -> None: ...

    file = Slow(content(4 * CHUNK_BYTES))
    storing = asyncio.ensure_future(read.enqueue(UploadFile(file)))
    await soon(file.is_read.is_set)
    [beats] = heartbeats(database).values()
    await soon(lambda: heartbeats(database).popitem()[1] >= beats + 3)
    file.may_go_on.set()
    await storing
    assert chunks_on_disk(database) == 5


@pytest.mark.parametrize("way", ["request", "enqueue"])
def test_what_was_freed_before_its_job_was_stored_is_stored_again(
    app: FastAPI, client: TestClient, tasks: Afterward, database: Path, way: str
) -> None:
    """This process was taken for dead in between, say; another one has freed what it had stored."""

    @tasks.task
    async def read(file: UploadFile) -> int:
        return len(await file.read())

    @app.post("/")
    async def endpoint(file: UploadFile, background_tasks: BackgroundTasks) -> str:
        return background_tasks.add_task(read, file).id

    freed: list[str] = []

    def free() -> None:
        if not freed and chunks_on_disk(database) == 3:
            connection = apsw.Connection(str(database))
            connection.set_busy_timeout(5000)
            connection.execute("UPDATE files SET chunks = NULL; DELETE FROM chunks WHERE number = 0")
            connection.close()
            freed.append("once")

    size = 2 * CHUNK_BYTES + 1
    with armed("after_chunk", free):
        if way == "request":
            job = read.handle(client.post("/", files={"file": content(size)}).json())
        else:
            job = read.enqueue_sync(upload(content(size)))
    assert job.result_sync(timeout=10) == size
    assert freed == ["once"]


async def test_the_content_is_freed_soon_after_the_job_has_succeeded(
    tasks_with: Callable[..., Afterward], database: Path
) -> None:
    """Nobody can run it again; that of one that failed stays, for a person may have it tried again."""
    tasks = tasks_with(lease=1.0)
    broken = [True]

    @tasks.task(max_attempts=1)
    async def read(file: UploadFile) -> int:
        if broken:
            raise OSError
        return len(await file.read())

    async with tasks.running(WorkerOptions()):
        job = await read.enqueue(upload(content(3 * CHUNK_BYTES)))
        with pytest.raises(JobFailed):
            await job.result(timeout=10)
        broken.clear()
        assert chunks_on_disk(database) == 4
        await tasks.retry(job.id)
        assert await job.result(timeout=10) == 3 * CHUNK_BYTES
        await soon(lambda: chunks_on_disk(database) == 0)


# Names


names = st.one_of(
    st.none(),
    st.text(st.characters(codec=None, exclude_categories=()), max_size=60),
    st.sampled_from(["", ".", "..", "../../etc/passwd", "/etc/passwd", "C:\\x", "a\0b", "\u202etxt.exe", "x" * 10_000]),
    st.lists(st.sampled_from(["..", "/", "\\", "\0", "\ud800", "\udfff\ud800", "\u202e", "é", "\n"])).map("".join),
)
types = st.one_of(st.sampled_from(["", "text/plain; charset=utf-8", "a/b;c=\"d\\\"\"", "\xff"]), st.text(
    st.characters(max_codepoint=255), max_size=40
))  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(name=names, type_=types, size=st.one_of(st.none(), st.integers(0, 2**40)))
def test_any_name_and_type_comes_back_as_it_was(name: str | None, type_: str, size: int | None) -> None:
    """Whatever a client has sent; lone surrogates too, that no store keeps."""

    async def read(file: UploadFile) -> None: ...

    task = Afterward("sqlite:////nowhere/jobs.db", max_file_bytes=2**50).task(name="read")(read)
    job = task.prepare(upload(b"", name, type_, size=size))
    assert job.arguments.encode()
    (), arguments = task.arguments.load(job.arguments)
    again = give(arguments["file"], io.BytesIO(), 0)
    assert (again.filename, again.content_type) == (name, type_)
    assert [file.id for file in job.files] == [arguments["file"].file]


_HOSTILE = [
    "../../../tmp/afterward-hostile",
    "/tmp/afterward-hostile",
    "afterward-hostile\0",
    "\ud800afterward-hostile",
]
_opened: list[str] = []
_listening = [False]


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if _listening[0] and event.startswith(("open", "os.", "shutil.", "tempfile.", "pathlib.")):
        _opened.append(repr(args))


sys.addaudithook(_hear)


@pytest.mark.parametrize("name", _HOSTILE)
async def test_the_name_never_touches_the_file_system(tasks: Afterward, name: str) -> None:
    """Python is asked for everything that is opened, made or removed meanwhile: some files are, none by that name."""

    @tasks.task
    def read(file: UploadFile) -> str:
        file.file.read()
        return repr(file.filename)

    _opened.clear()
    _listening[0] = True
    try:
        async with tasks.running(WorkerOptions()):
            job = await read.enqueue(upload(content(IN_MEMORY_BYTES + 1), name))
            assert await job.result(timeout=10) == repr(name)
    finally:
        _listening[0] = False
    assert _opened
    assert not [args for args in _opened if "hostile" in args]


# Memory


_LARGE = """
    import asyncio, hashlib, resource, sys, tempfile
    from fastapi import UploadFile
    from afterward import Afterward
    from afterward.engine.worker import WorkerOptions

    tasks = Afterward(f"sqlite:///{sys.argv[1]}/large.db")

    @tasks.task(name="digest")
    async def digest(file: UploadFile) -> str:
        found = hashlib.sha256()
        while data := await file.read(65536):
            found.update(data)
        return found.hexdigest()

    async def send(mebibytes):
        with tempfile.TemporaryFile() as file:
            expected = hashlib.sha256()
            for number in range(mebibytes):
                file.write(number.to_bytes(4, "big") * (256 * 1024))
                expected.update(number.to_bytes(4, "big") * (256 * 1024))
            job = await digest.enqueue(UploadFile(file, size=mebibytes << 20))
        assert await job.result(timeout=50) == expected.hexdigest()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    async def main():
        async with tasks.running(WorkerOptions()):
            small = await send(4)
            large = await send(64)
            print(small, large, flush=True)

    asyncio.run(main())
"""


def test_a_file_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    """One of 64 MiB, stored and run, needs no more than one of 4, but for what a process grows by anyway."""
    process = run_aside(dedent(_LARGE), tmp_path)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    small, large = map(int, output.split())
    assert large - small < 8 * 1024, f"{large - small} KiB more"
