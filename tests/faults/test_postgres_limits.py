"""A PostgreSQL server at its limits: an error in time, never a false answer, and nobody restarts."""

import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from random import Random

import psycopg
import pytest

from servers.postgres import Server
from tests.faults.patience import wait_until
from tests.support.full_disk import SmallDisk, may_mount, small_disk
from tests.support.processes import Starter
from tests.support.served_site import ServedSite

PATIENCE = 5
HEALED_SECONDS = 5
LANES = 6
"""So many connections the two processes use for what they ask for here."""


def refused(site: ServedSite, key: str) -> None:
    """A request is answered with 503, in time, and says when to come again."""
    began = time.monotonic()
    answer = site.door.add("quick", key)
    assert answer.status == 503
    assert "retry-after" in answer.headers
    assert time.monotonic() - began < 2 * PATIENCE + 2


def heals(site: ServedSite, jobs: int = 2) -> None:
    """All is well again without a restart: requests are accepted, and their jobs run."""
    keys = [f"key~healed-{number}" for number in range(jobs)]
    wait_until(lambda: site.door.add("quick", keys[0]).status == 202, "it stores again", HEALED_SECONDS)
    for key in keys[1:]:
        assert site.door.add("quick", key).status == 202
    wait_until(lambda: set(keys) <= site.effects.by_key().keys(), "they run", HEALED_SECONDS)
    wait_until(lambda: site.tables.unfinished() == 0, "the queue drains")
    assert {len(runs) for runs in site.effects.by_key().values()} == {1}
    assert all(process.is_alive() for process in site.processes)


@contextmanager
def measured(site: ServedSite) -> Generator[None]:
    """While the block lasts, the site's processes use little of the processor, and say little."""
    began, used = time.monotonic(), sum(process.cpu_seconds() for process in site.processes)
    said = site.outputs().count("unavailable")
    yield
    passed = time.monotonic() - began
    used = sum(process.cpu_seconds() for process in site.processes) - used
    said = site.outputs().count("unavailable") - said
    print(f"{used:.2f} s of processor and {said} warnings in {passed:.1f} s")
    assert used < 0.3 * passed + 0.5
    assert said < 8 * passed + 20


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    if not may_mount():
        pytest.skip("only who may mount has a disk to fill")
    with ExitStack() as ending:
        folder = Path(ending.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o711)  # the server is nobody
        yield ending.enter_context(small_disk(folder / "disk", 200))


@pytest.fixture
def on_disk(tmp_path: Path, starter: Starter, disk: SmallDisk) -> Iterator[ServedSite]:
    """A site whose server has that disk for itself."""
    disk.folder.chmod(0o777)
    with Server(disk.folder) as server, ExitStack() as ending:
        site = ServedSite(tmp_path, starter, ending, server)
        yield site
        print(site.outputs())
        for process in site.processes:
            process.kill()


@pytest.mark.timeout(120)
def test_a_server_whose_disk_is_full_refuses_requests_and_heals(on_disk: ServedSite, disk: SmallDisk) -> None:
    site = on_disk
    site.serve(worker=0)
    site.work()
    chance = Random(0)
    numbers = count()

    def ask() -> tuple[str, int]:
        """With arguments that cannot be packed."""
        key = f"key~{next(numbers)}-{chance.randbytes(1500).hex()}"
        return key, site.door.add("quick", key).status

    accepted = [key for key, status in [ask() for _ in range(5)] if status == 202]
    assert len(accepted) == 5
    wait_until(lambda: site.tables.unfinished() == 0)
    disk.fill()
    for _ in range(400):
        key, status = ask()
        if status == 503:
            break
        accepted.append(key)
    else:
        pytest.fail("it never ran full")
    with measured(site):
        for number in range(3):
            refused(site, f"key~refused-{number}-{chance.randbytes(1500).hex()}")
    assert "its disk is full" in site.outputs()
    assert site.door.request("GET", "/health").status == 200
    disk.free()
    site.server.start()  # if it has given up meanwhile
    heals(site)
    jobs = site.tables.jobs()
    assert set(accepted) <= jobs.keys()
    assert {job.status for job in jobs.values()} == {"succeeded"}


