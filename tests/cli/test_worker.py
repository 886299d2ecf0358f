"""`afterward worker`: one process that runs jobs until it is told to end."""

import os
import re
import signal

import pytest

from afterward.identity import new_id
from afterward.job import NewJob
from tests.cli.conftest import World
from tests.support.waiting import wait_until


@pytest.mark.parametrize("target", ["shop:app", "shop:tasks"])
def test_a_worker_runs_what_another_process_enqueues(world: World, target: str) -> None:
    """What waits when it starts, and what comes later; the module is found in the current folder."""
    early = world.enqueue("add", n=1)
    worker = world.start_worker(target=target)
    late = world.enqueue("add", n=2)

    assert world.wait_for_status(early, "succeeded").result == "1"
    assert world.wait_for_status(late, "succeeded").result == "2"
    worker.send()
    assert worker.wait() == 0
    assert world.lines("added") == ["1", "2"]


def test_a_worker_runs_on_uvloop_where_that_is_installed(world: World) -> None:
    pytest.importorskip("uvloop")
    world.start_worker()
    assert world.wait_for_status(world.enqueue("name_loop"), "succeeded").result == '"uvloop"'


def test_a_worker_runs_on_the_loop_of_the_standard_library_where_uvloop_is_not(world: World) -> None:
    bare = "import sys\n\nsys.modules['uvloop'] = None\n\nfrom shop import app"  # so that it cannot be imported
    world.program("bare", bare)
    world.start_worker(target="bare:app")
    assert '"asyncio.' in (world.wait_for_status(world.enqueue("name_loop"), "succeeded").result or "")


def test_a_program_that_only_enqueues_ends_in_peace(world: World) -> None:
    """Plain code without an event loop: it says nothing, and is not taken for a process that died."""
    program = world.run_python("-c", "import shop; shop.add.enqueue_sync(7)")
    assert (program.returncode, program.stdout, program.stderr) == (0, "", "")

    worker = world.start_worker()

    wait_until(lambda: world.lines("added") == ["7"], "its job has run")
    assert "process.died" not in worker.output()


def test_a_worker_serves_the_queues_it_is_told_to(world: World) -> None:
    """Jobs of other queues are left alone."""
    other = world.enqueue("add", n=1, queue="other")
    mail = world.enqueue("add", n=2, queue="mail")
    slow = world.enqueue("add", n=3, queue="slow")

    worker = world.start_worker("--queue", "mail", "--queue", "slow")

    world.wait_for_status(mail, "succeeded")
    world.wait_for_status(slow, "succeeded")
    worker.send()
    assert worker.wait() == 0
    assert world.job(other).status == "queued"


@pytest.mark.parametrize("task", ["rest", "rest_in_thread"])
def test_concurrency_and_threads_limit_what_runs_at_once(world: World, task: str) -> None:
    """With room for one job in the loop and one in a thread, no second of a kind begins before the first has ended."""
    ids = [world.enqueue(task, seconds=0.2) for _ in range(3)]
    world.start_worker("--concurrency", "1", "--threads", "1")

    for job in ids:
        world.wait_for_status(job, "succeeded")

    assert [line.split()[0] for line in world.lines("rested")] == ["began", "ended"] * 3


def test_children_limit_what_runs_in_child_processes_and_how_often(world: World) -> None:
    """One at once, of which each runs two jobs."""
    ids = [world.enqueue("rest_in_child", seconds=0.1) for _ in range(3)]
    worker = world.start_worker("--children", "1", "--jobs-per-child", "2")

    for job in ids:
        world.wait_for_status(job, "succeeded")

    lines = [line.split() for line in world.lines("rested")]
    assert [what for what, _ in lines] == ["began", "ended"] * 3
    pids = [pid for what, pid in lines if what == "began"]
    assert pids[0] == pids[1] != pids[2]
    worker.send()
    assert worker.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_longer_than_the_grace_is_released_at_no_cost(world: World, number: signal.Signals) -> None:
    """The attempt is counted and nothing is held against the job; the worker has not failed."""
    long = [world.enqueue("rest", seconds=60), world.enqueue("rest_in_thread", seconds=60)]
    worker = world.start_worker("--grace", "0.5")
    wait_until(lambda: len(world.lines("rested")) == 2, "both run")

    worker.send(number)

    assert worker.wait(seconds=10) == 0
    for job in world.jobs(long):
        assert (job.status, job.attempt, job.failures, job.deaths) == ("queued", 1, 0, 0)
        assert [attempt.outcome for attempt in job.attempts] == ["released"]
        assert job.note == "released by a shutdown"


