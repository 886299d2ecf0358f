"""`afterward jobs` and `afterward job`: what is in a store, shown without taking part in its life."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from afterward.identity import new_id
from afterward.job import Failed, Failure, NewJob, Succeeded
from tests.cli.conftest import AFTERWARD, World
from tests.support.lock import held
from tests.support.waiting import wait_until

OOPS = Failed(Failure("OopsError", "it did not work"))
UNKNOWN = "01890000-0000-7000-8000-000000000000"


def listed(world: World, *options: str) -> list[dict[str, Any]]:
    """What `afterward jobs --json` gives."""
    run = world.type("jobs", "--json", *options)
    assert run.exit_code == 0, run.output
    found: list[dict[str, Any]] = json.loads(run.stdout)
    return found


def shown(world: World, id: str) -> dict[str, Any]:  # noqa: A002 - it is the job's
    """What `afterward job ID --json` gives."""
    run = world.type("job", id, "--json")
    assert run.exit_code == 0, run.output
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def new(task: str, queue: str = "default", arguments: str = "{}", delay: float | None = None, **more: Any) -> NewJob:
    return NewJob(new_id(), f"shop:{task}", queue, 0, arguments, delay=delay, **more)


def test_jobs_are_listed_newest_first_and_filtered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By status, task and queue; no more than asked for."""
    monkeypatch.setattr("afterward.states.OVERDUE", timedelta(hours=1))
    first, second, third = world.enqueue_all(new("add"), new("rest", "slow"), new("add", "slow", delay=600))

    found = [(job["id"], job["state"]) for job in listed(world)]
    assert found == [(third, "scheduled"), (second, "queued"), (first, "queued")]
    assert [job["id"] for job in listed(world, "--limit", "2")] == [third, second]
    assert [job["id"] for job in listed(world, "--queue", "slow", "--task", "shop:rest")] == [second]
    assert listed(world, "--status", "failed") == []


def test_the_table_shows_whole_ids_and_is_as_wide_as_it_is(world: World) -> None:
    """In a pipe, where no terminal says how wide a line may be; and it tells when there is more."""
    name = "a_task_with_a_name_" + "of_many_words_" * 12
    ids = world.enqueue_all(*(new(name, "a_queue", delay=36_000) for _ in range(3)))

    run = world.run("jobs", "--limit", "2")

    assert run.returncode == 0, run.stderr
    header, newer, older, more = run.stdout.splitlines()
    assert header.split() == ["job", "state", "created", "queue", "task", "detail"]
    assert re.match(rf"{ids[2]} +scheduled +\d+ s ago +a_queue +shop:{name} +in \d+ h *$", newer)
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


