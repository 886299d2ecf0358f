"""Open streams of what jobs say, when the server that they come from ends or dies."""

import signal
import time
from contextlib import ExitStack

import pytest

from tests.faults.patience import wait_until
from tests.support.listening import Connection, said
from tests.support.served_site import ServedSite
from tests.support.serving import Address
from tests.support.site import LOOPBACK, Site


def listen(site: Site, job: str, before: Connection | None = None) -> Connection:
    """Connect, as a browser does that has seen what it has seen."""
    browser = None if before is None else before.browser
    return Connection(Address(LOOPBACK, site.door.port), f"/seen/{job}/events", browser)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("worker", [0, 1])
def test_open_streams_do_not_hold_up_a_server_that_ends_and_go_on_at_the_next(
    site: Site, worker: int, number: int
) -> None:
    """They end on the signal, in good order, though the server waits for its connections before all else."""
    server = site.serve(worker=worker, grace=0.3)
    job = site.door.add("slow_at_first" if worker else "quick", "key~1", seconds=60).job
    wait_until(lambda: site.effects.started() == worker)
    with ExitStack() as open_ones:
        streams = [open_ones.enter_context(listen(site, job)) for _ in range(3)]
        assert all(stream.read_some() == [] for stream in streams)  # how long to wait until they connect again
        asked = server.terminate(number)
        assert [list(stream) for stream in streams] == [[]] * 3
    server.wait()
    assert time.monotonic() - asked < 10

    site.serve()
    for stream in streams:
        with listen(site, job, stream) as again:
            assert said(list(again)) == [("done", "succeeded")]


def test_a_stream_that_a_dead_server_has_left_goes_on_at_the_next(site: Site) -> None:
    server = site.serve()
    job = site.door.add("slow_at_first", "key~1", seconds=60).job
    wait_until(lambda: site.effects.started() == 1)
    with listen(site, job) as stream:
        assert stream.read_some() == []
        server.kill()
        with pytest.raises(ConnectionError):
            list(stream)
    site.serve()
    with listen(site, job, stream) as again:
        assert said(list(again)) == [("done", "succeeded")]


def test_a_stream_stays_open_while_the_store_is_away_and_who_comes_meanwhile_is_refused(served: ServedSite) -> None:
    served.serve()
    job = served.door.add("slow", "key~1", seconds=1).job
    with listen(served, job) as stream:
        assert stream.read_some() == []
        served.server.kill()
        refused = served.door.request("GET", f"/seen/{job}/events")
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        served.server.start()
        assert said(list(stream)) == [("done", "succeeded")]
