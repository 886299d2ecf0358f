"""A PostgreSQL server that is replaced by its standby: with all that was committed, or without the last of it."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from servers.postgres import Server
from tests.faults.patience import wait_until
from tests.support.paired_site import PairedSite
from tests.support.processes import Process, Starter
from tests.support.served_site import Clients

BACK_SECONDS = 5
"""How long after the failover jobs may wait until they are run again."""

_OF_RUNS = "job.started", "job.lost", "job.refused", "job.finished"
"""What a process tells when it begins a run, and when that is over."""


@pytest.fixture
def paired(tmp_path: Path, starter: Starter) -> Iterator[PairedSite]:
    """A site on a server of its own, with a standby that follows. No process of it may have lost its way."""
    with Server() as primary, primary.standby() as standby, ExitStack() as ending:
        site = PairedSite(tmp_path, starter, ending, primary, standby)
        yield site
        said = site.outputs()
        print(said)
        assert all(process.is_alive() for process in site.processes)
        for broken in ("worker.attempt_broken", "worker.report_broken", "liveness.failed", "never retrieved"):
            assert broken not in said
        for process in site.processes:
            process.kill()
        site.tables.check()
        primary.kill()


def caught_up(site: PairedSite) -> None:
    wait_until(lambda: site.standby.has_all_of(site.server), "the standby has everything")


def waits_for_standby(site: PairedSite) -> None:
    """Commits return from now on when it has them, too."""
    site.server.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    site.server.execute("SELECT pg_reload_conf()")
    followers = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
    wait_until(lambda: site.server.execute(followers), "it is waited for")


def told(process: Process, event: str, job: str) -> int:
    """How often a process has told this of a job."""
    return len([line for line in process.events(event) if job in line])


def ends_of(site: PairedSite, job: str) -> Counter[str]:
    """How often which attempt of a job was said to have ended, by whatever process."""
    ends = [line for process in site.processes for line in process.events("job.finished") if job in line]
    return Counter(line.split("attempt=")[1].split()[0] for line in ends)


def goes_on(site: PairedSite, keys: list[str]) -> None:
    """Requests are accepted, and their jobs run, in time and without a restart."""
    wait_until(lambda: site.door.add("quick", keys[0]).status == 202, "it stores again", BACK_SECONDS)
    for key in keys[1:]:
        assert site.door.add("quick", key).status == 202
    wait_until(lambda: set(keys) <= site.effects.by_key().keys(), "they run", BACK_SECONDS)


def is_reconciled(site: PairedSite, processes: list[Process]) -> None:
    """The store has a row of each process that lives, and of no other; and nothing is in anybody's name."""
    wait_until(lambda: site.tables.unfinished() == 0, "the queue drains")
    pids = sorted(process.pid for process in processes)
    wait_until(lambda: sorted(site.tables.processes().values()) == pids, "each has its row", 15)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("names_both", [False, True], ids=["one name for whoever is primary", "a URL that names both"])
def test_a_standby_that_is_waited_for_has_everything_and_nothing_is_lost(paired: PairedSite, names_both: bool) -> None:
    site = paired
    url = site.url_of_both if names_both else site.url
    waits_for_standby(site)
    processes = [site.serve(worker=0, log="WARNING", url=url), *(site.work(log="WARNING", url=url) for _ in range(2))]
    with Clients(site.door) as clients:
        wait_until(lambda: len(site.effects.runs()) > 100, "jobs run")
        site.server.kill()
        site.fail_over()
        back, accepted = time.monotonic(), len(clients.accepted)
        wait_until(lambda: len(clients.accepted) > accepted, "it stores again", BACK_SECONDS)
        wait_until(lambda: any(run.started > back for run in site.effects.runs()), "it runs again", BACK_SECONDS)
        print(f"stores and runs again {time.monotonic() - back:.1f} s after the failover")
        so_far = len(site.effects.runs())
        wait_until(lambda: len(site.effects.runs()) > so_far + 50, "jobs run")
    is_reconciled(site, processes)
    jobs, runs = site.tables.jobs(), site.effects.by_key()
    assert set(clients.accepted) <= jobs.keys()
    assert jobs.keys() <= {*clients.accepted, *clients.refused}, "what was refused may have been stored all the same"
    assert {job.status for job in jobs.values()} == {"succeeded"}
    assert runs.keys() == jobs.keys()
    assert {len(theirs) for theirs in runs.values()} == {1}
    assert "liveness.taken_for_dead" not in site.outputs()


