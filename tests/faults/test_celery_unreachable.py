"""A broker that cannot be reached: requests that add jobs for a fleet are answered as ever, by a loop that goes on."""

from collections.abc import Callable, Iterator

import pytest

from tests.faults.conftest import FleetAt
from tests.faults.patience import wait_until
from tests.support.proxy import Proxy
from tests.support.served_site import Clients

HELD_UP_SECONDS = 0.2


@pytest.fixture
def proxy(broker_url: str) -> Iterator[Proxy]:
    """The network between a relay and its broker."""
    with Proxy(int(broker_url.rpartition(":")[2].partition("/")[0])) as proxy:
        yield proxy


@pytest.mark.parametrize("cut_off", [Proxy.reset, Proxy.blackhole], ids=["refuses", "swallows"])
def test_no_request_is_held_up(
    broker_url: str, proxy: Proxy, fleet_at: FleetAt, cut_off: Callable[[Proxy], None]
) -> None:
    """And what was added is handed over once the broker is there again."""
    site = fleet_at(proxy.url(broker_url))
    server = site.serve()
    site.door.add("slow_fleet", "key~first")
    wait_until(lambda: len(site.handed) == 1, "the broker is reached")
    site.door.request("GET", "/ticking", seconds=60)
    cut_off(proxy)
    with Clients(site.door, "slow_fleet", clients=2) as clients:
        wait_until(lambda: server.events("celery.broker_unreachable"), "its trouble is told")
        wait_until(lambda: len(clients.accepted) >= 100, "others are asked for")
        held_up = site.door.request("GET", "/longest").body["seconds"]
    proxy.heal()
    print(f"held up for {held_up * 1000:.1f} ms, {len(clients.accepted)} accepted")
    assert clients.refused == []
    assert held_up < HELD_UP_SECONDS
    wait_until(lambda: len(site.handed) == 1 + len(clients.accepted), "all are handed over")
