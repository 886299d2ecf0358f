"""Why a job is not done: every answer there is, in words."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import pytest

from afterward.job import Attempt, Failure, Job, Status
from afterward.reasons import Cause, Reason
from afterward.stores.base import COUNTED
from afterward.stores.seen import Pause, ProcessSeen, Served, TaskSeen
from afterward.why import Surroundings, why

NOW = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)
OOPS = Failure("OSError", "no route\nto host")


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


JOB = Job(
    id="0198", task="shop:send", queue="mail", priority=0, status=Status.queued, attempt=0, failures=0, deaths=0,
    arguments="{}", result=None, failure=None, note=None, unique=None, process=None, created_at=ago(5), run_at=ago(5),
    started_at=None, finished_at=None,
)  # fmt: skip


def process(id_: str = "a", running: Sequence[str] = (), **served: Any) -> ProcessSeen:
    """A worker with three places for `shop:send`, and two threads for `shop:pack`."""
    said: dict[str, Any] = {
        "tasks": {"shop:send": "v1", "shop:pack": "v1"}, "queues": None, "concurrency": 3, "threads": 2,
        "threaded": {"shop:pack"},
    }  # fmt: skip
    return ProcessSeen(id_, 4711, f"host-{id_}", ago(900), Served(**(said | served)), running)


IDLE = process()
PUBLISHED_SOON = "it is published as soon as it can be"
PUBLISHES: dict[str, Any] = {"concurrency": 0, "threads": 0, "relays": ["shop:send"]}
RELAY = process(**PUBLISHES)
CUT_OFF = process("c", broker_trouble="amqp://broker: refused", **PUBLISHES)
HOST = process("d", tasks={"shop:send": "v1"}, concurrency=1, threads=0, threaded=[], hosted=["shop:send"])
NOBODY_PASSES_ON = "Celery workers run function shop:send, but no live process passes its jobs on to them"
OTHERS = {"shop:pack": "v1"}
SERVER = ProcessSeen("w", 80, "web", ago(900), None, ())
PAUSE = Pause("mail", ago(60), "ada")
SEEN = TaskSeen("shop:send", "1.4.0", ago(3600))


def job(**changes: Any) -> Job:
    return replace(JOB, **changes)


def among(*processes: ProcessSeen, **more: Any) -> Surroundings:
    return Surroundings(processes=processes, **more)


WITH_CELERY = job(attempt=1, handed_at=ago(600))
TAKEN_BY_NONE = "see that a Celery worker takes its queue; to have it published once more"
SENT = "its message is with Celery since 2025-06-01 11:50:00 UTC, for 10 min"
RUNS = job(status=Status.running, process="a", attempt=2, started_at=ago(180))
LATER = NOW + timedelta(minutes=5)
TRIED = (Attempt(1, "failed", ago(9), ago(5), OOPS),)
BUSY = [job(id=f"r{n}", status=Status.running, process="a") for n in range(3)]
PRESSING = replace(BUSY[0], task="shop:press")
APART: dict[str, Any] = {"tasks": {"shop:press": "v1"}, "children": 1, "apart": {"shop:press"}}
PACKING = [replace(one, task="shop:pack") for one in BUSY]


def running(*jobs: Job) -> dict[str, Job]:
    return {one.id: one for one in jobs}


SINCE = "it runs since 2025-06-01 11:57:00 UTC, for 3 min: attempt 2, on host-a (pid 4711)"
AT = "2025-06-01 12:05:00 UTC, in 5 min"
RETRY = "to have it tried again: afterward retry 0198"
HASTEN = "to have it run at once: afterward hasten 0198"
HOW_TO_END = (
    "an `async def` function is cancelled where it awaits; a `def` function has to ask: afterward.check_cancelled(), "
    "or cancel_asked()"
)
HOW_TO_KNOW = (
    "start a worker of an application that declares it; one that was renamed or moved can keep its old name: "
    '@tasks.task(name="shop:send")'
)
HOW_TO_FIT = (
    "deploy a function that takes them, with a default for what is new; or add it anew, with others, and: "
    "afterward cancel 0198"
)
MORE = "start another worker, or give each more room: "
FREE = "it should start any moment: nothing stands before it, and 3 of 3 places in the loop are free"

Row: TypeAlias = tuple[Job, Surroundings, Cause, str, str | None]
TABLE: dict[str, Row] = {
    "succeeded": (
        job(status=Status.succeeded, finished_at=ago(60)), among(),
        Cause.ended, "it has succeeded 60 s ago", None,
    ),
    "failed": (
        job(status=Status.failed, finished_at=ago(240), failure=OOPS), among(),
        Cause.ended, "it has failed for good 4 min ago: OSError: no route", RETRY,
    ),
    "cancelled by a person": (
        job(status=Status.cancelled, finished_at=ago(60), note="cancelled"), among(),
        Cause.ended, "it was cancelled 60 s ago", RETRY,
    ),
    "cancelled for another reason": (
        job(status=Status.cancelled, finished_at=ago(60), note="expired"), among(),
        Cause.ended, "it was cancelled 60 s ago: expired", RETRY,
    ),
    "running": (
        RUNS, among(process(version="1.5.0")),
        Cause.running, SINCE.removesuffix(")") + ", version 1.5.0)", None,
    ),
    "its process is gone": (
        RUNS, among(SERVER),
        Cause.orphaned, "the process that ran it is gone (a); it is queued again within seconds", None,
    ),
    "its process is gone, and it was asked to end": (
        replace(RUNS, cancel_asked_at=ago(30)), among(),
        Cause.orphaned, "the process that ran it is gone (a); it is cancelled within seconds", None,
    ),
    "expired": (
        job(expires_at=ago(120), run_at=LATER), among(pauses=[PAUSE]),
        Cause.expired,
        "it has expired 2 min ago: no attempt of it begins any more, and it is cancelled when a worker looks for jobs",
        "to have it run all the same, once it is cancelled: afterward retry 0198",
    ),
    "held": (
        job(process="w"), among(SERVER, IDLE),
        Cause.held,
        "it is held until the request that added it is over: response sent, dependencies exited; on web (pid 80)",
        None,
    ),
    "held by a process that is gone": (
        job(process="x"), among(IDLE),
        Cause.orphaned, "the process that held it is gone (x); it is queued again within seconds", None,
    ),
    "scheduled": (
        job(run_at=LATER), among(IDLE),
        Cause.scheduled, f"it is scheduled for {AT}", HASTEN,
    ),
    "to be tried again after a failure": (
        job(run_at=LATER, attempt=1, failures=1, attempts=TRIED), among(IDLE),
        Cause.retrying, f"it is tried again at {AT}, after OSError: no route", HASTEN,
    ),
    "to be tried again after the death of its worker": (
        job(run_at=LATER, attempt=2, deaths=2), among(IDLE),
        Cause.retrying, f"it is tried again at {AT}, after the death of its worker", HASTEN,
    ),
    "released until later": (
        job(run_at=LATER, attempt=1, note="its files could not be had"), among(IDLE),
        Cause.retrying, f"its files could not be had; it is tried again at {AT}", HASTEN,
    ),
    "its queue is paused": (
        JOB, among(IDLE, pauses=[Pause("default", ago(9), "bob"), PAUSE]),
        Cause.paused, "queue mail is paused, since 2025-06-01 11:59:00 UTC by ada: nothing of it is begun",
        "afterward resume mail",
    ),
    "another queue is paused": (
        JOB, among(IDLE, pauses=[Pause("default", ago(9), "bob")]),
        Cause.soon, FREE, None,
    ),
    "nobody runs jobs": (
        JOB, among(SERVER, process(tasks={})),
        Cause.no_worker, "no live process runs jobs of this store",
        "start the application, or: afterward worker MODULE:NAME",
    ),
    "nobody but Celery workers runs its function, and nobody passes it on to them": (
        JOB, among(HOST), Cause.no_worker, NOBODY_PASSES_ON, "start the application, or: afterward worker MODULE:NAME",
    ),
    "nobody passes it on, though others run jobs": (
        JOB, among(HOST, process("b", tasks=OTHERS)),
        Cause.no_worker, NOBODY_PASSES_ON, "start the application, or: afterward worker MODULE:NAME",
    ),
    "a Celery worker takes no queue of the store": (
        job(task="shop:pack"), among(HOST),
        Cause.no_worker, "no live process runs jobs of this store",
        "start the application, or: afterward worker MODULE:NAME",
    ),
    "a Celery worker that is full is for what is with Celery": (
        JOB, among(replace(HOST, running=["r0"]), RELAY),
        Cause.soon, "it should be published to Celery any moment: nothing stands before it", None,
    ),
    "nobody takes its queue": (
        JOB, among(process(queues=["b", "a", "d"]), process("b", queues=["a", "c"])),
        Cause.no_queue, "no live worker takes queue mail; those that live take a, b, c and 1 more",
        "start one that does: afterward worker MODULE:NAME --queue mail",
    ),
    "nobody ever knew its function": (
        JOB, among(process(tasks=OTHERS), tasks=[TaskSeen("shop:pack", "1.5.0", NOW)]),
        Cause.unknown_task, "no live worker knows function shop:send; no worker ever has", HOW_TO_KNOW,
    ),
    "nobody knows its function any more": (
        JOB, among(process(tasks=OTHERS), tasks=[SEEN]),
        Cause.unknown_task,
        "no live worker knows function shop:send; it was last seen at 2025-06-01 11:00:00 UTC in version 1.4.0",
        HOW_TO_KNOW,
    ),
    "nobody knows its function any more, of which no version is known": (
        JOB, among(process(tasks=OTHERS), tasks=[replace(SEEN, version="")]),
        Cause.unknown_task, "no live worker knows function shop:send; it was last seen at 2025-06-01 11:00:00 UTC",
        HOW_TO_KNOW,
    ),
    "who knows its function does not take its queue": (
        JOB, among(process(tasks=OTHERS), process("b", queues=["a"])),
        Cause.unknown_task,
        "no worker that takes queue mail knows function shop:send; those that do take other queues: host-b (pid 4711)",
        "let one of these take it as well: --queue mail",
    ),
    "its arguments fit nobody": (
        job(unfit_for="v1", note="size is missing"),
        among(IDLE, process("b", queues=["a"], tasks={"shop:send": "v2"})),
        Cause.unfit, "its arguments no longer fit shop:send, as every live worker has it: size is missing", HOW_TO_FIT,
    ),
    "its arguments fit somebody else": (
        job(unfit_for="v1"), among(IDLE, process("b", tasks={"shop:send": "v2"})),
        Cause.soon, FREE, None,
    ),
    "the loop is full": (
        JOB, among(process(running=["r0", "r1", "r2"]), running=running(*BUSY), ahead=12),
        Cause.busy,
        "the workers are full: 12 jobs stand before it, and none of 3 places in the loop is free, on host-a (pid 4711)",
        f"{MORE}--concurrency",
    ),
    "the threads are full": (
        job(task="shop:pack"), among(process(running=["r0", "r1"]), running=running(*PACKING), ahead=1),
        Cause.busy,
        "the workers are full: 1 job stands before it, and none of 2 threads is free, on host-a (pid 4711)",
        f"{MORE}--threads",
    ),
    "the child processes are full": (
        job(task="shop:press"), among(process(running=["r0"], **APART), running=running(PRESSING)),
        Cause.busy,
        "the workers are full: nothing stands before it, and the only child process is taken, on host-a (pid 4711)",
        f"{MORE}--children",
    ),
    "a suspect takes a child process like any other": (
        job(task="shop:press"),
        among(process(running=["r0"], **APART), running=running(replace(PRESSING, deaths=2))),
        Cause.busy,
        "the workers are full: nothing stands before it, and the only child process is taken, on host-a (pid 4711)",
        f"{MORE}--children",
    ),
    "the only thread is taken": (
        job(task="shop:pack"), among(process(threads=1, running=["r0"]), running=running(*PACKING)),
        Cause.busy,
        "the workers are full: nothing stands before it, and the only thread is taken, on host-a (pid 4711)",
        f"{MORE}--threads",
    ),
    "what runs takes places of another kind, or none": (
        JOB,
        among(
            process(running=["r0", "r1", "r2", "gone"]),
            running=running(replace(BUSY[0], task="shop:pack"), replace(BUSY[1], deaths=2), BUSY[2]),
        ),
        Cause.soon, FREE.replace("3 of", "2 of"), None,
    ),
    "only one of two workers is full": (
        JOB,
        among(process(running=["r0", "r1", "r2"]), process("b", concurrency=1), running=running(*BUSY), ahead=COUNTED),
        Cause.soon,
        "it should start any moment: 10,000 jobs or more stand before it, and 1 of 4 places in the loop is free",
        None,
    ),
    "with Celery": (
        WITH_CELERY, among(IDLE),
        Cause.handed, f"{SENT}; no Celery worker has begun it yet",
        f"{TAKEN_BY_NONE}: afterward hasten 0198",
    ),
    "with Celery, though its queue is paused, and nobody runs jobs": (
        WITH_CELERY, among(pauses=[PAUSE]),
        Cause.handed, f"{SENT}; no Celery worker has begun it yet",
        f"{TAKEN_BY_NONE}: afterward hasten 0198",
    ),
    "a task of Celery's own, of which nothing is heard": (
        replace(WITH_CELERY, task="celery:shop.send"), among(IDLE),
        Cause.handed, f"{SENT}; not heard of since",
        f"{TAKEN_BY_NONE}, though it may run twice: afterward hasten 0198",
    ),
    "a task of Celery's own, that runs": (
        replace(RUNS, task="celery:shop.send", handed_at=ago(600)), among(IDLE),
        Cause.running,
        "it runs with Celery since 2025-06-01 11:57:00 UTC, for 3 min: attempt 2; host-a (pid 4711) follows it", None,
    ),
    "about to be published once more": (
        replace(RUNS, handed_at=ago(600)), among(IDLE),
        Cause.handed, f"{SENT}, and has not begun there: host-a (pid 4711) is publishing it once more", None,
    ),
    "with Celery, and expired": (
        replace(WITH_CELERY, expires_at=ago(120)), among(IDLE),
        Cause.expired,
        "it has expired 2 min ago: no attempt of it begins any more, and it is cancelled when a worker looks for jobs",
        "to have it run all the same, once it is cancelled: afterward retry 0198",
    ),
    "to be published to Celery": (
        JOB, among(RELAY), Cause.soon, "it should be published to Celery any moment: nothing stands before it", None,
    ),
    "one of two processes reaches Celery's broker": (
        JOB, among(CUT_OFF, RELAY),
        Cause.soon, "it should be published to Celery any moment: nothing stands before it", None,
    ),
    "no process reaches Celery's broker": (
        JOB, among(CUT_OFF),
        Cause.no_broker,
        f"Celery's broker cannot be reached, from host-c (pid 4711): amqp://broker: refused; {PUBLISHED_SOON}",
        "see that the broker runs",
    ),
    "a worker of another version runs what is to be published": (JOB, among(CUT_OFF, IDLE), Cause.soon, FREE, None),
    "due for long, with room for it": (
        job(run_at=ago(600)), among(IDLE),
        Cause.soon, f"{FREE}; but it has been due for 10 min", "see what holds them up: afterward doctor",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_each_reason_is_told_with_its_mend(name: str) -> None:
    the_job, around, *expected = TABLE[name]
    assert [[reason.cause, reason.text, reason.mend] for reason in why(the_job, NOW, around)] == [expected]


def test_of_one_that_was_asked_to_end_it_is_told_how_it_does() -> None:
    told = why(replace(RUNS, cancel_asked_at=ago(30)), NOW, among(IDLE))
    asked = Reason(Cause.asked_to_end, "it was asked to end 30 s ago, and has not ended yet", HOW_TO_END)
    assert told == [Reason(Cause.running, SINCE), asked]


@pytest.mark.parametrize("the_job", [WITH_CELERY, replace(RUNS, handed_at=ago(600))])
def test_what_celery_was_asked_to_end_is_not_ended_by_us(the_job: Job) -> None:
    foreign = replace(the_job, task="celery:shop.send", cancel_asked_at=ago(30))
    asked = Reason(Cause.asked_to_end, "it was asked to end 30 s ago, and has not ended yet")
    assert why(foreign, NOW, among(IDLE))[1:] == [asked]


def test_every_cause_is_in_the_table() -> None:
    assert {row[2] for row in TABLE.values()} == set(Cause) - {Cause.unknown, Cause.asked_to_end}


SEVERAL = [
    (
        job(process="w", run_at=LATER), among(SERVER, pauses=[PAUSE]),
        [Cause.held, Cause.scheduled, Cause.paused, Cause.no_worker],
    ),
    (JOB, among(process(queues=["a"], tasks=OTHERS)), [Cause.no_queue, Cause.unknown_task]),
    (JOB, among(process(queues=["a"])), [Cause.no_queue]),
    (job(run_at=LATER, unfit_for="v1", note="…", attempt=1), among(IDLE), [Cause.retrying, Cause.unfit]),
    (job(process="w", expires_at=ago(1)), among(SERVER, IDLE), [Cause.held]),
]  # fmt: skip


@pytest.mark.parametrize(("the_job", "around", "expected"), SEVERAL)
def test_all_that_must_change_is_told_and_what_matters_most_first(
    the_job: Job, around: Surroundings, expected: list[Cause]
) -> None:
    """Who mends one is not to find the next one only then."""
    assert [reason.cause for reason in why(the_job, NOW, around)] == expected
