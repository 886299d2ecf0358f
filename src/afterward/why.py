"""Why a job is not done: sentences, from what the store shows. Nothing here reads or writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from afterward.job import TERMINAL, Job, Status
from afterward.reasons import START_A_WORKER, Cause, Reason, resume, serve
from afterward.sizes import many
from afterward.states import OVERDUE, due_since, is_foreign, last_trouble, span, summary
from afterward.stores.base import COUNTED
from afterward.stores.seen import Pause, ProcessSeen, TaskSeen
from afterward.workforce import Worker, able, room, workers_of

_NAMED = 3
"""So many processes, or queues, are named; the others are counted."""

_PLACES = {
    "loop": ("place in the loop", "places in the loop", "--concurrency"),
    "thread": ("thread", "threads", "--threads"),
    "process": ("child process", "child processes", "--children"),
}
"""Where jobs take their places, in words, and what makes more of them."""

_HOW_TO_END = (
    "an `async def` function is cancelled where it awaits; a `def` function has to ask: afterward.check_cancelled(), "
    "or cancel_asked()"
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What else the store shows, as far as it matters for one job.

    `processes`: all that live. `tasks`: what was ever served. `running`: by id, what the workers run that could take
    the job. `ahead`: how many jobs stand before it, for those workers.
    """

    pauses: Sequence[Pause] = ()
    processes: Sequence[ProcessSeen] = ()
    tasks: Sequence[TaskSeen] = ()
    running: Mapping[str, Job] = field(default_factory=dict[str, Job])
    ahead: int = 0


def why(job: Job, now: datetime, around: Surroundings) -> list[Reason]:
    """Where a job stands, and what keeps it from running, or from its end: what matters most comes first."""
    if job.status in TERMINAL:
        return [_ended(job, now)]
    if job.status is Status.running:
        return list(_running(job, now, around.processes))
    if job.expires_at is not None and job.expires_at <= now and job.process is None:
        return [_expired(job, now)]
    if job.handed_at is not None:
        return list(_handed(job, now, job.handed_at, around.processes))
    workers = workers_of(around.processes)
    reasons = [*_waits(job, now, around), *_lacks_a_worker(job, workers, around.tasks)]
    return reasons or [_chance(job, now, able(job, workers), around)]


def _ended(job: Job, now: datetime) -> Reason:
    when = "" if job.finished_at is None else f" {span(now - job.finished_at)} ago"
    again = f"to have it tried again: afterward retry {job.id}"
    if job.status is Status.failed:
        trouble = "" if job.failure is None else f": {summary(job.failure)}"
        return Reason(Cause.ended, f"it has failed for good{when}{trouble}", again)
    if job.status is Status.cancelled:
        note = "" if job.note in {None, "cancelled"} else f": {job.note}"
        return Reason(Cause.ended, f"it was cancelled{when}{note}", again)
    return Reason(Cause.ended, f"it has succeeded{when}")


def _running(job: Job, now: datetime, processes: Iterable[ProcessSeen]) -> Iterator[Reason]:
    process = _of(job.process, processes)
    if process is None:
        yield _orphaned(job, "ran")
        return
    since = "" if job.started_at is None else f" since {_clock(job.started_at)}, for {span(now - job.started_at)}"
    if job.handed_at is None:
        yield Reason(Cause.running, f"it runs{since}: attempt {job.attempt}, on {_name(process)}")
    elif is_foreign(job):
        yield Reason(Cause.running, f"it runs with Celery{since}: attempt {job.attempt}; {_name(process)} follows it")
    else:
        again = f"{_name(process)} is publishing it once more"
        yield Reason(Cause.handed, f"{_with_celery(now, job.handed_at)}, and has not begun there: {again}")
    if is_foreign(job) and (unheard := _unheard(processes)) is not None:
        yield unheard
    if job.cancel_asked_at is not None:
        yield _asked(now, job.cancel_asked_at, None if is_foreign(job) else _HOW_TO_END)


def _handed(job: Job, now: datetime, since: datetime, processes: Iterable[ProcessSeen]) -> Iterator[Reason]:
    """Its message is with Celery, and nothing is known of it since."""
    mend = f"see that a Celery worker takes its queue; to have it published once more: afterward hasten {job.id}"
    if is_foreign(job):
        text, twice = f"{_with_celery(now, since)}; not heard of since", "published once more, though it may run twice"
        yield _unheard(processes) or Reason(Cause.handed, text, mend.replace("published once more", twice))
    else:
        yield Reason(Cause.handed, f"{_with_celery(now, since)}; no Celery worker has begun it yet", mend)
    if job.cancel_asked_at is not None:
        yield _asked(now, job.cancel_asked_at, None)


