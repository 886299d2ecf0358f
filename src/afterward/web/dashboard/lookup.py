"""The job that a path names."""

from __future__ import annotations

from afterward.job import Job
from afterward.text import is_storable
from afterward.web.dashboard.guard import Refused
from afterward.web.dashboard.visit import Visit


async def found(visit: Visit) -> Job:
    """The job, with its attempts. Raises `Refused` when there is none."""
    id_ = visit.request.path_params["id"]
    [job] = await visit.store.get([id_]) if is_storable(id_) else [None]
    if job is None:
        raise Refused("There is no such job", "It was never here, or has been forgotten since it ended.", 404)
    return job
