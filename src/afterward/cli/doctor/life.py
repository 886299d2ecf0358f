"""What goes on in the store: who lives there, what waits, and what its clock says."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from afterward.cli.doctor.finding import Finding, Level, ok, problem, warning
from afterward.cli.progress import progress
from afterward.sizes import many
from afterward.states import OVERDUE, span
from afterward.stores.base import COUNTED
from afterward.stores.counts import Joined, Waits
from afterward.stores.sqlite.checkup import Checkup

BEAT_SECONDS = 5.0
"""How long a heartbeat is waited for: twice as long as it takes with the usual lease, and a little more."""

_LOOK_SECONDS = 0.1
_FUTURE_SECONDS = 1.0
_SHOWN_LANES = 10


class Life(Protocol):
    """What can be asked of a store that is looked at from outside."""

    def joined(self) -> list[Joined]: ...

    def dead(self) -> set[str]: ...

    def waits(self, now: float) -> list[Waits]: ...


def examine_life(checkup: Checkup, known: Collection[str] | None) -> Iterator[Finding]:
    """What goes on in a file. `known`: the tasks of the program, if there is one to compare with."""
    yield from examine_processes_and_jobs(checkup, known, time.time())
    yield clock(checkup.newest_time(), time.time())


def examine_processes_and_jobs(life: Life, known: Collection[str] | None, now: float) -> Iterator[Finding]:
    """Who lives, and what waits. `now`: by the store's clock."""
    began = time.monotonic()
    beating, still = _watch(life, life.joined())
    yield from processes(beating, still, life.dead())
    now += time.monotonic() - began
    yield from waiting(life.waits(now), now, beating, known)


def _watch(checkup: Life, joined: Sequence[Joined]) -> tuple[list[Joined], list[Joined]]:
    """Who beats, and who does not or has left, as far as it can be seen in some seconds."""
    first = {process.id: process for process in joined}
    beaten: set[str] = set()
    deadline = time.monotonic() + BEAT_SECONDS
    with progress("looking for heartbeats", None) as advance:
        while first.keys() - beaten and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
            advance(1)
            now = {process.id: process for process in checkup.joined()}
            first = {id_: process for id_, process in first.items() if id_ in now}
            beaten |= {id_ for id_ in first if now[id_].beat != first[id_].beat}
    return [p for p in first.values() if p.id in beaten], [p for p in first.values() if p.id not in beaten]


def processes(beating: Sequence[Joined], still: Sequence[Joined], dead: Collection[str]) -> Iterator[Finding]:
    """Each process that has joined shows that it lives."""
    for process in still:
        who = f"process {process.pid} on {process.host} ({process.id})"
        if process.id in dead:
            said = f"{who} has died; its jobs are queued again by the next process that lives"
            yield warning("processes", said, "start the app or a worker, unless one is running")
        else:
            said = f"{who} is alive, and has not beaten for {BEAT_SECONDS:g} s; its lease may be long, or it is stopped"
            yield warning("processes", said, f"look what it does (ps -o stat,wchan -p {process.pid}), or restart it")
    if beating:
        yield ok("processes", living(len(beating), sum(process.serves for process in beating)))
    elif not still:
        yield warning(
            "processes", "no process has joined this store", "start the app or a worker: until then, jobs wait"
        )


def living(processes: int, serving: int) -> str:
    """How many there are, and how many of them run jobs."""
    if processes == 1:
        return f"1 process lives, and runs {'' if serving else 'no '}jobs"
    some = {0: "none", processes: "all"}.get(serving, str(serving))
    return f"{processes:,} processes live, {some} of which {'runs' if serving == 1 else 'run'} jobs"


def waiting(
    waits: Sequence[Waits], now: float, beating: Sequence[Joined], known: Collection[str] | None
) -> Iterator[Finding]:
    """What is due is taken soon."""
    late = [lane for lane in waits if timedelta(seconds=now - lane.since) > OVERDUE or lane.unfit]
    for lane in sorted(late, key=lambda lane: lane.since)[:_SHOWN_LANES]:
        yield _lane(lane, now, beating, known)
    if len(late) > _SHOWN_LANES:
        said = f"so it is with {many(len(late) - _SHOWN_LANES, 'more queue or task')}"
        yield warning("waiting", said, "afterward jobs --status queued")
    if not late:
        due = sum(lane.jobs for lane in waits)
        yield ok("waiting", f"{many(due, 'job')} due, none for long")


def _lane(lane: Waits, now: float, beating: Sequence[Joined], known: Collection[str] | None) -> Finding:
    how_long = span(timedelta(seconds=now - lane.since))
    jobs = many(lane.jobs, "job") if lane.jobs < COUNTED else f"{COUNTED:,} jobs or more"
    said = f"{jobs} of {lane.task}, queue {lane.queue}: the first is due for {how_long}"
    if not lane.task:
        said = f"{jobs} of queue {lane.queue} came due, the first {how_long} ago, and no worker has looked"
    if not any(process.serves for process in beating):
        return problem("waiting", f"{said}; no worker is running", "start the app, or afterward worker")
    if known is not None and lane.task and lane.task not in known:
        mend = f"declare it again with @tasks.task(name={lane.task!r}), or cancel them: afterward cancel --all --task …"
        return problem("waiting", f"{said}; the program has no such task", mend)
    if lane.unfit:
        mend = "see `afterward jobs --status queued`; start a worker whose function they fit, or cancel them"
        return Finding(Level.warning, "waiting", f"{said}; their arguments do not fit the function of a worker", mend)
    mend = "see that a worker serves the queue and knows the task; if all are busy, start more of them"
    return Finding(Level.warning, "waiting", said, mend)


def clock(newest: float | None, now: float) -> Finding:
    """Delays and ages are measured on it."""
    told = datetime.fromtimestamp(now, UTC)
    if newest is not None and newest > now + _FUTURE_SECONDS:
        said = (
            f"the clock says {told:%Y-%m-%d %H:%M:%S} UTC, and the store has a time that is "
            f"{span(timedelta(seconds=newest - now))} later: it was set back, and what waits waits longer by as much"
        )
        return warning("clock", said, "see that the clock is kept by NTP (timedatectl)")
    return ok("clock", f"{told:%Y-%m-%d %H:%M:%S} UTC, not behind the store")
