"""The processes that live, and what each runs now."""

from __future__ import annotations

from fastapi import Response

from afterward.web.dashboard.visit import Visit

SHOWN = 20
"""How many of the jobs that one process runs are shown."""


async def workers(visit: Visit) -> Response:
    """The processes, the one that joined last first."""
    processes = await visit.store.processes()
    ids = [id_ for process in processes for id_ in process.running[:SHOWN]]
    running = {job.id: job for job in await visit.store.get(ids) if job is not None}
    return visit.page("workers.html", page="workers", processes=processes, running=running, most=SHOWN)
