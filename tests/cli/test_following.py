"""`afterward jobs --follow`: what changes, as it changes."""

import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from afterward.cli.following import Follower
from afterward.cli.reading import Filters
from afterward.identity import new_id
from afterward.job import Failed, Failure, Lease, NewJob, Placement, Process, Status
from afterward.stores.sqlite import SQLiteStore
from tests.cli.conftest import Command, World
from tests.support.waiting import wait_until

OOPS = Failed(Failure("OopsError", "it did not work"))


def new(task: str = "add", queue: str = "default", **more: float) -> NewJob:
    return NewJob(new_id(), f"shop:{task}", queue, 0, '{"n":1}', delay=more.get("delay"))


def states(command: Command, job: str) -> list[str]:
    """The states of a job, in the order in which they were told."""
    return re.findall(rf"^\S+Z {job} (\w+)", command.output(), re.MULTILINE)


def test_each_change_is_a_line(world: World) -> None:
    """What is there first, oldest first; then whatever happens. Ctrl-C is the end of it, and no error."""
    old, later = world.enqueue_all(new("add"), new("add", delay=600))
    following = world.start("jobs", "--follow")
    following.wait_for(rf"{later} scheduled +shop:add in \d+ (s|min)")
    assert following.output().index(old) < following.output().index(later)

    world.start_worker()
    wait_until(lambda: states(following, old)[-1:] == ["succeeded"], "its end is told", seconds=20)
    failing = world.enqueue("charge", card="4111", api_token="hunter2")
    following.wait_for(rf"{failing} retrying +shop:charge in \d+ (s|min), after ValueError: card refused")
    world.type("cancel", later)
    following.wait_for(rf"{later} cancelled")

    following.send(signal.SIGINT)
    assert following.wait() == 0
    assert states(following, later) == ["scheduled", "cancelled"]
    assert "hunter2" not in following.output()
    lines = following.output().splitlines()
    assert [line for line in lines if not re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [0-9a-f-]{36} \w+ ", line)] == []


def test_what_a_person_does_is_told(world: World) -> None:
    """What had failed long ago, and what waits, is moved by hand."""
    [failed] = world.end(OOPS, new(), clock_offset=-3600)
    following = world.start("jobs", "--follow", "--json")
    following.wait_for(failed)

    assert world.type("retry", failed).exit_code == 0

    wait_until(lambda: len(following.output().splitlines()) == 2, "it is told")
    told: list[dict[str, Any]] = [json.loads(line) for line in following.output().splitlines()]
    assert [(job["id"], job["status"]) for job in told] == [(failed, "failed"), (failed, "queued")]
    assert "arguments" not in told[0]


def test_only_what_the_filters_want_is_told(world: World) -> None:
    """A job that comes to be wanted is told when it does."""
    [before] = world.end(OOPS, new("fail"))
    following = world.start("jobs", "--follow", "--status", "failed", "--queue", "mail", "--json")
    other = world.enqueue("fail", why="no")
    wanted = world.enqueue("fail", queue="mail", why="yes")
    world.end(OOPS, ended := new("add", "mail"))

    following.wait_for(ended.id)

    told = {json.loads(line)["id"] for line in following.output().splitlines()}
    assert told == {ended.id}
    assert not told & {before, other, wanted}


def test_nothing_is_told_twice(world: World) -> None:
    """Looks overlap, for what has a time of a moment ago may have been written since; what is told does not."""
    ids = world.enqueue_all(*(new("nothing") for _ in range(300)))
    following = world.start("jobs", "--follow", "--json", "--limit", "10")
    following.wait_for(ids[-1])
    world.start_worker()
    world.wait_for_status(ids[-1], "succeeded")
    [last] = world.end(OOPS, new())

    following.wait_for(last)

    told = [json.loads(line) for line in following.output().splitlines()]
    moments = [(job["id"], job["status"], job["attempt"]) for job in told]
    assert len(moments) == len(set(moments))
    assert {id_ for id_, status, _ in moments if status == "succeeded"} == set(ids)


def test_a_terminal_shows_a_table_that_changes(world: World) -> None:
    """The newest jobs, as many as it has lines for."""
    ids = world.enqueue_all(*(new(delay=36_000) for _ in range(40)))
    command = world.on_terminal("jobs", "--follow")
    command.wait_for(ids[-1])
    command.wait_for("scheduled")
    assert ids[0] not in command.said()

    world.end(OOPS, newest := new())
    command.wait_for(newest.id)
    command.wait_for("OopsError: it did not work")

    command.send(signal.SIGINT)
    assert command.wait() == 0


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_store_that_goes_away_ends_it(world: World, options: list[str]) -> None:
    """With what is wrong, for it would follow a file that nobody can find any more."""
    [job] = world.enqueue_all(new())
    following = world.start("jobs", "--follow", *options)
    following.wait_for(job)

    world.database.rename(world.folder / "elsewhere.db")

    assert following.wait() == 1
    assert "was deleted or replaced while in use" in following.output()


@pytest.mark.anyio
async def test_what_is_told_again_is_watched_as_long_as_what_was_told_first(tmp_path: Path) -> None:
    """A job that had failed is told when it is retried, which no time in the store tells."""
    past = SQLiteStore(tmp_path / "jobs.db", clock=lambda: time.time() - 3600)
    present = SQLiteStore(tmp_path / "jobs.db")
    for store in (past, present):
        await store.open()
    await present.join(Process("worker", 1, "here"))
    await past.enqueue([(job := new(), Placement.leased)], "worker")
    follower = Follower(present, Filters())

    async def told(*jobs: NewJob) -> list[tuple[str, Status]]:
        """What is told of the job once these others have been added."""
        if jobs:
            await present.enqueue([(other, Placement.free) for other in jobs], None)
        return [(found.id, found.status) for found in await follower.changes() if found.id == job.id]

    assert [found.status for found in await follower.first(10)] == [Status.running]
    assert await told(*(new() for _ in range(60))) == []
    await present.finish([(Lease(job.id, 1, "worker", job.task, job.arguments), OOPS)])
    assert await told() == [(job.id, Status.failed)]
    assert await told(*(new() for _ in range(60))) == []
    await present.retry([job.id])
    assert await told() == [(job.id, Status.queued)]

    await present.leave("worker")
    for store in (past, present):
        await store.close()
