"""The list of jobs: those that the caller may see, newest first, page by page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response

from afterward.job import Job, Status
from afterward.text import is_storable
from afterward.web.access import Caller
from afterward.web.jobs import Jobs
from afterward.web.paths import path_of
from afterward.web.status import JobPage, summary_of

LONGEST_PAGE = 100
_LONGEST = 1_000
"""So many characters are looked for at most."""
_LOOKS = 10
"""How many pages of others' jobs are passed over before a page is given that is not full."""


def add_list(router: APIRouter, jobs: Jobs, caller: Callable[..., Any]) -> None:
    """Add the route."""
    its_caller = Depends(caller)

    async def list_jobs(  # noqa: PLR0917 - FastAPI gives them by their names
        request: Request,
        by: Caller = its_caller,
        status: Annotated[Status | None, Query(description="Only those that stand so.")] = None,
        task: Annotated[str | None, Query(max_length=_LONGEST, description="Only those of this task.")] = None,
        queue: Annotated[str | None, Query(max_length=_LONGEST, description="Only those of this queue.")] = None,
        before: Annotated[
            str | None, Query(max_length=_LONGEST, description="Only those older than the job of this id.")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=LONGEST_PAGE, description="How many at most.")] = 50,
    ) -> Response:
        """Jobs, newest first, without their results."""
        filters = {"status": status, "task": task, "queue": queue}
        found, more = await _page(jobs, by, filters, before, limit)
        base, now = path_of(request.scope).rstrip("/"), datetime.now(UTC)
        following = None
        if more is not None:
            said = {name: str(value) for name, value in filters.items() if value is not None}
            following = f"{base}?{urlencode({**said, 'before': more, 'limit': limit})}"
        page = JobPage(jobs=[summary_of(job, base, now, is_admin=by.is_admin) for job in found], next=following)
        headers = {"Cache-Control": "no-store"}
        if following is not None:
            headers["Link"] = f'<{following}>; rel="next"'
        return Response(page.model_dump_json(by_alias=True), 200, headers, "application/json")

    router.add_api_route(
        "",
        list_jobs,
        methods=["GET"],
        name="afterward:jobs",
        response_model=JobPage,
        responses={503: {"description": "The store cannot be reached; try again after `Retry-After`"}},
    )


async def _page(
    jobs: Jobs, by: Caller, filters: dict[str, Any], before: str | None, limit: int
) -> tuple[list[Job], str | None]:
    """Jobs that the caller may see, and the id after which to go on; None where there are no more."""
    if not all(is_storable(text) for text in (*filters.values(), before) if text is not None):
        return [], None
    if by.owner is not None and not by.is_admin:
        filters = {**filters, "owner": by.owner}
    seen: list[Job] = []
    for _ in range(_LOOKS):
        found = await jobs.life.store.list(**filters, before=before, limit=limit + 1)
        for job in found:
            if by.may_see(job):
                if len(seen) == limit:
                    return seen, seen[-1].id
                seen.append(job)
            before = job.id
        if len(found) <= limit:
            return seen, None
    return seen, before
