"""The parts of an `Afterward` that a user never sees."""

from afterward import Afterward
from afterward.engine.worker import Worker
from afterward.intake import Intake
from afterward.liveness import Liveness


def liveness_of(tasks: Afterward) -> Liveness:
    return tasks._liveness  # pyright: ignore[reportPrivateUsage]


def intake_of(tasks: Afterward) -> Intake:
    return tasks._intake  # pyright: ignore[reportPrivateUsage]


def would_lease(tasks: Afterward) -> bool:
    """Would a job of a request be leased to the worker of this process at once?"""
    worker = intake_of(tasks).direct
    if not isinstance(worker, Worker) or worker._backlog:  # pyright: ignore[reportPrivateUsage]
        return False
    free = worker._slots._free  # pyright: ignore[reportPrivateUsage] - none as long as a claim is under way
    return all(free[task.executor] > 0 for task in worker._tasks.values())  # pyright: ignore[reportPrivateUsage]


def are_followed(tasks: Afterward) -> bool:
    """Does any stream wait for what a job says next?"""
    tails = tasks.tails._tails.values()  # pyright: ignore[reportPrivateUsage]
    return any(tail._asked for tail in tails)  # pyright: ignore[reportPrivateUsage]
