"""An application whose tasks tell of each of their runs, and do what tasks should not do."""

import asyncio
import ctypes
import hashlib
import io
import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, UploadFile
from fastapi.responses import StreamingResponse

from afterward import Afterward, BackgroundTasks, EndedJob, current_job
from tests.support.effects import recorded, recorded_as
from tests.support.insides import would_lease
from tests.support.ticking import Ticker

VERSION = int(os.environ.get("APP_VERSION", "1"))

BROKER = os.environ.get("APP_BROKER")

tasks = Afterward(
    lease=float(os.environ.get("APP_LEASE", "10")), keep=float(os.environ.get("APP_KEEP", "86400")), celery=BROKER
)
app = FastAPI()
if int(os.environ.get("APP_INSTALLED", "1")):
    tasks.install(
        app,
        worker=bool(int(os.environ.get("APP_WORKER", "1"))),
        concurrency=int(os.environ.get("APP_CONCURRENCY", "100")),
        threads=int(os.environ.get("APP_THREADS", "16")),
        grace=float(os.environ.get("APP_GRACE", "10")),
        children=int(os.environ.get("APP_CHILDREN", "2")),
    )


# Tasks that behave.


@tasks.task(backoff=0.05)
async def quick(key: str) -> str:
    with recorded(key):
        return key


@tasks.task(backoff=0.05)
def quick_thread(key: str) -> str:
    with recorded(key):
        return key


@tasks.task(backoff=0.05)
async def slow(key: str, seconds: float) -> None:
    with recorded(key):
        await asyncio.sleep(seconds)


@tasks.task(backoff=0.05)
def slow_thread(key: str, seconds: float) -> None:
    with recorded(key):
        time.sleep(seconds)


@tasks.task(backoff=0.05)
async def slow_at_first(key: str, seconds: float) -> None:
    with recorded(key):
        if current_job().attempt == 1:
            await asyncio.sleep(seconds)


@tasks.task(backoff=0.05)
def slow_at_first_thread(key: str, seconds: float) -> None:
    with recorded(key):
        if current_job().attempt == 1:
            time.sleep(seconds)


@tasks.task(backoff=0.05)
async def fails_at_first(key: str, seconds: float) -> None:
    with recorded(key):
        await asyncio.sleep(seconds)
        if current_job().attempt == 1:
            raise OSError("not yet")


@tasks.task(backoff=0.05)
async def tells(key: str) -> AsyncIterator[int]:
    """Counts; without end at first."""
    with recorded(key):
        for number in itertools.count() if current_job().attempt == 1 else range(50):
            yield number
            await asyncio.sleep(0.005)


@tasks.task(backoff=0.05)
def tells_thread(key: str) -> Iterator[int]:
    with recorded(key):
        for number in itertools.count() if current_job().attempt == 1 else range(50):
            yield number
            time.sleep(0.005)


@tasks.task
async def follows(ended: EndedJob) -> None:
    with recorded(f"after {ended.arguments['key']}"):
        pass


@tasks.task(on_success=follows)
async def followed(key: str) -> None:
    with recorded(key):
        pass


@tasks.task(backoff=0.05)
async def digest(key: str, seconds: float, file: UploadFile) -> str:
    """Slow at first; then it reads its file, and answers what it contains."""
    with recorded(key):
        if current_job().attempt == 1:
            await asyncio.sleep(seconds)
        found = hashlib.sha256()
        while data := await file.read(65_536):
            found.update(data)
        return found.hexdigest()


@tasks.task
async def exits_with_a_file(key: str, file: UploadFile) -> str:
    """It takes its process with it twice, and then, in a child process, reads its file."""
    with recorded(key):
        if current_job().attempt < 3:
            os._exit(0)
        return hashlib.sha256(await file.read()).hexdigest()


# Tasks that do not.


@tasks.task
async def exits(key: str, seconds: float) -> None:
    with recorded(key):
        await asyncio.sleep(seconds)
        os._exit(0)


@tasks.task
def segfaults(key: str, seconds: float) -> None:
    with recorded(key):
        time.sleep(seconds)
        ctypes.string_at(0)


@tasks.task
async def kills_itself(key: str, seconds: float) -> None:
    with recorded(key):
        await asyncio.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)


@tasks.task(timeout=0.3, max_attempts=1)
async def exits_twice(key: str) -> None:
    with recorded(key):
        if current_job().attempt < 3:
            os._exit(1)


@tasks.task(timeout=0.3, max_attempts=2, backoff=0.05)
async def never_ends(key: str) -> None:
    with recorded(key):
        await asyncio.Event().wait()


@tasks.task(timeout=0.3, max_attempts=1)
def ends_late(key: str, seconds: float) -> None:
    with recorded(key):
        time.sleep(seconds)


