"""A job that somebody has asked to end never begins once more, whatever becomes of the process that runs it."""

import pytest

from tests.faults.patience import wait_until
from tests.support.database import Row
from tests.support.served_site import ServedSite
from tests.support.site import Site


@pytest.fixture(params=["site", "served"])
def place(request: pytest.FixtureRequest) -> Site:
    """A site of each kind: with its store in a file, and on a server."""
    site: Site = request.getfixturevalue(request.param)
    return site


def job(place: Site, key: str) -> Row:
    return place.tables.job(key) if isinstance(place, ServedSite) else place.database.job(key)


def processes(place: Site) -> set[int]:
    rows = place.tables.processes() if isinstance(place, ServedSite) else place.database.processes()
    return set(rows.values())


def begin(place: Site, task: str, key: str) -> str:
    """Have a worker begin a job that takes long, and does not look whether it is to end; its id."""
    id_ = place.door.add(task, key, seconds=60).job
    wait_until(lambda: place.effects.of(key), "it runs")
    return id_


def ask_to_end(place: Site, id_: str) -> None:
    assert place.door.request("POST", f"/cancel/{id_}").body == "asked"


def check_that_it_is_over(place: Site, key: str) -> None:
    """It was begun once; and whoever could have begun it again has looked for jobs since."""
    place.door.add("quick", "key~after")
    wait_until(lambda: job(place, "key~after").status == "succeeded")
    assert (job(place, key).status, job(place, key).attempt, len(place.effects.of(key))) == ("cancelled", 1, 1)


def test_it_is_cancelled_when_its_worker_is_killed(place: Site) -> None:
    """By whoever sees the death, in place of being queued again; and the attempt is told to have died."""
    place.serve(worker=0)
    killed = place.work()
    asked = begin(place, "slow_thread", "key~1")
    another = place.work()
    wait_until(lambda: another.pid in processes(place))
    ask_to_end(place, asked)
    assert job(place, "key~1").status == "running"

    killed.kill()

    wait_until(lambda: job(place, "key~1").status == "cancelled")
    check_that_it_is_over(place, "key~1")
    assert job(place, "key~1").ended == {1: "died"}


def test_it_is_cancelled_when_it_is_asked_after_its_worker_was_killed(site: Site) -> None:
    """Nobody has seen the death yet: the server that hears of it is the only process there is."""
    site.serve(worker=0)
    killed = site.work()
    running = begin(site, "slow_thread", "key~1")
    killed.kill()

    ruling = site.door.request("POST", f"/cancel/{running}").body

    assert ruling in {"asked", "done"}  # as the death was not seen, or was
    wait_until(lambda: job(site, "key~1").status == "cancelled")
    site.work()
    check_that_it_is_over(site, "key~1")


def test_it_is_cancelled_when_its_worker_stands_still_past_its_lease(site: Site) -> None:
    """That cannot say anything more of it when it goes on: not that it has succeeded, either."""
    site.serve(worker=0, lease=2)
    frozen = site.work(lease=2)
    asked = begin(site, "slow_thread", "key~1")
    another = site.work(lease=2)
    wait_until(lambda: another.pid in processes(site))
    site.freeze_unlocked(frozen)
    ask_to_end(site, asked)

    wait_until(lambda: job(site, "key~1").status == "cancelled", seconds=20)
    frozen.thaw()
    wait_until(lambda: frozen.events("liveness.taken_for_dead"), "it finds out")
    check_that_it_is_over(site, "key~1")


def test_it_is_cancelled_when_its_worker_is_shut_down(site: Site) -> None:
    """It does not end in the grace: it is not released for the next worker to begin."""
    site.serve(worker=0)
    ending = site.work(grace=0.3)
    asked = begin(site, "slow_thread", "key~1")
    ask_to_end(site, asked)

    ending.terminate()
    ending.wait(10)

    assert job(site, "key~1").status == "cancelled"
    site.work()
    check_that_it_is_over(site, "key~1")