def _unheard(processes: Iterable[ProcessSeen]) -> Reason | None:
    """Nobody hears of any job that is followed, for nobody can read what Celery keeps of them."""
    followers = [worker for worker in workers_of(processes) if worker.served.relays]
    if not followers or not all(worker.served.results_trouble for worker in followers):
        return None
    where = _listed([_name(worker.process) for worker in followers])
    text = f"Celery's result back end cannot be read, from {where}: {followers[0].served.results_trouble}"
    return Reason(Cause.handed, f"{text}; what became of it is heard of as soon as it can be", "see that it runs")


def _with_celery(now: datetime, since: datetime) -> str:
    return f"its message is with Celery since {_clock(since)}, for {span(now - since)}"


def _asked(now: datetime, at: datetime, mend: str | None) -> Reason:
    return Reason(Cause.asked_to_end, f"it was asked to end {span(now - at)} ago, and has not ended yet", mend)


def _orphaned(job: Job, did: str) -> Reason:
    then = "it is cancelled" if job.cancel_asked_at is not None else "it is queued again"
    return Reason(Cause.orphaned, f"the process that {did} it is gone ({job.process}); {then} within seconds")


def _expired(job: Job, now: datetime) -> Reason:
    ago = "" if job.expires_at is None else f" {span(now - job.expires_at)} ago"
    text = f"it has expired{ago}: no attempt of it begins any more, and it is cancelled when a worker looks for jobs"
    return Reason(Cause.expired, text, f"to have it run all the same, once it is cancelled: afterward retry {job.id}")


def _waits(job: Job, now: datetime, around: Surroundings) -> Iterator[Reason]:
    """What keeps it from running, whoever could run it."""
    if job.process is not None:
        yield _held(job, around.processes)
    if job.run_at > now:
        yield _later(job, now)
    for pause in around.pauses:
        if pause.queue == job.queue:
            by = f" by {pause.by}" if pause.by else ""
            text = f"queue {job.queue} is paused, since {_clock(pause.since)}{by}: nothing of it is begun"
            yield Reason(Cause.paused, text, resume(job.queue))


def _held(job: Job, processes: Iterable[ProcessSeen]) -> Reason:
    process = _of(job.process, processes)
    if process is None:
        return _orphaned(job, "held")
    text = "it is held until the request that added it is over: response sent, dependencies exited"
    return Reason(Cause.held, f"{text}; on {_name(process)}")


def _later(job: Job, now: datetime) -> Reason:
    when = f"{_clock(job.run_at)}, in {span(job.run_at - now)}"
    early = f"to have it run at once: afterward hasten {job.id}"
    if job.note is not None:
        return Reason(Cause.retrying, f"{job.note}; it is tried again at {when}", early)
    if job.failures or job.deaths:
        return Reason(Cause.retrying, f"it is tried again at {when}, after {last_trouble(job)}", early)
    return Reason(Cause.scheduled, f"it is scheduled for {when}", early)


def _lacks_a_worker(job: Job, workers: Sequence[Worker], tasks: Iterable[TaskSeen]) -> Iterator[Reason]:
    """Why nobody who lives could run it, had they all room for it."""
    hosts = [worker for worker in workers if job.task in worker.served.hosted]
    workers = [worker for worker in workers if worker.claims]
    takes = [worker for worker in workers if worker.takes(job.queue)]
    knows = [worker for worker in workers if worker.knows(job.task)]
    if hosts and not knows:
        yield _no_relay(job)
        return
    if not workers:
        yield Reason(Cause.no_worker, "no live process runs jobs of this store", START_A_WORKER)
        return
    if not takes:
        yield _no_queue(job, workers)
    if not knows:
        yield _unknown_task(job, tasks)
    elif takes and not any(worker in takes for worker in knows):
        yield _knows_elsewhere(job, knows)
    elif takes and not able(job, workers):
        yield _unfit(job)


