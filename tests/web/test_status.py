"""The status document: what it says of a job, by what the store holds."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, computed_field

from afterward import Afterward, Failure, Job, Status
from afterward.stores.sqlite import SQLiteStore
from afterward.web.status import CANCELLED, FAILED, pause_before_asking_again, status_of, summary_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


PLAIN = Job(
    id="0190",
    task="shop:make",
    queue="default",
    priority=0,
    status=Status.queued,
    attempt=0,
    failures=0,
    deaths=0,
    arguments="{}",
    result=None,
    failure=None,
    note=None,
    unique=None,
    process=None,
    created_at=NOW - SECOND,
    run_at=NOW - SECOND,
    started_at=None,
    finished_at=None,
)


def job(**facts: Any) -> Job:
    """A job that was stored a second ago."""
    return replace(PLAIN, **facts)


def shown(of: Job, **options: Any) -> dict[str, Any]:
    """The document as a client has it."""
    document: dict[str, Any] = json.loads(status_of(of, "/jobs", None, NOW, **options).model_dump_json(by_alias=True))
    return document


def test_all_that_is_shown_of_a_job_that_has_succeeded() -> None:
    """The names and the forms are what clients are written against."""
    done = job(
        status=Status.succeeded, attempt=2, result='{"pages":12}', progress='{"current":2,"total":2,"message":null}',
        started_at=NOW - SECOND / 2, finished_at=NOW,
    )  # fmt: skip
    assert shown(done) == {
        "id": "0190",
        "task": "shop:make",
        "status": "succeeded",
        "done": True,
        "detail": None,
        "attempt": 2,
        "progress": {"current": 2, "total": 2, "message": None},
        "error": None,
        "created_at": "2026-03-01T11:59:59Z",
        "run_at": "2026-03-01T11:59:59Z",
        "handed_at": None,
        "started_at": "2026-03-01T11:59:59.500000Z",
        "finished_at": "2026-03-01T12:00:00Z",
        "links": {"self": "/jobs/0190", "events": "/jobs/0190/events", "cancel": None, "retry": None},
        "result": {"pages": 12},
    }


@pytest.mark.parametrize(
    ("facts", "detail"),
    [
        ({}, None),
        ({"run_at": NOW + SECOND}, "scheduled"),
        ({"run_at": NOW + SECOND, "failures": 1, "attempt": 1}, "retrying"),
        ({"run_at": NOW - SECOND, "failures": 1, "attempt": 1}, "retrying"),
        ({"run_at": NOW, "deaths": 1, "attempt": 1}, "retrying"),
        ({"run_at": NOW, "attempt": 1, "note": "released"}, None),
        ({"attempt": 1, "handed_at": NOW}, "handed over"),
        ({"attempt": 2, "failures": 1, "handed_at": NOW}, "handed over"),
        ({"status": Status.running, "attempt": 1, "handed_at": NOW}, None),
        ({"status": Status.running, "attempt": 1}, None),
        ({"status": Status.running, "attempt": 2, "failures": 1}, None),
        ({"status": Status.running, "attempt": 1, "cancel_asked_at": NOW}, "cancelling"),
        ({"status": Status.cancelled, "attempt": 1, "cancel_asked_at": NOW}, None),
        ({"status": Status.failed, "attempt": 1, "failures": 1}, None),
    ],
)
def test_what_more_there_is_to_say_of_a_status(facts: dict[str, Any], detail: str | None) -> None:
    """It follows from the rest."""
    document = shown(job(**facts))
    assert document["detail"] == detail
    assert document["handed_at"] == ("2026-03-01T12:00:00Z" if "handed_at" in facts else None)


@pytest.mark.parametrize("status", Status)
def test_where_to_go_on_from_each_status(status: Status) -> None:
    """A link is there when the move is allowed."""
    links = shown(job(status=status))["links"]
    assert (links["cancel"] is not None) == (status in {Status.queued, Status.running})
    assert (links["retry"] is not None) == (status in {Status.failed, Status.cancelled})


def test_which_job_has_taken_its_place_is_for_administrators() -> None:
    """It may be somebody else's."""
    replaced = job(status=Status.cancelled, note="replaced by 0191")
    assert shown(replaced)["error"]["detail"] == "replaced by another"
    assert "replaced by 0191" in status_of(replaced, "/jobs", None, NOW, is_admin=True).model_dump_json()


