"""Any store, through long random lives, against a model of one that fits on a page.

After every step the store holds what the model holds: nothing is lost, nothing is made up, only moves that are allowed
were made, and attempts only grew. Any write may be asked for again, at once or much later. A seed gives the same life
again, but for what the store may choose.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from math import inf
from random import Random
from typing import Any, cast

import pytest

from afterward.holdings import Known
from afterward.identity import new_id
from afterward.job import (
    ALLOWED,
    TERMINAL,
    Cancelled,
    Completion,
    Died,
    EventKind,
    Failed,
    Job,
    Lease,
    NewEvent,
    NewJob,
    OnDuplicate,
    Outcome,
    Placement,
    Process,
    Released,
    Report,
    Retry,
    Ruling,
    Status,
    Stored,
    Succeeded,
)
from afterward.reconciliation import differences
from afterward.stores.base import Store, Wanted
from afterward.stores.handing import HandOver, Start
from afterward.stores.seen import Reserved
from tests.support.stores import OUTCOMES, Place, altered, new_file, new_job

pytestmark = pytest.mark.anyio

SUSPECT_AFTER, SUSPECT_DELAY = 2, 5.0
TASKS, QUEUES, NAMES = ("app:a", "app:b"), ("x", "y"), ("p", "q", "r")
OWNERS, FINGERPRINTS = (None, "ada", "grace"), ("f", "g")


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
    unfit_for: str = ""
    expires_at: float = inf
    is_replaced: bool = False
    is_asked: bool = False
    handed_at: float | None = None
    again_at: float = inf
    is_followed: bool = False
    is_begun: bool = False
    owner: str | None = None
    said: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    ended_at: float = inf
    ends: dict[int, Outcome] = field(default_factory=dict[int, Outcome])

    def move(self, status: Status, process: str | None = None) -> None:
        assert status is self.status or status in ALLOWED[self.status]
        self.status, self.process = status, process

    def end(self, status: Status, now: float) -> None:
        self.move(status)
        self.ended_at, self.handed_at = now, None

    @property
    def is_followed_there(self) -> bool:
        """Is it in the hands of another system, and followed?"""
        return self.handed_at is not None and self.is_followed

    def begin(self, process: str) -> None:
        self.move(Status.running, process)
        self.is_begun, self.unfit_for, self.again_at = True, "", inf
        if not self.is_followed:
            self.handed_at = None

    def queue_again(self, now: float) -> None:
        """Or hand it over again. Unless somebody has asked it to end."""
        self.is_begun = False
        if self.is_asked and not self.is_followed_there:
            self.end(Status.cancelled, now)
        else:
            self.move(Status.queued)

    def orphan(self, now: float) -> None:
        """Its process is dead."""
        if self.status is Status.running and self.handed_at is None:
            if self.deaths + 1 >= SUSPECT_AFTER:
                self.due_at = now + SUSPECT_DELAY
            self.deaths = min(self.deaths + 1, max(self.deaths, SUSPECT_AFTER))
        self.queue_again(now)

    def has_said(self, attempt: int) -> int:
        """How many events of this attempt there are."""
        return sum(number == attempt for number, _ in self.said)

    def say(self, attempt: int, report: Report) -> None:
        """What was said before is not said again."""
        new = report.events[max(0, self.has_said(attempt) - report.first + 1) :]
        self.said += [(attempt, event.data) for event in new]

    def had_ended(self, lease: Lease, outcome: Outcome) -> bool:
        """Has this attempt ended just so, and can it be seen?"""
        if _plain(outcome) != self.ends.get(lease.attempt):
            return False
        is_unfit = isinstance(outcome, Released) and outcome.unfit_for
        return not is_unfit or (self.attempt, self.unfit_for) == (lease.attempt, is_unfit)


def _plain(outcome: Outcome) -> Outcome:
    """The same end, without what was done with it."""
    outcome = replace(outcome, report=None)
    if isinstance(outcome, Succeeded):
        return replace(outcome, then=None, files=())
    return replace(outcome, then=None) if isinstance(outcome, Failed) else outcome


@dataclass
class Key:
    """Which reservation has a key, for what, by which process; and what was answered once it was completed."""

    reservation: str
    fingerprint: str
    process: str
    answer: str | None = None


class Life:
    """Draws operations, and asks the store and the model alike. Processes share two store objects between them."""

    def __init__(self, place: Place, stores: list[Store], seed: int) -> None:
        self.random = Random(seed)
        self.place = place
        self.stores = stores
        self.jobs: dict[str, Modelled] = {}
        self.alias: dict[str, str] = {}
        self.alive: dict[str, str] = {}
        self.leases: list[Lease] = []
        self.files: dict[str, str] = {}
        self.half: set[str] = set()
        self.paused: set[str] = set()
        self.keys: dict[str, Key] = {}
        self.dropped = ["gone"]
        self.lives = 0
        self.calls: list[tuple[list[NewJob], Placement, str, list[Stored]]] = []
        self.happened: Counter[str] = Counter()

    @property
    def store(self) -> Store:
        return self.random.choice(self.stores)

    @property
    def now(self) -> float:
        return self.place.clock.now

    def name(self) -> str:
        """A process, most often one that lives."""
        return self.random.choices([*NAMES, "nobody"], [4, 4, 4, 1])[0]

    def held_by(self, process: str) -> list[Modelled]:
        return [job for job in self.jobs.values() if job.process == process]

    def known(self, jobs: list[Modelled]) -> Known:
        return Known({job.id: job.attempt for job in jobs}, {}, frozenset())

    async def join(self, name: str) -> None:
        self.lives += 1
        process = f"{name}-{self.lives}"
        await self.stores[0].join(Process(process, 1, "example"))
        self.alive[name] = process

    async def enqueue(self) -> None:
        placement = self.random.choice(list(Placement))
        process = self.alive.get(self.name(), "nobody")
        new = [
            new_job(
                task=self.random.choice(TASKS),
                queue=self.random.choice(QUEUES),
                priority=self.random.randint(-1, 1),
                delay=None if placement is Placement.leased else self.random.choice([None, None, 0.0, 10.0]),
                unique=self.random.choice([None, "k"]),
                on_duplicate=self.random.choice(list(OnDuplicate)),
                expires=self.random.choice([None, 8.0]),
                owner=self.random.choice(OWNERS),
                completes=self._completion() if self.random.random() < 0.2 else None,
            )
            for _ in range(self.random.randint(1, 3))
        ]
        new[0] = self._meets_another(new[0])
        new = [await self._with_a_file(job) if self.random.random() < 0.2 else job for job in new]
        answers = [self._answer_to(job, placement, process, new) for job in new]
        lost = {job.id for job in new if job.completes and job.completes.reservation not in self._reservations()}
        if lost:
            answers = [Stored.unreserved if job.id in lost else Stored.dropped for job in new]
        elif any(job.id in self.half for job in new):
            answers = [Stored.incomplete if job.id in self.half else Stored.dropped for job in new]
        elif Stored.refused in answers:
            answers = [answer if answer is Stored.refused else Stored.dropped for answer in answers]
        else:
            for job, answer in zip(new, answers, strict=True):
                self._enter(job, answer, placement, process)
        assert await self.store.enqueue([(job, placement) for job in new], process) == answers
        if self.is_repeated("enqueued at once"):
            assert await self.store.enqueue([(job, placement) for job in new], process) == answers
        self.happened.update(answers)
        if not any(job.completes for job in new):
            self.calls.append((new, placement, process, answers))

    def _meets_another(self, job: NewJob) -> NewJob:
        """Often: has the unique key of a job that runs, or of one that expires just now, before anybody has looked."""
        there = [other for other in self.jobs.values() if other.unique and not other.is_replaced]
        runs = [other for other in there if other.status is Status.running]
        late = [other for other in there if other.status is Status.queued and other.expires_at < inf]
        chosen = self.random.choice([runs or late, runs or late, late or runs, []])
        if not chosen:
            return job
        met = self.random.choice(chosen)
        if chosen is late:
            self.place.clock.advance(max(0.0, met.expires_at - self.now) + 1)
        how = self.random.choice([job.on_duplicate, OnDuplicate.replace])
        return job._replace(task=met.task, unique=met.unique, on_duplicate=how)

    def _reservations(self) -> dict[str, Key]:
        """Those that are there, for all that this model can tell: of a dead process's, it cannot."""
        return {
            key.reservation: key
            for key in self.keys.values()
            if key.answer is not None or key.process in self.alive.values()
        }

    def _key(self) -> str:
        """One of the last, or a new one."""
        return self.random.choice([*list(self.keys)[-3:], new_id()])

    def _completion(self) -> Completion:
        return Completion(self.random.choice([*self._reservations(), *self.dropped[-1:]]), new_id())

    async def reserve(self) -> None:
        """By one that lives or not; one that has the key already, or another."""
        process = self.random.choice([*self.alive.values(), "nobody"])
        key, fingerprint = self._key(), self.random.choice(FINGERPRINTS)
        known = self.keys.get(key)
        fingerprint = known.fingerprint if known and self.random.random() < 0.4 else fingerprint
        reservation = known.reservation if known and self.random.random() < 0.2 else new_id()
        if process == "nobody":
            expected = Reserved.stranger
        elif known is None or known.reservation not in self._reservations():
            self.keys[key] = Key(reservation, fingerprint, process)
            expected = Reserved.reserved
        elif known.reservation == reservation:
            expected = Reserved.reserved
        elif known.fingerprint != fingerprint:
            expected = Reserved.other
        else:
            expected = Reserved.in_flight if known.answer is None else Reserved.completed
        answer = known.answer if known and expected is Reserved.completed else None
        for _ in range(2 if self.is_repeated("reserved") else 1):
            found = await self.store.reserve(reservation, "scope", key, fingerprint, process)
            assert (found.state, found.answer) == (expected, answer)
        self.happened[f"key: {expected}"] += 1

    async def drop(self) -> None:
        """Those that are completed stay."""
        key = self._key()
        known = self.keys.get(key)
        if known is None:
            return
        await self.store.drop([known.reservation])
        if known.answer is None:
            del self.keys[key]
            self.dropped.append(known.reservation)
            self.happened["key: dropped"] += 1
        elif self.random.random() < 0.5:
            known.answer = new_id()
            assert await self.store.amend(known.reservation, known.answer)

    async def pause(self) -> None:
        """Or have its jobs claimed again."""
        queue = self.random.choice(QUEUES)
        if self.random.random() < 0.3:
            assert await self.store.pause(queue, "ada") is (queue not in self.paused)
            self.paused.add(queue)
        else:
            assert await self.store.resume(queue) is (queue in self.paused)
            self.paused.discard(queue)
        assert {pause.queue for pause in await self.store.paused()} == self.paused

    async def hasten(self) -> None:
        """By a person: what waits for its time."""
        waiting = [job for job in self.jobs.values() if self._can_be_hastened(job)]
        id_, job = self._one() if self.random.random() < 0.7 or not waiting else (waiting[0].id, waiting[0])
        expected = Ruling.unknown if job is None else Ruling.forbidden
        if job is not None and self._can_be_hastened(job):
            self.happened["hastened in other hands" if job.handed_at is not None else "hastened"] += 1
            job.due_at, job.handed_at, expected = self.now, None, Ruling.done
            job.expires_at = 0 if job.is_replaced else job.expires_at
        assert await self.store.hasten([id_]) == [expected]
        self.happened[f"hasten: {expected}"] += 1

    def _can_be_hastened(self, job: Modelled) -> bool:
        is_waiting = job.due_at > self.now if job.handed_at is None else not job.is_asked
        return job.status is Status.queued and is_waiting

    async def hand_over(self) -> None:
        """By who holds a job, or held it; those of one task are followed. One may just have been asked to end."""
        running = [job for job in self.jobs.values() if job.status is Status.running]
        asked = next((job for job in running if job.task == TASKS[0] and not job.is_begun), None)
        if asked is not None and self.random.random() < 0.2:
            await self._cancel(asked.id, asked)
        leases = self.random.sample(self.leases, min(1, len(self.leases)))
        some = self.random.sample(running, min(2, len(running)))
        some += [job for job in running if job not in some and (job.is_asked or (job.unique and job.task == TASKS[1]))]
        leases += [Lease(job.id, job.attempt, job.process or "", job.task, "") for job in some]
        handed = [
            HandOver(lease, self.random.choice([None, 0.0, 30.0]), lease.task == TASKS[1])
            for lease in {lease.id: lease for lease in leases}.values()
        ]
        expected = [self._hand_over(one) for one in handed]
        assert await self.store.hand_over(handed) == expected
        if self.is_repeated("handed over"):
            again = [self._is_handed(one.lease) for one in handed]
            assert await self.store.hand_over(handed) == again

    def _hand_over(self, handed: HandOver) -> bool:
        lease, again, is_followed, _ = handed
        if not self._holds(lease) or self.jobs[lease.id].is_begun:
            self.happened["handed over in vain"] += 1
            return self._is_handed(lease)
        job = self.jobs[lease.id]
        if job.is_asked and not is_followed:
            job.end(Status.cancelled, self.now)
            self.happened["cancelled when handed over"] += 1
            return True
        job.move(Status.queued)
        job.handed_at, job.again_at = self.now, inf if again is None else self.now + again
        job.is_followed, job.expires_at = is_followed, inf if is_followed else job.expires_at
        self.happened["handed over"] += 1
        return True

    def _is_handed(self, lease: Lease) -> bool:
        job = self.jobs.get(lease.id)
        return (
            job is not None
            and job.status is Status.queued
            and job.handed_at is not None
            and job.attempt == lease.attempt
        )

    async def begin(self) -> None:
        """Messages of attempts of now and of before, by their senders and others, to who lives and who does not."""
        process = self.alive.get(self.name(), "nobody")
        there = [job for job in self.jobs.values() if job.status is Status.running or job.handed_at is not None]
        some = self.random.sample(there, min(3, len(there)))
        starts = [
            Start(job.id, self.random.choice([job.attempt] * 4 + [job.attempt - 1]), self._sender(job)) for job in some
        ]
        starts = [start for start in starts if not self._is_its_own(process, start)]
        before = [self._begin(process, start) for start in starts]
        for _ in range(2 if self.is_repeated("begun") else 1):
            found = await self.store.begin(process, starts)
            assert [lease is not None for lease in found] == before
            for lease in filter(None, found):
                job = self.jobs[lease.id]
                assert lease[:3] == (job.id, job.attempt, process)
                assert (lease.failures, lease.deaths) == (job.failures, job.deaths)
                self.leases.append(lease)

    def _sender(self, job: Modelled) -> str:
        return self.random.choice([job.process or "nobody"] * 4 + ["nobody", *self.alive.values()])

    def _is_its_own(self, process: str, start: Start) -> bool:
        """Would it begin what it holds by a message of another? There is none: an attempt has one sender at a time."""
        job = self.jobs[start.id]
        return job.process == process != start.sender and not job.is_begun

    def _begin(self, process: str, start: Start) -> bool:
        job = self.jobs[start.id]
        if process == "nobody" or job.attempt != start.attempt:
            self.happened["begun in vain"] += 1
            return False
        if job.status is Status.running and job.is_begun:
            return job.process == process
        is_sent = job.process == start.sender if job.status is Status.running else job.handed_at is not None
        if job.status in TERMINAL or not is_sent or job.expires_at <= self.now:
            self.happened["begun in vain"] += 1
            return False
        self.happened["begun before it was handed over" if job.handed_at is None else "begun"] += 1
        job.begin(process)
        return True

    async def take_back(self) -> None:
        """What is due again, that first which was due first."""
        process = self.alive.get(self.name(), "nobody")
        tasks, limit = set(self.random.sample(TASKS, self.random.randint(1, 2))), self.random.randint(1, 3)
        there = [
            job
            for job in self.jobs.values()
            if self._is_handed(Lease(job.id, job.attempt, "", job.task, ""))
            and job.task in tasks
            and job.queue not in self.paused
        ]
        due = {job.id: job for job in there if job.again_at <= self.now and job.expires_at > self.now}
        taken = await self.store.take_back(process, tasks, limit)
        if process == "nobody":
            assert (taken.leases, taken.more, taken.next_due) == ([], False, None)
            return
        chosen = [due.pop(lease.id) for lease in taken.leases]
        assert len(chosen) == min(limit, len(chosen) + len(due))
        assert taken.more is bool(due)
        times = [job.again_at for job in chosen]
        assert times == sorted(times)
        assert max(times, default=-inf) <= min([job.again_at for job in due.values()], default=inf)
        later = [job.again_at - self.now for job in there if job.again_at > self.now]
        assert taken.next_due == (pytest.approx(min(later)) if min(later, default=inf) < inf else None)
        for job, lease, waited in zip(chosen, taken.leases, taken.waited, strict=True):
            assert waited == pytest.approx(self.now - (job.handed_at or 0))
            assert (lease.attempt, lease.process) == (job.attempt, process)
            job.move(Status.running, process)
            self.happened["taken back"] += 1
        self.leases += taken.leases

    async def check_followed(self) -> None:
        """Who follows sees what is followed."""
        theirs = sorted((job for job in self.jobs.values() if job.is_followed_there), key=lambda job: job.id)
        found = await self.store.followed(set(TASKS), "", 10_000)
        assert [(one.id, one.attempt, one.handed_at.timestamp(), one.is_asked) for one in found] == [
            (job.id, job.attempt, pytest.approx(job.handed_at), job.is_asked) for job in theirs
        ]
        for one, job in zip(found, theirs, strict=True):
            assert (one.process == job.process) or not job.is_begun

    async def report(self) -> None:
        """By who holds a job, or held it."""
        running = [job for job in self.jobs.values() if job.status is Status.running]
        leases = self.random.sample(self.leases, min(2, len(self.leases)))
        leases += [Lease(job.id, job.attempt, job.process or "", job.task, "") for job in running[:2]]
        said = [(lease, self._report(lease)) for lease in {lease.id: lease for lease in leases}.values()]
        accepted = [self._holds(lease) for lease, _ in said]
        for (lease, report), holds in zip(said, accepted, strict=True):
            self.happened["said" if holds else "said in vain"] += 1
            if holds:
                self.jobs[lease.id].say(lease.attempt, report)
        for _ in range(2 if self.is_repeated("said") else 1):
            assert await self.store.report(said) == accepted

    def _report(self, lease: Lease) -> Report:
        """What comes next, with some of what was said before."""
        job = self.jobs.get(lease.id)
        so_far = 0 if job is None else job.has_said(lease.attempt)
        first = max(1, so_far + 1 - self.random.randint(0, 2))
        numbers = range(first, so_far + 1 + self.random.randint(1, 3))
        return Report(first, tuple(NewEvent(EventKind.item, f"[{lease.attempt},{number}]") for number in numbers))

    def _holds(self, lease: Lease) -> bool:
        job = self.jobs.get(lease.id)
        return (
            job is not None
            and job.status is Status.running
            and (job.attempt, job.process) == (lease.attempt, lease.process)
        )

    def is_repeated(self, what: str) -> bool:
        """Is it asked for again, for its answer was lost?"""
        if self.random.random() > 0.4:
            return False
        self.happened[f"{what}, repeated"] += 1
        return True

    async def enqueue_again(self) -> None:
        """A call of any time before, that was answered by what is there still."""
        for jobs, placement, process, answers in self.random.sample(self.calls, min(5, len(self.calls))):
            if all(job.id in self.jobs or job.id in self.alias for job in jobs):
                is_stranger = placement is not Placement.free and process not in self.alive.values()
                expected = [Stored.stranger] * len(jobs) if is_stranger else answers
                assert await self.store.enqueue([(job, placement) for job in jobs], process) == expected
                self.happened["enqueued, repeated"] += 1

    async def _with_a_file(self, job: NewJob) -> NewJob:
        """The same job, with a file of two chunks; sometimes only one of them is there."""
        process = self.alive.get(self.name())
        if process is None:
            return job
        file, store = new_file(), self.store
        assert await store.put_chunk(file.id, 0, b"of " + job.id.encode(), process, is_last=False)
        if self.random.random() < 0.2:
            self.half.add(job.id)
        else:
            assert await store.put_chunk(file.id, 1, b"!", process, is_last=True)
        self.files[job.id] = file.id
        return job._replace(files=(file,))

    async def sweep(self) -> None:
        """All content that nobody wants, in steps of one."""
        while (await self.store.tidy({}, 0, 1)).freed:
            self.happened["swept"] += 1

    def _holders(self, task: str, unique: str | None) -> list[Modelled]:
        return [
            job
            for job in self.jobs.values()
            if unique and (job.task, job.unique) == (task, unique) and not job.is_replaced and not self._is_over(job)
        ]

    def _is_over(self, job: Modelled) -> bool:
        """Has it ended, or would it, if anybody looked?"""
        return job.status in TERMINAL or (job.status is Status.queued and job.expires_at <= self.now)

    def _expire_holders(self, task: str, unique: str | None, but_for: str) -> None:
        """What has expired keeps its unique key from no other job."""
        for job in self.jobs.values():
            is_holder = unique and (job.task, job.unique) == (task, unique) and not job.is_replaced
            if is_holder and job.id != but_for and job.status is Status.queued and self._is_over(job):
                job.end(Status.cancelled, self.now)
                self.happened["expired for another"] += 1

    def _answer_to(self, job: NewJob, placement: Placement, process: str, batch: list[NewJob]) -> Stored:
        if placement is not Placement.free and process == "nobody":
            return Stored.stranger
        before = [other for other in batch[: batch.index(job)] if other.unique and other.unique == job.unique]
        if job.on_duplicate is OnDuplicate.replace:
            return Stored.stored
        if self._holders(job.task, job.unique) or any(other.task == job.task for other in before):
            return Stored.refused if job.on_duplicate is OnDuplicate.refuse else Stored.exists
        return Stored.stored

    def _enter(self, job: NewJob, answer: Stored, placement: Placement, process: str) -> None:
        if answer is Stored.stranger:
            return
        if job.completes is not None:
            self._reservations()[job.completes.reservation].answer = job.completes.answer
            self.happened["key: answered"] += 1
        self._expire_holders(job.task, job.unique, job.id)
        holders = self._holders(job.task, job.unique)
        if answer is Stored.exists:
            self.alias[job.id] = holders[0].id
            return
        for holder in holders:
            if holder.status is Status.queued and not holder.is_followed_there:
                holder.end(Status.cancelled, self.now)
                self.happened["replaced while queued"] += 1
            else:
                holder.is_replaced, holder.expires_at = True, inf if holder.is_followed_there else 0
                self.happened["replaced while followed" if holder.is_followed_there else "replaced while running"] += 1
        expires_at = inf if job.expires is None else self.now + cast("float", job.expires)
        due_at = self.now + (job.delay or 0)
        modelled = Modelled(job.id, job.task, job.queue, job.unique, due_at, expires_at=expires_at, owner=job.owner)
        if placement is not Placement.free:
            modelled.process = process
        if placement is Placement.leased:
            modelled.status, modelled.attempt = Status.running, 1
            self.leases.append(Lease(job.id, 1, process, job.task, job.arguments))
        self.jobs[job.id] = modelled

    async def release(self) -> None:
        process = self.alive.get(self.name(), "nobody")
        jobs = self.held_by(process)[:2] + self.random.sample(list(self.jobs.values()), min(2, len(self.jobs)))
        jobs = list({job.id: job for job in jobs}.values())
        held = [job.status is Status.queued and job.process == process for job in jobs]
        assert await self.store.release(process, [job.id for job in jobs]) == held
        if self.is_repeated("let go"):
            assert await self.store.release(process, [job.id for job in jobs]) == [False] * len(jobs)
        for job, let_go in zip(jobs, held, strict=True):
            if let_go:
                job.process = None
                self.happened["let go"] += 1

    async def claim(self) -> None:
        process = self.alive.get(self.name(), "nobody")
        tasks = set(self.random.sample(TASKS, self.random.randint(0, 2)))
        queues = self.random.choice([None, None, set(self.random.sample(QUEUES, self.random.randint(0, 2)))])
        limit, unfit_for = self.random.randint(1, 4), self.random.choice([set[str](), {"v1"}])
        for job in self.jobs.values():
            if self._has_expired(job):
                job.end(Status.cancelled, self.now)
                self.happened["expired"] += 1
        before = await self.store.list(limit=10_000)
        places = {job.id: (-job.priority, job.run_at, -number) for number, job in enumerate(before)}
        eligible = [
            job.id
            for job in self.jobs.values()
            if job.status is Status.queued
            and job.process is None
            and job.handed_at is None
            and job.due_at <= self.now
            and job.task in tasks
            and (queues is None or job.queue in queues)
            and job.queue not in self.paused
            and job.unfit_for not in unfit_for
        ]
        eligible.sort(key=lambda id_: places[id_])
        wanted = [] if process == "nobody" else eligible[:limit]

        token = new_id()
        claimed = await self.store.claim(process, [Wanted(tasks, limit, queues, unfit_for)], token)

        assert [lease.id for lease in claimed.leases] == wanted
        assert claimed.more is (process != "nobody" and len(eligible) > limit)
        assert process == "nobody" or claimed.paused == self.paused
        for lease in claimed.leases:
            job = self.jobs[lease.id]
            job.move(Status.running, process)
            job.attempt += 1
            job.unfit_for = ""
            assert (lease.attempt, lease.failures, lease.deaths) == (job.attempt, job.failures, job.deaths)
            self.happened["claimed"] += 1
        if claimed.leases and self.is_repeated("claimed"):
            again = await self.store.claim(process, [Wanted(tasks, limit, queues, unfit_for)], token)
            assert sorted(again.leases) == sorted(claimed.leases)
        self.leases += claimed.leases

    def _has_expired(self, job: Modelled) -> bool:
        return job.status is Status.queued and job.process is None and job.expires_at <= self.now

    async def finish(self) -> None:
        """Old leases and new ones, true ones and false ones, several at once; and ends that were there before."""
        leases = self.random.choices(self.leases, k=self.random.randint(1, 3)) if self.leases else []
        if self.random.random() < 0.7:
            running = [job for job in self.jobs.values() if job.status is Status.running]
            leases += [Lease(job.id, job.attempt, job.process or "", job.task, "") for job in running[:2]]
        if leases and self.random.random() < 0.2:
            leases.insert(0, altered(leases[-1], attempt=leases[-1].attempt + self.random.choice([-1, 1])))
        # The order in which the ends of one job are taken within a batch is the store's: each job once.
        ends = [(lease, self._outcome(lease)) for lease in {lease.id: lease for lease in leases}.values()]
        accepted = [self._end(lease, outcome) for lease, outcome in ends]
        assert await self.store.finish(ends) == accepted
        if self.is_repeated("finished at once"):
            assert await self.store.finish(ends) == accepted

    def _outcome(self, lease: Lease) -> Outcome:
        """Any; but of one that has ended, no other end of the same kind, for an attempt has no two."""
        job = self.jobs.get(lease.id)
        end = None if job is None else job.ends.get(lease.attempt)
        outcome = self.random.choice([*OUTCOMES, end, end, end] if end else OUTCOMES)
        if end is not None and type(outcome) is type(end):
            outcome = end
        if isinstance(outcome, Succeeded) and lease.id in self.files:
            outcome = replace(outcome, files=(self.files[lease.id],))
        if isinstance(outcome, Succeeded | Failed) and self.random.random() < 0.5:
            outcome = replace(outcome, then=new_job(task=TASKS[0], queue=QUEUES[0]))
        return replace(outcome, report=self._report(lease)) if self.random.random() < 0.3 else outcome

    def _end(self, lease: Lease, outcome: Outcome) -> bool:
        job = self.jobs.get(lease.id)
        if job is None or not self._holds(lease):
            is_repeated = job is not None and job.had_ended(lease, outcome)
            self.happened["finished, repeated" if is_repeated else "fenced"] += 1
            return is_repeated
        job.ends[lease.attempt] = _plain(outcome)
        if outcome.report is not None:
            job.say(lease.attempt, outcome.report)
            self.happened["said with the end"] += 1
        match outcome:
            case Succeeded():
                job.end(Status.succeeded, self.now)
            case Failed() | Died(final=True):
                job.end(Status.failed, self.now)
            case Cancelled():
                job.end(Status.cancelled, self.now)
            case Retry(delay=delay) | Released(delay=delay) | Died(delay=delay):
                job.handed_at, job.expires_at = None, 0 if job.is_replaced else job.expires_at
                job.queue_again(self.now)
                self.happened[f"not to succeed yet: {job.status}"] += 1
                if delay:
                    job.due_at = self.now + delay
        job.unfit_for = outcome.unfit_for if isinstance(outcome, Released) else ""
        job.failures += isinstance(outcome, Failed | Retry)
        job.deaths += isinstance(outcome, Died)
        self.happened[type(outcome).__name__] += 1
        if isinstance(outcome, Succeeded | Failed) and outcome.then is not None:
            then = outcome.then
            self.jobs[then.id] = Modelled(then.id, then.task, then.queue, None, self.now, owner=job.owner)
            self.happened["follow-up"] += 1
        return True

    async def cancel(self) -> None:
        """By a person: what waits, held or not, and by any of its ids; what runs is asked to end."""
        running = [job for job in self.jobs.values() if job.status is Status.running]
        by_chance = self.random.random() < 0.5 or not running
        await self._cancel(*(self._one() if by_chance else (running[0].id, running[0])))

    async def _cancel(self, id_: str, job: Modelled | None) -> None:
        expected = Ruling.unknown if job is None else Ruling.forbidden
        if job is not None and job.status is Status.queued and not job.is_followed_there:
            job.end(Status.cancelled, self.now)
            expected = Ruling.done
        elif job is not None and job.status not in TERMINAL:
            self.happened["asked in other hands" if job.handed_at is not None else "asked"] += 1
            job.is_asked, expected = True, Ruling.asked
        assert await self.store.cancel([id_]) == [expected]
        if self.is_repeated("cancelled"):
            again = Ruling.forbidden if expected is Ruling.done else expected
            assert await self.store.cancel([id_]) == [again]
        self.happened[f"cancel: {expected}"] += 1

    async def retry(self) -> None:
        """By a person: what has ended without success, unless another has its unique key."""
        id_, job = self._one()
        expected = Ruling.unknown if job is None else Ruling.forbidden
        if job is not None:
            self._expire_holders(job.task, job.unique, job.id)
        if job is not None and job.status in {Status.failed, Status.cancelled}:
            expected = Ruling.taken if self._holders(job.task, job.unique) else Ruling.done
            if expected is Ruling.done:
                job.move(Status.queued)
                job.due_at, job.failures, job.deaths, job.unfit_for = self.now, 0, 0, ""
                job.ended_at, job.is_replaced, job.is_asked, job.is_begun = inf, False, False, False
                job.expires_at = job.expires_at if job.expires_at > self.now else inf
        assert await self.store.retry([id_]) == [expected]
        if self.is_repeated("retried"):
            again = Ruling.forbidden if expected is Ruling.done else expected
            assert await self.store.retry([id_]) == [again]
        self.happened[f"retry: {expected}"] += 1

    def _one(self) -> tuple[str, Modelled | None]:
        id_ = self.random.choice([self.random.choice([*self.jobs, *self.alias, "nothing"])] * 5 + ["nothing"])
        return id_, self.jobs.get(self.alias.get(id_, id_))

    async def tidy(self) -> None:
        """What has expired is cancelled; of what ended, the oldest are forgotten, and what leads to them with them."""
        ages, limit = {Status.succeeded: 60.0, Status.cancelled: 60.0, Status.failed: 120.0}, 3
        expected = 0
        for status, age in ages.items():
            old = [job for job in self.jobs.values() if job.status is status and job.ended_at <= self.now - age]
            expected += min(limit - expected, len(old))
        late = [job for job in self.jobs.values() if self._has_expired(job)]
        tidied = await self.store.tidy(ages, limit, 1)
        assert (tidied.expired, tidied.pruned) == (min(limit, len(late)), expected)
        there = {job.id: job.status for job in await self.store.list(limit=10_000)}
        cancelled = [job for job in late if there[job.id] is Status.cancelled]
        for job in cancelled:
            job.end(Status.cancelled, self.now)
            self.happened["expired, unasked"] += 1
        assert max([job.expires_at for job in cancelled], default=-inf) <= min(
            [job.expires_at for job in late if job not in cancelled], default=inf
        )
        gone = [job for job in self.jobs.values() if job.id not in there]
        assert len(gone) == expected
        for job in gone:
            left = [other for other in self.jobs.values() if other.status is job.status and other not in gone]
            assert job.ended_at <= min([self.now - ages[job.status], *(other.ended_at for other in left)])
            del self.jobs[job.id]
            self.alias = {alias: id_ for alias, id_ in self.alias.items() if id_ != job.id}
            self.happened["pruned"] += 1

    async def beat(self) -> None:
        """With what it knows, or having forgotten some of it."""
        process = self.alive[self.random.choice(NAMES)]
        mine = self.held_by(process)
        self.random.shuffle(mine)
        forgotten = self.random.choice([0, 0, 1, 2])
        unknown, certain = mine[:forgotten], mine[forgotten:]
        gone = [job for job in self.jobs.values() if job.process != process][:1]
        beat = await self.store.beat(process)
        assert beat is not None
        assert set(beat.others) == set(self.alive.values()) - {process}
        assert {job: held.attempt for job, held in beat.held.items()} == {job.id: job.attempt for job in mine}
        assert not beat.has_orphans
        known = self.known(certain + gone)
        differ = differences(known, beat, known)
        assert differ.lost == {job.id: job.attempt for job in gone}
        assert sorted(differ.unknown) == sorted((job.id, job.attempt) for job in unknown)
        assert await self.store.give_back(process, differ.unknown, []) == [True] * len(unknown)
        if self.is_repeated("given back"):
            assert await self.store.give_back(process, differ.unknown, []) == [False] * len(unknown)
        for job in unknown:
            job.queue_again(self.now)
            self.happened["given back"] += 1

    async def die(self) -> None:
        """Found by its lock, by its counter, or when it has left; of one that woke up in time, nothing is taken."""
        follow = [name for name in NAMES if any(job.handed_at is not None for job in self.held_by(self.alive[name]))]
        name = self.random.choice(self.random.choice([follow, NAMES]) or NAMES)
        process, how = self.alive[name], self.random.choice(["dead", "frozen", "awake", "left"])
        reaper = next(other for other in self.alive.values() if other != process)
        beat = await self.store.beat(reaper)
        assert beat is not None
        counter = beat.others[process]
        mine = self.held_by(process)
        if how == "left":
            await self.stores[0].leave(process)
            if self.is_repeated("left"):
                await self.stores[0].leave(process)
            for job in mine:
                job.queue_again(self.now)
        buried: dict[str, list[tuple[str, int | None]]] = {
            "dead": [(process, None)],
            "frozen": [(process, counter)],
            "awake": [(process, counter + 1)],
            "left": [],
        }
        reaped = await self.store.reap(buried[how], SUSPECT_AFTER, SUSPECT_DELAY)
        orphans = mine if how in {"dead", "frozen"} else []
        for job in orphans:
            self.happened["orphan: in other hands" if job.handed_at is not None else f"orphan: {job.status}"] += 1
            job.orphan(self.now)
        assert (reaped.jobs, reaped.more) == (sum(job.status is Status.queued for job in orphans), False)
        if how != "awake":
            assert await self.stores[0].beat(process) is None
            await self.join(name)
        self.happened[how] += 1

    async def time_passes(self) -> None:
        self.place.clock.advance(self.random.choice([1.0, 10.0, 60.0]))

    async def check(self) -> None:
        """What must hold at every moment."""
        listed = await self.store.list(limit=10_000)
        seen = {job.id: (job.status, job.process, job.attempt, job.failures, job.deaths) for job in listed}
        assert seen == {
            job.id: (job.status, job.process, job.attempt, job.failures, job.deaths) for job in self.jobs.values()
        }
        handed = {job.id: job.handed_at.timestamp() for job in listed if job.handed_at is not None}
        assert handed == {
            job.id: pytest.approx(job.handed_at) for job in self.jobs.values() if job.handed_at is not None
        }
        assert all(job.run_at.timestamp() < self.now + 60 for job in listed)
        found = await self.store.get(list(self.alias))
        assert [job and job.id for job in found] == list(self.alias.values())
        for job in await self.store.get(list(self.jobs)):
            assert job is not None
            if job.id in self.files and job.status is not Status.succeeded:
                chunk = await self.store.get_chunk(self.files[job.id], 0)
                assert chunk == (b"of " + job.id.encode(), False)
            numbers = [attempt.number for attempt in job.attempts]
            assert numbers == sorted(set(numbers))
            assert len(numbers) <= job.attempt
        if self.random.random() < 0.3:
            await self.check_what_is_seen(listed)
        await self.check_stats(listed)
        await self.check_followed()

    async def check_what_is_seen(self, listed: list[Job]) -> None:
        """Whose the jobs are, and what they have said."""
        assert {job.id: job.owner for job in listed} == {job.id: job.owner for job in self.jobs.values()}
        owner = self.random.choice(OWNERS[1:])
        owned = [job.id for job in listed if job.owner == owner]
        assert [job.id for job in await self.store.list(owner=owner, limit=10_000)] == owned
        some = self.random.sample(list(self.jobs.values()), min(10, len(self.jobs)))
        for job, stream in zip(some, await self.store.events([(job.id, 0) for job in some], 1000), strict=True):
            assert stream is not None
            assert (stream.status, stream.attempt, stream.last) == (job.status, job.attempt, len(job.said))
            assert [(event.attempt, event.data) for event in stream.events] == job.said
            assert [event.number for event in stream.events] == list(range(1, len(job.said) + 1))

    async def check_stats(self, listed: list[Job]) -> None:
        """What is counted is what the list shows."""
        counted: Counter[tuple[str, str]] = Counter()
        since: dict[str, float] = {}
        for job in listed:
            if job.status in TERMINAL:
                continue
            run_at = job.run_at.timestamp()
            waits = "held" if job.process is not None else "depth" if run_at <= self.now else "later"
            waits = waits if job.handed_at is None else "handed"
            counted[job.queue, waits if job.status is Status.queued else "running"] += 1
            if waits == "depth":
                since[job.queue] = min(since.get(job.queue, run_at), run_at)
        stats = await self.store.stats()
        assert stats.processes == len(self.alive)
        assert [one.queue for one in stats.queues] == sorted({queue for queue, _ in counted})
        for one in stats.queues:
            assert (one.depth, one.later) == (counted[one.queue, "depth"], counted[one.queue, "later"])
            assert (one.held, one.running) == (counted[one.queue, "held"], counted[one.queue, "running"])
            assert one.handed == counted[one.queue, "handed"]
            assert one.oldest_age == pytest.approx(self.now - since.get(one.queue, self.now), abs=0.001)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(6))
