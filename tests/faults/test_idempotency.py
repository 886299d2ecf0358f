"""Requests with an `Idempotency-Key` that are sent again, when processes and stores have failed in between.

Whatever happens to the first, there is one job in the end, and the client learns of it.
"""

from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import pytest

from tests.faults.patience import SECONDS, wait_until
from tests.support.database import Database
from tests.support.served_site import ServedSite
from tests.support.site import Answer, Door, Site
from tests.support.tables import Tables

KEY = "key~1"
HEADERS = {"Idempotency-Key": "one"}
LEASE = 2


@pytest.fixture(params=["site", "served"])
def site(request: pytest.FixtureRequest) -> Site:
    """A site on a file, and one on a PostgreSQL server."""
    site: Site = request.getfixturevalue(request.param)
    return site


def stored_by(site: Site) -> Database | Tables:
    return site.tables if isinstance(site, ServedSite) else site.database


def ask(door: Door, **query: object) -> Answer:
    return door.request("POST", "/keyed/quick", HEADERS, key=KEY, **query)


def ask_in_vain(site: Site) -> None:
    """The server dies in the middle of it."""
    try:
        answer = ask(site.door)
    except ConnectionError:
        return
    raise AssertionError(f"it was answered: {answer}")


def accepted(door: Door, **query: object) -> Answer:
    """The first answer that is no 409, as a client gets it that comes again when it is told to."""
    answers: list[Answer] = []

    def is_accepted() -> bool:
        answers.append(ask(door, **query))
        return answers[-1].status != 409

    wait_until(is_accepted, "the key is free, or its request is answered")
    return answers[-1]


def assert_done_once(site: Site, answer: Answer) -> None:
    wait_until(lambda: stored_by(site).unfinished() == 0, "all is done")
    assert list(stored_by(site).jobs()) == [KEY]
    assert stored_by(site).job(KEY).id == answer.job
    assert len(site.effects.of(KEY)) == 1


def test_of_two_at_once_in_two_processes_one_is_carried_out(site: Site) -> None:
    """The other is told to come again, and gets the same answer."""
    doors = [site.door, site.another_door()]
    for door in doors:
        site.serve(door=door)
    said = site.folder / "go on"
    with ThreadPoolExecutor() as threads:
        asked = [threads.submit(ask, door, until=said) for door in doors]
        done, waiting = wait(asked, timeout=SECONDS, return_when=FIRST_COMPLETED)
        said.touch()
        [second], [first] = ([each.result() for each in some] for some in (done, waiting))
    assert (first.status, second.status) == (202, 409)
    assert int(second.headers["retry-after"]) > 0
    for door in doors:
        again = ask(door, until=said)
        assert (again.status, again.body, again.headers["idempotency-replayed"]) == (202, first.body, "true")
    assert_done_once(site, first)


def test_killed_between_reserving_and_storing_the_key_is_free_when_the_death_is_seen(site: Site) -> None:
    site.serve(crash="before_store")
    ask_in_vain(site)
    assert stored_by(site).jobs() == {}
    site.serve()
    answer = accepted(site.door)
    assert (answer.status, "idempotency-replayed" in answer.headers) == (202, False)
    assert_done_once(site, answer)


def test_killed_after_storing_and_before_the_answer_the_client_is_answered_with_the_same_job(site: Site) -> None:
    site.serve(crash="after_store")
    ask_in_vain(site)
    stored = stored_by(site).job(KEY)
    site.serve()
    answer = ask(site.door)
    assert (answer.status, answer.headers["idempotency-replayed"], answer.job) == (202, "true", stored.id)
    assert_done_once(site, answer)


def test_while_a_frozen_process_has_the_key_the_client_is_told_to_come_again(site: Site) -> None:
    """Until that is taken for dead. When it wakes, it has lost its key, and stores nothing."""
    frozen = site.serve(lease=60, worker=0, stop="before_store")  # it beats rarely: it has no lock on the file then
    first = site.door.begin("POST", "/keyed/quick", HEADERS, key=KEY)
    wait_until(lambda: frozen.stands_still)
    door = site.another_door()
    another = site.serve(door=door, lease=LEASE)
    assert ask(door).status == 409
    answer = accepted(door)
    assert (answer.status, "idempotency-replayed" in answer.headers) == (202, False)
    assert another.events("process.frozen")

    frozen.thaw()
    late = first()
    assert late.status == 409
    assert frozen.events("request.overtaken")
    assert ask(site.door).body == answer.body
    assert_done_once(site, answer)


def test_a_frozen_process_that_wakes_before_anybody_comes_again_stores_its_job(site: Site) -> None:
    """It has not been taken for dead."""
    frozen = site.serve(stop="before_store")
    first = site.door.begin("POST", "/keyed/quick", HEADERS, key=KEY)
    wait_until(lambda: frozen.stands_still)
    frozen.thaw()
    answer = first()
    assert ask(site.door).body == answer.body
    assert_done_once(site, answer)
