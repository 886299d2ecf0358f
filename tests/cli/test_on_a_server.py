"""The commands of operations, on a store in PostgreSQL."""

import json
import os
import signal
from datetime import datetime
from typing import Any

import pytest

from tests.cli.conftest import World
from tests.support.waiting import wait_until


@pytest.fixture
def elsewhere(world: World, empty_postgres_url: str) -> World:
    """A world whose store is in a database in which there is nothing yet."""
    world.environment["AFTERWARD_URL"] = empty_postgres_url
    return world


def told(world: World, *arguments: str) -> dict[str, Any]:
    """What a command says as JSON."""
    run = world.type(*arguments, "--json")
    assert run.exit_code == 0, run.output
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def enqueued(world: World, *arguments: str) -> str:
    """The id of a job that is added by the command line."""
    run = world.run("enqueue", "shop:app", *arguments)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_a_store_is_made_when_somebody_says_so(elsewhere: World) -> None:
    """It is no store before, and up to date after."""
    refused = elsewhere.type("stats")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "there is no store at postgresql://" in refused.stderr
    checked = elsewhere.type("migrate", "--check")
    assert (checked.exit_code, checked.stdout.partition(": ")[2]) == (1, "there is no store\n")
    made = elsewhere.type("migrate")
    assert made.exit_code == 0, made.output
    assert ": made, with schema " in made.stdout
    assert elsewhere.type("migrate", "--check").exit_code == 0
    assert told(elsewhere, "stats")["queues"] == {}


def test_jobs_are_counted(elsewhere: World) -> None:
    """As in any store."""
    enqueued(elsewhere, "add", "n=1", "--queue", "mail")
    enqueued(elsewhere, "add", "n=1", "--queue", "mail", "--delay", "1h")
    counted = told(elsewhere, "stats")
    mail = counted["queues"]["mail"]
    assert (mail["depth"], mail["later"], mail["held"], mail["running"]) == (1, 1, 0, 0)
    assert 0 < mail["oldest_age"] < 60
    assert counted["processes"] == 0


def test_what_a_worker_releases_is_taken_over_at_once(elsewhere: World) -> None:
    """By another of its supervisor, which starts one in its place."""
    supervisor = elsewhere.start("worker", "shop:app", "--processes", "2", "--grace", "0.3")
    supervisor.workers(2)
    job = enqueued(elsewhere, "rest_on_first_attempt", "seconds=60")
    runner = int(wait_until(lambda: elsewhere.lines("rested"), "it runs", seconds=20)[0].split()[1])

    os.kill(runner, signal.SIGTERM)

    wait_until(lambda: told(elsewhere, "job", job)["status"] == "succeeded", "it is run again", seconds=20)
    again = told(elsewhere, "job", job)
    [released] = again["attempts"]
    assert (again["attempt"], again["deaths"], released["outcome"]) == (2, 0, "released")
    pause = datetime.fromisoformat(again["started_at"]) - datetime.fromisoformat(released["ended_at"])
    assert pause.total_seconds() < 3
    supervisor.workers(3)
    supervisor.send()
    assert supervisor.wait() == 0
