"""A fleet whose code knows nothing of us: `celery -A tests.support.theirs worker`."""

import os
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from celery import Celery, Task

app = Celery("theirs", broker=os.environ.get("BROKER"), backend=os.environ.get("RESULTS"), set_as_current=False)
app.conf.task_track_started = True
app.conf.task_send_sent_event = True


@app.task(name="theirs.add", shared=False)
def add(one: int, other: int) -> int:
    return one + other


@app.task(name="theirs.note", shared=False)
def note(text: str, *, file: str) -> None:
    """Append a line to a file."""
    with open(file, "a") as lines:  # noqa: PTH123
        lines.write(f"{text}\n")


@app.task(name="theirs.made", shared=False)
def made() -> dict[str, Any]:
    return {"at": datetime(2030, 1, 2, tzinfo=UTC), "id": UUID(int=7), "parts": (1, 2)}


@app.task(name="theirs.much", shared=False)
def much(size: int) -> str:
    return "x" * size


@app.task(name="theirs.fail", shared=False)
def fail(message: str) -> None:
    raise LookupError(message, 3)


@app.task(name="theirs.nap", shared=False)
def nap(seconds: float, file: str) -> str:
    with open(file, "a") as lines:  # noqa: PTH123
        lines.write("begun\n")
    time.sleep(seconds)
    return "rested"


@app.task(name="theirs.flaky", bind=True, max_retries=100, shared=False)
def flaky(self: "Task[Any, Any]", file: str) -> str:
    """Fails until the file is there."""
    if not os.path.exists(file):  # noqa: PTH110
        raise self.retry(exc=ValueError("not there yet"), countdown=0.2)
    return "there"


@app.task(name="theirs.quiet", ignore_result=True, shared=False)
def quiet(file: str) -> None:
    note("quiet", file=file)
