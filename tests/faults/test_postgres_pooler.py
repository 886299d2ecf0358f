"""A PgBouncer in transaction mode before the server: jobs are stored through it, and who needs a session says so."""

from collections.abc import Iterator

import pytest

from afterward.stores.postgres.connection import SETTINGS
from servers.pgbouncer import PgBouncer
from tests.faults.patience import wait_until
from tests.support.pgbouncer import pooler
from tests.support.served_site import Clients, ServedSite


@pytest.fixture
def bouncer(served: ServedSite) -> Iterator[PgBouncer]:
    """It has two connections for all, so that no session is anybody's for long."""
    with pooler(served.server, default_pool_size=2) as bouncer:
        yield bouncer


def through(bouncer: PgBouncer, site: ServedSite) -> str:
    return bouncer.url(site.url.rpartition("/")[2])


@pytest.mark.timeout(120)
def test_jobs_are_stored_through_a_pooler_and_run_by_workers_with_sessions_of_their_own(
    served: ServedSite, bouncer: PgBouncer
) -> None:
    """Two servers share two connections; nothing of the one is left in a session that the other gets."""
    url = through(bouncer, served) + "?pgbouncer=true"
    doors = [served.door, served.another_door()]
    for door in doors:
        served.serve(door=door, worker=0, url=url)
    worker = served.work()
    served.forget_statements()
    with Clients(doors[0], "quick+quick_thread+followed", 1) as one, Clients(doors[1], "quick", 1) as other:
        wait_until(lambda: len(served.effects.runs()) > 300, "jobs run")
        assert doors[0].request("POST", "/files/digest", key="key~file", mebibytes=0.5).status == 202
        job = doors[1].request("POST", "/held/quick", key="key~held").job
        wait_until(lambda: doors[0].request("GET", f"/status/{job}").body["status"] == "succeeded")
    wait_until(lambda: served.tables.unfinished() == 0)
    assert one.refused + other.refused == []
    settings = [calls for query, calls in served.statements().items() if "LOCAL synchronous_commit" in query]
    assert sum(settings) > 10, "whatever the server's default is, what is answered is on its disk"
    assert {len(runs) for runs in served.effects.by_key().values()} == {1}
    assert {run.pid for run in served.effects.runs()} == {worker.pid}
    locks = served.tables.query("SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory'")
    assert locks == [(1,)], "the worker's"
    assert "unavailable" not in served.outputs()
    assert len(served.tables.processes()) == 3


def test_a_server_behind_a_pooler_that_dies_leaves_its_held_job_to_others(
    served: ServedSite, bouncer: PgBouncer
) -> None:
    """It has no lock, so nothing shows its death before its lease is over."""
    server = served.serve(worker=0, url=through(bouncer, served) + "?pgbouncer=true", lease=2)
    served.work(lease=2)
    served.door.begin("POST", "/lingering/quick", key="key~held", linger=60)
    wait_until(lambda: served.tables.jobs().keys() == {"key~held"})
    server.kill()
    wait_until(lambda: served.tables.job("key~held").status == "succeeded", seconds=10)


@pytest.mark.parametrize("role", ["worker", "server"])
def test_a_worker_whose_url_leads_through_a_pooler_says_at_its_start_what_it_needs(
    served: ServedSite, bouncer: PgBouncer, role: str
) -> None:
    url = through(bouncer, served) + "?pgbouncer=true"
    process = served.work(url=url) if role == "worker" else served.serve(url=url, ready=False)
    assert process.wait() != 0
    assert "give the worker a URL that leads to the server itself" in process.output()


@pytest.mark.parametrize("ignores", [False, True], ids=["refuses settings", "ignores settings"])
@pytest.mark.parametrize("role", ["worker", "server"])
def test_a_pooler_that_the_url_does_not_tell_of_is_found_out_at_the_start_and_the_mend_named(
    served: ServedSite, role: str, ignores: bool
) -> None:
    """Else its statements would now and then not be known, its calls not be heard, and its lock be somebody else's."""
    settings = {"ignore_startup_parameters": ",".join(SETTINGS)} if ignores else {}
    with pooler(served.server, **settings) as bouncer:
        url = through(bouncer, served)
        process = served.work(url=url) if role == "worker" else served.serve(url=url, worker=0, ready=False)
        assert process.wait() != 0
        assert "add ?pgbouncer=true to its URL" in process.output()
