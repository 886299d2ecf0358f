"""`afterward doctor`: what is wrong or risky, and the mend."""

import json
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apsw
import pytest

from afterward.cli.doctor import database, life, place, versions
from afterward.cli.doctor.finding import Finding, Level
from afterward.identity import new_id
from afterward.job import NewJob, Succeeded
from afterward.stores.base import COUNTED, Schema
from afterward.stores.sqlite.checkup import Checkup, Joined, Trial, trial
from afterward.stores.sqlite.looks import Space
from afterward.stores.sqlite.stats import Waits
from tests.cli.conftest import World
from tests.support.lock import held
from tests.support.waiting import wait_until

Levels = dict[str, str]


def new(task: str = "add", queue: str = "default", **more: Any) -> NewJob:
    return NewJob(new_id(), f"shop:{task}", queue, 0, '{"n":1}', **more)


def examined(world: World, *typed: str) -> tuple[int, list[dict[str, str]]]:
    """The exit code of `afterward doctor --json`, and what it found."""
    run = world.run("doctor", "--json", *typed)
    assert run.stdout, run.stderr
    found = json.loads(run.stdout)
    findings: list[dict[str, str]] = found["findings"]
    by_level = [[f for f in findings if f["level"] == level] for level in ("problem", "warning")]
    assert [found["problems"], found["warnings"]] == [len(some) for some in by_level]
    assert all(f["fix"] for some in by_level for f in some)
    return run.returncode, findings


def of(findings: Iterable[dict[str, str]], subject: str) -> dict[str, str]:
    """The one finding on this subject."""
    [found] = [finding for finding in findings if finding["subject"] == subject]
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_healthy_store_that_is_served_has_no_problem(world: World) -> None:
    """Each thing looked at is named; with a program, its tasks and endpoints too."""
    world.end(Succeeded(), new())
    worker = world.start_worker()
    wait_until(lambda: joined_and_waiting(world), "it waits for jobs", 20)

    code, found = examined(world, "shop:app")

    assert code == 0
    assert [f for f in found if f["level"] == "problem"] == []
    subjects = {f["subject"] for f in found}
    assert subjects >= {
        "Python", "SQLite", "fastapi", "starlette", "pydantic", "apsw", "tasks", "endpoints", "store", "schema",
        "integrity", "journal", "lock", "log", "size", "processes", "waiting", "clock", "file system", "folder",
        "permissions", "disk", "commits",
    }  # fmt: skip
    assert of(found, "processes")["said"] == "1 process lives, and runs jobs"
    assert of(found, "endpoints")["level"] == "ok"
    worker.send()
    assert worker.wait() == 0
    assert "process.died" not in worker.output()


def joined_and_waiting(world: World) -> bool:
    checkup = Checkup(world.database)
    try:
        return any(process.serves for process in checkup.joined())
    finally:
        checkup.close()


def test_people_read_lines_with_a_sum(world: World) -> None:
    """The mend stands under what it mends; what is only risky is an error if somebody wants it so."""
    world.end(Succeeded(), new())

    run = world.run("doctor")
    assert run.returncode == 0, run.stdout
    assert f"ok       store              {world.database}\n" in run.stdout
    assert "warning  processes          no process has joined this store\n" in run.stdout
    assert " fix: start the app or a worker: until then, jobs wait\n" in run.stdout
    assert run.stdout.splitlines()[-1].startswith("0 problems, ")
    assert world.run("doctor", "--strict").returncode == 1


def test_nothing_is_changed_by_looking(world: World) -> None:
    """Neither a store at rest, nor the log of one whose process has died; and none is made."""
    before = files(world.folder)
    code, found = examined(world)
    assert code == 1
    assert of(found, "store")["said"] == f"there is no store at {world.database}"
    assert files(world.folder) == before

    world.end(Succeeded(), new())
    before = files(world.folder)
    assert examined(world)[0] == 0
    assert files(world.folder) == before

    worker = world.start_worker()
    world.wait_for_status(world.enqueue("add", n=1), "succeeded")
    worker.kill()
    before = files(world.folder)
    assert (
        of(examined(world)[1], "processes")["said"].split(" (")[0] == f"process {worker.pid} on {os.uname().nodename}"
    )
    after = files(world.folder)
    del before[f"{world.database}-shm"], after[f"{world.database}-shm"]  # the memory that readers share, not data
    assert after == before
    assert len(before[f"{world.database}-wal"]) > 0


