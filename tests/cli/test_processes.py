"""`afterward worker --processes N`: workers kept alive by a process that does nothing else."""

import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.conftest import World, is_alive
from tests.support.waiting import wait_until


def runner_of(world: World) -> int:
    """The process that has begun to run a job."""
    return int(wait_until(lambda: world.lines("rested"), "a job runs", seconds=20)[0].split()[1])


def test_a_killed_worker_is_replaced_and_its_job_is_run_by_another(world: World) -> None:
    """`kill -9` of one of two: the other takes its job over, and there are two again."""
    supervisor = world.start("worker", "shop:app", "--processes", "2")
    workers = supervisor.workers(2)
    job = world.enqueue("rest_on_first_attempt", seconds=60)
    killed = runner_of(world)
    assert killed in workers

    os.kill(killed, signal.SIGKILL)

    again = world.wait_for_status(job, "succeeded")
    assert (again.attempt, again.failures, again.deaths) == (2, 0, 1)
    replaced = supervisor.workers(3)
    assert sum(is_alive(pid) for pid in replaced) == 2
    assert re.search(rf"worker\.process_ended pid={killed} code=-9 restart_in=", supervisor.output())
    supervisor.send()
    assert supervisor.wait() == 0


def test_each_worker_has_the_options_that_were_given(world: World) -> None:
    supervisor = world.start("worker", "shop:app", "--processes", "2", "--children", "3", "--jobs-per-child", "7")
    for pid in supervisor.workers(2):
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        assert [words[words.index(option) + 1] for option in ("--children", "--jobs-per-child")] == ["3", "7"]
    supervisor.send()
    assert supervisor.wait() == 0


@pytest.mark.parametrize("whom", ["the supervisor", "everyone"])
def test_a_signal_ends_all_workers_in_their_grace(world: World, whom: str) -> None:
    """A supervisor passes SIGTERM on; a terminal or a service manager has sent it to everyone: it is one wish."""
    short = world.enqueue("rest", seconds=2)
    long = world.enqueue("rest", seconds=60)
    supervisor = world.start("worker", "shop:app", "--processes", "2", "--grace", "4", "--concurrency", "1")
    workers = supervisor.workers(2)
    wait_until(lambda: sum(line.startswith("began") for line in world.lines("rested")) == 2, "both jobs have begun")

    if whom == "everyone":
        supervisor.send_to_all(signal.SIGTERM)
    else:
        supervisor.send(signal.SIGTERM)

    assert supervisor.wait(seconds=15) == 0
    assert [pid for pid in workers if is_alive(pid)] == []
    assert world.job(short).status == "succeeded"
    released = world.job(long)
    assert (released.status, released.attempt, released.failures, released.deaths) == ("queued", 1, 0, 0)


def test_a_second_signal_hurries_all_workers(world: World) -> None:
    """What runs is released at once, however long the grace is."""
    long = [world.enqueue("rest", seconds=60) for _ in range(2)]
    supervisor = world.start("worker", "shop:app", "--processes", "2", "--grace", "600", "--concurrency", "1")
    workers = supervisor.workers(2)
    wait_until(lambda: len(world.lines("rested")) == 2, "both jobs run")

    supervisor.send(signal.SIGINT)
    supervisor.wait_for(r"worker\.stopping", 2)
    wait_until(lambda: "supervisor.hurrying" in supervisor.output() or supervisor.send(signal.SIGINT), "it heeds it")

    assert supervisor.wait(seconds=10) == 0
    assert [pid for pid in workers if is_alive(pid)] == []
    for job in world.jobs(long):
        assert (job.status, job.attempt, job.deaths) == ("queued", 1, 0)


