"""Durable background tasks for FastAPI: stored before the first byte of the response, run after the last."""

from typing import TYPE_CHECKING

from afterward.app import Afterward
from afterward.background import BackgroundTask
from afterward.context import RunningJob, current_job
from afterward.dependencies import lifespan_state
from afterward.ending import finish, finish_sync
from afterward.errors import (
    AfterwardError,
    ArgumentError,
    ConfigurationError,
    DuplicateJob,
    FileTooLarge,
    GiveUp,
    JobCancelled,
    JobFailed,
    JobUnknown,
    LeaseLost,
    NoCurrentJob,
    NotCommitted,
    NotInARequest,
    ReservationLost,
    ResultTimeout,
    Retry,
    StoreError,
    StoreUnavailable,
    StoreUnusable,
    TaskCancelled,
    TaskError,
)
from afterward.handle import JobHandle
from afterward.hooks import EndedJob
from afterward.job import Failure, Job, Ruling, Status
from afterward.reasons import Cause, Reason
from afterward.saying import cancel_asked, check_cancelled, emit, progress
from afterward.task import Task
from afterward.web.accepted import accepted

if TYPE_CHECKING:
    from afterward.background import BackgroundTasks
else:
    # An annotation with this name is a dependency; called, it makes one by hand.
    from afterward.background import Injected as BackgroundTasks

__version__ = "0.1.0"

__all__ = [
    "Afterward",
    "AfterwardError",
    "ArgumentError",
    "BackgroundTask",
    "BackgroundTasks",
    "Cause",
    "ConfigurationError",
    "DuplicateJob",
    "EndedJob",
    "Failure",
    "FileTooLarge",
    "GiveUp",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobHandle",
    "JobUnknown",
    "LeaseLost",
    "NoCurrentJob",
    "NotCommitted",
    "NotInARequest",
    "Reason",
    "ReservationLost",
    "ResultTimeout",
    "Retry",
    "Ruling",
    "RunningJob",
    "Status",
    "StoreError",
    "StoreUnavailable",
    "StoreUnusable",
    "Task",
    "TaskCancelled",
    "TaskError",
    "accepted",
    "cancel_asked",
    "check_cancelled",
    "current_job",
    "emit",
    "finish",
    "finish_sync",
    "lifespan_state",
    "progress",
]
