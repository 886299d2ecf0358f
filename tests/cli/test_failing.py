"""`afterward failures`: what fails, by what it most likely fails for."""

import json
import re

from afterward.identity import new_id
from afterward.job import Failed, Failure, NewJob, Retry, Succeeded
from tests.cli.conftest import World

REFUSED = Failed(Failure("CardRefused", "no money\nor so", "Traceback …", signature="CardRefused-charge-1f"))
OOPS = Failed(Failure("OopsError", "it did not \x1b[31mwork", signature="OopsError-add-2e"))


def new(task: str = "add") -> NewJob:
    return NewJob(new_id(), f"shop:{task}", "default", 0, "{}")


def test_failures_are_told_by_their_signature_the_last_ones_first(world: World) -> None:
    """With how many they are, and one line of what went wrong, which does not steer the terminal."""
    [newest] = world.end(OOPS, new(), clock_offset=-50)
    *_, charged = world.end(REFUSED, new("charge"), new("charge"), clock_offset=-500)
    world.end(Retry(REFUSED.failure, 3600), new("charge"), clock_offset=-700)
    world.end(Succeeded(), new())

    run = world.type("failures")

    assert run.exit_code == 0, run.output
    header, first, second, retry, cancel = run.stdout.splitlines()
    assert header.split() == ["failed", "tried", "again", "last", "signature", "task", "newest", "failure"]
    assert re.match(
        rf" +1 +0  \d+ s ago +OopsError-add-2e +shop:add +{newest} +OopsError: it did not \\x1b\[31mwork", first
    )
    assert re.match(
        rf" +2 +1  8 min ago +CardRefused-charge-1f +shop:charge +{charged} +CardRefused: no money *$", second
    )
    assert retry.endswith(": afterward retry --all --signature SIGNATURE")
    assert cancel.endswith(": afterward cancel --all --status queued --status running --signature SIGNATURE")


def test_programs_are_told_all_of_it(world: World) -> None:
    first, last = (world.end(REFUSED, new("charge"), clock_offset=offset)[0] for offset in (-500, -50))

    [group] = json.loads(world.type("failures", "--json").stdout)

    times = group.pop("first_at"), group.pop("last_at")
    assert times == tuple(job.finished_at.isoformat() for job in world.jobs([first, last]) if job.finished_at)
    assert group == {
        "signature": "CardRefused-charge-1f",
        "task": "shop:charge",
        "count": 2,
        "retrying": 0,
        "kind": "CardRefused",
        "message": "no money\nor so",
        "newest": last,
    }


def test_there_may_be_none(world: World) -> None:
    world.end(Succeeded(), new())
    assert world.type("failures").output == "no failures\n"


def test_the_jobs_of_a_group_are_listed_by_its_signature(world: World) -> None:
    [oops], [again] = world.end(OOPS, new()), world.end(Retry(OOPS.failure, 3600), new())
    world.end(REFUSED, new())
    listed = json.loads(world.type("jobs", "--signature", "OopsError-add-2e", "--json").stdout)
    assert [job["id"] for job in listed] == [again, oops]
