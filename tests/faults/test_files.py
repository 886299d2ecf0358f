"""Killed while a file is stored, before its job is, while it is worked on and while it is freed."""

import hashlib
import json
from typing import Any

import pytest

from tests.faults.app_under_test import content_of
from tests.faults.patience import wait_until
from tests.support.database import Row
from tests.support.site import Site

KEY = "key~1"
MEBIBYTES = 3.1
CHUNKS = 13


def right(key: str, mebibytes: float = MEBIBYTES) -> str:
    """What a task should find out about the file of a key."""
    return json.dumps(hashlib.sha256(content_of(key, mebibytes)).hexdigest())


def chunks(site: Site) -> int:
    return site.database.query("SELECT count(*) FROM chunks")[0][0]


def files(site: Site) -> int:
    return site.database.query("SELECT count(*) FROM files")[0][0]


def is_refused(site: Site, **query: Any) -> bool:
    """Does the client learn that its request came to nothing?"""
    try:
        site.door.request("POST", "/files/digest", key=KEY, mebibytes=MEBIBYTES, **query)
    except ConnectionError:
        return True
    return False


def settled(site: Site) -> Row | None:
    """Start again, and see what became of the job, once nothing of a file is left."""
    site.serve(lease=1)
    wait_until(lambda: site.database.unfinished() == 0)
    wait_until(lambda: (chunks(site), files(site)) == (0, 0), "all content is freed")
    return site.database.jobs().get(KEY)


@pytest.mark.parametrize("nth", [1, 7, CHUNKS])
def test_killed_between_chunks_the_client_gets_no_answer_and_nothing_is_kept(site: Site, nth: int) -> None:
    """After the first, in the middle, and after the last, before the job."""
    server = site.serve(crash="after_chunk:" + str(nth))
    assert is_refused(site)
    server.wait()
    assert chunks(site) == nth
    assert settled(site) is None
    assert site.effects.started() == 0


def test_killed_before_the_commit_of_the_job_nothing_is_kept(site: Site) -> None:
    """The file becomes the job's in the transaction that stores it."""
    server = site.serve(crash="after_insert")
    assert is_refused(site)
    server.wait()
    assert chunks(site) == CHUNKS
    assert settled(site) is None
    assert site.effects.started() == 0


def test_killed_after_it_has_stored_the_file_is_worked_on(site: Site) -> None:
    """The client got no answer, and the job is there: with its whole file."""
    site.serve(crash="after_store", leasing=True)
    assert is_refused(site)
    job = settled(site)
    assert job
    assert (job.status, job.attempt, job.failures, job.deaths) == ("succeeded", 2, 0, 1)
    assert job.result == right(KEY)


def test_killed_while_it_works_on_the_file_the_next_begins_it_anew(site: Site) -> None:
    server = site.serve()
    answer = site.door.request("POST", "/files/digest", key=KEY, mebibytes=MEBIBYTES, seconds=60)
    assert answer.status == 202
    wait_until(lambda: site.effects.started() == 1)
    server.kill()
    assert chunks(site) == CHUNKS
    job = settled(site)
    assert job
    assert (job.id, job.status, job.attempt, job.result) == (answer.job, "succeeded", 2, right(KEY))


def test_killed_before_the_end_is_written_the_file_is_still_there(site: Site) -> None:
    """The content goes with the success, in one transaction: never before it."""
    server = site.serve(crash="before_finish")
    is_refused(site)  # the answer may or may not have left before
    server.wait()
    job = settled(site)
    assert job
    assert (job.status, job.attempt, job.result) == ("succeeded", 2, right(KEY))


def test_killed_while_it_frees_content_the_next_goes_on(site: Site) -> None:
    server = site.serve(crash="in_sweep:2", lease=1)
    assert site.door.request("POST", "/files/digest", key=KEY, mebibytes=MEBIBYTES).status == 202
    server.wait()
    assert 0 < chunks(site) < CHUNKS
    job = settled(site)
    assert job
    assert (job.status, job.attempt, job.result) == ("succeeded", 1, right(KEY))


def test_a_suspect_has_its_file_in_its_child_process(site: Site) -> None:
    """Two servers die of it; the third gives it a process of its own, and the file with it."""
    server = site.serve()
    assert site.door.request("POST", "/files/exits_with_a_file", key=KEY, mebibytes=MEBIBYTES).status == 202
    server.wait()
    site.serve(ready=False).wait()
    job = settled(site)
    assert job
    assert (job.status, job.attempt, job.deaths, job.result) == ("succeeded", 3, 2, right(KEY))


def test_frozen_while_it_stores_it_stores_again_under_its_new_name(site: Site) -> None:
    """Taken for dead in the middle, what it had stored is freed by another; it notices, and begins the file anew."""
    server = site.serve(lease=0.5, worker=0)
    other = site.work(lease=0.5)
    site.door.add("quick", "key~before")
    wait_until(lambda: site.database.unfinished() == 0)
    asking = site.door.begin("POST", "/files/digest", key=KEY, mebibytes=60)
    wait_until(lambda: chunks(site) > 0)
    site.freeze_unlocked(server)
    assert chunks(site) < 240
    wait_until(lambda: chunks(site) == 0, "another has buried it")
    server.thaw()
    answer = asking()
    assert answer.status == 202
    wait_until(lambda: site.database.unfinished() == 0)
    job = site.database.job(KEY)
    assert (job.status, job.result) == ("succeeded", right(KEY, 60))
    assert other.is_alive()


def test_killed_at_random_no_file_is_lost_or_mixed_up(site: Site) -> None:
    """Each upload that was answered ends with the hash of its own file, and nothing of any is left."""
    accepted: dict[str, str] = {}
    number = 0
    for pause in (0, 1, 3, 6, 10):
        server = site.serve(lease=1)
        asked = {f"key~{n}": n for n in range(number, number + 12)}
        number += 12
        asking = {
            key: site.door.begin("POST", "/files/digest", key=key, mebibytes=n % 5 * 0.3) for key, n in asked.items()
        }
        wait_until(lambda pause=pause: site.effects.count() >= pause)
        server.kill()
        site.serve(lease=1)
        for key, answer in asking.items():
            try:
                accepted[key] = answer().job
            except ConnectionError:
                continue
        site.processes[-1].kill()
    site.serve(lease=1)
    wait_until(lambda: site.database.unfinished() == 0)
    wait_until(lambda: (chunks(site), files(site)) == (0, 0))
    jobs = site.database.jobs()
    assert accepted
    for key, id_ in accepted.items():
        mebibytes = int(key.removeprefix("key~")) % 5 * 0.3
        assert (jobs[key].id, jobs[key].status, jobs[key].result) == (id_, "succeeded", right(key, mebibytes))
