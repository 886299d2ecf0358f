"""How jobs are shown over HTTP, and to whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from starlette.types import Scope

from afterward.calls import CALLS, calls_in
from afterward.errors import NotInARequest
from afterward.living import Living
from afterward.options import Seconds, seconds
from afterward.owners import owned_by
from afterward.web.accepted import StatusResponse
from afterward.web.jobs import Place
from afterward.web.router import job_router


class Showing(Living):
    """What an `Afterward` is to those who ask over HTTP."""

    places: list[Place]

    def router(
        self,
        *,
        owner: Callable[..., Any] | None = None,
        admin: Callable[..., Any] | None = None,
        public: bool = False,
        max_wait: Seconds = 30.0,
        prefix: str = "/jobs",
        **of_router: Any,
    ) -> APIRouter:
        """The routes that show jobs, to be included: `app.include_router(tasks.router(owner=current_user_id))`.

        - `owner`: a dependency that answers, as text, whose jobs the caller may see; see `owned_by`. Others' are 404.
        - `dependencies=[…]`: dependencies that refuse whom they will; all others see the jobs that are nobody's.
        - `public`: whoever knows its id sees a job that is nobody's; there is no list.
        - `admin`: a dependency that answers whether the caller may see every job, and tracebacks.

        `max_wait`: seconds that a request is kept waiting at most. The rest is for `APIRouter`. Raises
        `ConfigurationError` where nothing says who may see what.
        """
        return job_router(
            self,
            owner=owner,
            admin=admin,
            public=public,
            max_wait=seconds(max_wait),
            prefix=prefix,
            **of_router,
        )

    def owned_by(self, dependency: Callable[..., Any], *, key: Callable[[Any], str] = str) -> Callable[..., Any]:
        """A dependency for `Depends`: it gives what `dependency` gives, and makes the jobs of the request the caller's.

            UserDep = Annotated[User, Depends(tasks.owned_by(current_user, key=lambda user: str(user.id)))]

        `key`: the text by which the owner is kept. Where the dependency gives None, they are nobody's. In a task, it
        gives just what `dependency` gives.
        """
        return owned_by(self, dependency, key)

    def set_owner(self, scope: Scope, owner: str) -> None:
        """Make the jobs of a request this owner's: for a middleware that has found out whose request it is.

        Raises `NotInARequest` where `scope` is none of a request of an app that this is installed on.
        """
        call = calls_in(scope).get(self)
        if call is None:
            raise NotInARequest(
                "set_owner(scope, …) was called for a request that is not known here; call tasks.install(app) where "
                "the app is made, and have the middleware be the app's own: app.add_middleware(…)"
            )
        call.give_to(owner)

    def answer_with(self, job: str, /) -> bool:
        """If the calling code runs in a request: let its response, if it is this id, become the status of the job."""
        call = CALLS.get({}).get(self)
        if call is None:
            return False
        call.answer_with(StatusResponse(self, job, call.scope, lambda: call.owner_of(job)))
        return True
