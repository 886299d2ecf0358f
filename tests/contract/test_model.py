"""Any store, through any sequence of operations, against a model of one that fits on a page.

After every step the store holds what the model holds: nothing is lost, nothing is made up, only moves that are allowed
were made, and attempts only grew.
"""

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from afterward.identity import new_id
from afterward.job import (
    ALLOWED,
    TERMINAL,
    Died,
    Failed,
    Job,
    Lease,
    Outcome,
    Placement,
    Process,
    Released,
    Retry,
    Status,
    Stored,
    Succeeded,
)
from afterward.stores.base import Known, Store, Wanted
from tests.support.stores import KINDS, OUTCOMES, Clock, Kind, altered, new_job

T = TypeVar("T")

SUSPECT_AFTER, SUSPECT_DELAY = 2, 5.0
TASKS, QUEUES, PROCESSES = ("app:a", "app:b"), ("x", "y"), ("p", "q", "r")


@dataclass
class Modelled:
    """What should be known of one job."""

    id: str
    task: str
    queue: str
    unique: str | None
    due_at: float
    status: Status = Status.queued
    process: str | None = None
    attempt: int = 0
    failures: int = 0
    deaths: int = 0

    def move(self, status: Status, process: str | None = None) -> None:
        assert status is self.status or status in ALLOWED[self.status]
        self.status, self.process = status, process


