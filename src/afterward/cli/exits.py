"""What the end of a command means, and how an error becomes one."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import typer

from afterward.cli.telling import complain
from afterward.errors import AfterwardError, ConfigurationError, ResultTimeout
from afterward.job import Job, Status

DONE = 0
FAILURE = 1
"""It could not be done; the job that it is about has failed or was cancelled; or a check has found something."""
USAGE = 2
"""What was typed, or what it names, can never work."""
TIMEOUT = 3
"""What was waited for has not come in time; it goes on."""

EPILOG = (
    "Exit codes: 0, done; 1, it could not be done, the job has failed, or something is wrong; 2, what was typed, "
    "or what it names, can never work; 3, timed out waiting; 130, ended by Ctrl-C."
)


@contextmanager
def errors_told() -> Generator[None]:
    """Say on standard error what was wrong, and end with the code for it."""
    try:
        yield
    except AfterwardError as error:
        complain(error)
        raise typer.Exit(_code_of_error(error)) from None


def code_of(job: Job) -> int:
    """How a job that was waited for has ended."""
    return DONE if job.status is Status.succeeded else FAILURE


def _code_of_error(error: AfterwardError) -> int:
    if isinstance(error, ResultTimeout):
        return TIMEOUT
    return USAGE if isinstance(error, ConfigurationError) else FAILURE
