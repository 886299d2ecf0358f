"""What a running task can say, and hear: how far it is, what it has made so far, and that it is asked to end."""

from __future__ import annotations

import json
import math
from typing import Any

from pydantic_core import to_json

from afterward.context import VOICE, Voice
from afterward.errors import ArgumentError, NoCurrentJob, TaskCancelled
from afterward.job import EventKind
from afterward.text import storable

MAX_EVENT_BYTES = 64 * 1024
"""The limit of one event, as JSON."""


def progress(current: float, total: float | None = None, message: str | None = None) -> None:
    """Say how far this job is: `current`, of `total` if that is known, and what it is at.

    It waits for nothing: of what is said in quick succession, the last counts. Works in the loop, in a thread and in a
    child process. Raises `NoCurrentJob` outside of a job, `ArgumentError` for what is no number, or too large.
    """
    voice = _voice("progress")
    said = {
        "current": _number("current", current),
        "total": None if total is None else _number("total", total),
        "message": None if message is None else storable(str(message)),
    }
    voice.say(EventKind.progress, _limited("progress()", json.dumps(said, ensure_ascii=False)))


def emit(data: Any) -> None:
    """Say what this job has made so far: any value that Pydantic knows as JSON. It is an event of the job's stream.

    It waits for nothing in the loop, where it is dropped if the store does not keep up with far too many; in a thread,
    it waits then. Raises `NoCurrentJob` outside of a job, `ArgumentError` for what is no JSON, or larger than 64 KiB.
    """
    _voice("emit").say(EventKind.item, _limited("emit()", json_of(data)))


def cancel_asked() -> bool:
    """Is this attempt to end: was its job cancelled meanwhile, or is the attempt over for the worker already?

    For code in a thread, which cannot be stopped. Raises `NoCurrentJob` outside of a job.
    """
    return _voice("cancel_asked").is_to_end


def check_cancelled() -> None:
    """Raise `TaskCancelled` if `cancel_asked()`: let it pass, and the job is cancelled.

    Raises `NoCurrentJob` outside of a job.
    """
    if _voice("check_cancelled").is_to_end:
        raise TaskCancelled("this job was asked to end")


def json_of(value: Any) -> str:
    """A value as JSON text, as Pydantic has it. Raises `ArgumentError`."""
    try:
        return to_json(value, bytes_mode="base64", inf_nan_mode="null").decode()
    except Exception as error:  # whatever a user's type raises
        raise ArgumentError(
            f"emit() takes what can be written as JSON, and this {type(value).__name__} cannot: {error}"
        ) from error


def _limited(what: str, data: str) -> str:
    if len(data) > MAX_EVENT_BYTES or len(data.encode()) > MAX_EVENT_BYTES:
        raise ArgumentError(
            f"{what}: one event takes at most {MAX_EVENT_BYTES:,} bytes as JSON, and this one is larger; say less of "
            f"it, or store it elsewhere and say where"
        )
    return data


def _number(name: str, value: Any) -> float:
    try:
        number = value if isinstance(value, int | float) else float(value)
        if math.isfinite(number):
            return number
    except Exception:  # noqa: BLE001, S110 - whatever a user's type raises
        pass
    raise ArgumentError(f"progress(): {name} must be a number, not {_quoted(value)}")


def _quoted(value: Any) -> str:
    try:
        return f"{value!r:.100}"
    except Exception:  # noqa: BLE001 - as above; and Python writes no integer of more than 4,300 digits
        return f"this {type(value).__name__}, which cannot be shown"


def _voice(name: str) -> Voice:
    try:
        return VOICE.get()
    except LookupError:
        raise NoCurrentJob(
            f"{name}() was called outside of a job; it works only while a worker runs the task "
            f"(calling a task directly just calls its function)"
        ) from None
