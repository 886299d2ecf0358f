"""What a job says, when the process that runs it is killed in the middle of it, or stands still and wakes."""

import pytest

from tests.faults.patience import wait_until
from tests.support.listening import Connection
from tests.support.serving import Address
from tests.support.site import LOOPBACK, Site
from tests.support.telling import Told

LEASE = 2


@pytest.fixture(params=["site", "served"])
def place(request: pytest.FixtureRequest) -> Site:
    """A site of each kind: with its store in a file, and on a server."""
    site: Site = request.getfixturevalue(request.param)
    return site


def listen(place: Site, job: str) -> Connection:
    return Connection(Address(LOOPBACK, place.door.port), f"/seen/{job}/events")


def check_that_nothing_is_missing(events: list[Told]) -> None:
    """Numbers without gaps; the first attempt up to where it was lost, then the second, whole; then the end."""
    *rest, done = events
    assert done.data["status"] == "succeeded"
    items = [event for event in rest if event.event == "item"]
    assert [int(event.id) for event in items] == list(range(1, len(items) + 1))
    first = [event.data["data"] for event in items if event.data["attempt"] == 1]
    second = [event.data["data"] for event in items if event.data["attempt"] == 2]
    assert first == list(range(len(first)))
    assert second == list(range(50))
    assert [event.data["attempt"] for event in items] == [1] * len(first) + [2] * len(second)
    assert [event.data for event in rest if event.event == "attempt"] == [{"attempt": 2}]


@pytest.mark.parametrize("task", ["tells", "tells_thread"])
def test_a_worker_that_is_killed_leaves_no_gap(place: Site, task: str) -> None:
    """Who listens hears the rest from the next attempt, marked as such; who comes later hears the same."""
    place.serve(worker=0)
    killed = place.work()
    job = place.door.add(task, "key~1").job
    with listen(place, job) as stream:
        heard = stream.take(20)
        killed.kill()
        place.work()
        heard += list(stream)
    check_that_nothing_is_missing(heard)
    with listen(place, job) as later:
        assert list(later) == heard


@pytest.mark.parametrize("task", ["tells", "tells_thread"])
def test_a_worker_that_was_taken_for_dead_adds_nothing(site: Site, task: str) -> None:
    """It wakes with much to say of a job that is another's by now: it is refused, and its function is stopped."""
    site.serve(worker=0, lease=LEASE)
    frozen = site.work(lease=LEASE)
    job = site.door.add(task, "key~1").job
    with listen(site, job) as stream:
        heard = stream.take(20)
        site.freeze_unlocked(frozen)
        site.work(lease=LEASE)
        heard += list(stream)
    frozen.thaw()
    wait_until(lambda: frozen.events("liveness.taken_for_dead"), "it finds out")
    wait_until(lambda: frozen.events("job.lost") or frozen.events("job.refused"), "it lets go of its job")
    site.door.add("quick", "key~after")
    wait_until(lambda: site.database.job("key~after").status == "succeeded")
    check_that_nothing_is_missing(heard)
    with listen(site, job) as later:
        assert list(later) == heard
