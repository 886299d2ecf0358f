"""Jobs, newest first, as the URL filters them."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime

from fastapi import Response

from afterward.job import Job, Status
from afterward.states import State, state_of
from afterward.web.dashboard.bulk import STATUSES
from afterward.web.dashboard.filters import filters
from afterward.web.dashboard.visit import Visit

LIMIT = 50
"""How many jobs a page shows."""

_ID = re.compile(r"[0-9a-f]{8}-?[0-9a-f-]{0,27}")


async def jobs(visit: Visit) -> Response:
    """A page of jobs; or the one whose id was searched for."""
    wanted = filters(visit.query)
    if wanted.text and (id_ := await _id_of(visit, wanted.text)):
        return visit.go(f"/jobs/{id_}")
    before = visit.query.get("before") or None
    found = await wanted.page(visit.store, LIMIT + 1, before)
    shown = found[:LIMIT]
    paused = {pause.queue for pause in await visit.store.paused()}
    rows = [(job, _state_of(job, visit.now, paused)) for job in shown]
    return visit.page(
        "jobs.html", page="jobs", filters=wanted, rows=rows, before=before,
        next=shown[-1].id if len(found) > LIMIT else None, statuses=list(Status), names=await _names(visit),
        moves=[action for action, of in STATUSES.items() if wanted.status is None or wanted.status in of],
    )  # fmt: skip


def _state_of(job: Job, now: datetime, paused: Collection[str]) -> State:
    """Where it stands; one that only waits for its queue waits for no worker."""
    state = state_of(job, now)
    is_kept = job.queue in paused and state.word in {"queued", "waiting"}
    return State("waiting", f"queue {job.queue} is paused") if is_kept else state


async def _names(visit: Visit) -> list[str]:
    """The tasks to choose from: those known here, and those ever served."""
    return sorted({*visit.host.tasks, *(seen.task for seen in await visit.store.tasks_seen())})


async def _id_of(visit: Visit, text: str) -> str | None:
    """The only job whose id begins so."""
    if not _ID.fullmatch(text.lower()):
        return None
    ids = await visit.store.find(text.lower(), 2)
    return ids[0] if len(ids) == 1 else None
