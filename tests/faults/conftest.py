"""Real processes, killed for real."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from servers.postgres import Server
from servers.valkey import Valkey
from tests.support.database import Database
from tests.support.fleet_site import FleetSite
from tests.support.processes import Starter
from tests.support.served_site import ServedSite
from tests.support.site import Site
from tests.support.tables import Tables


@pytest.fixture
def site(tmp_path: Path, starter: Starter) -> Iterator[Site]:
    """A site whose processes end with the test. When it fails, pytest shows what they said."""
    with ExitStack() as ending:
        site = Site(tmp_path, starter, ending)
        yield site
    print(site.outputs())
    assert site.not_hit() == []
    _check_what_holds_always(site)


@pytest.fixture(params=["rabbitmq_url", "valkey_url"], ids=["rabbitmq", "redis"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty broker, of each kind."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def valkey_results(valkey: Valkey) -> Iterator[str]:
    """The URL of an empty database for what Celery tells of tasks."""
    with valkey.database() as url:
        yield url


FleetAt = Callable[..., FleetSite]


@pytest.fixture
def fleet_at(tmp_path: Path, starter: Starter) -> Iterator[FleetAt]:
    """Makes a site at the broker of a URL, with these settings of its Celery app."""
    sites: list[FleetSite] = []
    with ExitStack() as ending:

        def make(broker: str, **settings: Any) -> FleetSite:
            sites.append(FleetSite(tmp_path, starter, ending, broker, settings))
            return sites[-1]

        yield make
    for site in sites:
        print(site.outputs())
        assert site.not_hit() == []
        _check_what_holds_always(site)


@pytest.fixture(scope="session")
def own_server() -> Iterator[Server]:
    """A PostgreSQL server for tests that stop it. As in life: what it answers is on its disk."""
    with Server(shared_preload_libraries="pg_stat_statements") as server:
        yield server


@pytest.fixture
def served(tmp_path: Path, starter: Starter, own_server: Server) -> Iterator[ServedSite]:
    """A site on that server."""
    own_server.start()
    with ExitStack() as ending:
        site = ServedSite(tmp_path, starter, ending, own_server)
        yield site
        print(site.outputs())
        for process in site.processes:
            process.kill()
        own_server.start()
        assert site.not_hit() == []
        if site.tables.is_there():
            site.tables.check()
            _check_jobs_and_runs(site, site.tables)


def _check_what_holds_always(site: Site) -> None:
    if not site.database.path.exists():
        return
    site.database.check()
    _check_jobs_and_runs(site, site.database)


def _check_jobs_and_runs(site: Site, database: Database | Tables) -> None:
    jobs = database.jobs()
    runs = [run for run in site.effects.runs() if run.key not in site.pruned]
    assert {run.key for run in runs} <= jobs.keys(), "nothing runs that is not stored"
    assert not [n for n in Counter((run.job, run.attempt) for run in runs).values() if n > 1], "an attempt runs once"
    for key, theirs in site.effects.by_key().items():
        if key in site.pruned:
            continue
        assert [run.attempt for run in theirs] == sorted(run.attempt for run in theirs), "attempts grow"
        assert theirs[-1].attempt <= jobs[key].attempt, "every run was counted before it began"
    said = site.outputs()
    assert not [key for key in jobs if key in said], "no argument is in the log"