def test_passwords_within_urls_are_not_shown() -> None:
    """Errors of drivers name what they could not reach."""
    url = "postgresql://shop:hunter2@db/shop"
    failed = job(status=Status.failed, failure=Failure("OSError", f"no way to {url}", f"OSError: no way to {url}"))
    assert "hunter2" not in status_of(failed, "/jobs", None, NOW, is_admin=True).model_dump_json()


FAILURE = Failure("shop.OutOfPaper", "the printer is out of paper", "Traceback: secret")


def test_a_failure_is_a_problem_without_its_traceback() -> None:
    """That is for administrators."""
    failed = job(status=Status.failed, failure=FAILURE)
    problem = {
        "type": FAILED,
        "title": "The job failed.",
        "detail": "the printer is out of paper",
        "kind": "shop.OutOfPaper",
        "traceback": None,
    }
    assert shown(failed)["error"] == problem
    assert shown(failed, is_admin=True)["error"] == {**problem, "traceback": "Traceback: secret"}
    assert "secret" not in status_of(failed, "/jobs", None, NOW).model_dump_json()
    assert "secret" not in summary_of(failed, "/jobs", NOW).model_dump_json()


def test_why_a_job_was_cancelled_is_a_problem_of_its_own() -> None:
    """It says what is known of the reason."""
    error = shown(job(status=Status.cancelled, note="expired"))["error"]
    assert (error["type"], error["detail"]) == (CANCELLED, "expired")


def test_what_is_tried_again_has_not_failed() -> None:
    """`failure` is that of the last attempt; the job may still succeed."""
    assert shown(job(failures=1, failure=FAILURE))["error"] is None


class Secretive(BaseModel):
    pages: int = Field(serialization_alias="numberOfPages")

    @computed_field
    @property
    def is_long(self) -> bool:
        return self.pages > 10


def make() -> Secretive:
    return Secretive(pages=12)


def test_the_result_is_shown_as_fastapi_would_show_it() -> None:
    """By the names and with the fields that clients know from the schema; not as it is stored."""
    task = Afterward(store=SQLiteStore(":memory:")).task(make)
    stored = task.result.dump(make())
    document = status_of(job(status=Status.succeeded, result=stored), "/jobs", task, NOW)
    assert document.result == {"numberOfPages": 12, "is_long": True}


@pytest.mark.parametrize("known", [True, False])
def test_a_result_that_is_not_known_here_is_shown_as_it_is_stored(known: bool) -> None:
    """Its task has gone, or returns something else by now."""
    task = Afterward(store=SQLiteStore(":memory:")).task(make) if known else None
    document = status_of(job(status=Status.succeeded, result='{"words":3}'), "/jobs", task, NOW)
    assert document.result == {"words": 3}


@pytest.mark.parametrize(
    ("facts", "seconds"),
    [
        ({}, 1),
        ({"run_at": NOW + 7.5 * SECOND}, 8),
        ({"run_at": NOW + timedelta(hours=1)}, 30),
        ({"status": Status.running, "started_at": NOW - 100 * SECOND}, 10),
        ({"status": Status.running, "started_at": NOW - timedelta(days=1)}, 30),
        ({"status": Status.running, "started_at": NOW + SECOND}, 1),
        ({"status": Status.succeeded}, None),
        ({"status": Status.failed}, None),
        ({"status": Status.cancelled}, None),
    ],
)
def test_how_long_a_client_is_to_wait_before_it_asks_again(facts: dict[str, Any], seconds: int | None) -> None:
    """Ever longer, but never long."""
    assert pause_before_asking_again(job(**facts), NOW) == seconds


TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001


FACTS = st.fixed_dictionaries(
    {
        "status": st.sampled_from(Status),
        "failures": st.integers(0, 5),
        "deaths": st.integers(0, 5),
        "run_at": TIMES,
        "started_at": st.none() | TIMES,
        "cancel_asked_at": st.none() | TIMES,
        "handed_at": st.none() | TIMES,
    }
)


@settings(deadline=None)  # a machine that has much to do is no fault of it
@given(FACTS, TIMES)
def test_any_job_can_be_shown(facts: dict[str, Any], now: datetime) -> None:
    """Whatever its facts are, the document says whether it is done, and whoever is not to come again is not told to."""
    document = status_of(job(**facts), "/jobs", None, now)
    assert document.done == (pause_before_asking_again(job(**facts), now) is None)
    assert document.detail is None or not document.done