@pytest.mark.timeout(120)
def test_what_a_standby_did_not_get_is_lost_and_nothing_else(paired: PairedSite) -> None:
    """What it did not get: jobs, claims, ends, the row of a process. What had ended may run again, and ends once."""
    site = paired
    server, worker = site.serve(worker=0), site.work()
    done = site.door.add("quick", "key~done").job
    wait_until(lambda: site.tables.job("key~done").status == "succeeded")
    ends = site.door.add("slow", "key~ends", seconds=4).job
    wait_until(lambda: site.effects.of("key~ends"))
    claimed = site.door.add("slow", "key~claimed", seconds=9, delay=1).job
    later = site.door.add("quick", "key~later", delay=12).job
    caught_up(site)
    site.standby.stop_following()
    kept = site.tables.jobs().keys()

    newcomer = site.work()
    wait_until(lambda: newcomer.pid in site.tables.processes().values())
    lost = [site.door.add("quick", "key~lost-done").job, site.door.add("slow", "key~lost-running", seconds=60).job]
    lost.append(site.door.add("quick", "key~lost-waiting", delay=3600).job)
    wait_until(lambda: site.tables.job("key~lost-done").status == "succeeded")
    wait_until(lambda: site.tables.job("key~ends").status == "succeeded")
    wait_until(lambda: site.effects.of("key~claimed") and site.effects.of("key~lost-running"))
    identities = site.tables.processes()

    site.server.kill()
    site.fail_over()
    assert site.tables.jobs().keys() == kept
    goes_on(site, ["key~new-1", "key~new-2"])
    wait_until(lambda: site.tables.unfinished() == 0, "the queue drains")
    is_reconciled(site, [server, worker, newcomer])
    jobs = site.tables.jobs()
    assert jobs.keys() == {*kept, "key~new-1", "key~new-2"}
    assert {job.status for job in jobs.values()} == {"succeeded"}
    assert {(job.failures, job.deaths) for job in jobs.values()} == {(0, 0)}
    assert not {job.id for job in jobs.values()} & set(lost)

    assert [run.attempt for run in site.effects.of("key~done")] == [1]
    assert [run.attempt for run in site.effects.of("key~ends")] == [1, 2]
    wait_until(
        lambda: ends_of(site, ends).total() == 2 and ends_of(site, claimed) and ends_of(site, later), "all is told"
    )
    assert ends_of(site, ends) == {"1": 1, "2": 1}
    assert ends_of(site, claimed).total() == 1
    assert [ends_of(site, job) for job in (done, later)] == [{"1": 1}, {"1": 1}]
    for process in site.processes:
        begun, *ended = (told(process, event, claimed) for event in _OF_RUNS)
        assert begun == sum(ended), "where it runs it goes on, or is stopped before it begins anew"
    assert newcomer.events("liveness.taken_for_dead")
    assert server.events("liveness.taken_for_dead") + worker.events("liveness.taken_for_dead") == []
    [taken] = [identity for identity, pid in site.tables.processes().items() if pid == newcomer.pid]
    assert taken not in identities
    assert sum(told(process, "job.lost", lost[1]) for process in (worker, newcomer)) == 1


