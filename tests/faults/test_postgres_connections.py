"""Connections that end, one after the other, again and again: jobs do not notice."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from afterward import Afterward
from afterward.engine.worker import WorkerOptions
from afterward.identity import new_id
from afterward.job import NewJob, Placement
from afterward.stores.postgres import PostgresStore
from servers.postgres import Server
from tests.faults.patience import soon, wait_until
from tests.support.proxy import Proxy
from tests.support.served_site import Clients, ServedSite
from tests.support.stores import send

SOON_SECONDS = 2.5
"""Less than the time after which a worker looks by itself."""


@pytest.mark.timeout(120)
def test_connections_that_are_ended_one_after_the_other_under_load_lose_nothing(served: ServedSite) -> None:
    processes = [served.serve(worker=0, log="WARNING"), served.work(log="WARNING"), served.work(log="WARNING")]
    ended = 0
    with Clients(served.door, "quick+quick_thread") as clients:
        wait_until(lambda: len(served.effects.runs()) > 50, "jobs run")
        for _ in range(5):
            for backend in served.backends:
                ended += served.end_backend(backend)
                so_far = len(served.effects.runs())
                wait_until(lambda so_far=so_far: len(served.effects.runs()) > so_far + 5, "jobs run", 5)
    wait_until(lambda: served.tables.unfinished() == 0, "the queue drains")
    jobs, runs = served.tables.jobs(), served.effects.by_key()
    print(f"{ended} connections ended, {len(clients.accepted)} requests accepted, {len(clients.refused)} refused")
    assert ended > 25
    assert clients.refused == []
    assert jobs.keys() == {f"{key}-{number}" for key in clients.accepted for number in (0, 1)} == runs.keys()
    assert {(job.status, job.failures, job.deaths) for job in jobs.values()} == {("succeeded", 0, 0)}
    assert {len(theirs) for theirs in runs.values()} == {1}
    assert all(process.is_alive() for process in processes)
    assert "process.died" not in served.outputs()


def test_a_job_stored_as_the_workers_connections_end_starts_at_once(served: ServedSite) -> None:
    """It is notified of, or, if that was missed, looked for as soon as the worker hears again."""
    served.serve(worker=0)
    worker = served.work()
    served.door.add("quick", "key~first")
    wait_until(lambda: served.tables.job("key~first").status == "succeeded")
    for number in range(6):
        for backend in served.backends:
            served.end_backend(backend)
        answer = served.door.add("quick", f"key~{number}")
        stored = time.monotonic()
        assert answer.status == 202
        wait_until(lambda number=number: served.effects.of(f"key~{number}"), "it runs")
        [run] = served.effects.of(f"key~{number}")
        print(f"started {run.started - stored:.3f} s after it was stored")
        assert run.started - stored < SOON_SECONDS
        assert run.pid == worker.pid


@pytest.mark.anyio
async def test_a_job_for_another_worker_starts_at_once_though_one_that_does_not_know_it_was_woken_first(
    served: ServedSite,
) -> None:
    """Where a worker waits in the process that stores a job, it is called, and nobody else, until it has looked."""
    worker = served.work()
    tasks = Afterward(served.url)
    async with tasks.running(WorkerOptions()):
        await soon(lambda: len(served.tables.processes()) == 2)
        for number in range(5):
            await soon(lambda: served.tables.unfinished() == 0)
            job = NewJob(new_id(), "report", "default", 0, json.dumps({"key": f"key~{number}"}))
            await tasks.store.enqueue([(job, Placement.free)], None)
            stored = time.monotonic()
            await soon(lambda number=number: served.effects.of(f"key~{number}"), "it runs")
            [run] = served.effects.of(f"key~{number}")
            assert run.started - stored < SOON_SECONDS
            assert run.pid == worker.pid


@pytest.mark.anyio
async def test_who_waits_for_jobs_and_gets_no_connection_back_looks_by_himself(
    postgres_url: str, postgres_server: Server
) -> None:
    """He cannot be called: neither of what was stored meanwhile, nor of what is stored as long as that lasts."""
    with Proxy(postgres_server.port) as network:
        store = PostgresStore(network.url(postgres_url), patience=0.5)
        await store.open()
        try:
            await store.claim("nobody", send(), "token")  # by the connection on which he is called
            waiting = asyncio.create_task(store.wait(60))
            await asyncio.sleep(0)
            network.reset()
            await soon(waiting.done, "he looks")
        finally:
            network.heal()
            await store.close()


def test_a_process_whose_liveness_connection_is_cut_again_and_again_is_never_taken_for_dead(served: ServedSite) -> None:
    """Its lock is gone each time, which is a sign of death; but its heart beats."""
    cut = served.serve(lease=5)
    another = served.serve(door=served.another_door(), lease=5)
    served.door.add("slow", "key~running", seconds=6)
    wait_until(lambda: served.effects.started() == 1)
    [identity] = [process for process, pid in served.tables.processes().items() if pid == cut.pid]
    signs = 0
    until = time.monotonic() + 6
    while time.monotonic() < until:
        for backend in served.backends_that_lock(identity):
            signs += served.end_backend(backend)
        time.sleep(0.001)  # it takes its lock again as soon as it can
    print(f"{signs} connections ended")
    assert signs > 10
    wait_until(lambda: served.tables.job("key~running").status == "succeeded")
    assert [run.attempt for run in served.effects.of("key~running")] == [1]
    assert another.events("process.died") + another.events("process.frozen") == []
    assert cut.events("liveness.taken_for_dead") == []
    assert identity in served.tables.processes()


def test_a_lock_that_a_lost_session_still_has_is_taken_from_it(served: ServedSite) -> None:
    """A server that has not missed a session would show a dead process to live, for hours: it is told to end it."""
    server = served.serve()
    [identity] = served.tables.processes()
    [backend] = served.backends_that_lock(identity)
    with psycopg.connect(served.url, autocommit=True) as lost, ThreadPoolExecutor(1) as thread:
        taking = thread.submit(lost.execute, "SELECT pg_advisory_lock(hashtextextended(%s, 0))", [identity])
        wait_until(lambda: served.tables.query("SELECT 1 FROM pg_locks WHERE NOT granted"), "it stands in line")
        served.end_backend(backend)
        taking.result(5)
        wait_until(lambda: served.backends_that_lock(identity) not in ([], [lost.info.backend_pid]), "it is taken")
        with pytest.raises(psycopg.OperationalError):
            lost.execute("SELECT 1")
    assert server.events("liveness.taken_for_dead") == []
