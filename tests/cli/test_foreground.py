"""`afterward run`: one job in this process, before the eyes of a person."""

import re
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest

from afterward.cli.foreground import why_not_now
from afterward.cli.wishes import SAME_WISH_SECONDS
from afterward.identity import new_id
from afterward.job import Failed, Failure, Job, NewJob, Status
from tests.cli.conftest import AFTERWARD, Command, OnTerminal, World
from tests.support.lock import held
from tests.support.waiting import wait_until

OOPS = Failed(Failure("OopsError", "it did not work"))


def later(world: World, task: str, arguments: str = "{}", **more: float) -> str:
    """A job that no worker would run today."""
    [id_] = world.enqueue_all(NewJob(new_id(), f"shop:{task}", "default", 0, arguments, delay=36_000.0, **more))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - said by the test
    return id_


def interrupted(world: World, command: Command | OnTerminal, job: str) -> Job:
    """Press Ctrl-C, see it end; what became of the job."""
    command.send(signal.SIGINT)
    assert command.wait(20) == 1
    return world.job(job)


def test_that_job_alone_is_run_and_its_output_is_seen(world: World) -> None:
    """What it prints, and what it returns; the store has it as if a worker had run it."""
    older, job, newer = (world.enqueue("note", text=text) for text in ("a", "b", "c"))

    run = world.run("run", "shop:app", job)

    assert run.returncode == 0, run.stderr
    assert run.stdout == "noted 'b' None None\n\"b None None\"\n"
    assert run.stderr.splitlines() == [
        f"running job {job} of shop:note, attempt 1; Ctrl-C releases it",
        "succeeded",
    ]
    done = world.job(job)
    assert (done.status, done.attempt, done.result) == (Status.succeeded, 1, '"b None None"')
    assert [world.job(id_).status for id_ in (older, newer)] == [Status.queued, Status.queued]


def test_a_failure_is_shown_with_its_traceback_and_counts(world: World) -> None:
    """As in a worker: it is tried again, or it has failed for good."""
    job = later(world, "fail", '{"why":"because"}', max_attempts=2)

    first = world.run("run", "shop:tasks", job, "--now")
    assert (first.returncode, first.stdout) == (1, "")
    assert 'raise RuntimeError(f"{why} {times} {len(secret)}")' in first.stderr
    assert re.search(r"^failed: RuntimeError: because 1 13; tried again in \d+ s$", first.stderr, re.MULTILINE)
    assert (world.job(job).status, world.job(job).failures) == (Status.queued, 1)

    second = world.run("run", "shop:tasks", job[:-1], "--now")
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1] == "failed for good: RuntimeError: because 1 13"
    assert world.job(job).status == Status.failed


def test_the_debugger_opens_where_it_was_raised(world: World) -> None:
    """With the variables of that moment; the job is held meanwhile, and its end is written afterwards."""
    job = later(world, "fail", '{"why":"because"}', max_attempts=1)
    command = world.on_terminal("run", "shop:app", job, "--now", "--pdb")
    command.wait_for("(Pdb)")
    assert world.job(job).status is Status.running

    command.type("p secret")
    command.wait_for("'local because'")
    command.type("q")

    assert command.wait() == 1
    assert world.job(job).status is Status.failed


def test_whoever_leaves_a_breakpoint_releases_the_job(world: World) -> None:
    """To quit the debugger in the middle of a task is no failure of the task."""
    world.program(
        "stops", "from shop import tasks\n@tasks.task\nasync def stop() -> None:\n    breakpoint()\n    1 / 0\n"
    )
    [job] = world.enqueue_all(NewJob(new_id(), "stops:stop", "default", 0, "{}"))
    command = world.on_terminal("run", "stops:tasks", job)
    command.wait_for("(Pdb)")
    command.type("q")

    assert command.wait() == 1
    assert "released at no cost" in command.said()
    assert (world.job(job).status, world.job(job).failures) == (Status.queued, 0)


@pytest.mark.parametrize("task", ["rest", "rest_in_thread", "cling"])
def test_ctrl_c_releases_it_at_no_cost(world: World, task: str) -> None:
    """Whether it heeds it or not; and it is due again when it was due before."""
    job = later(world, task, '{"seconds":60}')
    due = world.job(job).run_at
    command = world.start("run", "shop:app", job, "--now")
    wait_until(lambda: world.lines("rested"), "it runs", 20)

    released = interrupted(world, command, job)

    assert (released.status, released.attempt, released.failures, released.deaths) == (Status.queued, 1, 0, 0)
    assert abs(released.run_at - due) < timedelta(seconds=2)
    assert released.process is None
    assert "released at no cost: interrupted in the foreground" in command.output()