def test_what_ends_within_the_grace_is_finished_and_nothing_new_is_begun(world: World) -> None:
    """Claiming stops on the signal itself."""
    running, next_one = (world.enqueue("rest", seconds=3) for _ in range(2))
    worker = world.start_worker("--concurrency", "1", "--grace", "30")
    wait_until(lambda: world.lines("rested"), "it runs")

    worker.send()

    assert worker.wait(seconds=20) == 0
    assert world.job(running).status == "succeeded"
    assert (world.job(next_one).status, world.job(next_one).attempt) == ("queued", 0)


def test_a_second_signal_releases_at_once_what_runs(world: World) -> None:
    """However long the grace is."""
    long = [world.enqueue("rest", seconds=60), world.enqueue("rest_in_thread", seconds=60)]
    worker = world.start_worker("--grace", "600")
    wait_until(lambda: len(world.lines("rested")) == 2, "both run")

    worker.send(signal.SIGINT)
    worker.wait_for(r"worker\.stopping")
    wait_until(lambda: "worker.hurrying" in worker.output() or worker.send(signal.SIGINT), "it heeds another signal")

    assert worker.wait() == 0
    for job in world.jobs(long):
        assert (job.status, job.attempt, job.failures, job.deaths) == ("queued", 1, 0, 0)


def test_two_signals_at_once_are_one_wish(world: World) -> None:
    """As when a process manager signals a process and its group."""
    running = world.enqueue("rest", seconds=1)
    worker = world.start_worker("--grace", "30")
    wait_until(lambda: world.lines("rested"), "it runs")

    worker.send(signal.SIGINT)
    worker.send(signal.SIGTERM)

    assert worker.wait(seconds=20) == 0
    assert world.job(running).status == "succeeded"


@pytest.mark.parametrize("line", ["import uvloop", "sys.modules['uvloop'] = None"], ids=["uvloop", "asyncio"])
def test_a_signal_is_one_wish_on_either_loop(world: World, line: str) -> None:
    """What runs gets its grace."""
    world.program("looped", f"import sys\n{line}\nfrom shop import app\n")
    running = world.enqueue("rest", seconds=2)
    worker = world.start_worker(target="looped:app")
    wait_until(lambda: world.lines("rested"), "it runs")

    worker.send()

    assert worker.wait() == 0
    assert world.job(running).status == "succeeded"
    assert "worker.hurrying" not in worker.output()


@pytest.mark.parametrize("blocks", ["block", "crunch"])
def test_a_blocked_loop_cannot_keep_a_worker_from_ending(world: World, blocks: str) -> None:
    """It cannot release its job; it says so, and the next worker finds the job."""
    stuck = world.enqueue(blocks, seconds=120)
    worker = world.start_worker("--grace", "600")
    wait_until(lambda: world.lines("rested"), "it runs")

    worker.send()
    worker.wait_for(r"worker\.stopping")
    wait_until(lambda: "worker.hurrying" in worker.output() or worker.send(), "it heeds another signal")

    assert worker.wait(seconds=10) == 1
    assert "worker.cut_off" in worker.output()
    world.start_worker("--grace", "0")
    wait_until(lambda: world.job(stuck).attempt == 2, "another worker runs it")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is nothing to fork")
def test_what_is_sent_to_a_process_that_a_task_has_forked_does_not_end_the_worker(world: World) -> None:
    """It ends that process, as it would anywhere; also when that has just begun."""
    worker = world.start_worker()
    world.wait_for_status(world.enqueue("fork"), "succeeded")

    assert world.lines("forked") == [str(int(signal.SIGTERM))] * 20
    world.wait_for_status(world.enqueue("add", n=1), "succeeded")
    assert "worker.stopping" not in worker.output()