def connected(site: ServedSite) -> psycopg.Connection | None:
    """A connection of somebody else's; None when there is none left."""
    try:
        return psycopg.connect(site.url, application_name="another")
    except psycopg.OperationalError as error:
        if "too many clients" not in str(error):
            raise
        return None


@contextmanager
def no_connection_left(site: ServedSite) -> Generator[None]:
    """Others have all the connections that the server allows."""
    with ExitStack() as ending:

        def take_all() -> bool:
            for backend in site.backends:
                site.end_backend(backend)
            while (other := connected(site)) is not None:
                ending.enter_context(other)
            return not site.backends

        wait_until(take_all)
        yield


@pytest.mark.timeout(120)
def test_a_server_without_a_connection_left_refuses_requests_and_heals(served: ServedSite) -> None:
    served.server.restart(max_connections=20)
    try:
        served.serve(worker=0)
        served.work()
        wait_until(lambda: len(served.tables.processes()) == 2)
        with no_connection_left(served), measured(served):
            refused(served, "key~refused")
            wait_until(lambda: "TooManyConnections" in served.outputs())
        heals(served)
    finally:
        served.server.restart(max_connections=100)


@pytest.mark.timeout(120)
def test_a_server_that_only_lets_read_refuses_requests_and_heals(served: ServedSite) -> None:
    """As a standby does, and a primary that was one before a failover."""
    served.serve(worker=0)
    served.work()
    served.door.add("slow", "key~running", seconds=1)
    wait_until(lambda: served.effects.started() == 1)
    database = served.tables.query("SELECT current_database()")[0][0]
    served.server.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    for backend in served.backends:
        served.end_backend(backend)
    with measured(served):
        refused(served, "key~refused")
        wait_until(lambda: "read-only" in served.outputs(), "it is said why")
    served.server.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")
    heals(served)
    assert served.tables.job("key~running").status == "succeeded"


@pytest.mark.timeout(120)
def test_tables_that_another_has_locked_make_requests_wait_or_fail_and_leave_no_statement_behind(
    served: ServedSite,
) -> None:
    """Also the server gives up in time what nobody waits for any more."""
    served.serve(worker=0, lease=30)
    worker = served.work(lease=30)
    served.door.add("quick", "key~first")
    wait_until(lambda: served.tables.unfinished() == 0)
    with psycopg.connect(served.url) as other, measured(served):
        other.execute("LOCK TABLE afterward.jobs IN ACCESS EXCLUSIVE MODE")
        refused(served, "key~refused")
        wait_until(lambda: worker.output().count("worker.store_unavailable") >= 3, "it has given up again and again")
        print(f"{served.waiting} statements wait, {len(served.backends)} connections are open")
        assert served.waiting <= LANES
        other.rollback()
    heals(served)
    assert "process.frozen" not in served.outputs()


@pytest.mark.timeout(120)
def test_a_process_that_stands_still_in_mid_transaction_keeps_rows_locked_for_some_seconds_and_no_longer(
    served: ServedSite,
) -> None:
    """What it had begun is undone; when it wakes, its time is over, and it says so."""
    process = served.serve(stop="after_insert", lease=60)
    answer = served.door.begin("POST", "/files/digest", key="key~1", mebibytes=0.1)
    wait_until(lambda: process.stands_still)
    assert served.in_transaction
    wait_until(lambda: not served.in_transaction, "the server ends it", 15)
    assert served.tables.jobs() == {}
    process.thaw()
    assert answer().status == 503
    assert served.door.request("POST", "/files/digest", key="key~2", mebibytes=0.1).status == 202
    wait_until(lambda: served.tables.job("key~2").status == "succeeded")
    assert served.effects.by_key().keys() == {"key~2"}
