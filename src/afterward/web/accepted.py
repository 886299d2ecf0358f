"""What a request is answered that has made a job: its status document, as the store holds it by then."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from starlette.responses import Response
from starlette.types import Message, Scope

from afterward.errors import ConfigurationError, NotInARequest, StoreError
from afterward.handle import JobHandle
from afterward.job import TERMINAL, Job
from afterward.observe import emit
from afterward.waiting import until_seen
from afterward.web.jobs import Jobs, Place
from afterward.web.paths import base_elsewhere
from afterward.web.prefer import preferences_in
from afterward.web.status import pause_before_asking_again, status_of

_OURS = (b"content-length", b"content-type", b"retry-after", b"location", b"preference-applied")
_UNKNOWN = b'{"detail":"No such job."}'
_OF_ANOTHER = b'{"detail":"Another job, which is not yours to see, is doing the same by now."}'


def accepted(job: JobHandle[Any], *, headers: Mapping[str, str] | None = None) -> Response:
    """A response that tells of a job: 202, with where it is found, and its status document as the body.

        @app.post("/reports", status_code=202)
        async def create_report(year: int, background_tasks: BackgroundTasks) -> JobHandle[Report]:
            return background_tasks.add_task(make_report, year)

    does the same as `return accepted(…)` would. The document is what the store holds when the response leaves. A client
    that prefers to wait (`Prefer: wait=10`) gets 200 and the result, if the job ends in time.

    `headers`: more of them. Raises `NotInARequest` outside of one, and `ConfigurationError` where the application has
    no router of jobs.
    """
    if not job.answer():
        raise NotInARequest(
            "accepted(job) answers a request, and none is under way here of an app that the job's Afterward is "
            "installed on; call tasks.install(app) where the app is made"
        )
    return JSONResponse(job.id, HTTPStatus.ACCEPTED, headers)


class StatusResponse:
    """The response that tells of one job; made before the job is stored.

    `whose`: asked when it is, whose that job must be, to be shown here. By its unique key, an id may lead to another's.
    """

    def __init__(self, jobs: Jobs, job: str, scope: Scope, whose: Callable[[], str | None]) -> None:
        self.placeholder = bytes(JSONResponse(job).body)
        place, self._base = _place_of(jobs, scope)
        self._preferred = preferences_in(scope["headers"])
        self.seconds = min(float(self._preferred.wait or 0), place.max_wait)
        self._jobs = jobs
        self._id = job
        self._whose = whose

    async def until_ended(self) -> None:
        """As `Document` has it. In a test whose jobs run by themselves, they have by now, or will not."""
        life = self._jobs.life
        if life.conductor is not None:
            await life.conductor.hear_of_wait()
            return
        try:
            await until_seen(life.store, self._id, self._is_enough, self.seconds, lambda: self._jobs.tails.have_ended)
        except StoreError as error:
            emit(logging.WARNING, "request.wait_ended", error, job_id=self._id, reason=str(error))

    async def in_place_of(self, start: Message) -> tuple[Message, Message]:
        """As `Document` has it.

        Where the store cannot tell of the job that it has just stored, the response says so by having no body: to
        refuse would have the client ask for the same once more.
        """
        try:
            job = await self._jobs.get(self._id)
        except StoreError as error:
            emit(logging.WARNING, "request.status_unknown", error, job_id=self._id, reason=str(error))
            return self._response(start, HTTPStatus.ACCEPTED, b"", self._headers(None))
        if job is None:
            return self._response(start, HTTPStatus.NOT_FOUND, _UNKNOWN, [])
        if not self._may_be_shown(job):
            if job.id == self._id:
                return self._response(start, HTTPStatus.NOT_FOUND, _UNKNOWN, [])
            return self._response(start, HTTPStatus.CONFLICT, _OF_ANOTHER, [])
        now = datetime.now(UTC)
        document = status_of(job, self._base, self._jobs.tasks.get(job.task), now)
        status = HTTPStatus.OK if document.done else HTTPStatus.ACCEPTED
        headers = self._headers(pause_before_asking_again(job, now))
        return self._response(start, status, document.model_dump_json(by_alias=True).encode(), headers)

    def _may_be_shown(self, job: Job) -> bool:
        return job.owner == self._whose()

    def _is_enough(self, job: Job) -> bool:
        return job.status in TERMINAL or not self._may_be_shown(job)

    def _headers(self, pause: int | None) -> list[tuple[bytes, bytes]]:
        headers = [(b"location", f"{self._base}/{self._id}".encode())]
        if pause is not None:
            headers.append((b"retry-after", str(pause).encode()))
        applied = ["respond-async"] if self._preferred.respond_async and pause is not None else []
        applied += [f"wait={self.seconds:g}"] if self.seconds else []
        if applied:
            headers.append((b"preference-applied", ", ".join(applied).encode()))
        return headers

    def _response(
        self, start: Message, status: HTTPStatus, body: bytes, headers: list[tuple[bytes, bytes]]
    ) -> tuple[Message, Message]:
        """What else the application said in its headers is kept."""
        theirs = [(name, value) for name, value in start.get("headers", ()) if name.lower() not in _OURS]
        if not any(name.lower() == b"cache-control" for name, _ in theirs):
            headers.append((b"cache-control", b"no-store"))
        if body:
            headers.append((b"content-type", b"application/json"))
        headers.append((b"content-length", str(len(body)).encode()))
        begin = {**start, "status": int(status), "headers": [*theirs, *headers]}
        return begin, {"type": "http.response.body", "body": body}


def _place_of(jobs: Jobs, scope: Scope) -> tuple[Place, str]:
    """Where the application of this request shows its jobs, and the path there. Raises `ConfigurationError`."""
    for place in jobs.places:
        base = base_elsewhere(scope, place.endpoint)
        if base is not None:
            return place, base
    raise ConfigurationError(
        "there is no route in this application that shows the job; include the router that has one: "
        "app.include_router(tasks.router(…))"
    )