def test_a_second_ctrl_c_breaks_into_what_blocks_the_loop(world: World) -> None:
    """The first one cannot be heeded there."""
    job = world.enqueue("block", seconds=60)
    command = world.start("run", "shop:app", job)
    wait_until(lambda: world.lines("rested"), "it runs", 20)
    command.send(signal.SIGINT)
    time.sleep(SAME_WISH_SECONDS * 10)  # two within a moment are one wish

    command.send(signal.SIGINT)

    assert command.wait(20) == 1
    released = world.job(job)
    assert (released.status, released.failures, released.deaths) == (Status.queued, 0, 0)


def test_a_death_is_found_as_any_other(world: World) -> None:
    """`kill -9` of who debugs: a worker queues the job again, when it was due before."""
    job = later(world, "rest", '{"seconds":60}')
    command = world.start("run", "shop:app", job, "--now")
    wait_until(lambda: world.lines("rested"), "it runs", 20)
    worker = world.start_worker()
    assert world.job(job).status is Status.running

    command.kill()

    found = world.wait_for_status(job, "queued")
    assert (found.attempt, found.deaths) == (1, 1)
    assert found.run_at > datetime.now(UTC) + timedelta(hours=9)
    worker.send()
    assert worker.wait() == 0


def test_what_follows_a_job_is_stored_with_its_end(world: World) -> None:
    """As when a worker runs it."""
    world.program(
        "hooked",
        "from afterward import EndedJob\nfrom shop import tasks\n"
        "@tasks.task\ndef tell(ended: EndedJob) -> None: ...\n"
        "@tasks.task(on_success=tell)\ndef work() -> None: ...\n",
    )
    [job] = world.enqueue_all(NewJob(new_id(), "hooked:work", "default", 0, "{}"))

    assert world.run("run", "hooked:tasks", job).returncode == 0

    assert '"task": "hooked:tell"' in world.type("jobs", "--json", "--status", "queued").output


def test_dependencies_and_the_lifespan_of_the_app_are_there(world: World) -> None:
    """As in a worker; and the worker that the app would start is not."""
    world.program("alive", ALIVE)
    ids = world.enqueue_all(*(NewJob(new_id(), "alive:work", "default", 0, "{}") for _ in range(2)))

    run = world.run("run", "alive:app", ids[0])

    assert (run.returncode, run.stdout) == (0, 'began\nclosed db\n"db at hand"\nended\n'), run.stderr
    assert [world.job(id_).status for id_ in ids] == [Status.succeeded, Status.queued]


ALIVE = """
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from fastapi import Depends, FastAPI
from afterward import Afterward

@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    print("began", flush=True)
    yield {"db": "db"}
    print("ended", flush=True)

app = FastAPI(lifespan=lifespan)
tasks = Afterward()
tasks.install(app)

def connection() -> Iterator[str]:
    yield "db"
    print("closed db", flush=True)

@tasks.task
def work(db: str = Depends(connection)) -> str:
    return f"{db} at hand"
"""


def test_arguments_that_do_not_fit_are_told(world: World) -> None:
    """The function is not called; the job is left for a version that they fit."""
    job = world.enqueue("add", m=1)

    run = world.run("run", "shop:app", job)

    assert run.returncode == 1
    assert "released at no cost: the stored arguments do not fit shop:add here: n: Field required" in run.stderr


def test_what_cannot_be_printed_is_stored_all_the_same(world: World) -> None:
    """Where the terminal does not know its characters."""
    job = world.enqueue("settings", values={"a": "é"})

    run = world.run_shell(f"PYTHONIOENCODING=ascii {AFTERWARD} run shop:app {job}")

    assert (run.returncode, run.stdout) == (0, '{\n  "a": "\\xe9"\n}\n'), run.stderr
    assert (world.job(job).status, world.job(job).attempt) == (Status.succeeded, 1)


@pytest.mark.parametrize("stream", [1, 2])
def test_an_output_that_is_full_stops_nothing(world: World, stream: int) -> None:
    """The attempt is run, and stored, once."""
    job = world.enqueue("settings", values={"a": 1})

    run = world.run_shell(f"{AFTERWARD} run shop:app {job} {stream}>/dev/full")

    assert run.returncode == 0, run.stderr
    assert (world.job(job).status, world.job(job).attempt) == (Status.succeeded, 1)


def test_a_debugger_that_breaks_loses_no_outcome(world: World) -> None:
    """As when it cannot write."""
    job = later(world, "fail", '{"why":"because"}', max_attempts=1)

    run = world.run_shell(f"{AFTERWARD} run shop:app {job} --now --pdb >/dev/full </dev/null")

    assert run.returncode == 1
    assert world.job(job).status is Status.failed


