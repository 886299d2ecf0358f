"""One sentence: what is stuck, or that nothing is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from afterward.reasons import START_A_WORKER, resume, serve
from afterward.sizes import many
from afterward.states import span
from afterward.stores.base import QueueStats, Stats
from afterward.stores.seen import Pause, ProcessSeen
from afterward.web.dashboard.wording import counted, summed
from afterward.workforce import workers_of

LATE_SECONDS = 60.0
"""A queue whose oldest job has waited for longer is behind."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`level`: `calm`, `behind`, or `stuck`. `queue`: which one, if it is one. `mend`: what can be done about it."""

    text: str
    level: str
    queue: str | None = None
    mend: str | None = None


def verdict(stats: Stats, paused: Sequence[Pause], processes: Sequence[ProcessSeen]) -> Verdict:
    """The worst of what can be said."""
    waiting = sorted((queue for queue in stats.queues if queue.depth), key=lambda queue: -queue.oldest_age)
    return next(_troubles(waiting, paused, processes), None) or Verdict(f"Nothing is stuck. {_calm(stats)}", "calm")


def serves(process: ProcessSeen, queue: str) -> bool:
    """Does this process run jobs of this queue?"""
    return any(worker.claims and worker.takes(queue) for worker in workers_of([process]))


def _troubles(
    waiting: Sequence[QueueStats], paused: Sequence[Pause], processes: Sequence[ProcessSeen]
) -> Iterator[Verdict]:
    pauses = {pause.queue: pause for pause in paused}
    unpaused = [queue for queue in waiting if queue.queue not in pauses]
    if unpaused and not any(worker.claims for worker in workers_of(processes)):
        total = summed(queue.depth for queue in unpaused)
        yield Verdict(f"No worker is alive, and {_wait(total)}.", "stuck", mend=START_A_WORKER)
    for queue in unpaused:
        if not any(serves(process, queue.queue) for process in processes):
            yield Verdict(
                f"No live worker serves the queue {queue.queue}, and {_wait(counted(queue.depth))} in it.", "stuck",
                queue.queue, serve(queue.queue),
            )  # fmt: skip
    for queue in waiting:
        if queue.queue in pauses:
            yield Verdict(
                f"The queue {queue.queue} is paused, and {_wait(counted(queue.depth))} in it.", "stuck",
                queue.queue, f"to have it served again: {resume(queue.queue)}",
            )  # fmt: skip
    for queue in unpaused:
        if queue.oldest_age > LATE_SECONDS:
            yield Verdict(_behind(queue, processes), "behind", queue.queue)


def _behind(queue: QueueStats, processes: Sequence[ProcessSeen]) -> str:
    able = [process for process in processes if serves(process, queue.queue)]
    served = [process.served for process in able if process.served]
    slots = sum(one.concurrency + one.threads + one.children for one in served)
    busy = sum(len(process.running) for process in able)
    return (
        f"The queue {queue.queue} is behind: its oldest job has waited for "
        f"{span(timedelta(seconds=queue.oldest_age))}, and {many(len(able), 'worker')} "
        f"{'runs' if len(able) == 1 else 'run'} {busy:,} of the {slots:,} jobs there is room for."
    )


def _wait(number: str) -> str:
    return "1 job waits" if number == "1" else f"{number} jobs wait"


def _calm(stats: Stats) -> str:
    running, waiting = sum(queue.running for queue in stats.queues), sum(queue.depth for queue in stats.queues)
    later, handed = sum(queue.later for queue in stats.queues), sum(queue.handed for queue in stats.queues)
    if not running and not waiting and handed:
        return f"{many(handed, 'job')} {'is' if handed == 1 else 'are'} with Celery."
    if not running and not waiting:
        return "Nothing is to be done." if not later else f"{many(later, 'job')} {_for_its_time(later)}."
    return f"{many(running, 'job')} {'runs' if running == 1 else 'run'}, {waiting:,} {_are_ready(waiting)}."


def _for_its_time(number: int) -> str:
    return "waits for its time" if number == 1 else "wait for their time"


def _are_ready(number: int) -> str:
    return "is ready" if number == 1 else "are ready"
