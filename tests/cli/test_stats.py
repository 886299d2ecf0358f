"""`afterward stats`: how much there is to do, for people and for autoscalers."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from afterward.identity import new_id
from afterward.job import NewJob, Succeeded
from tests.cli.conftest import World
from tests.support.waiting import wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
NOTHING = {"depth": 0, "oldest_age": 0.0, "later": 0, "held": 0, "running": 0, "handed": 0}


def new(queue: str = "default", task: str = "add", delay: float | None = None) -> NewJob:
    return NewJob(new_id(), f"shop:{task}", queue, 0, '{"n":1}', delay=delay)


def counted(world: World) -> dict[str, Any]:
    """What `afterward stats --json` gives: one object, in one line."""
    run = world.type("stats", "--json")
    assert run.exit_code == 0, run.output
    [line] = run.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_each_queue_is_counted_and_all_together(world: World) -> None:
    """With the age of the oldest; the keys are always the same, also where nothing is to do."""
    world.end(Succeeded(), new())
    assert counted(world) == {"queues": {}, "total": NOTHING, "processes": 0, "paused": []}
    world.enqueue_all(new("mail"), new("mail"), clock_offset=-60)
    world.enqueue_all(new("mail", delay=600), new("slow"), new("slow", "renamed"))

    found = counted(world)

    mail, slow, total = found["queues"].pop("mail"), found["queues"].pop("slow"), found["total"]
    ages = [counts.pop("oldest_age") for counts in (mail, slow, total)]
    assert found["queues"] == {}
    assert mail == {"depth": 2, "later": 1, "held": 0, "running": 0, "handed": 0}
    assert slow == {"depth": 2, "later": 0, "held": 0, "running": 0, "handed": 0}
    assert total == {"depth": 4, "later": 1, "held": 0, "running": 0, "handed": 0}
    assert ages[0] == pytest.approx(60, abs=20)
    assert ages[1] == pytest.approx(0, abs=20)
    assert ages[2] >= 60


def test_who_works_and_what_runs_is_counted(world: World) -> None:
    """A worker counts while it lives; one that was killed does not, though nobody is there to see it."""
    world.enqueue("rest", seconds=60)
    worker = world.start_worker()
    wait_until(lambda: world.lines("rested"), "it runs")
    found = counted(world)
    assert (found["total"], found["processes"]) == ({**NOTHING, "running": 1}, 1)

    worker.kill()

    assert (counted(world)["total"]["running"], counted(world)["processes"]) == (1, 0)


def test_people_see_a_table(world: World) -> None:
    """With a line for all queues where there are several, and one for the processes."""
    world.end(Succeeded(), new())
    assert world.type("stats").stdout == "no jobs to do\n0 processes live\n"
    world.enqueue_all(new("mail"), clock_offset=-300)
    assert [line.split() for line in world.type("stats").stdout.splitlines()] == [
        ["queue", "depth", "oldest", "later", "held", "running"],
        ["mail", "1", "5", "min", "0", "0", "0"],
        ["0", "processes", "live"],
    ]
    world.enqueue_all(*(new("slow") for _ in range(10_000)), new("slow", delay=600))
    mail, slow, total = [line.split() for line in world.type("stats").stdout.splitlines()[1:-1]]
    assert (mail[:2], slow[:3], total[:3]) == (["mail", "1"], ["slow", "≥", "10,000"], ["total", "≥", "10,001"])
    assert slow[-3:] == total[-3:] == ["1", "0", "0"]


def test_what_is_with_celery_has_a_column_where_there_is_any(world: World) -> None:
    """And is in no other."""
    world.hand_over(new("mail"), new("mail"))
    world.enqueue_all(new("slow"), clock_offset=-300)
    assert [line.split() for line in world.type("stats").stdout.splitlines()] == [
        ["queue", "depth", "oldest", "later", "held", "running", "handed"],
        ["mail", "0", "0", "0", "0", "2"],
        ["slow", "1", "5", "min", "0", "0", "0", "0"],
        ["total", "1", "5", "min", "0", "0", "0", "2"],
        ["0", "processes", "live"],
    ]
    assert counted(world)["total"]["handed"] == 2


def test_the_name_of_a_queue_does_not_steer_a_terminal(world: World) -> None:
    world.enqueue_all(new("\x1b[31mred"))
    assert "\x1b" not in world.run("stats").stdout


def test_a_store_that_is_not_there_is_told_and_not_made(world: World) -> None:
    run = world.type("stats", "--json")
    assert (run.exit_code, run.stdout) == (1, "")
    assert f"there is no store at {world.database}" in run.stderr
    assert not world.database.exists()


def test_the_page_shows_the_keys_that_there_are(world: World) -> None:
    """Of the object, and in what it asks of it."""
    section = PAGE.partition("## afterward stats\n")[2].partition("\n## ")[0]
    [shown] = re.findall(r"^```json\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    [asked] = re.findall(r"jq '\.queues\.mail\.(\w+)", section)
    world.enqueue_all(new("mail"))
    found, example = counted(world), json.loads(shown)
    assert list(found) == list(example)
    assert list(found["queues"]["mail"]) == list(found["total"]) == list(example["total"])
    assert list(example["queues"]["mail"]) == list(example["total"])
    assert asked in found["total"]
