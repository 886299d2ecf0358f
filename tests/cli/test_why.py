"""`afterward why`: why a job is not running, or not done. What there is to be said: tests/unit/test_why.py."""

import json

from afterward.identity import new_id
from afterward.job import NewJob
from tests.cli.conftest import World
from tests.support.waiting import wait_until


def new(queue: str = "mail", **more: float) -> NewJob:
    return NewJob(new_id(), "shop:add", queue, 0, '{"n":1}', delay=more.get("delay"))


def test_all_that_keeps_a_job_is_told_with_its_mend(world: World) -> None:
    """What matters most comes first; the beginning of an id is enough."""
    [job] = world.enqueue_all(new(delay=7200))
    assert world.type("pause", "mail", "--by", "ada").exit_code == 0

    run = world.type("why", job[:23])

    assert (run.exit_code, run.stderr) == (0, "")
    first, scheduled, hasten, paused, resume, nobody, start = run.stdout.splitlines()
    assert first == f"job {job} of shop:add is queued:"
    assert scheduled.startswith("- it is scheduled for ")
    assert hasten == f"  mend: to have it run at once: afterward hasten {job}"
    assert paused.startswith("- queue mail is paused, since ")
    assert resume == "  mend: afterward resume mail"
    assert nobody == "- no live process runs jobs of this store"
    assert start == "  mend: start the application, or: afterward worker MODULE:NAME"


def test_programs_are_told_the_same_as_json(world: World) -> None:
    [job] = world.enqueue_all(new())

    run = world.type("why", job, "--json")

    assert json.loads(run.stdout) == [
        {
            "cause": "no_worker",
            "text": "no live process runs jobs of this store",
            "mend": "start the application, or: afterward worker MODULE:NAME",
        }
    ]


def test_of_one_that_runs_it_is_told_where(world: World) -> None:
    """By a worker that is at work, in another process."""
    job = world.enqueue("rest", seconds=60)
    worker = world.start_worker("--grace", "0")
    wait_until(lambda: world.lines("rested"), "it runs")

    [reason] = json.loads(world.type("why", job, "--json").stdout)

    assert reason["cause"] == "running"
    assert f"(pid {worker.pid}" in reason["text"]


def test_an_unknown_job_is_no_reason(world: World) -> None:
    world.enqueue_all(new())

    run = world.type("why", "01890000-0000-7000-8000-000000000000")

    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr.startswith("afterward: there is no job 01890000-0000-7000-8000-000000000000 in ")
