"""`afterward retry`, `cancel` and `prune`: what a person does with jobs."""

import asyncio
import signal

import apsw
import pytest

from afterward.engine.tidier import CHUNKS
from afterward.identity import new_id
from afterward.job import Failed, Failure, NewJob, Process, Retry, Succeeded
from afterward.stores.sqlite import SQLiteStore
from tests.cli.conftest import World
from tests.support.stores import Living, new_job, put, put_file
from tests.support.waiting import wait_until

OOPS = Failed(Failure("OopsError", "it did not work"))
REFUSED = Failed(Failure("CardRefused", "no money", signature="CardRefused-charge-1f"))
UNKNOWN = "01890000-0000-7000-8000-000000000000"


def new(task: str = "add", queue: str = "default", **more: str | float) -> NewJob:
    return NewJob(new_id(), f"shop:{task}", queue, 0, '{"n":1}', **more)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - said by the test


def statuses(world: World, *ids: str) -> list[str]:
    return [job.status.value for job in world.jobs(ids)]


def test_a_failed_job_is_retried_and_runs(world: World) -> None:
    """By a worker that is there already, within a second or so; the command has long ended."""
    world.start_worker()
    [job] = world.end(OOPS, new())

    run = world.run("retry", job)

    assert (run.returncode, run.stdout, run.stderr) == (0, "retried 1 job\n", "")
    assert world.wait_for_status(job, "succeeded").attempt == 2


def test_ids_may_be_shortened_and_each_is_answered(world: World) -> None:
    """One that could not be moved does not stop the others; the exit code tells, and a line for each says the mend."""
    failed, other = world.end(OOPS, NewJob("0190aaaa-1", "shop:add", "default", 0, "{}"), new())
    [waiting] = world.enqueue_all(new())
    [done] = world.end(Succeeded(), new())

    run = world.type("retry", "0190aaaa", other, waiting, done, UNKNOWN, other)

    assert (run.exit_code, run.stdout) == (1, "retried 2 jobs\n")
    assert run.stderr.splitlines() == [
        f"afterward: there is no job {UNKNOWN} in {world.database}",
        f"afterward: job {waiting} is not retried: it waits to run already",
        f"afterward: job {done} is not retried: it has succeeded; to do it once more, add another: afterward enqueue",
    ]
    assert statuses(world, failed, other) == ["queued", "queued"]


def test_a_job_that_is_named_twice_is_moved_once(world: World) -> None:
    """By its id, by how it begins, in capitals: it is one job."""
    [failed] = world.end(OOPS, new())

    run = world.type("retry", failed, failed[:-1], failed.upper())

    assert (run.exit_code, run.stdout, run.stderr) == (0, "retried 1 job\n", "")


def test_a_job_whose_unique_key_another_has_says_which(world: World) -> None:
    """So that one can wait for that, or cancel it."""
    [failed] = world.end(OOPS, new(unique="report"))
    world.enqueue_all(new(), new("rest", unique="report"))
    [other] = world.enqueue_all(new(unique="report"))

    run = world.type("retry", failed)

    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr == (
        f"afterward: job {failed} is not retried: job {other}, which is queued, has its unique key 'report'; "
        f"wait for its end, or cancel it\n"
    )


def test_a_name_that_no_job_can_have_is_nobodys(world: World) -> None:
    """Bytes that are no text, as a shell hands them over."""
    world.end(OOPS, new())

    run = world.type("retry", "--all", "--task", "\udcff", "--yes")

    assert (run.exit_code, run.output) == (0, "no jobs to retry\n")


def test_jobs_that_wait_are_cancelled_and_those_that_run_are_asked_to_end(world: World) -> None:
    """A worker will not run what is cancelled; what was asked to end is cancelled once it has. To ask is no error."""
    running = world.enqueue("rest", seconds=60)
    worker = world.start_worker("--concurrency", "1", "--grace", "0")
    wait_until(lambda: world.lines("rested"), "it runs")
    waiting = world.enqueue("rest", seconds=60)
    [failed] = world.end(OOPS, new())

    run = world.run("cancel", waiting, running, failed)

    assert (run.returncode, run.stdout) == (1, "cancelled 1 job\nasked 1 job to end\n")
    assert run.stderr == f"afterward: job {failed} is not cancelled: it has failed already\n"
    worker.send()
    assert worker.wait() == 0
    assert statuses(world, waiting, running, failed) == ["cancelled", "cancelled", "failed"]
    assert world.job(running).cancel_asked_at is not None


