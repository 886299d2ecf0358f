"""`afterward events`: what a job has said, and says."""

import json
import os
import re
import signal

from afterward.identity import new_id
from afterward.job import EventKind, Lease, NewEvent, NewJob, Placement, Report, Succeeded
from afterward.job import Process as Joining
from afterward.stores.base import EVENTS_KEPT
from afterward.stores.sqlite import SQLiteStore
from tests.cli.conftest import World

SAID = (
    NewEvent(EventKind.progress, '{"current": 40, "total": 1000, "message": "resizing"}', 2.0),
    NewEvent(EventKind.log, '{"level": "WARNING", "logger": "shop", "message": "slow\\n\\u001b[31mdisk"}', 1.0),
    NewEvent(EventKind.item, '{"row": [1, "é"], "api_token": "hunter2"}'),
)


def say(world: World, *events: NewEvent, then: Succeeded | None = None) -> str:
    """A job that has said this, and runs on or has ended; its id."""
    job = NewJob(new_id(), "shop:add", "default", 0, "{}")

    async def run(store: SQLiteStore) -> None:
        await store.join(Joining(me := new_id(), os.getpid(), "here"))
        await store.enqueue([(job, Placement.leased)], me)
        lease = Lease(job.id, 1, me, job.task, job.arguments)
        assert await store.report([(lease, Report(1, events))]) == [True]
        if then is not None:
            await store.finish([(lease, then)])
            await store.leave(me)

    world.with_store(run)
    return job.id


def test_what_a_job_has_said_is_told_line_by_line(world: World) -> None:
    """In order, with what looks secret left out, and nothing that steers the terminal."""
    job = say(world, *SAID, then=Succeeded())

    run = world.type("events", job[:23])

    assert (run.exit_code, run.stderr) == (0, "")
    lines = [line.partition("Z ") for line in run.stdout.splitlines()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}", at) for at, _, _ in lines)
    assert [said for _, _, said in lines] == [
        "1 attempt=1 progress 40 of 1,000: resizing",
        "2 attempt=1 log WARNING shop: slow \\x1b[31mdisk",
        '3 attempt=1 item {"row": [1, "é"], "api_token": "[redacted]"}',
    ]


def test_programs_are_told_an_object_a_line(world: World) -> None:
    job = say(world, *SAID, then=Succeeded())

    told = [json.loads(line) for line in world.type("events", job, "--json").stdout.splitlines()]

    assert [(event["number"], event["attempt"], event["kind"]) for event in told] == [
        (1, 1, "progress"),
        (2, 1, "log"),
        (3, 1, "item"),
    ]
    assert told[0]["data"] == {"current": 40, "total": 1000, "message": "resizing"}
    assert told[2]["data"] == {"row": [1, "é"], "api_token": "[redacted]"}


def test_without_follow_it_ends_though_the_job_runs_on(world: World) -> None:
    assert len(world.type("events", say(world, *SAID)).stdout.splitlines()) == 3


def test_it_is_followed_until_the_job_has_ended(world: World) -> None:
    """More than a page of it, and what is said only then; by another process."""
    job = NewJob(new_id(), "shop:add", "default", 0, "{}")

    async def run(store: SQLiteStore) -> None:
        await store.join(Joining(me := new_id(), os.getpid(), "here"))
        await store.enqueue([(job, Placement.leased)], me)
        lease = Lease(job.id, 1, me, job.task, job.arguments)
        many = tuple(NewEvent(EventKind.item, str(number)) for number in range(1, 251))
        await store.report([(lease, Report(1, many))])
        command = world.start("events", job.id, "--follow")
        command.wait_for(r" 250 attempt=1 item 250\n")
        await store.report([(lease, Report(251, (NewEvent(EventKind.item, '"late"'),)))])
        command.wait_for(r" 251 attempt=1 item \"late\"\n")
        last = Report(252, (NewEvent(EventKind.item, '"last"'),))
        await store.finish([(lease, Succeeded(report=last))])
        assert command.wait() == 0
        numbers = re.findall(r"Z (\d+) attempt", command.output())
        assert numbers == [str(number) for number in range(1, 253)]
        await store.leave(me)

    world.with_store(run)


def test_ctrl_c_is_the_way_to_stop_following(world: World) -> None:
    command = world.start("events", say(world, *SAID), "--follow")
    command.wait_for(" 3 attempt=1 item")
    command.send(signal.SIGINT)
    assert command.wait() == 0


def test_what_is_no_longer_kept_is_said(world: World) -> None:
    many = tuple(NewEvent(EventKind.item, "0") for _ in range(EVENTS_KEPT + 7))

    run = world.type("events", job := say(world, *many, then=Succeeded()))

    assert run.stderr == f"afterward: 7 events of job {job} are no longer kept\n"
    assert len(run.stdout.splitlines()) == EVENTS_KEPT