@pytest.mark.timeout(120)
def test_under_load_only_what_was_acknowledged_in_the_lost_window_is_gone(paired: PairedSite) -> None:
    site = paired
    processes = [site.serve(log="WARNING", leasing=True), site.work(log="WARNING"), site.work(log="WARNING")]
    with Clients(site.door, "slow", seconds=0.3) as clients:
        wait_until(lambda: len(site.effects.runs()) > 100, "jobs run")
        sure = list(clients.accepted)
        caught_up(site)
        site.standby.stop_following()
        so_far = len(clients.accepted)
        wait_until(lambda: len(clients.accepted) > so_far + 50, "more is acknowledged")
        site.server.kill()
        asked, accepted = list(clients.asked), len(clients.accepted)
        site.fail_over()
        wait_until(lambda: len(clients.accepted) > accepted + 50, "it stores again")
    is_reconciled(site, processes)
    jobs, runs = site.tables.jobs(), site.effects.by_key()
    gone = set(clients.accepted) - jobs.keys()
    print(f"{len(gone)} of {len(clients.accepted)} acknowledged jobs are gone")
    assert gone
    assert set(sure) <= jobs.keys()
    assert gone <= set(asked)
    assert {job.status for job in jobs.values()} == {"succeeded"}
    assert jobs.keys() <= runs.keys()
    assert {job.deaths for job in jobs.values()} == {0}


def only_reads(site: PairedSite) -> None:
    """Its sessions go on."""
    site.server.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    site.server.execute("SELECT pg_reload_conf()")
    # Whoever is connected has been told by the time that a new connection shows it.
    wait_until(lambda: site.server.execute("SHOW default_transaction_read_only") == [("on",)])


def follows(site: PairedSite) -> None:
    """It was started anew, as a standby."""
    site.server.demote()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("demote", [only_reads, follows])
def test_who_is_connected_to_a_demoted_primary_is_refused_and_goes_on_at_the_new_one(
    paired: PairedSite, demote: Callable[[PairedSite], None]
) -> None:
    """Also whoever only reads there: what that shows is the past."""
    site = paired
    server, worker = site.serve(worker=0), site.work()
    job = site.door.add("slow", "key~running", seconds=1).job
    wait_until(lambda: site.effects.of("key~running"))
    assert site.job_at(site.door, job) == "running"
    caught_up(site)
    demote(site)
    used, began = server.cpu_seconds() + worker.cpu_seconds(), time.monotonic()
    answer = site.door.add("quick", "key~refused")
    assert answer.status == 503
    assert "retry-after" in answer.headers
    wait_until(lambda: "read-only" in site.outputs() or "recovery" in site.outputs(), "it is said why")
    wait_until(lambda: len(worker.events("worker.store_unavailable")) >= 2, "it tries again")
    passed, used = time.monotonic() - began, server.cpu_seconds() + worker.cpu_seconds() - used
    print(f"{used:.2f} s of processor in {passed:.1f} s")
    assert used < 0.2 * passed + 0.3
    assert site.outputs().count("unavailable") < 8 * passed

    site.fail_over()
    goes_on(site, ["key~new"])
    new = site.tables.job("key~new")
    wait_until(lambda: site.job_at(site.door, new.id) == "succeeded", "what is shown is what the new one holds", 5)
    wait_until(lambda: site.job_at(site.door, job) == "succeeded", "what ran ends", 5)
    assert [run.attempt for run in site.effects.of("key~running")] == [1]
    is_reconciled(site, [server, worker])


@pytest.mark.timeout(120)
def test_while_a_standby_that_is_waited_for_is_away_nobody_is_told_that_a_job_is_stored(paired: PairedSite) -> None:
    """Not by a repetition either, which finds the job there. All go on when it is back."""
    site = paired
    site.serve(worker=0)
    site.work()
    assert site.door.add("quick", "key~before").status == 202
    wait_until(lambda: site.tables.job("key~before").status == "succeeded")
    waits_for_standby(site)
    site.standby.stop()
    assert site.door.add("quick", "key~refused").status == 503
    assert site.effects.of("key~refused") == []
    site.standby.start()
    goes_on(site, ["key~new"])
    wait_until(lambda: site.tables.job("key~new").status == "succeeded")
    assert {len(runs) for runs in site.effects.by_key().values()} == {1}