@pytest.mark.parametrize("signals", [1, 2])
def test_what_workers_release_is_taken_over_at_once(world: World, signals: int) -> None:
    """After their grace, or at once when they are hurried: another worker runs it."""
    jobs = [world.enqueue("rest_on_first_attempt", seconds=60) for _ in range(2)]
    grace = "0.3" if signals == 1 else "600"
    supervisor = world.start("worker", "shop:app", "--processes", "2", "--grace", grace, "--concurrency", "1")
    supervisor.workers(2)
    wait_until(lambda: len(world.lines("rested")) == 2, "both jobs run", seconds=20)
    world.start_worker()

    supervisor.send()
    if signals == 2:
        supervisor.wait_for(r"worker\.stopping", 2)
        wait_until(lambda: "supervisor.hurrying" in supervisor.output() or supervisor.send(), "it heeds it")

    assert supervisor.wait(seconds=15) == 0
    for job in jobs:
        taken_over_at_once(world, job)


def test_what_a_worker_releases_is_taken_over_by_another_of_its_supervisor(world: World) -> None:
    """One that is sent SIGTERM by itself; another is started in its place."""
    supervisor = world.start("worker", "shop:app", "--processes", "2", "--grace", "0.3")
    supervisor.workers(2)
    job = world.enqueue("rest_on_first_attempt", seconds=60)
    runner = runner_of(world)

    os.kill(runner, signal.SIGTERM)

    taken_over_at_once(world, job)
    supervisor.workers(3)
    assert re.search(rf"worker\.process_ended pid={runner} code=0 restart_in=", supervisor.output())
    supervisor.send()
    assert supervisor.wait() == 0


def taken_over_at_once(world: World, id: str) -> None:  # noqa: A002 - it is the job's
    """The job was released, and begun again within three seconds; nothing was held against it."""
    job = world.wait_for_status(id, "succeeded")
    assert (job.attempt, job.failures, job.deaths) == (2, 0, 0)
    [released] = job.attempts
    assert released.outcome == "released"
    assert job.started_at is not None
    assert (job.started_at - released.ended_at).total_seconds() < 3


def test_a_worker_is_hurried_by_its_supervisor_alone(world: World) -> None:
    """However many signals it gets itself: they may be those that its supervisor passes on."""
    job = world.enqueue("rest", seconds=2)
    supervisor = world.start("worker", "shop:app", "--processes", "2", "--grace", "30")
    supervisor.workers(2)
    runner = runner_of(world)

    supervisor.send()
    supervisor.wait_for(r"worker\.stopping", 2)
    wait_until(lambda: world.job(job).status != "running" or send_again(runner), "the job ends")

    assert supervisor.wait(seconds=15) == 0
    ended = world.job(job)
    assert (ended.status, ended.attempt) == ("succeeded", 1)


def send_again(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def test_workers_end_when_their_supervisor_is_killed(world: World) -> None:
    """Not by force: what runs has its grace."""
    job = world.enqueue("rest", seconds=1.5)
    supervisor = world.start("worker", "shop:app", "--processes", "2", "--grace", "30")
    workers = supervisor.workers(2)
    runner_of(world)

    supervisor.send(signal.SIGKILL)

    wait_until(lambda: not any(is_alive(pid) for pid in workers), "all workers have ended", seconds=20)
    ended = world.job(job)
    assert (ended.status, ended.attempt) == ("succeeded", 1)


@pytest.mark.parametrize("moment", ["started", "importing", "at work"])
def test_no_process_is_left_when_a_supervisor_is_killed(world: World, moment: str) -> None:
    """However far its workers have come: as soon as they are started, in an import that takes long, or in a job."""
    world.program("slow", "import time\ntime.sleep(3)\nfrom shop import app\n")
    target = "slow:app" if moment == "importing" else "shop:app"
    world.enqueue("rest", seconds=60)
    supervisor = world.start("worker", target, "--processes", "3", "--grace", "0.2")
    workers = [int(pid) for pid in supervisor.wait_for(r"process_started pid=(\d+)", 3)]
    if moment == "at work":
        runner_of(world)
    if moment == "importing":
        wait_until(lambda: all(reads_standard_input_alone(pid) for pid in workers), "they listen", seconds=20)

    supervisor.send(signal.SIGKILL)

    supervisor.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in workers), "all workers have ended", seconds=20)
    assert "worker.cut_off" not in supervisor.output()


