"""Jobs that fail, by what is most likely their cause."""

from __future__ import annotations

from fastapi import Response

from afterward.web.dashboard.visit import Visit

LIMIT = 100
"""How many groups are shown."""


async def failures(visit: Visit) -> Response:
    """The groups, those that failed last first."""
    groups = await visit.store.failures(LIMIT + 1)
    return visit.page("failures.html", page="failures", groups=groups[:LIMIT], more=len(groups) > LIMIT)
