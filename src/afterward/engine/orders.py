"""What a worker and its child processes say to each other, line by line.

The worker gives an order, and the contents of its files after it; the child says `READY`, then what its function says,
and in the end an answer. Orders and answers are JSON objects, what is said is a JSON array, all else are words.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from afterward.dependencies import needs_lifespan
from afterward.job import Cancelled, Failed, Failure, Lease, Outcome, Released, Retry, Succeeded
from afterward.task import Task
from afterward.uploads import stored_in

READY = b"ready"
"""What a child says that begins: from here on, time counts, and its death is its job's."""

LEAVES = b"leaves"
"""What a child says that is about to end its attempt by itself."""

SETTLES = b"settles"
"""What a child says that wants to know when all that it has said is stored: then it is told `SETTLED`, or why not."""

SETTLED, ASKED, UNSETTLED = b"settled", b"asked", b"unsettled "
"""What a child is told: the answers to `SETTLES`; and that its attempt is asked to end."""

END = b"end"
"""What a child is told that is not needed any more."""

_OUTCOMES: dict[str, type[Any]] = {kind.__name__: kind for kind in (Succeeded, Failed, Cancelled, Retry, Released)}


class Order(NamedTuple):
    """One attempt. `module`, `path`: of its function; `apps`: whose lifespans it asks for, each as `module:name`."""

    sys_path: Sequence[str]
    module: str
    path: str
    apps: Sequence[str]
    log_level: int | None
    files: Sequence[str]
    lease: Lease


def order_for(task: Task[..., Any], lease: Lease, log_level: int | None) -> bytes:
    """A line."""
    module, _, path = task.name_in_code.partition(":")
    apps = task.owner.apps.places() if needs_lifespan(task.dependencies) else []
    order = Order(sys.path, module, path, apps, log_level, stored_in(lease.arguments), lease)
    return json.dumps({**order._asdict(), "lease": lease._asdict()}).encode()


def order_in(line: bytes) -> Order:
    """The order that this line gives."""
    said: dict[str, Any] = json.loads(line)
    lease = Lease(**said.pop("lease"))
    return Order(**said, lease=lease)


class Answer(NamedTuple):
    """How an attempt ended. `is_spent`: its child is not good for another; `is_busy`: and something of it runs on."""

    outcome: Outcome
    is_spent: bool = False
    is_busy: bool = False


def line_of(answer: Answer) -> bytes:
    """As its line."""
    outcome = answer.outcome
    said = answer._asdict() | {"outcome": type(outcome).__name__, "values": asdict(outcome)}
    return json.dumps(said).encode()


def answer_in(line: bytes) -> Answer | None:
    """The answer that this line is, if it is one."""
    if not line.startswith(b"{"):
        return None
    said: dict[str, Any] = json.loads(line)
    values = said["values"]
    if "failure" in values:
        values["failure"] = Failure(**values["failure"])
    return Answer(_OUTCOMES[said["outcome"]](**values), said["is_spent"], said["is_busy"])
