"""What a store offers to those who have jobs run by another system: a Celery fleet, which takes them from a broker.

A job that is *handed over* is `queued`, its message is with the other system, and no claim gives it to anybody. It is
begun there by its attempt, as often as its message comes: the first begins it, all others are refused.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from afterward.job import Lease
from afterward.stores.seen import Answer


class HandOver(NamedTuple):
    """An attempt whose message another system has confirmed.

    `again`: seconds after which `take_back` gives it out, so that its message can be sent once more; None: never.
    `is_followed`: what it runs there knows nothing of this store: it cannot begin its attempt by itself, and who looks
    at what the other system tells of it does that in its place. `is_sent`: False for one that was taken back, and whose
    message was not sent again: when it was confirmed last stays as it was.
    """

    lease: Lease
    again: float | None = None
    is_followed: bool = False
    is_sent: bool = True


class Start(NamedTuple):
    """What a message says: a job, its attempt, and the process that sent it."""

    id: str
    attempt: int
    sender: str


@dataclass(frozen=True, slots=True)
class TakenBack:
    """`leases`: with the attempt they had. `more`: the limit cut it short. `next_due`: seconds until the next is due.

    `waited`: for each lease, the seconds since its message was confirmed last (`handed_at`), by the store's clock.
    """

    leases: Sequence[Lease]
    waited: Sequence[float]
    more: bool
    next_due: float | None


@dataclass(frozen=True, slots=True)
class Followed:
    """A job that is followed: in the hands of another system, as far as it is known here.

    `handed_at`: when its message was confirmed last. `process`: who has begun its attempt, for it was told that it
    runs; None while it is just handed over. `is_asked`: a person has asked it to end.
    """

    id: str
    attempt: int
    task: str
    handed_at: datetime
    process: str | None
    is_asked: bool


class Handing(Protocol):
    """Jobs in the hands of another system. Each operation is one atomic transaction, as all others."""

    def hand_over(self, handed: Sequence[HandOver]) -> Answer[list[bool]]:
        """running → queued, handed over: no claim gives it to anybody, and nothing promotes it.

        False for an attempt that no longer holds its job; so it is where its message was faster, and has begun it.
        One that was asked to end meanwhile is cancelled, unless it is followed. Its attempt counts as none that ended.
        What is followed does not expire any more. Repeated: True for what is handed over with that attempt.
        """
        ...

    def begin(self, process: str, starts: Sequence[Start]) -> Answer[list[Lease | None]]:
        """queued and handed over → running, leased to `process`, which must have a liveness row; the attempt stays.

        Also a job that still runs in the name of its `sender`, who could not say yet that it is handed over. None for
        one that has another attempt, that has expired, or that nobody has handed over: its message is to be dropped.
        A job that is followed stays so while it runs: where `leave`, `give_back` or `reap` would queue it, it is handed
        over again instead, no attempt ends and no death is counted, though it was asked to end. It is not given out by
        `take_back` any more, for its message has come.
        Repeated: the same lease, as long as that attempt runs in the name of `process`; who gets a message twice has to
        know by itself what it runs already.
        """
        ...

    def take_back(self, process: str, tasks: Collection[str], limit: int) -> Answer[TakenBack]:
        """Handed over → running, leased to `process` with the attempt it has, for those of these tasks that are due
        again; of a queue that is not paused. So that its message is sent once more, and it is handed over as before.

        Where `leave`, `give_back` or `reap` would queue one that was taken back, it is handed over instead, due again
        at once, no attempt ends and no death is counted; one that was asked to end is cancelled, unless it is followed.
        Nothing is given to a process without a liveness row.
        Does away with what is kept of jobs that are not in other hands any more. Repeated: the next so many.
        """
        ...

    def followed(self, tasks: Collection[str], after: str, limit: int) -> Answer[list[Followed]]:
        """Jobs of these tasks that are followed, handed over or running, by their ids; those after this one ("": all).

        Its cost grows with how many are followed, not with the rest.
        """
        ...
