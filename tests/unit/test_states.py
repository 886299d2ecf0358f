"""The words for where a job stands: a pure function of its facts and the time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from afterward import Failure, Job, Status
from afterward.job import Attempt
from afterward.states import fails, progress_in, span, state_of, why_not

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


JUST_ADDED = Job(
    id="id", task="shop:add", queue="default", priority=0, status=Status.queued, attempt=0, failures=0, deaths=0,
    arguments="{}", result=None, failure=None, note=None, unique=None, process=None, created_at=NOW, run_at=NOW,
    started_at=None, finished_at=None,
)  # fmt: skip
HANDED = replace(JUST_ADDED, attempt=1, run_at=NOW - seconds(60), handed_at=NOW - seconds(30))
FAILURE = Failure("OSError", "no route\nto host")
LATER = replace(JUST_ADDED, run_at=NOW + seconds(30))
RUNNING = replace(JUST_ADDED, status=Status.running, attempt=2, started_at=NOW - seconds(5))
RELEASED = Attempt(1, "released", NOW - seconds(90), NOW - seconds(3), note="released by a shutdown")
WAITS = "waits for a worker that knows shop:add, serves queue default and is free"

CASES = [
    (JUST_ADDED, "queued", ""),
    (replace(JUST_ADDED, run_at=NOW - seconds(9)), "queued", ""),
    (replace(JUST_ADDED, run_at=NOW - seconds(11)), "waiting", f"due for 11 s: {WAITS}"),
    (
        replace(JUST_ADDED, process="p", run_at=NOW - seconds(60)),
        "held",
        "waits for the end of the request that added it",
    ),
    (LATER, "scheduled", "in 30 s"),
    (replace(LATER, attempt=1, failures=1, failure=FAILURE), "retrying", "in 30 s, after OSError: no route"),
    (replace(LATER, attempt=2, deaths=2), "retrying", "in 30 s, after the death of its worker"),
    (replace(LATER, attempt=1, note="does not fit"), "waiting", "does not fit; tried again in 30 s"),
    (
        replace(JUST_ADDED, attempt=1, note="does not fit", run_at=NOW - seconds(60)),
        "waiting",
        f"does not fit; due for 60 s: {WAITS}",
    ),
    (
        replace(JUST_ADDED, attempt=1, note="does not fit", run_at=NOW - seconds(1), unfit_for="v1"),
        "waiting",
        f"does not fit; due for 1 s: {WAITS}",
    ),
    # A job that ran for a while has not been waiting since it was first due.
    (
        replace(JUST_ADDED, attempt=1, run_at=NOW - seconds(99), note="released by a shutdown", attempts=(RELEASED,)),
        "queued",
        "released by a shutdown",
    ),
    (HANDED, "handed", "with Celery for 30 s, not begun there yet"),
    (replace(HANDED, task="celery:shop.add"), "handed", "with Celery for 30 s, not heard of since"),
    (
        replace(HANDED, task="celery:shop.add", cancel_asked_at=NOW - seconds(3)),
        "handed",
        "with Celery for 30 s, not heard of since; asked to end 3 s ago",
    ),
    (RUNNING, "running", "attempt 2, for 5 s"),
    (
        replace(RUNNING, progress='{"current": 40, "total": 1000, "message": "resizing"}'),
        "running",
        "attempt 2, for 5 s, 40 of 1,000: resizing",
    ),
    (
        replace(RUNNING, cancel_asked_at=NOW - seconds(3)),
        "cancelling",
        "attempt 2, for 5 s; asked to end 3 s ago",
    ),
    (replace(JUST_ADDED, status=Status.failed, failure=FAILURE), "failed", "OSError: no route"),
    (replace(JUST_ADDED, status=Status.failed, failure=Failure("SystemExit", "")), "failed", "SystemExit"),
    (replace(JUST_ADDED, status=Status.succeeded, run_at=NOW - seconds(60)), "succeeded", ""),
    (replace(JUST_ADDED, status=Status.cancelled, run_at=NOW - seconds(60)), "cancelled", ""),
]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, ""),
        ('{"current": 0, "total": null, "message": null}', "0"),
        ('{"current": 0.5, "total": 1, "message": null}', "0.5 of 1"),
        ('{"current": 40, "total": 1000, "message": "resizing"}', "40 of 1,000: resizing"),
        ('{"current": 1234, "total": null, "message": "rows"}', "1,234: rows"),
    ],
)
def test_how_far_a_job_is(data: str | None, words: str) -> None:
    """As much of it as it has said."""
    assert progress_in(data) == words


def test_what_was_asked_to_end_is_not_hastened() -> None:
    assert why_not("hasten", replace(HANDED, cancel_asked_at=NOW)) == "it was asked to end; wait for its end"
    assert "due already" in (why_not("hasten", HANDED) or "")


@pytest.mark.parametrize(("job", "word", "detail"), CASES)
def test_where_a_job_stands(job: Job, word: str, detail: str) -> None:
    """One word, and why."""
    state = state_of(job, NOW)
    assert (state.word, state.detail) == (word, detail)


def test_spans_of_time_are_short() -> None:
    """Seconds, then minutes, hours, days; never negative."""
    spans = {
        -3: "0 s",
        0: "0 s",
        119: "119 s",
        120: "2 min",
        7_199: "119 min",
        7_200: "2 h",
        172_799: "47 h",
        172_800: "2 d",
    }
    assert {number: span(seconds(number)) for number in spans} == spans


@pytest.mark.parametrize(
    ("status", "failures", "deaths", "expected"),
    [
        (Status.failed, 1, 0, True), (Status.queued, 1, 0, True), (Status.running, 0, 1, True),
        (Status.queued, 0, 0, False), (Status.succeeded, 1, 0, False), (Status.cancelled, 1, 0, False),
    ],
)  # fmt: skip
def test_what_fails_has_failed_for_good_or_is_tried_again(
    status: Status, failures: int, deaths: int, expected: bool
) -> None:
    """What a person retries starts anew; it has its last failure still."""
    job = replace(JUST_ADDED, status=status, failures=failures, deaths=deaths, failure=FAILURE)
    assert fails(job) is expected
    assert fails(replace(job, failure=None)) is (status is Status.failed)
