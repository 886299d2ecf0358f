"""A worker in a process that is in trouble: short of file descriptors, or interrupted at a bad moment."""

from tests.cli.conftest import World
from tests.support.waiting import wait_until

TIGHT = """
import asyncio, os, resource
from afterward import Afterward
import shop

tasks = Afterward(lease=1)
tasks.task(name="shop:crash_twice")(shop.crash_twice.function)
tasks.task(name="shop:nothing")(shop.nothing.function)

@tasks.task(name="shop:exhaust")
async def exhaust(seconds: float) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_one = os.dup(0)
    os.close(next_one)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_one, hard))
    try:
        await asyncio.sleep(seconds)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
"""


def test_a_process_without_free_file_descriptors_keeps_its_jobs(world: World) -> None:
    """Its heart goes on beating: for several leases, no other worker takes it for dead."""
    world.program("tight", TIGHT)
    job = world.enqueue("exhaust", seconds=4)
    first = world.start_worker(target="tight:tasks")
    wait_until(lambda: world.job(job).status == "running", "it runs")
    second = world.start_worker(target="tight:tasks")

    done = world.wait_for_status(job, "succeeded")

    assert (done.attempt, done.deaths) == (1, 0)
    assert "taken_for_dead" not in first.output()
    assert "process.frozen" not in second.output()


def test_a_worker_that_cannot_start_a_child_process_goes_on(world: World) -> None:
    """The suspect that should run there waits, at no cost, and other jobs run."""
    world.program("tight", TIGHT)
    suspect = world.enqueue("crash_twice", seconds=60)
    assert [world.start_worker(target="tight:tasks").wait() for _ in range(2)] == [9, 9]
    exhausting = world.enqueue("exhaust", seconds=4)
    worker = world.start_worker(target="tight:tasks")
    worker.wait_for(r"job\.started .* task=shop:crash_twice attempt=3")

    other = world.enqueue("nothing", n=1)

    world.wait_for_status(other, "succeeded", seconds=10)
    world.wait_for_status(exhausting, "succeeded", seconds=10)
    wait_until(lambda: world.lines("rested"), "the suspect runs once a process can be started", seconds=20)
    assert world.job(suspect).deaths == 2


INTERRUPTED = """
import asyncio, faulthandler, sys, threading
from pathlib import Path
import afterward
from afterward.engine.worker import WorkerOptions
from shop import nothing, tasks

faulthandler.dump_traceback_later(10, exit=True)
library = str(Path(afterward.__file__).parent)
places = set()

async def main() -> None:
    async with tasks.running(WorkerOptions()) as worker:

        def interrupt(frame, event, _argument):
            if not frame.f_code.co_filename.startswith(library):
                return None
            place = (frame.f_code.co_filename, frame.f_lineno)
            if event == "line" and place not in places:
                places.add(place)
                worker.drain()
            return interrupt

        sys.settrace(interrupt)
        for _ in range(10):
            await tasks.store.wait(0.01)
            await nothing.enqueue(1)
        sys.settrace(None)

asyncio.run(main())
print("interrupted at many places:", len(places) > 80)
"""


def test_a_signal_may_come_between_any_two_lines(world: World) -> None:
    """What its handler calls never waits for a lock that the interrupted code holds."""
    world.program("interrupted", INTERRUPTED)

    run = world.run_python("interrupted.py")

    assert (run.returncode, run.stdout) == (0, "interrupted at many places: True\n"), run.stderr
