"""`afterward jobs` and `afterward job`: what is in a store, shown without taking part in its life."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apsw

from afterward.identity import new_id
from afterward.job import NewJob
from tests.cli.conftest import World
from tests.support.waiting import wait_until


def listed(world: World, *options: str) -> list[dict[str, Any]]:
    """What `afterward jobs --json` gives."""
    run = world.run("jobs", "--json", *options)
    assert run.returncode == 0, run.stderr
    found: list[dict[str, Any]] = json.loads(run.stdout)
    return found


def shown(world: World, id: str) -> dict[str, Any]:  # noqa: A002 - it is the job's
    """What `afterward job ID --json` gives."""
    run = world.run("job", id, "--json")
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def new(task: str, queue: str = "default", arguments: str = "{}", delay: float | None = None, **more: Any) -> NewJob:
    return NewJob(new_id(), f"shop:{task}", queue, 0, arguments, delay=delay, **more)


def states(jobs: Iterable[dict[str, Any]]) -> dict[str, str]:
    return {job["id"]: job["state"] for job in jobs}


def test_jobs_are_listed_newest_first_and_filtered(world: World) -> None:
    """By status, task and queue; no more than asked for."""
    first, second, third = world.enqueue_all(new("add"), new("rest", "slow"), new("add", "slow", delay=600))

    assert [job["id"] for job in listed(world)] == [third, second, first]
    assert [job["id"] for job in listed(world, "--limit", "2")] == [third, second]
    assert [job["id"] for job in listed(world, "--queue", "slow", "--task", "shop:rest")] == [second]
    assert listed(world, "--status", "failed") == []
    assert states(listed(world)) == {first: "queued", second: "queued", third: "scheduled"}


def test_the_table_shows_whole_ids_and_is_as_wide_as_it_is(world: World) -> None:
    """In a pipe, where no terminal says how wide a line may be; and it tells when there is more."""
    ids = world.enqueue_all(*(new("a_task_with_a_name_" + "of_many_words_" * 12, "a_queue") for _ in range(3)))

    run = world.run("jobs", "--limit", "2")

    assert run.returncode == 0, run.stderr
    header, newer, older, more = run.stdout.splitlines()
    assert header.split() == ["job", "state", "created", "queue", "task", "detail"]
    assert re.match(rf"{ids[2]} +queued +\d+ s ago +a_queue +shop:a_task_with_a_name_(of_many_words_){{12}} *$", newer)
    assert older.startswith(ids[1])
    assert more == "These are the newest 2; there are more (--limit)."


def test_all_facts_of_a_job_are_shown(world: World) -> None:
    """Its failure with the traceback, its attempts, when it is tried again; and nothing that looks secret."""
    job = world.enqueue("charge", card="4111", api_token="hunter2")
    worker = world.start_worker()
    wait_until(lambda: world.job(job).failures == 1, "it has failed once")
    worker.send()
    assert worker.wait() == 0

    facts = shown(world, job)
    assert (facts["status"], facts["state"]) == ("queued", "retrying")
    assert re.fullmatch(r"in \d+ (s|min), after ValueError: card refused: \x1b\[31m4111", facts["detail"])
    assert (facts["attempt"], facts["failures"], facts["deaths"]) == (1, 1, 0)
    assert facts["arguments"] == {"card": "4111", "api_token": "[redacted]"}
    assert facts["failure"]["kind"] == "ValueError"
    assert "in charge" in facts["failure"]["traceback"]
    assert [(attempt["number"], attempt["outcome"]) for attempt in facts["attempts"]] == [(1, "retry")]

    page = world.run("job", job)
    assert page.returncode == 0, page.stderr
    lines = page.stdout.splitlines()
    assert lines[0] == f"job        {job}"
    assert "attempt    1, failures 1, deaths 0" in lines
    assert 'raise ValueError(f"card refused' in page.stdout
    assert "hunter2" not in page.stdout
    assert "\x1b" not in page.stdout  # what a task said does not steer a terminal
    assert r"card refused: \x1b[31m4111" in page.stdout


def test_secrets_are_left_out_of_results_too(world: World) -> None:
    """At any depth."""
    values = {"user": "ada", "login": {"password": "hunter2"}, "headers": [["Authorization", "Bearer hunter2"]]}
    job = world.enqueue("settings", values=values)
    worker = world.start_worker()
    world.wait_for_status(job, "succeeded")
    worker.send()
    assert worker.wait() == 0

    facts = shown(world, job)
    redacted = {"user": "ada", "login": {"password": "[redacted]"}, "headers": [["Authorization", "[redacted]"]]}
    assert facts["arguments"] == {"values": redacted}
    assert facts["result"] == redacted


def test_a_job_that_waits_for_a_worker_that_can_run_it_says_so(world: World) -> None:
    """Its task is unknown to all who run; its arguments fit nobody; or it is only too early to tell."""
    [unknown] = world.enqueue_all(new("renamed"), clock_offset=-60)
    misfit, recent = world.enqueue_all(new("add", arguments='{"m":1}'), new("renamed_today"))
    world.start_worker()
    wait_until(lambda: world.job(misfit).note, "it was found not to fit")

    found = {job["id"]: job for job in listed(world)}
    assert (found[unknown]["status"], found[unknown]["state"]) == ("queued", "waiting")
    assert re.fullmatch(
        r"due for \d+ s: waits for a worker that knows shop:renamed, serves queue default and is free",
        found[unknown]["detail"],
    )
    assert (found[misfit]["status"], found[misfit]["state"]) == ("queued", "waiting")
    assert found[misfit]["detail"].startswith("the stored arguments do not fit shop:add here: n: Field required")
    assert found[recent]["state"] == "queued"
    page = world.run("job", misfit).stdout
    assert re.search(r"^status     queued, waiting: the stored arguments do not fit shop:add here", page, re.MULTILINE)
    assert re.search(r"^note       the stored arguments do not fit", page, re.MULTILINE)


def test_the_id_of_a_call_whose_unique_key_was_taken_leads_to_the_job(world: World) -> None:
    """As the handle of that call promises."""
    job, other = world.enqueue_all(new("add", unique="one"), new("add", unique="one"))

    assert shown(world, other)["id"] == job


def test_an_unknown_id_is_told(world: World) -> None:
    """On standard error, with an exit code for scripts."""
    world.enqueue("add", n=1)

    run = world.run("job", "01890000-0000-7000-8000-000000000000", "--json")

    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == f"afterward: there is no job 01890000-0000-7000-8000-000000000000 in {world.database}\n"


def test_a_store_that_is_not_there_is_told_and_not_made(world: World) -> None:
    """Nor is one made of an empty file."""
    (world.folder / "empty.db").touch()
    before = files_in(world.folder)

    for options, path in [((), world.database), (("--store", "sqlite:///empty.db"), world.folder / "empty.db")]:
        run = world.run("jobs", *options)
        assert (run.returncode, run.stdout) == (1, "")
        assert run.stderr.startswith(f"afterward: there is no store at {path}; start your app, which makes it, or name")
    assert files_in(world.folder) == before


def test_the_store_is_named_by_option_or_environment_or_default(world: World) -> None:
    """In this order; a URL that names none is refused."""
    [job] = world.enqueue_all(new("add"), database=world.folder / "afterward.db")

    assert [found["id"] for found in listed(world, "--store", "sqlite:///afterward.db")] == [job]
    del world.environment["AFTERWARD_URL"]
    assert [found["id"] for found in listed(world)] == [job]
    refused = world.run("jobs", "--store", "mysql://localhost")
    assert refused.returncode == 2
    assert refused.stderr.startswith("afterward: 'mysql' names no store of this version")


def test_a_file_of_another_program_is_refused_and_left_as_it_is(world: World) -> None:
    """Whatever it is."""
    connection = apsw.Connection(str(world.database))
    connection.execute("CREATE TABLE notes (text)")
    connection.close()
    before = world.database.read_bytes()

    run = world.run("jobs")

    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(f"afterward: the store {world.database} is a database of another program")
    assert world.database.read_bytes() == before


def test_looking_writes_nothing(world: World) -> None:
    """Not even a sign of life; the files are the same to the byte."""
    job = world.enqueue("add", n=1)
    before = {path: path.read_bytes() for path in files_in(world.folder)}

    assert world.run("jobs").returncode == 0
    assert world.run("job", job).returncode == 0

    assert {path: path.read_bytes() for path in files_in(world.folder)} == before


def test_looking_works_while_a_worker_writes(world: World) -> None:
    """And does not disturb it: nobody else is seen to have joined."""
    ids = world.enqueue_all(*(new("nothing", arguments='{"n":1}') for _ in range(3_000)))
    worker = world.start_worker()
    for _ in range(3):
        assert len(listed(world, "--limit", "100")) == 100

    wait_until(lambda: all(job.status == "succeeded" for job in world.jobs(ids)), "all have run", seconds=30)
    assert "process.died" not in worker.output().partition("worker.started")[2]
    worker.send()
    assert worker.wait() == 0


def test_no_jobs_is_an_answer(world: World) -> None:
    """In a store in which there is nothing yet."""
    world.enqueue_all()

    run = world.run("jobs")

    assert (run.returncode, run.stdout) == (0, "no jobs\n")


def files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}
