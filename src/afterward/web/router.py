"""The jobs of an application as resources: one of them, all of them, and what can be asked of one."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response
from fastapi.routing import APIRoute

from afterward.errors import ConfigurationError, StoreError
from afterward.job import TERMINAL, Job, Ruling, Status
from afterward.observe import emit
from afterward.refusal import RETRY_AFTER_SECONDS
from afterward.text import is_storable
from afterward.waiting import until_seen
from afterward.web.access import Caller, caller_of
from afterward.web.events import add_events
from afterward.web.jobs import Jobs, Place
from afterward.web.listing import add_list
from afterward.web.paths import base_of
from afterward.web.schema import any_status
from afterward.web.status import JobStatus, pause_before_asking_again, status_of

_REVALIDATED = {"Cache-Control": "private, no-cache"}
"""A client may keep it for itself, and asks each time whether it still holds."""
_NEVER_KEPT = {"Cache-Control": "no-store"}

_UNKNOWN: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is no such job, or it is another's"},
    503: {"description": "The store cannot be reached; try again after `Retry-After`"},
}
_CONFLICT: dict[int | str, dict[str, Any]] = {**_UNKNOWN, 409: {"description": "Its status does not allow it"}}
_READ: dict[int | str, dict[str, Any]] = {**_UNKNOWN, 304: {"description": "It is as in `If-None-Match`"}}


class JobRoute(APIRoute):
    """A route that answers 503 when the store cannot."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_or_refuse(request: Request) -> Response:
            try:
                return await handle(request)
            except StoreError as error:
                emit(logging.ERROR, "request.refused", error, reason=str(error))
                headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
                raise HTTPException(503, "This cannot be answered now; try again later.", headers) from error

        return handle_or_refuse


@dataclass(frozen=True, slots=True)
class Sight:
    """What a caller sees of the job that the path names. `base`: the path of all jobs."""

    job: Job
    is_admin: bool
    base: str
    jobs: Jobs

    def status(self, job: Job) -> JobStatus[Any]:
        """The status document, as the job stands by now."""
        task = self.jobs.tasks.get(job.task)
        return status_of(job, self.base, task, datetime.now(UTC), is_admin=self.is_admin)

    def document(self, job: Job) -> str:
        """The same, as JSON."""
        return self.status(job).model_dump_json(by_alias=True)


def job_router(
    jobs: Jobs,
    *,
    owner: Callable[..., Any] | None,
    admin: Callable[..., Any] | None,
    public: bool,
    max_wait: float,
    prefix: str,
    **of_router: Any,
) -> APIRouter:
    """As `Afterward.router` has it. Raises `ConfigurationError` where nobody said who may see what."""
    if owner is None and not of_router.get("dependencies") and not public:
        raise ConfigurationError(
            "tasks.router() would show every job to everybody; say whose jobs a caller may see: "
            "tasks.router(owner=current_user_id), or who may see those of nobody: "
            "tasks.router(dependencies=[Depends(…)]), or that whoever knows an id may: tasks.router(public=True)"
        )
    options: dict[str, Any] = {"prefix": prefix, "route_class": JobRoute, "tags": ["jobs"], **of_router}
    router = APIRouter(**options)
    caller = caller_of(owner, admin)
    if owner is not None or not public:
        add_list(router, jobs, caller)
    shown = any_status(jobs)
    see = _add_job(router, jobs, caller, max_wait, shown)
    _add_moves(router, jobs, see, shown)
    add_events(router, jobs.tails, lambda: jobs.life, see(1))
    return router


def _sight(jobs: Jobs, caller: Callable[..., Any], segments: int) -> Callable[..., Any]:
    """The dependency that gives a `Sight`. `segments`: how many of the path belong to one job."""
    its_caller = Depends(caller)

    async def sight(id: str, request: Request, by: Caller = its_caller) -> Sight:  # noqa: A002 - its name in the path
        job = await jobs.get(id) if is_storable(id) else None
        if job is None or not by.may_see(job):
            raise unknown()
        return Sight(job, by.is_admin, base_of(request.scope, segments), jobs)

    return sight


def unknown() -> HTTPException:
    """There is no such job, as far as the caller is to know."""
    return HTTPException(404, "No such job.", _NEVER_KEPT)