def test_jobs_that_nobody_takes_are_a_problem(world: World) -> None:
    """No worker; none that knows the task; arguments that fit nobody."""
    world.enqueue_all(new("gone"), new("gone"), new("add", queue="mail"), clock_offset=-60)

    code, found = examined(world)
    assert code == 1
    late = [f["said"] for f in found if f["subject"] == "waiting"]
    assert len(late) == 2
    assert any(said.startswith("2 jobs of shop:gone, queue default: the first is due for ") for said in late)
    assert all(said.endswith("; no worker is running") for said in late)

    world.start_worker("--queue", "default")
    world.enqueue("add", m=1)
    wait_until(lambda: joined_and_waiting(world), "it waits for jobs", 20)
    waits = {f["said"]: f for f in examined(world, "shop:app")[1] if f["subject"] == "waiting"}
    levels = {said.split(": ")[0]: f["level"] for said, f in waits.items()}
    assert levels == {
        "2 jobs of shop:gone, queue default": "problem",
        "1 job of shop:add, queue mail": "warning",
        "1 job of shop:add, queue default": "warning",
    }
    assert any("the program has no such task" in said for said in waits)
    assert any("their arguments do not fit the function of a worker" in said for said in waits)


def test_a_stopped_process_is_told_from_a_dead_one(world: World) -> None:
    """By its lock, which a dead process does not keep."""
    worker = world.start_worker()
    world.wait_for_status(world.enqueue("add", n=1), "succeeded")
    os.kill(worker.pid, signal.SIGSTOP)

    stopped = of(examined(world)[1], "processes")
    assert (stopped["level"], f"process {worker.pid} " in stopped["said"]) == ("warning", True)
    assert "is alive, and has not beaten for 5 s" in stopped["said"]

    worker.kill()
    dead = of(examined(world)[1], "processes")
    assert (dead["level"], "has died; its jobs are queued again" in dead["said"]) == ("warning", True)


def test_a_lock_that_is_never_given_back_is_a_problem(world: World) -> None:
    """Nothing can be stored meanwhile."""
    world.end(Succeeded(), new())

    with held(world.database):
        code, found = examined(world)

    assert code == 1
    assert "a process has kept the lock for writing" in of(found, "lock")["said"]


def test_a_damaged_file_is_a_problem(world: World) -> None:
    """And says what to do."""
    world.end(Succeeded('"' + "x" * 20_000 + '"'), *(new() for _ in range(50)))
    size = world.database.stat().st_size
    with world.database.open("r+b") as file:
        for page in range(8, size // 4096, 2):
            file.seek(page * 4096)
            file.write(b"\xff" * 512)

    code, found = examined(world)

    assert code == 1
    damaged = [f for f in found if f["level"] == "problem" and "damaged" in f["said"]]
    assert damaged
    assert "restore it from a backup" in damaged[0]["fix"]


def test_files_that_are_no_store_are_told(world: World) -> None:
    """No database; a database of another program; one of a later version."""
    world.database.write_text("notes of somebody else, and not a database at all\n" * 100)
    assert "is not a SQLite database" in of(examined(world)[1], "store")["said"]
    world.database.unlink()
    with_table = apsw.Connection(str(world.database))
    with_table.execute("CREATE TABLE notes (text)")
    with_table.close()
    assert "is a database of another program" in of(examined(world)[1], "store")["said"]
    world.database.unlink()
    world.end(Succeeded(), new())
    newer = apsw.Connection(str(world.database))
    newer.pragma("user_version", 999)
    newer.close()
    code, found = examined(world)
    assert code == 1
    assert of(found, "schema")["said"].startswith("the file has schema 999, and this version of afterward knows ")


def test_a_program_that_would_lose_tasks_is_told(world: World) -> None:
    """Endpoints with the stock class, tasks that no child process finds, annotations that cannot be stored."""
    world.program("risky", RISKY)
    world.end(Succeeded(), new())

    code, found = examined(world, "risky:app")

    assert code == 1
    said = {f["said"]: f["level"] for f in found if f["subject"] in {"tasks", "endpoints"}}
    assert [level for text, level in said.items() if "argument 'odd' is annotated Odd" in text] == ["problem"]
    assert [level for text, level in said.items() if "risky:make.<locals>.inner cannot be found" in text] == ["warning"]
    assert [level for text, level in said.items() if "moved is not found as risky:elsewhere" in text] == ["warning"]
    assert [level for text, level in said.items() if text.startswith("/stock: fastapi.BackgroundTasks")] == ["warning"]


RISKY = """
import fastapi
from fastapi import FastAPI
from afterward import Afterward, BackgroundTasks

app = FastAPI()
tasks = Afterward()
tasks.install(app)

class Odd: ...

@tasks.task
def run(odd: Odd) -> None: ...

def make():
    @tasks.task
    def inner() -> None: ...

make()

def elsewhere() -> None: ...

moved = tasks.task(name="moved")(elsewhere)

@app.post("/stock")
def stock(background_tasks: fastapi.BackgroundTasks) -> None: ...

@app.post("/ours")
def ours(background_tasks: BackgroundTasks) -> None: ...
"""


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("raise LookupError('no such setting')", "module odd cannot be imported: LookupError: no such setting"),
        ("from fastapi import FastAPI\napp = FastAPI()", "odd:app is an app without durable tasks"),
        ("app = 1", "odd:app is of type int, not an Afterward or a FastAPI app"),
    ],
)
def test_a_program_that_cannot_work_is_a_problem(world: World, program: str, said: str) -> None:
    """With the rest looked at all the same."""
    world.program("odd", program)
    world.end(Succeeded(), new())

    code, found = examined(world, "odd:app")

    assert code == 1
    assert of(found, "program")["said"] == said
    assert of(found, "integrity")["level"] == "ok"


