"""The lifespan of the app in a worker process: what the app sets up for its requests is there for its tasks."""

import signal

import pytest

from afterward.identity import new_id
from afterward.job import NewJob
from tests.cli.conftest import World
from tests.support.waiting import wait_until

PROGRAM = """
import asyncio, os
from contextlib import asynccontextmanager
from typing import Annotated
from fastapi import APIRouter, Depends, FastAPI
from starlette.datastructures import State
from afterward import Afterward, current_job, lifespan_state

def note(line):
    with open("noted", "a") as file:
        file.write(f"{line}\\n")

@asynccontextmanager
async def lifespan(app):
    note("startup")
    if os.environ.get("FAILS") == "startup":
        raise LookupError("no such host")
    app.state.name = "the app's"
    try:
        yield {"pool": "the pool"}
    finally:
        note("shutdown")
    if os.environ.get("FAILS") == "shutdown":
        raise LookupError("still in use")

@asynccontextmanager
async def of_router(app):
    yield {"mail": "the mail"}

app = FastAPI(title="Shop", lifespan=lifespan)
tasks, others = Afterward(), Afterward()
tasks.install(app)
others.install(app)
app.include_router(APIRouter(lifespan=of_router))

def get_pool(state: Annotated[State, Depends(lifespan_state)]):
    yield state.pool
    note("given back")

@tasks.task
def tell(pool: Annotated[str, Depends(get_pool)], state: State = Depends(lifespan_state)) -> str:
    return f"{pool}, {state.mail}, {app.state.name}"

@tasks.task
def crash_twice(pool: Annotated[str, Depends(get_pool)]) -> str:
    if current_job().attempt <= 2:
        os._exit(9)
    note(f"child of {os.getppid()}")
    return pool

@tasks.task
async def rest() -> None:
    note("rests")
    await asyncio.sleep(60)

@others.task
def nothing() -> None: ...
"""


def enqueue(world: World, task: str) -> str:
    """Store a job of the program; its id."""
    return world.enqueue_all(NewJob(new_id(), f"living:{task}", "default", 0, "{}"))[0]


@pytest.fixture(autouse=True)
def program(world: World) -> None:
    """A module with an app, whose lifespan notes that it begins and ends."""
    world.program("living", PROGRAM)


@pytest.mark.parametrize("target", ["living:app", "living:tasks"])
def test_it_begins_before_the_first_job_and_ends_after_the_last(world: World, target: str) -> None:
    """Of the app that the target is, or is installed on; once, and without the worker that `install` adds to it."""
    job = enqueue(world, "tell")
    worker = world.start_worker(target=target)

    assert world.wait_for_status(job, "succeeded").result == '"the pool, the mail, the app\'s"'
    worker.send()

    assert worker.wait() == 0
    assert world.lines("noted") == ["startup", "given back", "shutdown"]
    assert worker.output().count("worker.started") == (2 if target == "living:app" else 1)


def test_one_that_fails_at_start_up_ends_the_worker(world: World) -> None:
    """With exit code 1, for it may work another time; where it failed is shown, and the last line sums it up."""
    world.environment["FAILS"] = "startup"

    run = world.run("worker", "living:app")

    assert run.returncode == 1
    assert 'raise LookupError("no such host")' in run.stderr
    assert run.stderr.splitlines()[-1] == (
        "afterward: the lifespan of the app 'Shop' failed at start-up: LookupError: no such host"
    )
    assert "worker.started" not in run.stderr


def test_one_that_fails_at_shutdown_is_told(world: World) -> None:
    """What had run has run all the same."""
    world.environment["FAILS"] = "shutdown"
    job = enqueue(world, "tell")
    worker = world.start_worker(target="living:app")
    world.wait_for_status(job, "succeeded")
    worker.send()

    assert worker.wait() == 1
    assert worker.output().splitlines()[-1] == (
        "afterward: the lifespan of the app 'Shop' failed at shutdown: LookupError: still in use"
    )


def test_a_second_signal_does_not_keep_it_from_ending(world: World) -> None:
    """Running jobs are released at once; what the app has set up is still taken down."""
    enqueue(world, "rest")
    worker = world.start_worker("--grace", "600", target="living:app")
    wait_until(lambda: "rests" in world.lines("noted"), "it runs")

    worker.send()
    worker.wait_for(r"worker\.stopping")
    wait_until(lambda: "worker.hurrying" in worker.output() or worker.send(), "it heeds another signal")

    assert worker.wait() == 0
    assert world.lines("noted") == ["startup", "rests", "shutdown"]


def test_a_suspect_has_its_dependencies_in_its_child_process(world: World) -> None:
    """With the state of the lifespan, which is run there too where the task asks for it."""
    job = enqueue(world, "crash_twice")
    for _ in range(2):
        worker = world.start_worker(target="living:app")
        assert worker.wait() == 9
    worker = world.start_worker(target="living:app")
    done = world.wait_for_status(job, "succeeded")
    worker.send()

    assert worker.wait() == 0
    assert (done.attempt, done.deaths, done.result) == (3, 2, '"the pool"')
    # Two workers that died had begun; the third began and ended, and the child while it ran.
    assert world.lines("noted") == ["startup"] * 4 + [f"child of {worker.pid}", "given back", "shutdown", "shutdown"]


SIGNALLED = """
import asyncio, signal, sys
from contextlib import asynccontextmanager
from fastapi import FastAPI
from afterward import Afterward

STANDARD = {standard}
if STANDARD:
    sys.modules["uvloop"] = None

def tell(*words):
    print(*words, flush=True)

@asynccontextmanager
async def lifespan(app):
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, tell, "heard", type(loop).__module__)
    yield

app = FastAPI(lifespan=lifespan)
tasks = Afterward()
tasks.install(app)

@tasks.task
def nothing() -> None:
    pass
"""


@pytest.mark.parametrize(("loop", "standard"), [("uvloop", False), ("asyncio", True)])
def test_signals_that_the_app_listens_for_reach_it(world: World, loop: str, standard: bool) -> None:
    """On either loop, and those that end the worker do that all the same."""
    world.program("signalled", SIGNALLED.format(standard=standard))
    worker = world.start("worker", "signalled:app")
    worker.wait_for(r"worker\.started")

    worker.send(signal.SIGUSR1)
    worker.wait_for(f"heard {loop}")
    worker.send(signal.SIGUSR1)
    worker.wait_for(f"heard {loop}", 2)
    worker.send()

    assert worker.wait() == 0
