"""A network between one process and its PostgreSQL server that swallows everything, or an answer."""

import time

import psycopg
import pytest

from tests.faults.patience import wait_until
from tests.support.proxy import Proxy, Way
from tests.support.served_site import ServedSite

LEASE = 2
PATIENCE = 5
"""How long an operation of the store is tried for."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", [Way.both, Way.requests, Way.replies])
def test_a_worker_that_is_cut_off_loses_its_jobs_with_its_lease_and_is_refused_when_it_is_back(
    served: ServedSite, way: Way
) -> None:
    """It may run them to their ends meanwhile: that is not to be helped. It takes a new identity, and serves again."""
    with Proxy(served.server.port) as network:
        served.serve(worker=0, lease=LEASE)
        cut = served.work(url=network.url(served.url), lease=LEASE)
        wait_until(lambda: cut.pid in served.tables.processes().values())
        served.door.add("slow", "key~finishes", seconds=3)
        served.door.add("fails_at_first", "key~fails", seconds=3)
        served.door.add("slow_at_first", "key~goes-on", seconds=60)
        wait_until(lambda: served.effects.started() == 3)
        [identity] = [process for process, pid in served.tables.processes().items() if pid == cut.pid]
        network.blackhole(way)
        began = time.monotonic()
        another = served.work(lease=LEASE)
        wait_until(lambda: served.tables.unfinished() == 0, "others have done its jobs", 20)
        print(f"done elsewhere {time.monotonic() - began:.1f} s after the cut")
        assert "process.frozen" in served.outputs()
        before = served.tables.jobs()
        assert {run.pid for run in served.effects.runs() if run.attempt > 1} == {another.pid}
        used = cut.cpu_seconds()
        wait_until(lambda: cut.events("worker.store_unavailable"), "it has noticed", 2 * PATIENCE + 2)
        assert cut.cpu_seconds() - used < 1

        network.heal()
        healed = time.monotonic()
        wait_until(lambda: cut.events("liveness.taken_for_dead"), "it finds out")
        wait_until(lambda: len(cut.events("job.lost") + cut.events("job.refused")) == 3, "it lets go of its jobs")
        assert cut.events("job.finished") == []
        assert served.tables.jobs() == before
        another.stop()
        served.door.add("quick", "key~new")
        wait_until(lambda: served.tables.job("key~new").status == "succeeded")
        [run] = served.effects.of("key~new")
        print(f"serves again {run.started - healed:.1f} s after the network healed")
        assert run.pid == cut.pid
        assert identity not in served.tables.processes()
        wait_until(lambda: served.tables.taken() == 0)


def test_a_server_that_is_cut_off_refuses_requests_in_time_and_accepts_them_when_the_network_heals(
    served: ServedSite,
) -> None:
    with Proxy(served.server.port) as network:
        server = served.serve(url=network.url(served.url), worker=0, lease=60)
        worker = served.work(lease=60)
        assert served.door.add("quick", "key~before").status == 202
        network.blackhole()
        answers = [served.door.begin("POST", "/jobs/quick", key=f"key~{number}") for number in range(3)]
        began = time.monotonic()
        for answer in answers:
            assert answer().status == 503
        assert time.monotonic() - began < 2 * PATIENCE + 2
        assert served.door.request("GET", "/health").status == 200
        network.heal()
        wait_until(lambda: served.door.add("quick", f"key~{time.monotonic()}").status == 202, "it stores again", 5)
        wait_until(lambda: served.tables.unfinished() == 0 and served.tables.taken() == 0)
        assert {len(runs) for runs in served.effects.by_key().values()} == {1}
        assert server.is_alive()
        assert worker.is_alive()


def test_a_transaction_that_is_swallowed_in_its_middle_is_given_up_in_time(served: ServedSite) -> None:
    """Nobody waits for an answer to its rollback, nor for the server to hear that it is to be cancelled."""
    with Proxy(served.server.port) as network:
        served.serve(url=network.url(served.url), lease=60)
        with psycopg.connect(served.url) as other:
            other.execute("LOCK TABLE afterward.files IN EXCLUSIVE MODE")
            answer = served.door.begin("POST", "/files/digest", key="key~1", mebibytes=0.1)
            wait_until(lambda: served.waiting, "it has begun a transaction, and waits")
            network.blackhole()
        began = time.monotonic()
        assert answer().status == 503
        assert time.monotonic() - began < 2 * PATIENCE + 2
        network.heal()
        key = "key~2"
        wait_until(lambda: served.door.request("POST", "/files/digest", key=key, mebibytes=0.1).status == 202, "", 5)
        wait_until(lambda: served.tables.job("key~2").status == "succeeded")
        wait_until(lambda: served.tables.unfinished() == 0)
        assert {len(runs) for runs in served.effects.by_key().values()} == {1}


@pytest.mark.parametrize("task", ["quick", "quick_thread"])
@pytest.mark.parametrize("bytes_left", [0, 1, 30])
def test_an_enqueue_whose_answer_is_lost_is_stored_once_and_its_client_is_told_so(
    served: ServedSite, task: str, bytes_left: int
) -> None:
    with Proxy(served.server.port) as network:
        served.serve(url=network.url(served.url), worker=0)
        served.work()
        network.tear(bytes_left, about=b"key~1")
        assert served.door.add(task, "key~1").status == 202
        assert network.cuts == 1
        wait_until(lambda: served.tables.job("key~1").status == "succeeded")
        assert [run.attempt for run in served.effects.of("key~1")] == [1]


def test_an_enqueue_of_a_job_leased_here_whose_answer_is_lost_starts_it_once(served: ServedSite) -> None:
    with Proxy(served.server.port) as network:
        served.serve(url=network.url(served.url), leasing=True)
        network.lose_answer(about=b"key~1")
        assert served.door.add("quick", "key~1").status == 202
        assert network.cuts == 1
        wait_until(lambda: served.tables.job("key~1").status == "succeeded")
        assert [run.attempt for run in served.effects.of("key~1")] == [1]


def test_a_file_whose_answers_are_lost_is_stored_once(served: ServedSite) -> None:
    """A transaction of several statements: its commit is carried out, and the answer to it lost."""
    with Proxy(served.server.port) as network:
        served.serve(url=network.url(served.url))
        network.lose_answer(about=b"COMMIT")
        answer = served.door.request("POST", "/files/digest", key="key~1", mebibytes=0.3)
        assert answer.status == 202
        assert network.cuts == 1
        network.lose_answer(about=b"COMMIT")
        wait_until(lambda: served.tables.job("key~1").status == "succeeded")
        assert len(served.effects.of("key~1")) == 1


def test_a_claim_whose_answer_is_lost_gives_the_same_leases_again(served: ServedSite) -> None:
    """They cost no second attempt."""
    with Proxy(served.server.port) as network:
        served.serve(worker=0)
        worker = served.work(url=network.url(served.url))
        served.door.add("quick", "key~first")
        wait_until(lambda: served.tables.job("key~first").status == "succeeded")
        network.lose_answer(about=b'"room"')
        served.door.add("quick+quick+quick_thread", "key~1")
        wait_until(lambda: served.tables.unfinished() == 0)
        assert network.cuts == 1
        assert {run.attempt for run in served.effects.runs()} == {1}
        assert "job.given_back" not in worker.output()


@pytest.mark.parametrize("task", ["quick", "fails_at_first", "followed"])
def test_an_end_whose_answer_is_lost_is_accepted_once(served: ServedSite, task: str) -> None:
    with Proxy(served.server.port) as network:
        served.serve(worker=0)
        worker = served.work(url=network.url(served.url))
        outcome = b"retry" if task == "fails_at_first" else b"succeeded"
        options = {"seconds": 0.1} if task == "fails_at_first" else {}
        network.lose_answer(about=outcome)
        served.door.add(task, "key~1", **options)
        wait_until(lambda: served.tables.unfinished() == 0 and served.tables.jobs())
        wait_until(lambda: served.tables.job("key~1").status == "succeeded")
        wait_until(lambda: network.cuts == 1)
        job, runs = served.tables.job("key~1"), served.effects.of("key~1")
        expected = 2 if task == "fails_at_first" else 1
        assert [run.attempt for run in runs] == list(range(1, expected + 1))
        assert (job.attempt, job.failures, job.deaths) == (expected, expected - 1, 0)
        if task == "followed":
            wait_until(lambda: served.tables.job("after key~1").status == "succeeded")
            assert len(served.effects.of("after key~1")) == 1
        assert worker.events("job.refused") == []


def test_a_heart_whose_connection_is_swallowed_beats_again_on_another_within_its_lease(served: ServedSite) -> None:
    """Nobody resets the old connection: it is the silence that tells. What it was for is asked again on a new one."""
    with Proxy(served.server.port) as network:
        cut = served.work(url=network.url(served.url), lease=10)
        another = served.work(lease=10)
        wait_until(lambda: len(served.tables.processes()) == 2)
        [identity] = [process for process, pid in served.tables.processes().items() if pid == cut.pid]
        [backend] = served.backends_that_lock(identity)
        network.swallow()
        count = served.tables.beats()[identity]
        wait_until(lambda: served.tables.beats().get(identity, 0) > count, "it beats again", 10)
        wait_until(lambda: served.backends_that_lock(identity) not in ([], [backend]), "its lock is another's", 10)
        assert another.events("process.frozen") + another.events("process.died") == []
        assert cut.events("liveness.taken_for_dead") == []
