"""What a look at a store finds, for whoever counts what there is to do or wants to know what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from afterward.job import Status
from afterward.stores.base import COUNTED, QueueStats, Stats


@dataclass(frozen=True, slots=True)
class Joined:
    """A process that has a liveness row. `serves`: it has waited for jobs to run."""

    id: str
    pid: int
    host: str
    beat: int
    serves: bool


@dataclass(frozen=True, slots=True)
class Waits:
    """Jobs of one lane that are due: how many (up to `COUNTED`), and since when the first.

    `unfit`: they did not fit somebody. `task`: empty for those that no claim has looked at since they came due.
    """

    queue: str
    task: str
    unfit: bool
    jobs: int
    since: float


def stats_of(  # noqa: PLR0917 - what was counted, each in its way
    due: Sequence[Waits], later: Mapping[str, int], taken: Mapping[tuple[str, str], int], handed: Mapping[str, int],
    now: float, processes: int
) -> Stats:  # fmt: skip
    """Queue by queue. `later`: how many wait for their time. `taken`: how many are in a process's name, by status.
    `handed`: how many are in the hands of another system.
    """
    queues = {lane.queue for lane in due} | later.keys() | {queue for queue, _ in taken} | handed.keys()
    return Stats(
        [
            QueueStats(
                queue,
                *_depth([lane for lane in due if lane.queue == queue], now),
                later=later.get(queue, 0),
                held=taken.get((queue, Status.queued), 0),
                running=taken.get((queue, Status.running), 0),
                handed=handed.get(queue, 0),
            )
            for queue in sorted(queues)
        ],
        processes,
    )


def _depth(lanes: Sequence[Waits], now: float) -> tuple[int, float]:
    """How many jobs are ready in these lanes, and for how long the first."""
    since = min((lane.since for lane in lanes), default=now)
    return min(COUNTED, sum(lane.jobs for lane in lanes)), max(0.0, now - since)