def test_each_store_of_a_program_is_looked_at(world: World) -> None:
    """Its own, wherever AFTERWARD_URL leads; --store says another."""
    world.end(Succeeded(), new())
    world.program("own", "from afterward import Afterward\ntasks = Afterward('sqlite:///own.db')\n"
                  "@tasks.task\ndef work() -> None: ...\n")  # fmt: skip

    assert of(examined(world, "own:tasks")[1], "store")["said"] == f"there is no store at {world.folder / 'own.db'}"
    named = examined(world, "own:tasks", "--store", f"sqlite:///{world.database}")[1]
    assert of(named, "store")["said"] == str(world.database)


# What is made of each fact.


def level(finding: Finding) -> str:
    assert finding.mend or finding.level is Level.ok
    return finding.level.value


@pytest.mark.parametrize(
    ("kind", "expected", "said"),
    [
        ("ext4", "ok", "ext4"),
        ("nfs4", "problem", "is on a network file system (nfs4)"),
        ("tmpfs", "warning", "is kept in memory (tmpfs)"),
        ("overlay", "warning", "may be in a container's own layer (overlay)"),
    ],
)
def test_file_systems(tmp_path: Path, kind: str, expected: str, said: str) -> None:
    """Where locks do not hold, where all is gone after a restart, or with the container."""
    found = place.file_system(tmp_path / "jobs.db", f"36 35 98:0 / / rw - {kind} /dev/root rw\n")
    assert (level(found), said in found.said) == (expected, True)


def test_files_that_others_may_read(tmp_path: Path) -> None:
    """Any of them: the log has the same arguments in it."""
    store, log = tmp_path / "jobs.db", tmp_path / "jobs.db-wal"
    assert level(place.permissions(store)) == "ok"
    for file in (store, log):
        file.touch(mode=0o600)
    assert level(place.permissions(store)) == "ok"
    log.chmod(0o640)
    found = place.permissions(store)
    assert (level(found), found.mend) == ("warning", f"chmod go= {log}")


def test_room_on_the_disk(tmp_path: Path) -> None:
    assert [level(place.disk(tmp_path, free << 20)) for free in (10, 200, 2_000)] == ["problem", "warning", "ok"]


def test_sizes_of_file_and_log() -> None:
    """A log that never starts over; a file that is empty for the most part."""
    assert [level(database.log(size << 20)) for size in (1, 100)] == ["ok", "warning"]
    spaces = [Space(1 << 30, 100 << 20), Space(1 << 30, 900 << 20), Space(1 << 20, 1 << 20)]
    assert [level(database.room(space)) for space in spaces] == ["ok", "warning", "ok"]


def test_schemas_and_journals() -> None:
    """Older, the same, newer; write-ahead log or not."""
    found = [database.schema(Schema(version, 2)) for version in (1, 2, 3, 101)]
    assert [level(one) for one in found] == ["warning", "ok", "ok", "problem"]
    assert [level(database.journal(mode)) for mode in ("wal", "delete")] == ["ok", "problem"]