def _no_queue(job: Job, workers: Sequence[Worker]) -> Reason:
    taken = sorted({queue for worker in workers for queue in worker.served.queues or ()})
    text = f"no live worker takes queue {job.queue}; those that live take {_listed(taken)}"
    return Reason(Cause.no_queue, text, serve(job.queue))


def _no_relay(job: Job) -> Reason:
    text = f"Celery workers run function {job.task}, but no live process passes its jobs on to them"
    return Reason(Cause.no_worker, text, START_A_WORKER)


def _unknown_task(job: Job, tasks: Iterable[TaskSeen]) -> Reason:
    seen = next((seen for seen in tasks if seen.task == job.task), None)
    if seen is None:
        history = "no worker ever has"
    else:
        version = f" in version {seen.version}" if seen.version else ""
        history = f"it was last seen at {_clock(seen.seen_at)}{version}"
    mend = (
        "start a worker of an application that declares it; one that was renamed or moved can keep its old name: "
        f'@tasks.task(name="{job.task}")'
    )
    return Reason(Cause.unknown_task, f"no live worker knows function {job.task}; {history}", mend)


def _knows_elsewhere(job: Job, knows: Sequence[Worker]) -> Reason:
    who = _listed([_name(worker.process) for worker in knows])
    text = f"no worker that takes queue {job.queue} knows function {job.task}; those that do take other queues: {who}"
    return Reason(Cause.unknown_task, text, f"let one of these take it as well: --queue {job.queue}")


def _unfit(job: Job) -> Reason:
    note = f": {job.note}" if job.note else ""
    mend = (
        "deploy a function that takes them, with a default for what is new; or add it anew, with others, and: "
        f"afterward cancel {job.id}"
    )
    return Reason(Cause.unfit, f"its arguments no longer fit {job.task}, as every live worker has it{note}", mend)


def _chance(job: Job, now: datetime, workers: Sequence[Worker], around: Surroundings) -> Reason:
    """It is due, and there are workers that could run it, or pass it on."""
    relays = [worker for worker in workers if worker.executor(job.task) == "celery"]
    if len(relays) < len(workers):
        return _room(job, now, [worker for worker in workers if worker not in relays], around)
    if all(worker.served.broker_trouble for worker in relays):
        return _no_broker(relays)
    return _soon(job, now, f"it should be published to Celery any moment: {_before(around.ahead)}")


def _no_broker(relays: Sequence[Worker]) -> Reason:
    where = _listed([_name(worker.process) for worker in relays])
    text = f"Celery's broker cannot be reached, from {where}: {relays[0].served.broker_trouble}"
    return Reason(Cause.no_broker, f"{text}; it is published as soon as it can be", "see that the broker runs")


def _room(job: Job, now: datetime, workers: Sequence[Worker], around: Surroundings) -> Reason:
    """It is due, and there are workers that could run it."""
    places, free = room(job, workers, around.running)
    ahead = _before(around.ahead)
    one, several, option = _PLACES[workers[0].executor(job.task)]
    there_are = many(places, one, several)
    if not free:
        where = _listed([_name(worker.process) for worker in workers])
        taken = f"none of {there_are} is free" if places > 1 else f"the only {there_are.partition(' ')[2]} is taken"
        text = f"the workers are full: {ahead}, and {taken}, on {where}"
        return Reason(Cause.busy, text, f"start another worker, or give each more room: {option}")
    return _soon(
        job,
        now,
        f"it should start any moment: {ahead}, and {free:,} of {there_are} {'is' if free == 1 else 'are'} free",
    )


def _soon(job: Job, now: datetime, text: str) -> Reason:
    late = now - due_since(job)
    if late <= OVERDUE:
        return Reason(Cause.soon, text)
    return Reason(
        Cause.soon, f"{text}; but it has been due for {span(late)}", "see what holds them up: afterward doctor"
    )


def _before(ahead: int) -> str:
    if ahead >= COUNTED:
        return f"{COUNTED:,} jobs or more stand before it"
    return (
        "nothing stands before it"
        if not ahead
        else f"{many(ahead, 'job')} {'stands' if ahead == 1 else 'stand'} before it"
    )


def _of(process: str | None, processes: Iterable[ProcessSeen]) -> ProcessSeen | None:
    return next((seen for seen in processes if seen.id == process), None)


def _name(process: ProcessSeen) -> str:
    version = "" if process.served is None or not process.served.version else f", version {process.served.version}"
    return f"{process.host} (pid {process.pid}{version})"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