def test_all_that_run_can_be_asked(world: World) -> None:
    """By their status; those that wait stay as they are."""
    [waiting] = world.enqueue_all(new())
    running = world.lease(new(), new())

    run = world.type("cancel", "--all", "--status", "running", "--yes")

    assert (run.exit_code, run.output) == (0, "asked 2 jobs to end\n")
    assert [job.cancel_asked_at is not None for job in world.jobs([*running, waiting])] == [True, True, False]


def test_a_job_that_waits_for_its_time_is_made_due(world: World) -> None:
    """And runs; one that is due already, or has ended, says so."""
    later, due = world.enqueue_all(new(delay=3600), new("nobody_knows_it"))
    [failed] = world.end(OOPS, new())
    world.start_worker()

    run = world.type("hasten", later[:23], due, failed)

    assert (run.exit_code, run.stdout) == (1, "hastened 1 job\n")
    assert run.stderr.splitlines() == [
        f"afterward: job {due} is not hastened: it is due already; see what it waits for: afterward why {due}",
        f"afterward: job {failed} is not hastened: it is failed; queue it again first: afterward retry {failed}",
    ]
    world.wait_for_status(later, "succeeded")


def test_one_group_of_failures_is_retried(world: World) -> None:
    """By the signature that `afterward failures` tells."""
    [one, same], [other] = world.end(REFUSED, new(), new()), world.end(OOPS, new())
    assert REFUSED.failure.signature

    run = world.type("retry", "--all", "--signature", REFUSED.failure.signature, "--yes")

    assert (run.exit_code, run.output) == (0, "retried 2 jobs\n")
    assert statuses(world, one, same, other) == ["queued", "queued", "failed"]


def test_what_is_tried_again_of_one_group_of_failures_is_cancelled(world: World) -> None:
    """What has failed for good stays, and so does what fails otherwise, or waits for its first attempt."""
    [failed], [again] = world.end(REFUSED, new()), world.end(Retry(REFUSED.failure, 3600), new())
    [other], [waiting] = world.end(Retry(OOPS.failure, 3600), new()), world.enqueue_all(new(delay=3600))

    run = world.type("cancel", "--all", "--signature", REFUSED.failure.signature, "--yes")

    assert (run.exit_code, run.output) == (0, "cancelled 1 job\n")
    assert statuses(world, failed, again, other, waiting) == ["failed", "cancelled", "queued", "queued"]