def test_a_job_that_waits_for_a_worker_that_can_run_it_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its task is unknown to all who run; its arguments fit nobody; or it is only too early to tell."""
    monkeypatch.setattr("afterward.states.OVERDUE", timedelta(minutes=30))
    [unknown] = world.enqueue_all(new("renamed"), clock_offset=-3600)
    [misfit] = world.enqueue_all(new("add", arguments='{"m":1}'))
    world.start_worker()
    wait_until(lambda: world.job(misfit).note, "it was found not to fit")
    [recent] = world.enqueue_all(new("renamed_today"))

    found = {job["id"]: job for job in listed(world)}
    assert (found[unknown]["status"], found[unknown]["state"]) == ("queued", "waiting")
    assert re.fullmatch(
        r"due for \d+ min: waits for a worker that knows shop:renamed, serves queue default and is free",
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
        assert run.stderr.startswith(
            f"afterward: there is no store at {path}; make it (start your app, or: afterward migrate), or name"
        )
    assert files_in(world.folder) == before


def test_the_store_is_named_by_option_or_environment_or_default(world: World) -> None:
    """In this order; a URL that names none is refused."""
    [job] = world.enqueue_all(new("add"), database=world.folder / "afterward.db")

    assert [found["id"] for found in listed(world, "--store", "sqlite:///afterward.db")] == [job]
    del world.environment["AFTERWARD_URL"]
    assert [found["id"] for found in listed(world)] == [job]
    for url, said in [
        ("mysql://localhost", "'mysql' names no store of this version"),
        ("sqlite:///\udcff.db", r"'sqlite:///\udcff.db' names no store: no file can have such a name"),
        ("sqlite:///a%00.db", "'sqlite:///a%00.db' names no store: no file can have such a name"),
    ]:
        refused = world.run("jobs", "--store", url)
        assert refused.returncode == 2
        assert refused.stderr.startswith(f"afterward: {said}")


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


@pytest.mark.parametrize(
    "command",
    [
        ["jobs"],
        ["jobs", "--follow"],
        ["job", UNKNOWN],
        ["stats"],
        ["retry", UNKNOWN],
        ["cancel", "--all", "--yes"],
        ["hasten", UNKNOWN],
        ["prune"],
        ["why", UNKNOWN],
        ["events", UNKNOWN],
        ["failures"],
        ["pause", "mail"],
        ["resume", "mail"],
    ],
    ids=" ".join,
)
def test_a_store_of_an_older_version_is_left_as_it_is(world: World, command: list[str]) -> None:
    """While a new version is rolled out, the old one must still be able to start."""
    older, newest = world.make_older_store()
    before = world.database.read_bytes()

    run = world.type(*command)

    assert (run.exit_code, run.stdout) == (2, "")
    assert f"has schema {older}, and this version of afterward works with {newest}" in run.stderr
    assert "bring it up to date (afterward migrate, or an app of this version" in run.stderr
    assert world.database.read_bytes() == before


@pytest.mark.parametrize("option", ["--task", "--queue", "--owner", "--signature"])
def test_a_name_that_no_job_can_have_is_nobodys(world: World, option: str) -> None:
    """Bytes that are no text, as a shell hands them over."""
    world.enqueue_all(new("add"))

    run = world.type("jobs", option, "\udcff")

    assert (run.exit_code, run.output) == (0, "no jobs\n")


def test_a_limit_that_makes_no_sense_is_refused(world: World) -> None:
    """With the range."""
    run = world.type("jobs", "--limit", "9" * 20)

    assert run.exit_code == 2
    assert "1000000" in run.stderr


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


def test_several_statuses_and_an_age_may_be_asked_for(world: World) -> None:
    """Of any of these statuses; added since then."""
    [old] = world.end(OOPS, new("add"), clock_offset=-3 * 3600)
    [failed] = world.end(OOPS, new("add"))
    [done] = world.end(Succeeded(), new("add"))
    [waiting] = world.enqueue_all(new("add"))

    found = listed(world, "--status", "failed", "--status", "queued")
    assert [job["id"] for job in found] == [waiting, failed, old]
    assert [job["id"] for job in listed(world, "--since", "2h")] == [waiting, done, failed]
    assert [job["id"] for job in listed(world, "--since", "2h", "--status", "failed")] == [failed]


def test_a_list_shows_no_arguments(world: World) -> None:
    """Neither to people nor to programs, nor while it follows."""
    world.enqueue_all(new("charge", arguments='{"card":"4111222233334444","api_token":"hunter2"}'))

    assert "4111" not in world.type("jobs").output
    assert "4111" not in world.type("jobs", "--json").output


def test_the_beginning_of_an_id_is_enough_if_it_is_the_only_one(world: World) -> None:
    """At least 8 characters of it; where several begin so, they are named."""
    ids = [f"0198{letter}000-0000-7000-8000-00000000000{number}" for letter in "ab" for number in (1, 2)]
    jobs = [NewJob(id_, "shop:add", "default", 0, "{}", unique="one" if "b" in id_ else None) for id_ in ids]
    world.enqueue_all(*jobs)

    assert shown(world, "0198b000-0000-7000-8000-000000000001")["id"] == ids[2]
    assert shown(world, ids[3][:-1] + "2")["id"] == ids[2]
    several = world.type("job", "0198A000-00")
    assert (several.exit_code, several.stdout) == (1, "")
    assert several.stderr == (
        f"afterward: several jobs begin with 0198A000-00; write more of the one you mean: {ids[0]}, {ids[1]}\n"
    )
    for nothing in ("0198c000", "0198a00", "0198a000-0000-7000-8000-00000000000%"):
        run = world.type("job", nothing)
        assert (run.exit_code, run.stdout) == (1, "")
        assert f"there is no job {nothing} in " in run.stderr
    world.enqueue_all(NewJob("0199aaaa-0000-7000-8000-000000000001", "shop:add", "default", 0, "{}"))
    for typed in ("0199AAAA", "0199AAAA-0000-7000-8000-000000000001"):
        assert shown(world, typed)["id"] == "0199aaaa-0000-7000-8000-000000000001"


def test_what_was_said_of_the_call_is_shown(world: World) -> None:
    """Its limits, its key, when it expires, whose it is."""
    [job] = world.enqueue_all(new("add", max_attempts=3, timeout=1.5, expires=3600.0, unique="daily", owner="ada"))

    facts = shown(world, job)
    assert (facts["max_attempts"], facts["timeout"], facts["unique"], facts["owner"]) == (3, 1.5, "daily", "ada")
    assert facts["expires_at"] > facts["created_at"]
    page = world.type("job", job).output
    assert "limits     max_attempts 3, timeout 1.5 s\n" in page
    assert "unique     daily\n" in page
    assert "owner      ada\n" in page
    assert [found["id"] for found in listed(world, "--owner", "ada")] == [job]
    assert listed(world, "--owner", "bob") == []
    assert re.search(r"^expires    \d{4}-\d\d-\d\d .* UTC, in \d+ min$", page, re.MULTILINE)


def test_how_far_it_is_and_that_it_was_asked_to_end_is_shown(world: World) -> None:
    """While it runs."""
    job = world.enqueue("count_on_in_thread")
    world.start_worker()
    wait_until(lambda: world.job(job).progress, "it has said how far it is")
    assert world.type("cancel", job).output == "asked 1 job to end\n"

    facts, page = shown(world, job), world.type("job", job).output

    assert (facts["status"], facts["state"]) == ("running", "cancelling")
    assert facts["progress"] == {"current": 40, "total": 1000, "message": "resizing"}
    assert facts["cancel_asked_at"] > facts["started_at"]
    assert re.search(
        r"^status     running, cancelling: attempt 1, for \d+ s, 40 of 1,000: resizing; asked", page, re.MULTILINE
    )
    assert "progress   40 of 1,000: resizing\n" in page
    assert re.search(r"^stop asked \d{4}-\d\d-\d\d .* UTC, \d+ s ago$", page, re.MULTILINE)


def test_waiting_ends_with_the_job(world: World) -> None:
    """The exit code says how that ended."""
    job, resting = world.enqueue("rest", seconds=0.5), world.enqueue("rest", seconds=60)
    waiting = world.start("job", job, "--wait", "--json")
    world.start_worker()

    assert waiting.wait() == 0
    assert json.loads(waiting.output())["status"] == "succeeded"
    [cancelled] = world.enqueue_all(new("renamed"))
    assert world.type("cancel", cancelled).exit_code == 0
    run = world.type("job", cancelled, "--wait")
    assert run.exit_code == 1
    assert "status     cancelled" in run.output
    assert world.type("job", resting, "--wait", "--timeout", "0").exit_code == 3


def test_waiting_has_an_end_if_one_is_said(world: World) -> None:
    """The job goes on; a timeout alone means waiting, too."""
    job = world.enqueue("add", n=1)

    run = world.type("job", job, "--timeout", "0.1s")

    assert (run.exit_code, run.stdout) == (3, "")
    assert run.stderr == f"afterward: job {job} had not ended after 0.1 s; it goes on\n"


def test_a_pipe_that_somebody_closes_is_no_error(world: World) -> None:
    """`afterward jobs | head -1` ends at once, and says nothing more than was wanted."""
    world.enqueue_all(*(new("add") for _ in range(3_000)))

    for options in ([], ["--json"], ["--follow"], ["--follow", "--json"]):
        command = " ".join([AFTERWARD, "jobs", "--limit", "3000", *options, "| head -1"])
        run = world.run_shell(command)
        assert (len(run.stdout.splitlines()), run.stderr) == (1, ""), command


def test_a_store_that_somebody_has_locked_can_be_read(world: World) -> None:
    """Who reads does not wait for who writes; who would change something says so, and nothing is changed."""
    job = world.enqueue("add", n=1)

    with held(world.database):
        assert shown(world, job)["status"] == "queued"
        assert [found["id"] for found in listed(world)] == [job]
        run = world.type("cancel", job)

    assert (run.exit_code, run.stdout) == (1, "")
    assert "could not be written: another process held its lock for more than 5 s" in run.stderr
    assert world.job(job).status == "queued"


@pytest.mark.parametrize(
    "command", [["retry", UNKNOWN], ["cancel", "--all"], ["prune"], ["pause", "mail"], ["jobs", "--follow"]]
)
def test_a_store_that_is_not_there_is_not_made_by_who_would_change_it(world: World, command: list[str]) -> None:
    """Nor by who would follow it."""
    run = world.type(*command)

    assert (run.exit_code, run.stdout) == (1, "")
    assert f"there is no store at {world.database}" in run.stderr
    assert not world.database.exists()


def test_no_jobs_is_an_answer(world: World) -> None:
    """In a store in which there is nothing yet."""
    world.enqueue_all()

    run = world.run("jobs")

    assert (run.returncode, run.stdout) == (0, "no jobs\n")


def files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}
