"""What follows from what Celery tells of a task: pure decisions."""

from __future__ import annotations

import re
from typing import Any, NamedTuple, cast

from kombu.utils import json as celery_json
from pydantic_core import to_json

from afterward.celery.backend import UNREADABLE, Meta
from afterward.job import Cancelled, Failed, Failure, Outcome, Succeeded
from afterward.signatures import Place, signature_of
from afterward.text import storable

_LONGEST_MESSAGE, _LONGEST_TRACEBACK = 10_000, 50_000

_from_json: Any = celery_json.loads
_to_json: Any = celery_json.dumps

_FRAME = re.compile(r'^\s*File "(.+?)", line \d+, in (.+)$', re.MULTILINE)

_NOT_BEGUN = frozenset({"", "PENDING", "RECEIVED"})
"""The states of a task that no worker has begun, as far as Celery tells. Without any it is unknown, and may run."""


class End(NamedTuple):
    """How a job has ended, and what its log is to tell besides."""

    outcome: Outcome
    line: str | None = None


def end_of(meta: Meta, task: str, limit: int) -> End | None:
    """How a job has ended by this; None where it has not. `limit`: of what it returned, in bytes."""
    match meta.state:
        case "SUCCESS":
            return _success(meta, limit)
        case "FAILURE":
            return End(Failed(failure_of(meta, task)))
        case "REVOKED":
            return End(Cancelled("its task was revoked in Celery"))
        case _:
            return None


def is_begun(meta: Meta) -> bool:
    """Has a worker begun it? It has where there is something that cannot be read: nothing is kept before."""
    return meta is UNREADABLE or meta.state not in _NOT_BEGUN


def _success(meta: Meta, limit: int) -> End:
    if not meta.is_readable:
        return End(Succeeded(), "what it returned is not kept as JSON in Celery's result back end, and was not read")
    if meta.result is None:
        return End(Succeeded())
    text = _json_of(meta.result)
    if len(text) > limit:
        return End(
            Succeeded(),
            f"what it returned takes {len(text):,} bytes, more than the {limit:,} allowed by "
            f"Afterward(max_payload_bytes=…); it is in Celery's result back end",
        )
    return End(Succeeded(storable(text.decode())))


def _json_of(result: Any) -> bytes:
    """As those who look know it: where Celery has marked a date or an id as one, it is told by its text."""
    try:
        return to_json(_from_json(_to_json(result)))
    except ValueError:  # a mark that is none of those known here
        return to_json(result)


def failure_of(meta: Meta, task: str) -> Failure:
    """The exception that a task has ended with, as text, by what is kept of it. No class is looked for."""
    traceback = storable(meta.traceback[-_LONGEST_TRACEBACK:])
    kept = cast("dict[str, Any]", meta.result) if isinstance(meta.result, dict) else {}  # pyright: ignore[reportUnknownMemberType]
    kind, message = _said(kept) if "exc_type" in kept else _last_line(traceback)
    places = [Place(path, function) for path, function in _FRAME.findall(traceback)]
    return Failure(kind, message, traceback, signature_of(kind, message, places, task))


def _said(kept: dict[str, Any]) -> tuple[str, str]:
    module, name, said = kept.get("exc_module"), kept["exc_type"], kept.get("exc_message")
    kind = f"{name}" if module in {None, "builtins"} else f"{module}.{name}"
    parts = cast("list[Any]", said) if isinstance(said, list) else [said]
    message = ", ".join(str(part) for part in parts if part is not None)
    return storable(kind[:500]), storable(message[:_LONGEST_MESSAGE])


def _last_line(traceback: str) -> tuple[str, str]:
    """Of one that is kept as a pickle: what its traceback ends with."""
    kind, _, message = traceback.strip().rpartition("\n")[2].partition(": ")
    return kind or "unknown", message[:_LONGEST_MESSAGE]