def test_all_that_the_filters_leave_are_moved(world: World) -> None:
    """By task, queue, status and age: those, and no others. More than a page of them."""
    old = world.end(OOPS, new(), clock_offset=-3600)
    many = world.end(OOPS, *(new() for _ in range(150)))
    others = world.end(OOPS, new("rest"), new("add", "slow"))
    [cancelled] = world.enqueue_all(new("nothing"))
    assert world.type("cancel", cancelled).exit_code == 0

    run = world.type("retry", "--all", "--task", "shop:add", "--queue", "default", "--since", "30m", "--yes")

    assert (run.exit_code, run.output) == (0, "retried 150 jobs\n")
    assert set(statuses(world, *many)) == {"queued"}
    assert statuses(world, *others, cancelled, *old) == ["failed", "failed", "cancelled", "failed"]
    assert world.type("retry", "--all", "--status", "cancelled", "--yes").output == "retried 1 job\n"
    assert world.type("cancel", "--all", "--task", "shop:nothing", "--yes").output == "cancelled 1 job\n"
    assert world.type("cancel", "--all", "--yes").output == "cancelled 150 jobs\n"
    assert world.type("cancel", "--all", "--yes").output == "no jobs to cancel\n"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["retry"], "which jobs? Give their ids; or --all, to retry all that the other options leave"),
        (["cancel", "--task", "shop:add"], "which jobs? Give their ids; or --all, to cancel all that"),
        (["retry", UNKNOWN, "--all"], "retry takes ids, or --all with filters, and not both"),
        (["cancel", UNKNOWN, "--queue", "mail"], "cancel takes ids, or --all with filters, and not both"),
        (["retry", "--all"], "Retry 1 job? There is no terminal to answer at; add --yes to agree beforehand"),
        (
            ["prune", "--older-than", "0", "--status", "failed"],
            "Forget 1 job, with their results and errors? There is no",
        ),
        (["prune", "--status", "queued", "--yes"], "jobs that are queued have not ended, and are not forgotten"),
        (["prune", "--status", "running", "--status", "failed", "--dry-run"], "jobs that are running have not ended"),
        (["retry", "--all", "--since", "soon"], "'soon' is no span of time"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_moved(world: World, typed: list[str], said: str) -> None:
    """As wrong usage, with the mend."""
    [failed] = world.end(OOPS, new())

    run = world.type(*typed)

    assert run.exit_code == 2
    assert said in run.stderr
    assert world.job(failed).status == "failed"


def test_a_person_is_asked_and_can_say_no(world: World) -> None:
    """The number that is asked about is the number that is moved."""
    ids = world.end(OOPS, new(), new())
    command = world.on_terminal("retry", "--all")
    command.wait_for("Retry 2 jobs? [y/N]")
    command.type("n")
    assert command.wait() == 1
    assert statuses(world, *ids) == ["failed", "failed"]

    command = world.on_terminal("retry", "--all")
    command.wait_for("Retry 2 jobs? [y/N]")
    command.type("y")
    assert command.wait() == 0
    assert "retried 2 jobs" in command.said()
    assert statuses(world, *ids) == ["queued", "queued"]


@pytest.mark.parametrize("typed", [["retry", "--all"], ["prune", "--older-than", "0", "--status", "failed"]])
def test_ctrl_c_at_the_question_means_no(world: World, typed: list[str]) -> None:
    """At once: what is typed after it is heard by nobody."""
    [failed] = world.end(OOPS, new())
    command = world.on_terminal(*typed)
    command.wait_for("[y/N]")

    command.send(signal.SIGINT)

    assert command.wait() == 1
    assert statuses(world, failed) == ["failed"]


def test_old_jobs_are_pruned_but_no_failed_ones_unless_they_are_named(world: World) -> None:
    """What failed is what somebody may still want to look at."""
    done = world.end(Succeeded("1"), *(new() for _ in range(250)), clock_offset=-25 * 3600)
    [failed] = world.end(OOPS, new(), clock_offset=-25 * 3600)
    [recent] = world.end(Succeeded(), new(), clock_offset=-23 * 3600)
    [waiting] = world.enqueue_all(new(), clock_offset=-25 * 3600)

    assert world.type("prune", "--dry-run").output == "250 jobs to prune\n"
    assert len(world.jobs(done)) == 250
    run = world.type("prune", "--yes")
    assert run.exit_code == 0, run.output
    assert run.stdout.startswith("pruned 250 jobs; ")
    assert run.stdout.endswith(" can be used again\n")
    assert world.type("prune").output == "0 jobs to prune\n"

    assert statuses(world, failed, recent, waiting) == ["failed", "succeeded", "queued"]
    assert world.type("prune", "--older-than", "0", "--status", "failed", "--yes").stdout.startswith("pruned 1 job; ")
    assert statuses(world, recent, waiting) == ["succeeded", "queued"]


def test_pruning_says_what_can_be_used_again(world: World) -> None:
    """Room in the file, which does not shrink."""
    large = '"' + "x" * 50_000 + '"'
    world.end(Succeeded(large), *(new() for _ in range(20)))

    run = world.type("prune", "--older-than", "0", "--yes")

    assert run.exit_code == 0, run.output
    room = run.stdout.split("; ")[1]
    assert any(room.startswith(f"{kib} KiB of the file's") for kib in range(900, 1100)), room


def test_a_terminal_sees_how_far_it_is(world: World) -> None:
    """A bar, which is gone when the work is done; what is left is the answer."""
    world.end(Succeeded(), *(new() for _ in range(2_000)), clock_offset=-25 * 3600)

    command = world.on_terminal("prune", "--yes")

    assert command.wait() == 0
    assert "pruning" in command.said()
    assert "/2000" in command.said()
    assert "pruned 2,000 jobs" in command.said()


def test_with_no_process_up_the_content_that_no_job_needs_is_freed_too(world: World) -> None:
    """All of it; whether or not there is a job to prune, and without a question, for nobody can want it."""

    async def store_files(count: int) -> None:
        store = SQLiteStore(world.database)
        await store.open()
        await store.join(Process("gone", 1, "example"))
        for _ in range(count):
            await put_file(Living(store, "gone"), b"a")
        [job] = await put(store, new_job(files=(await put_file(Living(store, "gone"), b"a"),)))
        await store.cancel([job])
        await store.leave("gone")
        await store.close()

    asyncio.run(store_files(3 * CHUNKS))
    assert world.type("prune", "--dry-run").output == "0 jobs to prune\n"
    assert chunks_in(world) == 3 * CHUNKS + 1
    assert world.type("prune").output == "0 jobs to prune\n"
    assert chunks_in(world) == 1
    assert world.type("prune", "--older-than", "0", "--yes").output.startswith("pruned 1 job; ")
    assert chunks_in(world) == 0


def chunks_in(world: World) -> int:
    connection = apsw.Connection(str(world.database))
    connection.set_busy_timeout(5000)
    try:
        return connection.execute("SELECT count(*) FROM chunks").get
    finally:
        connection.close()