async def test_a_store_is_as_its_model(place: Place, seed: int) -> None:
    """Two hundred steps, or more: until all that is of interest has happened.

    The rarest of it happens once in some 200 steps, so that a life of 4000 without it does not occur by chance. A life
    is longer by chance, too: where the order of two jobs is the store's, the same seed leads elsewhere.
    """
    life = Life(place, [await place.open(), await place.open()], seed)
    for name in NAMES:
        await life.join(name)
    steps: dict[Callable[[], Awaitable[None]], int] = {
        life.enqueue: 8,
        life.enqueue_again: 2,
        life.claim: 10,
        life.finish: 11,
        life.release: 4,
        life.beat: 3,
        life.die: 6,
        life.time_passes: 4,
        life.cancel: 5,
        life.retry: 4,
        life.tidy: 3,
        life.sweep: 1,
        life.report: 4,
        life.pause: 2,
        life.hasten: 4,
        life.reserve: 9,
        life.drop: 1,
        life.hand_over: 10,
        life.begin: 5,
        life.take_back: 4,
    }
    for number in range(4000):
        if number >= 200 and life.happened.keys() >= EVENTS:
            break
        [step] = life.random.choices(list(steps), list(steps.values()))
        await step()
        await life.check()
    for process in life.alive.values():
        await life.stores[0].leave(process)
    await life.sweep()
    for job_id, file in life.files.items():
        is_wanted = job_id in life.jobs and life.jobs[job_id].status is not Status.succeeded
        assert (await life.store.get_chunk(file, 0) is not None) is is_wanted
    assert life.happened.keys() >= EVENTS


