"""What a client is shown of a job, as JSON: the models, and nothing of where their values come from."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal

from pydantic import BaseModel, Field
from typing_extensions import TypeVar

R = TypeVar("R", default=Any)


class JobProgress(BaseModel):
    """How far the latest attempt is that has said so."""

    current: int | float
    total: int | float | None = None
    message: str | None = None


class JobProblem(BaseModel):
    """Why a job failed, or was cancelled, in the form of RFC 9457. `traceback`: None for all but administrators."""

    type: str
    title: str
    detail: str | None
    kind: Annotated[str | None, Field(description="The qualified name of the exception that the task raised.")]
    traceback: str | None


class JobLinks(BaseModel):
    """Where a job is to be found, as absolute paths. `cancel`, `retry`: None where its status does not allow that."""

    itself: Annotated[str, Field(serialization_alias="self")]
    events: str | None
    cancel: str | None
    retry: str | None


class JobSummary(BaseModel):
    """A job as the store holds it, without what came of it.

    `detail` says more of `status`: it waits for its time, or to be tried again; it is with Celery since `handed_at`,
    and has not begun there, as far as is known; or it runs, and was asked to end.
    """

    id: str
    task: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    done: bool
    detail: Literal["scheduled", "retrying", "handed over", "cancelling"] | None
    attempt: Annotated[int, Field(description="How many attempts have begun.")]
    progress: JobProgress | None
    error: JobProblem | None
    created_at: datetime
    run_at: datetime
    handed_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    links: JobLinks


class JobStatus(JobSummary, Generic[R]):
    """A job as the store holds it; `result`: what its task has returned, None until it has succeeded."""

    result: R | None


class JobPage(BaseModel):
    """Jobs, newest first. `next`: where the older ones are, None where there are none."""

    jobs: list[JobSummary]
    next: str | None