def _add_job(
    router: APIRouter, jobs: Jobs, caller: Callable[..., Any], max_wait: float, shown: Any
) -> Callable[[int], Callable[..., Any]]:
    def see(segments: int) -> Callable[..., Any]:
        return _sight(jobs, caller, segments + 1)

    seen = Depends(see(0))
    how_long = f"Seconds to wait for its end, {max_wait:g} at most; with `If-None-Match`, for any change."
    waits = Query(0.0, ge=0, allow_inf_nan=False, description=how_long)

    async def get_job(
        sight: Sight = seen,
        wait: float = waits,
        if_none_match: Annotated[str | None, Header(description="The `ETag` of what is known.")] = None,
    ) -> Response:
        """A job as it stands now, whatever has become of it."""
        known = _tags_in(if_none_match)
        job: Job | None = sight.job
        if wait and jobs.life.conductor is None and not _is_enough(sight, known)(sight.job):
            job = await until_seen(
                jobs.life.store, sight.job.id, _is_enough(sight, known), min(wait, max_wait),
                lambda: jobs.tails.have_ended,
            )  # fmt: skip
        if job is None:
            raise unknown()  # forgotten meanwhile
        response = _status_response(sight, job, 200, _REVALIDATED)
        tag = response.headers["etag"] = tag_of(response.body)
        if known and ("*" in known or _weak(tag) in known):
            return Response(status_code=304, headers={"ETag": tag, **_REVALIDATED})
        return response

    router.add_api_route("/{id}", get_job, methods=["GET"], name="afterward:job", response_model=shown, responses=_READ)
    jobs.places.append(Place(get_job, max_wait))
    return see


def _add_moves(router: APIRouter, jobs: Jobs, see: Callable[[int], Callable[..., Any]], shown: Any) -> None:
    seen = Depends(see(1))

    async def cancel_job(sight: Sight = seen) -> Response:
        """Cancel a job that waits, or ask one that runs to end: then it shows as cancelled once it has."""
        ruling = await jobs.cancel(sight.job.id)
        job = await _again(jobs, sight)
        if ruling is Ruling.forbidden and job.status is not Status.cancelled:
            raise HTTPException(409, f"The job has {job.status.value}; it cannot be cancelled any more.")
        return _status_response(sight, job, 202 if ruling is Ruling.asked else 200, _NEVER_KEPT)

    async def retry_job(sight: Sight = seen) -> Response:
        """Queue a job again that has failed, or was cancelled."""
        ruling = await jobs.retry(sight.job.id)
        job = await _again(jobs, sight)
        if ruling is Ruling.forbidden:
            raise HTTPException(409, f"The job {_stands(job)}; only one that failed or was cancelled is retried.")
        if ruling is Ruling.taken:
            raise HTTPException(409, "Another job is doing the same by now.")
        return _status_response(sight, job, 202, _NEVER_KEPT)

    for path, endpoint, code in (("/{id}/cancel", cancel_job, 200), ("/{id}/retry", retry_job, 202)):
        router.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            name=f"afterward:{path.rpartition('/')[2]}",
            status_code=code,
            response_model=shown,
            responses=_CONFLICT
            if code == 202
            else {**_CONFLICT, 202: {"description": "It runs, and was asked to end"}},
        )


def _stands(job: Job) -> str:
    return f"{'has' if job.status is Status.succeeded else 'is'} {job.status.value}"


async def _again(jobs: Jobs, sight: Sight) -> Job:
    job = await jobs.get(sight.job.id)
    if job is None:
        raise unknown()
    return job


def _status_response(sight: Sight, job: Job, code: int, headers: dict[str, str]) -> Response:
    response = Response(sight.document(job), code, headers, "application/json")
    pause = pause_before_asking_again(job, datetime.now(UTC))
    if pause is not None:
        response.headers["retry-after"] = str(pause)
    return response


def _is_enough(sight: Sight, known: frozenset[str]) -> Callable[[Job], bool]:
    """Is a client that knows this much told something by this job? Where it knows nothing: the end."""

    def is_enough(job: Job) -> bool:
        if known and "*" not in known:
            return _weak(tag_of(sight.document(job).encode())) not in known
        return job.status in TERMINAL

    return is_enough


def tag_of(body: bytes | memoryview) -> str:
    """The entity tag of a document: weak, for a middleware may send it compressed."""
    return f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'


def _weak(tag: str) -> str:
    return tag.strip().removeprefix("W/")


def _tags_in(header: str | None) -> frozenset[str]:
    """Those that a client knows, to be compared weakly (RFC 9110, 13.1.2)."""
    return frozenset(_weak(tag) for tag in (header or "").split(",") if tag.strip())