class Machine(RuleBasedStateMachine):
    """Draws operations, and asks the store and the model alike."""

    kind: Kind
    leases = Bundle("leases")
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.jobs: dict[str, Modelled] = {}
        self.alias: dict[str, str] = {}
        self.alive: dict[str, str] = {}
        self.lives = 0

    def ask(self, operation: str, *args: Any, store: Store | None = None, **kwargs: Any) -> Any:
        async def call() -> Any:
            return await getattr(store or self.store, operation)(*args, **kwargs)

        return self.runner.run(call())

    @initialize()
    def open(self) -> None:
        self.store = self.kind.make(Path(self.folder.name), self.clock)
        self.ask("open")
        for name in PROCESSES:
            self.join(name)

    def teardown(self) -> None:
        for process in self.alive.values():
            self.ask("leave", process)
        self.ask("close")
        self.kind.check(Path(self.folder.name))
        self.runner.close()
        self.folder.cleanup()

    def job_of(self, id_: str) -> Modelled:
        return self.jobs[self.alias.get(id_, id_)]

    def join(self, name: str) -> None:
        self.lives += 1
        process = f"{name}-{self.lives}"
        self.ask("join", Process(process, 1, "example"))
        self.alive[name] = process

    # New jobs.

    @rule(
        target=ids,
        task=st.sampled_from(TASKS),
        queue=st.sampled_from(QUEUES),
        priority=st.integers(-1, 1),
        delay=st.sampled_from([None, None, 0.0, 10.0]),
        unique=st.sampled_from([None, None, None, "k"]),
        placement=st.sampled_from(Placement),
        name=st.sampled_from([*PROCESSES, "nobody"]),
        count=st.integers(1, 3),
    )
    def enqueue(  # noqa: PLR0917 - what is drawn is given by name
        self,
        task: str,
        queue: str,
        priority: int,
        delay: float | None,
        unique: str | None,
        placement: Placement,
        name: str,
        count: int,
    ) -> Any:
        if placement is Placement.leased:
            delay = None
        process = self.alive.get(name, "nobody")
        new = [new_job(task=task, queue=queue, priority=priority, delay=delay, unique=unique) for _ in range(count)]
        expected: list[Stored] = []
        for job in new:
            taken = [
                m.id
                for m in self.jobs.values()
                if m.unique == "k" == unique and m.task == task and m.status not in TERMINAL
            ]
            if placement is not Placement.free and process == "nobody":
                expected.append(Stored.stranger)
            elif taken:
                expected.append(Stored.exists)
                self.alias[job.id] = taken[0]
            else:
                expected.append(Stored.stored)
                modelled = Modelled(job.id, task, queue, unique, self.clock.now + (delay or 0))
                if placement is not Placement.free:
                    modelled.process = process
                if placement is Placement.leased:
                    modelled.status, modelled.attempt = Status.running, 1
                self.jobs[job.id] = modelled
        assert self.ask("enqueue", [(job, placement) for job in new], process) == expected
        return multiple(*(job.id for job, stored in zip(new, expected, strict=True) if stored is not Stored.stranger))

    @rule(name=st.sampled_from(PROCESSES), id_=ids)
    def release(self, name: str, id_: str) -> None:
        job = self.job_of(id_)
        held = job.id == id_ and job.status is Status.queued and job.process == self.alive[name]
        assert self.ask("release", self.alive[name], [id_]) == [held]
        if held:
            job.process = None

    # Running.

    @rule(
        target=leases,
        name=st.sampled_from([*PROCESSES, "nobody"]),
        tasks=st.sets(st.sampled_from(TASKS)),
        queues=st.none() | st.sets(st.sampled_from(QUEUES)),
        limit=st.integers(1, 4),
    )
    def claim(self, name: str, tasks: set[str], queues: set[str] | None, limit: int) -> Any:
        process = self.alive.get(name, "nobody")
        before = {job.id: job for job in self.ask("list", limit=10_000)}
        age = {id_: number for number, id_ in enumerate(reversed(before))}
        eligible = [
            job.id
            for job in self.jobs.values()
            if job.status is Status.queued
            and job.process is None
            and job.due_at <= self.clock.now
            and job.task in tasks
            and (queues is None or job.queue in queues)
        ]
        eligible.sort(key=lambda id_: (-before[id_].priority, before[id_].run_at, age[id_]))
        wanted = [] if process == "nobody" else eligible[:limit]

        claimed = self.ask("claim", process, [Wanted(tasks, limit, queues)], new_id())

        assert [lease.id for lease in claimed.leases] == wanted
        assert claimed.more is (process != "nobody" and len(eligible) > limit)
        for lease in claimed.leases:
            job = self.jobs[lease.id]
            job.move(Status.running, process)
            job.attempt += 1
            assert (lease.attempt, lease.failures, lease.deaths) == (job.attempt, job.failures, job.deaths)
        return multiple(*claimed.leases)

    @rule(lease=leases, outcome=st.sampled_from(OUTCOMES))
    def finish(self, lease: Lease, outcome: Outcome) -> None:
        self._finish(lease, outcome)

    @rule(id_=ids, outcome=st.sampled_from(OUTCOMES))
    def finish_whatever_runs(self, id_: str, outcome: Outcome) -> None:
        job = self.job_of(id_)
        self._finish(Lease(job.id, job.attempt, job.process or "nobody", job.task, ""), outcome)

    @rule(lease=leases, outcome=st.sampled_from(OUTCOMES), off=st.sampled_from([-1, 1]))
    def finish_another_attempt(self, lease: Lease, outcome: Any, off: int) -> None:
        self._finish(altered(lease, attempt=lease.attempt + off), outcome)

    def _finish(self, lease: Lease, outcome: Outcome) -> None:
        job = self.job_of(lease.id)
        accepted = job.status is Status.running and (job.attempt, job.process) == (lease.attempt, lease.process)
        assert self.ask("finish", [(lease, outcome)]) == [accepted]
        if not accepted:
            return
        match outcome:
            case Succeeded():
                job.move(Status.succeeded)
            case Failed() | Died(final=True):
                job.move(Status.failed)
            case Retry(delay=delay) | Released(delay=delay) | Died(delay=delay):
                job.move(Status.queued)
                if delay:
                    job.due_at = self.clock.now + delay
        job.failures += isinstance(outcome, Failed | Retry)
        job.deaths += isinstance(outcome, Died)

    # Living and dying.

    @rule(name=st.sampled_from(PROCESSES), forget=st.integers(0, 2))
    def beat(self, name: str, forget: int) -> None:
        process = self.alive[name]
        mine = [job for job in self.jobs.values() if job.process == process]
        unknown, known = mine[:forget], mine[forget:]
        beat = self.ask("beat", process, lambda: Known({job.id: job.attempt for job in known}, {}, frozenset()))
        assert set(beat.others) == set(self.alive.values()) - {process}
        assert beat.lost == []
        assert sorted(beat.unknown) == sorted(job.id for job in unknown)
        for job in unknown:
            job.move(Status.queued)

    @rule(name=st.sampled_from(PROCESSES), how=st.sampled_from(["dead", "frozen", "awake", "left"]))
    def die(self, name: str, how: str) -> None:
        """And begin a new life; of one that woke up in time, nothing is taken."""
        process = self.alive[name]
        reaper = next(other for other in self.alive.values() if other != process)
        everything = Known(
            {job.id: job.attempt for job in self.jobs.values() if job.process == reaper}, {}, frozenset()
        )
        counter = self.ask("beat", reaper, lambda: everything).others[process]
        if how == "left":
            self.ask("leave", process)
        buried = {
            "dead": [(process, None)],
            "frozen": [(process, counter)],
            "awake": [(process, counter + 1)],
            "left": [],
        }[how]
        reaped = self.ask("reap", buried, SUSPECT_AFTER, SUSPECT_DELAY)
        orphans = [job for job in self.jobs.values() if job.process == process and how != "awake"]
        assert reaped.jobs == len(orphans)
        for job in orphans:
            if job.status is Status.running:
                if job.deaths + 1 >= SUSPECT_AFTER:
                    job.due_at = self.clock.now + SUSPECT_DELAY
                job.deaths = min(job.deaths + 1, max(job.deaths, SUSPECT_AFTER))
            job.move(Status.queued)
        if how != "awake":
            assert self.ask("beat", process, lambda: everything) is None
            self.join(name)

    @rule(seconds=st.sampled_from([1.0, 10.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def reopen(self) -> None:
        """As all processes do at once when a machine is started again; their rows are still there."""
        for process in self.alive.values():
            self.ask("leave", process)
        self.ask("close")
        self.ask("open")
        for name in PROCESSES:
            self.join(name)
        for process in {job.process for job in self.jobs.values()} - {None}:
            orphans = [job for job in self.jobs.values() if job.process == process]
            for job in orphans:
                if job.status is Status.running:
                    if job.deaths + 1 >= SUSPECT_AFTER:
                        job.due_at = self.clock.now + SUSPECT_DELAY
                    job.deaths = min(job.deaths + 1, max(job.deaths, SUSPECT_AFTER))
                job.move(Status.queued)
        self.ask("reap", [], SUSPECT_AFTER, SUSPECT_DELAY)

    # What must hold.

    @invariant()
    def the_store_holds_what_the_model_holds(self) -> None:
        if not hasattr(self, "store"):
            return
        seen = {
            job.id: (job.status, job.process, job.attempt, job.failures, job.deaths)
            for job in self.ask("list", limit=10_000)
        }
        assert seen == {
            job.id: (job.status, job.process, job.attempt, job.failures, job.deaths) for job in self.jobs.values()
        }

    @invariant()
    def every_id_leads_to_its_job(self) -> None:
        if self.alias:
            found = self.ask("get", list(self.alias))
            assert [job and job.id for job in found] == list(self.alias.values())

    @invariant()
    def attempts_that_ended_are_remembered_in_order(self) -> None:
        found: list[Job] = self.ask("get", list(self.jobs)) if self.jobs else []
        for job in found:
            numbers = [attempt.number for attempt in job.attempts]
            assert numbers == sorted(set(numbers))
            assert all(number <= job.attempt for number in numbers)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_store_is_as_its_model(kind: str) -> None:
    run_state_machine_as_test(
        type("Machine", (Machine,), {"kind": KINDS[kind]}),
        settings=settings(
            max_examples=15,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
            print_blob=True,
        ),
    )