@tasks.task(timeout=0.3, max_attempts=1)
async def hears_nothing(key: str, seconds: float) -> None:
    with recorded(key):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                await asyncio.sleep(until - time.monotonic())
            except asyncio.CancelledError:
                continue


@tasks.task
async def blocks_the_loop(key: str, seconds: float) -> None:
    with recorded(key):
        time.sleep(seconds)  # noqa: ASYNC251 - this is its fault


@tasks.task
def holds_the_interpreter(key: str, seconds: float) -> None:
    with recorded(key):
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))  # PyDLL keeps the lock that all threads need


@tasks.task(executor="process", backoff=0.05)
def quick_process(key: str) -> None:
    with recorded(key):
        pass


@tasks.task(executor="process", backoff=0.05)
def slow_at_first_process(key: str, seconds: float) -> None:
    with recorded(key):
        if current_job().attempt == 1:
            time.sleep(seconds)


@tasks.task(executor="process")
def holds_its_process(key: str) -> None:
    """At first: in C, without letting go of the interpreter, while a program that it has started goes on."""
    if current_job().attempt > 1:
        with recorded(key):
            return
    with subprocess.Popen(["sleep", "600"]), recorded(key):
        ctypes.PyDLL(None).sleep(600)


# Tasks that a Celery fleet runs.

if BROKER:
    celery_app = tasks.celery
    celery_app.conf.update(json.loads(os.environ.get("APP_CELERY", "{}")))

    @tasks.task(executor="celery", backoff=0.05)
    def slow_fleet(key: str, seconds: float = 0.0) -> str:
        with recorded(key):
            time.sleep(seconds)
            return key

    @tasks.task(executor="celery", backoff=0.05)
    def waits_fleet(key: str, until: str) -> str:
        """Until there is this file."""
        with recorded(key):
            while not Path(until).exists():
                time.sleep(0.005)
            return key

    @tasks.task(executor="celery", backoff=0.05)
    async def slow_fleet_async(key: str, seconds: float = 0.0) -> str:
        with recorded(key):
            await asyncio.sleep(seconds)
            return key


# A task of the fleet's own, which knows nothing of the store.

_OF_AN_ID = 36

if BROKER:

    @tasks.celery.task(name="existing", shared=False)
    def existing(key: str, seconds: float = 0.0, until: str = "") -> int:
        id_ = str(existing.request.id)
        with recorded_as(id_[:_OF_AN_ID], int(id_[_OF_AN_ID + 1 :] or 1), key):
            time.sleep(seconds)
            while until and not Path(until).exists():
                time.sleep(0.005)
            return len(key)


class Strange(BaseException):
    """Not an `Exception`."""


@tasks.task(backoff=0.05)
async def raises(key: str, kind: str) -> None:
    with recorded(key):
        raise EXCEPTIONS[kind]


@tasks.task(backoff=0.05)
def raises_thread(key: str, kind: str) -> None:
    with recorded(key):
        raise EXCEPTIONS[kind]


@tasks.task(backoff=0.05, timeout=30)
async def raises_timed(key: str, kind: str) -> None:
    with recorded(key):
        raise EXCEPTIONS[kind]


@tasks.task(backoff=0.05, timeout=30)
def raises_thread_timed(key: str, kind: str) -> None:
    with recorded(key):
        raise EXCEPTIONS[kind]


@tasks.task(timeout=0.1, max_attempts=1)
async def exits_too_late(key: str, seconds: float) -> None:
    with recorded(key):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(until - time.monotonic())
    raise SystemExit


EXCEPTIONS: dict[str, BaseException] = {
    "Strange": Strange("strange"),
    "SystemExit": SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "CancelledError": asyncio.CancelledError(),
    "GeneratorExit": GeneratorExit(),
    "StopIteration": StopIteration(),
}


@tasks.task
async def returns_what_cannot_be_stored(key: str) -> object:
    with recorded(key):
        return asyncio.get_running_loop()


# A task that changes from one version of the application to the next. In the second it is gone.

if VERSION == 1:

    @tasks.task(name="report")
    async def report(key: str) -> None:
        with recorded(key):
            pass


if VERSION == 3:

    @tasks.task(name="report")
    async def report_sized(key: str, size: int) -> None:
        with recorded(key):
            pass


if VERSION == 4:

    @tasks.task(name="report")
    async def report_mended(key: str, size: int = 0) -> None:
        with recorded(key):
            pass


# Requests.


def _task(name: str) -> Any:
    if name == "existing":
        return existing
    return tasks.tasks[name if name in tasks.tasks else f"{__name__}:{name}"]