def reads_standard_input_alone(pid: int) -> bool:
    """Has a worker put nothing in the place of its standard input, and listens to its supervisor?"""
    with suppress(OSError):
        return Path(f"/proc/{pid}/fd/0").readlink() == Path(os.devnull)
    return False


def test_no_process_is_left_when_a_supervisor_is_killed_while_a_suspect_runs(world: World) -> None:
    """It runs in a child process of its worker, which ends with that."""
    suspect = world.enqueue("crash_twice", seconds=60)
    supervisor = world.start("worker", "shop:app", "--processes", "2", "--grace", "0.2")
    suspects = int(wait_until(lambda: world.lines("rested"), "it runs apart", seconds=30)[0].split()[1])
    workers = [int(pid) for pid in supervisor.wait_for(r"process_started pid=(\d+)", 4)]
    assert suspects not in workers

    supervisor.send(signal.SIGKILL)

    wait_until(lambda: not any(is_alive(pid) for pid in [suspects, *workers]), "all have ended", seconds=20)
    job = world.job(suspect)
    assert (job.status, job.attempt, job.failures, job.deaths) == ("queued", 3, 0, 2)


def test_a_frozen_worker_does_not_keep_its_supervisor(world: World) -> None:
    """One that heeds nothing is killed in the end; the supervisor has not ended well then."""
    supervisor = world.start("worker", "shop:app", "--processes", "2")
    workers = supervisor.workers(2)
    os.kill(workers[0], signal.SIGSTOP)

    supervisor.send()
    # Frozen in the middle of a commit, a worker keeps the store's lock: the other one waits for it for some seconds.
    wait_until(lambda: not is_alive(workers[1]), "the other worker ends", seconds=20)
    wait_until(lambda: "supervisor.hurrying" in supervisor.output() or supervisor.send(), "it heeds another signal")

    assert supervisor.wait(seconds=15) == 1
    assert [pid for pid in workers if is_alive(pid)] == []


def test_a_wrong_target_is_told_once_per_worker_and_ends_all(world: World) -> None:
    """There is nothing to try again."""
    run = world.run("worker", "shop:nothing_here", "--processes", "2")

    assert run.returncode == 2
    assert 1 <= run.stderr.count("shop has no 'nothing_here'") <= 2
    assert "restart_in" not in run.stderr


def test_workers_that_cannot_live_are_tried_with_longer_and_longer_pauses(world: World) -> None:
    """A worker that dies as soon as it is started does not keep the machine busy."""
    world.program("broken", "import os\nos._exit(3)\n")
    began = time.monotonic()
    supervisor = world.start("worker", "broken:app", "--processes", "2")

    pauses = [float(pause) for pause in supervisor.wait_for(r"code=3 restart_in=([\d.]+)", 6)]

    assert time.monotonic() - began >= sum(sorted(pauses)[:4]) / 2
    assert max(pauses) >= 2 * min(pauses)
    supervisor.send()
    supervisor.wait()


def test_a_worker_that_was_up_may_fail_to_start_again_for_a_while(world: World) -> None:
    """As in a deployment, while its files are replaced: that ends neither the supervisor nor the other workers."""
    world.program("changing", "from shop import app\n")
    supervisor = world.start("worker", "changing:app", "--processes", "2")
    workers = supervisor.workers(2)

    world.program("changing", "this is not Python\n")
    os.kill(workers[0], signal.SIGKILL)
    supervisor.wait_for(r"module changing cannot be imported")
    supervisor.wait_for(r"code=2 restart_in=")
    world.program("changing", "from shop import app\n")

    supervisor.workers(3)
    assert is_alive(workers[1])
    supervisor.send()
    assert supervisor.wait() == 0


def test_tasks_do_not_find_the_pipe_to_the_supervisor(world: World) -> None:
    """What a task reads from standard input is empty."""
    job = world.enqueue("read_standard_input")
    supervisor = world.start("worker", "shop:app", "--processes", "2")

    assert world.wait_for_status(job, "succeeded").result == '""'
    supervisor.send()
    assert supervisor.wait() == 0