def test_commits() -> None:
    """Slow ones are a risk, ones that do not last are wrong."""
    tried = [Trial(0.001, "wal", 2), Trial(0.2, "wal", 2), Trial(0.001, "wal", 1), Trial(0.001, "delete", 2)]
    assert [level(database.commits(one)) for one in tried] == ["ok", "warning", "problem", "problem"]


def test_trying_a_commit_leaves_nothing_behind(tmp_path: Path) -> None:
    """And measures what a store does."""
    tried = trial(tmp_path)
    assert (tried.journal_mode, tried.synchronous) == ("wal", 2)
    assert tried.commit_seconds > 0
    assert list(tmp_path.iterdir()) == []


def test_looking_for_damage_ends_in_time(world: World) -> None:
    """On a large file; it says that it has not seen all of it."""
    world.end(Succeeded('"' + "x" * 50_000 + '"'), *(new() for _ in range(200)))
    checkup = Checkup(world.database)
    try:
        assert checkup.damage(60, lambda: None) == []
        steps: list[int] = []
        found = checkup.damage(0, lambda: steps.append(1))
    finally:
        checkup.close()
    assert found is None
    assert len(steps) == 1
    assert level(database.damage(None, world.database, 0)) == "warning"


def test_clocks() -> None:
    """One that is behind the store's newest time was set back."""
    assert [level(life.clock(newest, 1_000_000.0)) for newest in (None, 999_000.0, 1_000_000.5)] == ["ok"] * 3
    found = life.clock(1_003_600.0, 1_000_000.0)
    assert (level(found), "the store has a time that is 60 min later" in found.said) == ("warning", True)


def test_the_newest_time_is_found_whatever_wrote_it(world: World) -> None:
    """The storing of a job, or its end."""
    world.end(Succeeded(), new(), clock_offset=5_000)
    world.enqueue_all(new())
    assert of(examined(world)[1], "clock")["level"] == "warning"


def test_what_waits() -> None:
    """Not for long is well; due and never looked at is not."""
    me = [Joined("a", 1, "here", 1, serves=True)]

    def found(*waits: Waits) -> list[str]:
        return [level(f) for f in life.waiting(waits, 1000.0, me, {"shop:add"})]

    assert found() == ["ok"]
    assert found(Waits("default", "shop:add", False, 3, 995.0)) == ["ok"]
    assert found(Waits("default", "shop:add", False, 3, 900.0), Waits("", "", False, 1, 900.0)) == ["warning"] * 2
    assert len(found(*(Waits("default", f"shop:{n}", False, 1, 900.0) for n in range(30)))) == 11


def test_so_many_jobs_wait() -> None:
    """Up to what a store counts; and of those that no claim has looked at, the queue is known."""
    waits = [Waits("mail", "shop:add", False, jobs, 900.0) for jobs in (1, COUNTED - 1, COUNTED)]
    found = [
        f.said.partition(": ")[0] for f in life.waiting([*waits, Waits("mail", "", False, 2, 900.0)], 1000.0, [], None)
    ]
    jobs = ["1 job", "9,999 jobs", "10,000 jobs or more"]
    assert found[:3] == [f"{many} of shop:add, queue mail" for many in jobs]
    assert found[3].startswith("2 jobs of queue mail came due, the first 100 s ago, and no worker has looked")


@pytest.mark.parametrize(
    ("processes", "serving", "said"),
    [
        (1, 1, "1 process lives, and runs jobs"),
        (1, 0, "1 process lives, and runs no jobs"),
        (2, 0, "2 processes live, none of which run jobs"),
        (2, 1, "2 processes live, 1 of which runs jobs"),
        (3, 2, "3 processes live, 2 of which run jobs"),
        (2, 2, "2 processes live, all of which run jobs"),
    ],
)
def test_how_many_processes_live(processes: int, serving: int, said: str) -> None:
    """In a sentence."""
    assert life.living(processes, serving) == said


@pytest.mark.parametrize(
    ("found", "oldest", "expected"),
    [
        ("3.51.3", (3, 51, 3), "ok"), ("3.51.2", (3, 51, 3), "problem"), ("0.122", (0, 122), "ok"),
        ("0.122.0rc1", (0, 122), "ok"), ("2.9", (2, 11), "problem"), ("10.0", (2, 11), "ok"),
    ],
)  # fmt: skip
def test_versions(found: str, oldest: tuple[int, ...], expected: str) -> None:
    """By number, not by letter."""
    assert level(versions.version("it", found, oldest)) == expected
