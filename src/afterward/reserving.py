"""The dependency by which an endpoint heeds `Idempotency-Key`: it reserves the key before the endpoint runs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

from fastapi import Depends, Header
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from afterward.calls import calls_in
from afterward.errors import AfterwardError, ConfigurationError, NotInARequest, StoreError
from afterward.idempotency import (
    HEADER,
    IN_FLIGHT,
    MISSING,
    OTHER,
    REPLAYED_HEADER,
    TOO_LARGE,
    UNAVAILABLE,
    KeptAnswer,
    KeyRefused,
    Problem,
    bad_key,
    key_of,
)
from afterward.keyed import KeyedCall
from afterward.observe import emit
from afterward.received import TooMuchAhead
from afterward.stores.seen import Reserved
from afterward.task import Owner

_HANDLERS = "starlette.exception_handlers"
"""Where Starlette keeps, in the scope, how the innermost application answers exceptions."""


class AnsweredInstead(AfterwardError):
    """A request is answered in place of its endpoint. It leaves the dependency as an exception does, so that what the
    other dependencies have begun is rolled back, and the answer passes all middleware."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"the request is answered with {response.status_code}, in place of its endpoint")
        self.response = response


def reserving(owner: Owner, whose: Callable[..., Any] | None, *, required: bool) -> Callable[..., Any]:
    """What reserves the key of a request, or answers it in place of its endpoint. `whose`: gives whose the key is; else
    it is whose the request is."""

    async def idempotent(
        request: Request, key_owner: Any = Depends(whose or _nobody), _key: str | None = _header(required=required)
    ) -> None:
        call = calls_in(request.scope).get(owner)
        if call is None:
            raise NotInARequest(
                "tasks.idempotent(…) stands before an endpoint of an app that its Afterward is not installed on; "
                "call tasks.install(app) where the app is made"
            )
        _handle_answers(request)
        key = _key_of(request, required=required)
        if key is not None:
            if not isinstance(call, KeyedCall):
                raise ConfigurationError(
                    "the Idempotency-Key of this request was added by a middleware of the application, and the request "
                    "was not watched from its start; have the client send it, or a proxy"
                )
            await _reserve(owner, call, key, None if whose is None else _text(key_owner))

    return idempotent


async def _nobody() -> None:
    """Whose the request is, if that is known."""


def _header(*, required: bool) -> Any:
    """What the OpenAPI document says; the key is checked here, not by FastAPI: 422 means something else."""
    description = "The same for each retry of a request, and for no other."
    return Header(None, alias=HEADER, description=f"{description} Required." if required else description)


def _key_of(request: Request, *, required: bool) -> str | None:
    try:
        key = key_of(request.headers.getlist(HEADER))
    except KeyRefused as error:
        raise _refused(bad_key(error)) from error
    if key is None and required:
        raise _refused(MISSING)
    return key


def _text(owner: Any) -> str:
    if not isinstance(owner, str | int | UUID):
        raise ConfigurationError(
            f"tasks.idempotent(owner=…) takes a dependency that gives whose the key is, as a text that never changes, "
            f"and this one gave a {type(owner).__name__}; have it give the user's id as text"
        )
    return str(owner)


async def _reserve(owner: Owner, call: KeyedCall, key: str, whose: str | None) -> None:
    try:
        reservation = await call.reserve(key, whose)
    except TooMuchAhead as error:
        raise _refused(TOO_LARGE) from error
    except StoreError as error:
        emit(logging.ERROR, "request.refused", error, reason=str(error))
        raise _refused(UNAVAILABLE) from error
    if reservation.state is Reserved.completed:
        kept = KeptAnswer.read(reservation.answer or "")
        if kept.is_document:
            job: str = json.loads(kept.body)
            call.answers_again(job, kept.owner)
            owner.answer_with(job)
        raise AnsweredInstead(_again(kept))
    if reservation.state is Reserved.in_flight:
        raise _refused(IN_FLIGHT)
    if reservation.state is Reserved.other:
        raise _refused(OTHER)


def _again(kept: KeptAnswer) -> Response:
    response = Response(kept.body, kept.status)
    for name, value in (*kept.headers, (REPLAYED_HEADER, "true")):
        response.headers.append(name, value)
    return response


def _refused(problem: Problem) -> AnsweredInstead:
    headers = None if problem.retry_after is None else {"Retry-After": str(problem.retry_after)}
    return AnsweredInstead(
        JSONResponse(problem.body(), problem.status, headers=headers, media_type="application/problem+json")
    )


def _handle_answers(request: Request) -> None:
    """Have the application that serves this request, which may be mounted on another, send what we answer."""
    handlers, _ = request.scope[_HANDLERS]
    handlers.setdefault(AnsweredInstead, _answer)


async def _answer(_request: Request, error: AnsweredInstead) -> Response:
    return error.response
