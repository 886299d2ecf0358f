"""A broker that is killed under load, and comes back: every job that was accepted runs, once."""

import threading
from collections.abc import Callable

import pytest

from servers.rabbitmq import RabbitMQ
from servers.valkey import Valkey
from tests.faults.conftest import FleetAt
from tests.faults.patience import wait_until
from tests.support.fleet_site import FleetSite

KEYS = [f"key~{number:03}" for number in range(300)]


def valkey_that_keeps() -> Valkey:
    """What it has answered outlives it."""
    return Valkey(appendonly=True, appendfsync="always")


class Supervised:
    """A Celery worker in whose place a new one is started when it has ended.

    On Redis it does so itself when it loses its connection while it has messages that are not acknowledged:
    kombu's `Channel._connparams` finds no connection any more.
    """

    def __init__(self, site: FleetSite) -> None:
        self._site = site
        self._worker = site.hire()
        self.ended: set[int] = set()

    def look(self) -> None:
        if not self._worker.is_alive():
            self.ended.add(self._worker.pid)
            self._worker = self._site.hire(ready=False)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("make", [RabbitMQ, valkey_that_keeps], ids=["rabbitmq", "redis"])
def test_a_broker_is_killed_under_load(make: Callable[[], RabbitMQ | Valkey], fleet_at: FleetAt) -> None:
    """While jobs are published to it, and others that it has given out run. Nobody who asks for jobs notices."""
    accepted: list[str] = []
    with make() as broker:
        site = fleet_at(broker.url(), task_default_queue_type="quorum")
        site.serve()
        worker = Supervised(site)

        def add() -> None:
            for key in KEYS:
                assert site.door.add("slow_fleet", key, seconds=0.01).status == 202
                accepted.append(key)

        def is_done() -> bool:
            worker.look()
            return site.database.unfinished() == 0

        adding = threading.Thread(target=add)
        adding.start()
        wait_until(lambda: len(accepted) > len(KEYS) / 3 and site.effects.count() > 20, "jobs are added and run")
        broker.kill()
        adding.join()
        assert len(accepted) == len(KEYS)
        assert site.database.unfinished() > 0
        broker.start()
        wait_until(is_done, "all has run", 90)
        check(site, worker.ended)


def check(site: FleetSite, ended: set[int]) -> None:
    """Each once, but for what ran in a worker that ended."""
    runs = site.effects.by_key()
    for key in KEYS:
        job, (*again, last) = site.database.job(key), runs[key]
        assert (job.status, job.result, job.failures) == ("succeeded", f'"{key}"', 0)
        assert last.attempt == job.attempt
        assert {run.parent for run in again} <= ended
        assert set(job.ended.values()) <= ({"released", "died"} if ended else {"released"})
