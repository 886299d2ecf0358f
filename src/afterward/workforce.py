"""Who could run a job, of all that live, and how much room they have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from afterward.executors import Executor
from afterward.job import Job
from afterward.liveness import SUSPECT_AFTER
from afterward.stores.seen import ProcessSeen, Served


class Worker(NamedTuple):
    """A process that runs jobs, and what it says that it runs."""

    process: ProcessSeen
    served: Served

    def takes(self, queue: str) -> bool:
        """Does it take jobs from this queue?"""
        return self.served.queues is None or queue in self.served.queues

    @property
    def claims(self) -> bool:
        """Does it claim jobs at all, or pass them on? A Celery worker does neither."""
        return len(self.served.tasks) > len(self.served.hosted)

    def knows(self, task: str) -> bool:
        """Does it know this function, and claim its jobs? A Celery worker waits for their messages."""
        return task in self.served.tasks and task not in self.served.hosted

    def fits(self, job: Job) -> bool:
        """Does it know the job's function, and one that its arguments are not known to misfit?"""
        return self.knows(job.task) and (not job.unfit_for or self.served.tasks[job.task] != job.unfit_for)

    def places(self, task: str) -> int:
        """How many jobs it runs at once, of those that take their places where this one does."""
        match self.executor(task):
            case "thread":
                return self.served.threads
            case "process":
                return self.served.children
            case _:
                return self.served.concurrency

    def executor(self, task: str) -> Executor:
        """Where it has this function run."""
        if task in self.served.relays:
            return "celery"
        if task in self.served.apart:
            return "process"
        return "thread" if task in self.served.threaded else "loop"


def workers_of(processes: Iterable[ProcessSeen]) -> list[Worker]:
    """Those of the processes that run jobs of some task."""
    return [
        Worker(process, process.served) for process in processes if process.served is not None and process.served.tasks
    ]


def able(job: Job, workers: Iterable[Worker]) -> list[Worker]:
    """Those that could run this job, had they room for it."""
    return [worker for worker in workers if worker.takes(job.queue) and worker.fits(job)]


def kin(job: Job, workers: Iterable[Worker]) -> set[str]:
    """The tasks whose jobs take their places where this one takes its own: in the loop, in threads, in children."""
    return {
        task for worker in workers for task in worker.served.tasks if worker.executor(task) == worker.executor(job.task)
    }


def room(job: Job, workers: Sequence[Worker], running: Mapping[str, Job]) -> tuple[int, int]:
    """How many places these workers have for jobs such as this one, and how many of them are free.

    `running`: by id, what they run. A suspect takes no place in the loop, nor a thread.
    """
    places, free = 0, 0
    for worker in workers:
        takes_one = [
            one
            for id_ in worker.process.running
            if (one := running.get(id_)) is not None
            and worker.executor(one.task) == worker.executor(job.task)
            and (one.deaths < SUSPECT_AFTER or worker.executor(one.task) == "process")
        ]
        places += worker.places(job.task)
        free += max(0, worker.places(job.task) - len(takes_one))
    return places, free
