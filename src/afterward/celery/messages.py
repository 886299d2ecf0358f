"""What is said to Celery's broker of one attempt of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from afterward.job import Lease, NewEvent, Succeeded
from afterward.stores.handing import Start


class Message(NamedTuple):
    """One call of a Celery task, as `.apply_async(args, kwargs, task_id=…, **options)` would send it.

    `options`: whatever `apply_async` takes, such as queue, priority, countdown, expires, headers, time_limit.
    `is_ours`: it begins an attempt of one of our own functions, so that no task of the user's has a say in it; its
    options are among queue, priority and time_limit, and its result is ignored.
    """

    task: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    task_id: str
    options: Mapping[str, Any]
    is_ours: bool = False


class Published(Protocol):
    """A kind of task whose jobs are published: what is said of one of them, and what is known of it afterwards.

    `is_followed`: what runs it there knows nothing of the store. `republishes`: its message may be sent once more, when
    it has not begun for a while; `republish_after`: for what is followed, after so many seconds, whatever waits.
    """

    @property
    def is_followed(self) -> bool: ...

    @property
    def republishes(self) -> bool: ...

    @property
    def republish_after(self) -> float | None: ...

    @property
    def fingerprint(self) -> str:
        """Of the signature that its arguments fit; "" where none is known."""
        ...

    def message(self, lease: Lease) -> Message:
        """Raises whatever it likes where there is none: the job is released then, with what was raised as its note."""
        ...

    def end(self, lease: Lease) -> Succeeded | None:
        """How its job has ended by being confirmed, where that is all that is ever heard of it; else None."""
        ...

    def line(self, lease: Lease) -> NewEvent | None:
        """What the log of its job is to tell of its being published, if anything."""
        ...


def task_id_of(job: str, attempt: int) -> str:
    """The id that an attempt of a job has in Celery. One attempt has one, however often it is published."""
    return job if attempt == 1 else f"{job}-{attempt}"


def arguments_of(start: Start) -> list[Any]:
    """The arguments by which one of our own functions is begun: never those of the call, which stay in the store."""
    return [start.id, start.attempt, start.sender]


def start_of(args: Sequence[Any]) -> Start:
    """What `arguments_of` has made of it. Raises `ValueError` for anything else."""
    match args:
        case [str(job), int(attempt), str(sender)]:
            return Start(job, attempt, sender)
        case _:
            raise ValueError(f"a message of {len(args)} arguments is none of afterward's: {args!r:.200}")