EVENTS: set[Any] = {
    *Stored,
    "let go", "claimed", "fenced", "given back", "dead", "frozen", "awake", "left",
    "orphan: queued", "orphan: running", "Succeeded", "Failed", "Cancelled", "Retry", "Released", "Died",
    "replaced while queued", "replaced while running", "expired", "expired for another", "expired, unasked",
    "follow-up", "pruned", "swept", "cancel: asked", "not to succeed yet: queued", "not to succeed yet: cancelled",
    *(f"{move}: {ruling}" for move in ("cancel", "retry") for ruling in ("done", "unknown", "forbidden")),
    "retry: taken", "key: answered", "key: dropped", *(f"key: {state}" for state in Reserved),
    "said", "said in vain", "said with the end",
    *(f"hasten: {ruling}" for ruling in ("done", "unknown", "forbidden")),
    "handed over", "handed over in vain", "begun", "begun in vain", "begun before it was handed over", "taken back",
    "cancelled when handed over", "asked in other hands",
    "hastened in other hands", "orphan: in other hands",
    *(f"{what}, repeated" for what in ("enqueued", "enqueued at once", "let go", "claimed", "finished", "left",
                                       "finished at once", "cancelled", "retried", "given back", "handed over",
                                       "begun")),
}  # fmt: skip