def _add(background_tasks: BackgroundTasks, names: str, key: str, request: Request, *, query: set[str]) -> list[str]:
    """Add the named tasks, each with the options of the request that it has a parameter for."""
    several = "+" in names
    handles: list[str] = []
    for number, name in enumerate(names.split("+")):
        task = _task(name)
        arguments: dict[str, Any] = {"key": f"{key}-{number}" if several else key}
        for option, kind in (("seconds", float), ("kind", str), ("until", str)):
            if option in query and option in getattr(task, "function", task).__annotations__:
                arguments[option] = kind(request.query_params[option])
        if "delay" in query:
            task = task.options(delay=float(request.query_params["delay"]))
        if "expires" in query:
            task = task.options(expires=float(request.query_params["expires"]))
        handles.append(background_tasks.add_task(task, **arguments).id)
    return handles


@app.get("/health")
async def health() -> str:
    return "well"


ticker = Ticker()


@app.get("/ticking")
async def tick_on(seconds: float) -> None:
    """Have the loop watched for so long."""
    watching = ExitStack()
    watching.enter_context(ticker.ticking())
    asyncio.get_running_loop().call_later(seconds, watching.close)


@app.get("/longest")
async def longest() -> dict[str, float]:
    return {"seconds": ticker.longest}


@app.get("/leasing")
async def leasing() -> None:
    """Answers once a job of a request would be leased to the worker here."""
    while not would_lease(tasks):  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(0.005)


@app.post("/jobs/{names}", status_code=202)
async def add(names: str, key: str, request: Request, background_tasks: BackgroundTasks) -> dict[str, list[str]]:
    return {"jobs": _add(background_tasks, names, key, request, query=set(request.query_params))}


@app.post("/held/{names}", status_code=202)
async def add_held(names: str, key: str, request: Request, background_tasks: BackgroundTasks) -> StreamingResponse:
    """The same, with an answer of unknown length: its jobs are held, and not leased at once."""
    jobs = _add(background_tasks, names, key, request, query=set(request.query_params))

    async def body() -> AsyncIterator[bytes]:
        yield json.dumps({"jobs": jobs}).encode()

    return StreamingResponse(body(), status_code=202, media_type="application/json")


@app.post("/keyed/{names}", status_code=202, dependencies=[Depends(tasks.idempotent())])
async def add_once(
    names: str, key: str, request: Request, background_tasks: BackgroundTasks, until: str = ""
) -> dict[str, list[str]]:
    """The same, for a request that may be sent again. It thinks until there is this file."""
    while until and not Path(until).exists():  # noqa: ASYNC110, ASYNC240 - a test makes it
        await asyncio.sleep(0.005)
    return {"jobs": _add(background_tasks, names, key, request, query=set(request.query_params))}


async def slow_exit(linger: float = 0) -> AsyncIterator[None]:
    yield
    await asyncio.sleep(linger)


@app.post("/lingering/{names}", status_code=202)
async def add_and_linger(
    names: str,
    key: str,
    request: Request,
    background_tasks: BackgroundTasks,
    _: Annotated[None, Depends(slow_exit)],
) -> dict[str, list[str]]:
    """The same, and its request is over only after `linger` seconds, when a dependency has exited."""
    return {"jobs": _add(background_tasks, names, key, request, query=set(request.query_params))}


def content_of(key: str, mebibytes: float) -> bytes:
    """The file that is uploaded with a key: no two are the same, nor two chunks of one."""
    size = int(mebibytes * 2**20)
    return b"".join(f"{key} {number:>8}\n".encode() for number in range(size // (len(key) + 10) + 1))[:size]


@app.post("/files/{name}", status_code=202)
async def add_file(
    name: str, key: str, mebibytes: float, background_tasks: BackgroundTasks, seconds: float = 0
) -> dict[str, list[str]]:
    """Add a task with a file, as if it had been uploaded."""
    file = UploadFile(io.BytesIO(content_of(key, mebibytes)), filename="../../etc/passwd")
    if name == "digest":
        return {"jobs": [background_tasks.add_task(digest, key, seconds, file).id]}
    return {"jobs": [background_tasks.add_task(exits_with_a_file, key, file).id]}


app.include_router(tasks.router(public=True, prefix="/seen"))


@app.get("/stream")
async def stream(seconds: float) -> StreamingResponse:
    async def body() -> AsyncIterator[bytes]:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            yield b"tick\n"
            await asyncio.sleep(0.05)

    return StreamingResponse(body(), media_type="text/plain")


@app.post("/cancel/{job}")
async def cancel(job: str) -> str:
    return (await tasks.cancel(job)).value


@app.get("/status/{job}")
async def status(job: str) -> dict[str, Any]:
    found = await tasks.get(job)
    return {"status": found.status if found else None, "note": found.note if found else None}