def test_a_task_that_cannot_be_cancelled_is_released_all_the_same(world: World) -> None:
    """What does not end when it is cancelled holds up neither the shutdown nor its own next attempt."""
    stubborn = world.enqueue("cling", seconds=60)
    worker = world.start_worker("--grace", "0.2")
    wait_until(lambda: world.lines("rested"), "it runs")

    worker.send()

    wait_until(worker.has_ended, "the worker ends", seconds=8)
    job = world.job(stubborn)
    assert (job.status, job.attempt, job.failures, job.deaths) == ("queued", 1, 0, 0)


def test_a_shutdown_in_the_middle_of_a_backlog_charges_nobody(world: World) -> None:
    """Whatever is on its way when the signal comes: when the worker has ended, each job has run, or waits unharmed."""
    ids = world.enqueue_all(*(NewJob(new_id(), "shop:nothing", "default", 0, '{"n":1}') for _ in range(10_000)))
    for _ in range(4):
        worker = world.start_worker()
        worker.wait_for("outcome=succeeded", 200)

        worker.send()

        assert worker.wait() == 0
        jobs = world.jobs(ids)
        assert {job.status.value for job in jobs} <= {"queued", "succeeded"}
        assert sum(job.deaths for job in jobs) == 0
        assert all(job.process is None for job in jobs)


def test_a_signal_to_the_whole_group_does_not_charge_the_job_in_a_child_process(world: World) -> None:
    """A terminal and a service manager signal every process: a suspect's child leaves its end to the worker."""
    suspect = world.enqueue("crash_twice", seconds=60)
    workers = [world.start_worker("--grace", "0.5") for _ in range(2)]
    assert [worker.wait() for worker in workers] == [9, 9]
    third = world.start_worker("--grace", "0.5")
    wait_until(lambda: world.lines("rested"), "it runs in a child process", seconds=20)
    assert world.job(suspect).deaths == 2

    third.send_to_all(signal.SIGTERM)

    assert third.wait(seconds=10) == 0
    job = world.job(suspect)
    assert (job.status, job.attempt, job.failures, job.deaths) == ("queued", 3, 0, 2)


LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} (INFO|WARNING|ERROR) \[\d+\] \S.*")


def test_events_are_written_one_line_each_with_their_time(world: World) -> None:
    """To standard error, for a program that has not said how it logs; arguments are never among them."""
    job = world.enqueue("add", n=987_654)
    worker = world.start_worker()
    world.wait_for_status(job, "succeeded")
    worker.wait_for("job.finished")
    worker.send()
    assert worker.wait() == 0

    lines = worker.output().splitlines()
    assert [line for line in lines if not LOG_LINE.fullmatch(line)] == []
    assert any(
        f"job.finished job_id={job} task=shop:add attempt=1 outcome=succeeded duration=" in line for line in lines
    )
    assert "987654" not in worker.output()


def test_a_program_that_has_set_up_logging_keeps_it(world: World) -> None:
    """Its format and its level; nothing is written twice."""
    world.program(
        "logs",
        "import logging\n"
        "logging.basicConfig(level=logging.INFO, format='MINE %(name)s %(message)s')\n"
        "from shop import app\n",
    )
    worker = world.start_worker(target="logs:app")
    worker.send()
    assert worker.wait() == 0

    lines = worker.output().splitlines()
    assert [line for line in lines if not line.startswith("MINE ")] == []
    assert len([line for line in lines if "worker.started" in line]) == 1


def test_an_app_with_two_stores_is_served_from_both(world: World) -> None:
    """Every Afterward that is installed on an app has its jobs run; one of them may have no tasks."""
    world.program(
        "two",
        "from afterward import Afterward\n"
        "from shop import app, write\n"
        "second, third = Afterward('sqlite:///second.db'), Afterward('sqlite:///third.db')\n"
        "second.install(app)\n"
        "third.install(app)\n"
        "@second.task\n"
        "def greet() -> None: write('greeted', 'hello')\n",
    )
    world.enqueue("add", n=1)
    world.enqueue_all(NewJob(new_id(), "two:greet", "default", 0, "{}"), database=world.folder / "second.db")

    worker = world.start_worker(target="two:app")

    wait_until(lambda: (world.lines("added"), world.lines("greeted")) == (["1"], ["hello"]), "both jobs have run")
    worker.send()
    assert worker.wait(seconds=15) == 0
    assert not (world.folder / "third.db").exists()
