"""`afterward migrate`: a store is brought up to date when somebody says so."""

import apsw
import pytest

from afterward.identity import new_id
from afterward.job import NewJob, Succeeded
from tests.cli.conftest import World
from tests.support.waiting import wait_until

CAREFUL = """
from fastapi import FastAPI
from afterward import Afterward

app, tasks = FastAPI(), Afterward(migrate=False)
tasks.install(app)

@tasks.task
def add(n: int) -> int:
    return n
"""

OWN = """
from fastapi import FastAPI
from afterward import Afterward

app = FastAPI()
for file in ("a", "b", "b"):
    tasks = Afterward(f"sqlite:///{file}.db")
    tasks.install(app)

    @tasks.task(name=file)
    def work() -> None: ...
"""


def new() -> NewJob:
    return NewJob(new_id(), "careful:add", "default", 0, '{"n":1}')


def test_an_older_store_is_brought_up_to_date(world: World) -> None:
    """It says from which schema to which, and before that, whether there is anything to do; that changes nothing."""
    older, newest = world.make_older_store()
    before = world.database.read_bytes()

    checked = world.type("migrate", "--check")
    assert (checked.exit_code, checked.stderr) == (1, "")
    assert checked.stdout == f"{world.database}: schema {older}; this version of afterward works with {newest}\n"
    assert world.database.read_bytes() == before

    done = world.type("migrate")
    assert (done.exit_code, done.output) == (0, f"{world.database}: schema {older} -> {newest}\n")
    for again in (["migrate", "--check"], ["migrate"]):
        run = world.type(*again)
        assert (run.exit_code, run.output) == (0, f"{world.database}: schema {newest}, up to date\n")


def test_where_there_is_no_store_one_is_made(world: World) -> None:
    """As a first deployment wants it; not by the check."""
    checked = world.type("migrate", "--check")
    assert (checked.exit_code, checked.output) == (1, f"{world.database}: there is no store\n")
    assert not world.database.exists()

    done = world.type("migrate", "--store", "sqlite:///other.db")

    assert done.exit_code == 0
    assert done.output.startswith(f"{world.folder / 'other.db'}: made, with schema ")
    assert not world.database.exists()


@pytest.mark.parametrize("options", [[], ["--check"]], ids=str)
def test_a_newer_store_and_one_of_another_program_are_refused_and_left_as_they_are(
    world: World, options: list[str]
) -> None:
    world.end(Succeeded(), new())
    connection = apsw.Connection(str(world.database))
    connection.pragma("user_version", 999)
    connection.close()
    theirs = apsw.Connection(str(world.folder / "theirs.db"))
    theirs.execute("CREATE TABLE notes (text)")
    theirs.close()
    for database, said in [
        (world.database, "has schema 999, and this version of afterward knows"),
        (world.folder / "theirs.db", "is a database of another program"),
    ]:
        before = database.read_bytes()
        run = world.type("migrate", "--store", f"sqlite:///{database}", *options)
        assert (run.exit_code, run.stdout) == (2, "")
        assert said in run.stderr
        assert database.read_bytes() == before


def test_a_program_names_its_own_stores(world: World) -> None:
    """Each once, wherever AFTERWARD_URL leads."""
    world.program("own", OWN)

    run = world.run("migrate", "own:app")

    assert run.returncode == 0, run.stderr
    assert [line.split(": ")[0] for line in run.stdout.splitlines()] == [f"{world.folder}/{name}.db" for name in "ab"]
    assert not world.database.exists()
    both = world.run("migrate", "own:app", "--store", "sqlite:///c.db")
    assert (both.returncode, both.stdout) == (2, "")
    assert "leave out --store" in both.stderr


@pytest.mark.parametrize("processes", ["1", "2"])
def test_workers_of_an_app_that_is_not_to_migrate_refuse_an_older_store(world: World, processes: str) -> None:
    """They name the command; once it was called, they run what waits."""
    world.program("careful", CAREFUL)
    older, newest = world.make_older_store()

    refused = world.run("worker", "careful:app", "--processes", processes)

    assert refused.returncode == 2
    assert f"has schema {older}, and this version of afterward works with {newest}" in refused.stderr
    assert "bring it up to date (afterward migrate" in refused.stderr
    assert world.type("migrate", "--check").exit_code == 1
    assert world.run("migrate", "careful:app").returncode == 0
    [job] = world.enqueue_all(new())
    world.start("worker", "careful:app", "--processes", processes)
    world.wait_for_status(job, "succeeded")


def test_two_may_do_it_at_once(world: World) -> None:
    """Both succeed, and it is done once."""
    _, newest = world.make_older_store()
    both = [world.start("migrate") for _ in range(2)]
    assert [command.wait() for command in both] == [0, 0]
    assert world.type("migrate", "--check").output == f"{world.database}: schema {newest}, up to date\n"


def test_it_does_no_harm_while_jobs_run(world: World) -> None:
    """Nobody is taken for dead by it, and nobody joins."""
    job = world.enqueue("rest", seconds=0.5)
    worker = world.start_worker()
    wait_until(lambda: world.lines("rested"), "it runs")

    assert world.type("migrate").exit_code == 0

    assert world.wait_for_status(job, "succeeded").attempt == 1
    worker.send()
    assert worker.wait() == 0
    assert "process.died" not in worker.output()