GATE = """
import asyncio
from pathlib import Path
from shop import tasks

@tasks.task
async def wait() -> str:
    Path("began").touch()
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    return "done"
"""


def waiting_at_the_gate(world: World) -> tuple[Command, str]:
    """A job that runs until there is a file `go`."""
    world.program("gate", GATE)
    [job] = world.enqueue_all(NewJob(new_id(), "gate:wait", "default", 0, "{}"))
    command = world.start("run", "gate:tasks", job)
    wait_until((world.folder / "began").exists, "it runs", 20)
    return command, job


def test_an_outcome_is_stored_when_the_store_can_take_it_again(world: World) -> None:
    """However long another program keeps it locked; the person is told."""
    command, job = waiting_at_the_gate(world)

    with held(world.database):
        (world.folder / "go").touch()
        command.wait_for("how it ended is not stored yet: .* could not be written: another process held its lock")

    assert command.wait() == 0
    assert command.output().splitlines()[-2:] == ["succeeded", '"done"']
    assert (world.job(job).result, world.job(job).attempt) == ('"done"', 1)


def test_ctrl_c_ends_the_wait_for_a_store_that_is_locked(world: World) -> None:
    """What the job came to is lost then; it is found as that of a process that died."""
    command, job = waiting_at_the_gate(world)

    with held(world.database):
        (world.folder / "go").touch()
        command.wait_for("how it ended is not stored yet: ")
        command.send(signal.SIGINT)
        assert command.wait() == 1
        assert world.job(job).status is Status.running

    assert "succeeded" not in command.output()


def test_a_job_of_another_afterward_in_the_same_store_is_run_by_that(world: World) -> None:
    """One app may have two."""
    world.program(
        "two",
        "from afterward import Afterward\nfrom shop import app\nother = Afterward()\nother.install(app)\n"
        "@other.task\ndef second() -> int: return 2\n",
    )
    job, foreign = world.enqueue_all(
        NewJob(new_id(), "two:second", "default", 0, "{}"), NewJob(new_id(), "two:third", "default", 0, "{}")
    )

    run = world.run("run", "two:app", job)
    refused = world.run("run", "two:app", foreign)

    assert (run.returncode, run.stdout) == (0, "2\n"), run.stderr
    assert refused.returncode == 1
    assert "its task two:third is not known here; known are shop:add," in refused.stderr
    assert ", two:second\n" in refused.stderr


def test_what_cannot_be_run_is_told_with_the_mend(world: World) -> None:
    """And is left as it is: one of another program, one not due, one that has failed, one that is unknown."""
    foreign, early, [failed] = world.enqueue("renamed"), later(world, "add"), world.end(OOPS, NewJob(
        new_id(), "shop:add", "default", 0, "{}"))  # fmt: skip

    said = {id_: world.run("run", "shop:app", id_).stderr for id_ in (foreign, early, failed, "0123456789")}

    assert (
        f"job {foreign} cannot be run here: its task shop:renamed is not known here; known are shop:add,"
        in said[foreign]
    )
    assert f"job {early} cannot be run here: it is due in 9 h; run it before that with --now" in said[early]
    assert f"it is failed; queue it again first: afterward retry {failed}" in said[failed]
    assert f"there is no job 0123456789 in {world.database}" in said["0123456789"]
    assert [world.job(id_).attempt for id_ in (foreign, early, failed)] == [0, 0, 1]


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, None),
        ({"run_at": NOW + timedelta(minutes=5)}, "it is due in 5 min; run it before that with --now"),
        ({"process": "web"}, "it is held by the request that added it; wait for the end of that"),
        ({"expires_at": NOW}, "it has expired"),
        ({"expires_at": NOW + timedelta(1)}, None),
        ({"status": Status.running}, "it is running; wait for its end"),
        ({"status": Status.succeeded}, "it has succeeded; to do it once more, add another: afterward enqueue"),
        ({"status": Status.cancelled}, "it is cancelled; queue it again first: afterward retry job-1"),
    ],
    ids=str,
)
def test_which_jobs_can_be_run_by_hand(facts: dict[str, object], reason: str | None) -> None:
    """Those that wait for whoever claims, and are due."""
    said: dict[str, object] = {
        "id": "job-1", "task": "shop:add", "queue": "default", "priority": 0, "status": Status.queued, "attempt": 0,
        "failures": 0, "deaths": 0, "arguments": "{}", "result": None, "failure": None, "note": None, "unique": None,
        "process": None, "created_at": NOW, "run_at": NOW, "started_at": None, "finished_at": None,
    }  # fmt: skip
    job = Job(**{**said, **facts})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - said by the test
    assert why_not_now(job, NOW, early=False) == reason
    if "run_at" in facts:
        assert why_not_now(job, NOW, early=True) is None
