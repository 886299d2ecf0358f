"""`afterward pause` and `resume`: nobody begins the jobs of a queue, for a while."""

import json
import re

import pytest

from afterward.identity import new_id
from afterward.job import NewJob
from tests.cli.conftest import World
from tests.support.waiting import wait_until


def new(queue: str) -> NewJob:
    return NewJob(new_id(), "shop:add", queue, 0, '{"n":1}')


def test_jobs_of_a_paused_queue_wait_until_it_is_resumed(world: World) -> None:
    """Those of others run."""
    [waiting] = world.enqueue_all(new("mail"))
    assert world.type("pause", "mail").output == "paused queue mail: 1 job waits there; what runs goes on\n"
    world.start_worker()
    [other] = world.enqueue_all(new("default"))
    wait_until(lambda: world.job(other).status == "succeeded", "the other has run")
    assert world.job(waiting).status == "queued"

    assert world.type("resume", "mail").output == "resumed queue mail: 1 job waited there\n"

    world.wait_for_status(waiting, "succeeded")


def test_a_queue_that_is_paused_stays_as_it_was(world: World) -> None:
    """Whoever comes second learns who was first."""
    world.enqueue_all(new("default"))
    assert (
        world.type("pause", "mail", "--by", "ada").output == "paused queue mail: 0 jobs wait there; what runs goes on\n"
    )

    again = world.type("pause", "mail", "--by", "bob")

    assert again.exit_code == 0
    assert re.fullmatch(
        r"queue mail is paused already, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, by ada\n", again.output
    )


def test_which_queues_are_paused_is_told_with_what_there_is_to_do(world: World) -> None:
    """To people and to programs; also of a queue where nothing waits."""
    world.enqueue_all(new("mail"))
    world.type("pause", "slow", "--by", "ada")
    world.type("pause", "mail", "--by", "bob")

    assert json.loads(world.type("stats", "--json").stdout)["paused"] == ["mail", "slow"]
    *_, mail, slow, _ = world.type("stats").stdout.splitlines()
    assert (mail, slow) == ("queue mail is paused, by bob", "queue slow is paused, by ada")


def test_who_has_mistyped_a_queue_is_told_which_are_paused(world: World) -> None:
    world.enqueue_all(new("default"))
    world.type("pause", "mail")

    run = world.type("resume", "male")

    assert (run.exit_code, run.stdout, run.stderr) == (0, "queue male is not paused\n", "paused are: mail\n")


def nameless() -> str:
    """The user of a container may have a number only."""
    raise KeyError("getpwuid(): uid not found: 1001")


def test_if_nothing_is_said_it_is_known_who_has_paused_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user of this process, where it has a name; and the host."""
    world.enqueue_all(new("default"))
    monkeypatch.setattr("socket.gethostname", lambda: "host-a")
    monkeypatch.setenv("LOGNAME", "ada")
    world.type("pause", "mail")
    monkeypatch.setattr("getpass.getuser", nameless)
    world.type("pause", "slow")

    said = [world.type("pause", queue).stdout.rpartition("by ")[2] for queue in ("mail", "slow")]
    assert said == ["ada on host-a\n", "somebody on host-a\n"]


@pytest.mark.parametrize("typed", [["pause", "\udcff"], ["resume", "\udcff"], ["pause", "mail", "--by", "\udcff"]])
def test_a_text_that_no_store_can_keep_is_refused(world: World, typed: list[str]) -> None:
    world.enqueue_all(new("default"))
    run = world.type(*typed)
    assert run.exit_code == 2
    assert "is no text that can be stored" in run.stderr
