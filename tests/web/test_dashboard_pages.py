"""What the pages of the dashboard show."""

import re

import apsw
import pytest

from tests.support.documents import Document
from tests.support.gallery import MARKUP, Gallery
from tests.support.visiting import Visitor

ALL = ["", "?range=24h", "/jobs", "/failures", "/queues", "/workers", "/bulk?action=retry", "/bulk?action=cancel"]
NAMED = [
    "asked", "cancelled", "failed", "handed", "held", "markup", "paused", "queued", "retrying", "running", "scheduled",
]  # fmt: skip


def facts(page: Document) -> dict[str, str]:
    """The first list of facts of a job's page."""
    return dict(zip([one.text for one in page.all("dt")], [one.text for one in page.all("dd")], strict=True))


def test_the_first_page_says_in_one_sentence_what_is_stuck(visitor: Visitor) -> None:
    assert visitor.see().one("h1").text == "The queue reports is paused, and 4 jobs wait in it."


def test_it_says_what_can_be_done_about_that(visitor: Visitor, painted: Gallery) -> None:
    """A command stands there as one."""
    job = f"/jobs/{painted.jobs['paused']}"
    for path in ("", job):
        [mend] = [one for one in visitor.see(path).all("code") if "mend" in one.parents[-1].classes]
        assert mend.text == "afterward resume reports"
    assert "To the queues" in [one.text for one in visitor.see(job).all("a", href="/tasks/queues")]


def test_the_first_page_tells_of_each_queue(visitor: Visitor) -> None:
    rows = {row["queue"].split()[0]: row for row in visitor.see("?range=24h").rows()}
    assert rows["reports"]["queue"] == "reports paused"
    assert rows["reports"]["ready"] == "4"
    assert rows["default"]["running"] == "2"
    assert rows["default"]["for later"] == "1"
    assert rows["default"]["held"] == "1"
    assert (rows["default"]["with Celery"], rows["mail"]["with Celery"]) == ("1", "0")
    assert rows["mail"]["ready"] == "1"
    assert re.fullmatch(r"\d+ s", rows["mail"]["oldest"])
    for row in ("mail", "default", "reports"):
        assert re.fullmatch(r"\S+ m?s / \S+ m?s", rows[row]["waited p50 / p95"])
        assert re.fullmatch(r"\S+ m?s / \S+ m?s", rows[row]["ran p50 / p95"])


@pytest.mark.parametrize(("query", "count"), [("", 60), ("?range=1h", 60), ("?range=24h", 48), ("?range=9y", 60)])
def test_the_chart_has_a_column_for_each_span_of_time(visitor: Visitor, query: str, count: int) -> None:
    page = visitor.see(query)
    chart = page.all("svg")[0]
    assert len([one for one in page.all("rect", class_="slot") if chart in one.parents]) == count
    assert chart.attributes["role"] == "img"
    assert "succeeded" in chart.attributes["aria-label"]


def test_jobs_are_shown_newest_first_a_page_at_a_time(visitor: Visitor) -> None:
    first = visitor.see("/jobs")
    assert len(first.rows()) == 50
    assert first.rows()[0]["status"].endswith("waiting")
    older = first.one("a", rel="next").attributes["href"]
    rest = Document(visitor.client.get(older).text)
    assert 0 < len(rest.rows()) < 50
    assert not rest.all("a", rel="next")
    ids = [one.attributes["title"] for page in (first, rest) for one in page.all("a") if "title" in one.attributes]
    assert ids == sorted(set(ids), reverse=True)


def test_what_waits_in_a_paused_queue_is_said_to_wait_for_that(visitor: Visitor) -> None:
    assert {row["more"] for row in visitor.see("/jobs?queue=reports&status=queued").rows()} == {
        "queue reports is paused"
    }


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("status=failed&task=shop.mail:send_receipt&owner=ana@example.com", ["failed"]),
        ("status=queued&queue=mail", ["queued", "retrying"]),
        ("queue=reports&status=queued", ["paused"]),
        ("owner=ana%40example.com", ["failed", "scheduled"]),
        ("q=GOOD+day", ["failed"]),
        ("q=4902", ["asked"]),
        ("q=nothing-of-that-kind", []),
        ("status=queued&q=REFUSED", ["retrying"]),
        ("queue=%00", None),
        ("status=nonsense", None),
    ],
)
def test_jobs_are_filtered_by_the_url(visitor: Visitor, painted: Gallery, query: str, shown: list[str] | None) -> None:
    page = visitor.see(f"/jobs?{query}")
    ids = {one.attributes["title"] for one in page.all("a") if "title" in one.attributes}
    if shown is None:
        assert len(ids) == 50  # as if it were not said
    else:
        assert {name for name in painted.jobs if painted.jobs[name] in ids} == set(shown)
        assert len(ids) == len(shown) or "paused" in shown


def test_filters_stand_in_the_form_and_in_all_that_leads_on(visitor: Visitor) -> None:
    page = visitor.see("/jobs?queue=mail&task=shop.mail:send_receipt&q=refused")
    assert page.one("input", name="queue").attributes["value"] == "mail"
    assert page.one("input", name="task").attributes["value"] == "shop.mail:send_receipt"
    assert page.one("input", name="q").attributes["value"] == "refused"
    retry = next(one for one in page.all("a") if one.text == "Retry all…")
    assert retry.attributes["href"].endswith("/bulk?action=retry&task=shop.mail%3Asend_receipt&queue=mail&q=refused")


@pytest.mark.parametrize("length", [8, 36])
def test_an_id_or_its_beginning_leads_to_the_job(visitor: Visitor, painted: Gallery, length: int) -> None:
    id_ = painted.jobs["retrying"]
    answer = visitor.client.get(f"/tasks/jobs?q={id_[:length].upper()}", follow_redirects=False)
    if length == 36:
        assert answer.headers["location"] == f"/tasks/jobs/{id_}"
    assert answer.status_code in {200, 303}  # a beginning may be that of several


def test_failures_stand_together_by_their_cause(visitor: Visitor) -> None:
    page = visitor.see("/failures")
    rows = {row["failure"].split()[0]: row for row in page.rows()}
    refused = rows["ConnectionRefusedError"]
    assert int(refused["failed"]) > 1
    assert refused["being tried again"] == "1"
    show = next(one for one in page.all("a") if one.text == "Show those of ConnectionRefusedError")
    jobs = Document(visitor.client.get(show.attributes["href"]).text).rows()
    assert len(jobs) == int(refused["failed"]) + 1
    assert all("ConnectionRefusedError" in job["more"] for job in jobs)


def test_a_group_is_retried_as_far_as_it_has_failed_and_cancelled_as_far_as_it_is_tried_again(visitor: Visitor) -> None:
    page = visitor.see("/failures")
    links = [one for one in page.all("a") if "all…" in one.text]
    failed = [row["failed"] for row in page.rows() if row["failed"].isdecimal()]
    assert sum(one.text.startswith("Retry") for one in links) == len(failed) > 1
    [cancel] = [one for one in links if one.text == "Cancel all… being tried again after ConnectionRefusedError"]
    assert sum(one.text.startswith("Cancel") for one in links) == 1
    asked = Document(visitor.client.get(cancel.attributes["href"]).text)
    assert asked.one("h1").text == "Cancel 1 job?"


def test_workers_are_shown_with_what_each_runs(visitor: Visitor) -> None:
    rows = {row["host"]: row for row in visitor.see("/workers").rows()}
    assert rows["web-1.example.com"]["version"] == "2026.11.2"
    assert rows["web-1.example.com"]["serves"] == "all queues"
    assert rows["web-1.example.com"]["busy"] == "2 of 100 + 16"
    assert "shop.reports:build_report for" in rows["web-1.example.com"]["runs now"]
    assert rows["web-2.example.com"]["serves"] == "default, mail"
    assert rows["celery-1.example.com"]["serves"] == "as a Celery worker"
    assert rows["api-1.example.com"]["serves"] == "runs no jobs"


def test_queues_are_shown_with_who_serves_them(visitor: Visitor) -> None:
    rows = {row["queue"]: row for row in visitor.see("/queues").rows()}
    assert rows["reports"]["state"].startswith("paused")
    assert rows["reports"]["state"].endswith("by ana@example.com")
    assert rows["reports"]["served by"] == "1 worker"
    assert rows["mail"]["served by"] == "2 workers"
    assert rows["mail"]["state"] == "open"


def test_a_job_that_runs_is_shown_with_its_progress_and_its_log(visitor: Visitor, painted: Gallery) -> None:
    page = visitor.see(f"/jobs/{painted.jobs['running']}")
    assert page.one("progress").attributes["value"] == "62"
    assert page.one("label", for_="bar").text == "Reading the ledger"
    lines = [one.text for one in page.all("li") if any(parent.tag == "ol" for parent in one.parents)]
    assert len(lines) == 37
    assert lines[0].endswith("info row 100 of 4,800 read from the ledger")
    assert lines[-1].endswith('item {"sheet": "November", "rows": 3000}')
    assert sum("warning" in line for line in lines) == 3
    assert page.one("body").attributes["data-changes"].endswith(f"?job={painted.jobs['running']}")


def test_events_are_shown_from_a_number_on(visitor: Visitor, painted: Gallery) -> None:
    page = visitor.see(f"/jobs/{painted.jobs['running']}?after=30")
    lines = [one.text for one in page.all("li") if any(parent.tag == "ol" for parent in one.parents)]
    assert len(lines) == 7
    earlier = next(one for one in page.all("a") if one.text == "Earlier")
    assert earlier.attributes["href"].endswith("?after=0")
    visitor.see(f"/jobs/{painted.jobs['running']}?after=1e9")
    [last] = visitor.see(f"/jobs/{painted.jobs['running']}?after=900").all("ol")
    assert last.text.endswith('item {"sheet": "November", "rows": 3000}'), "there are none after that"


def test_secrets_are_not_shown(visitor: Visitor, painted: Gallery) -> None:
    for name, secret in (("failed", "hunter2"), ("running", "t0p-s3cret")):
        answer = visitor.get(f"/jobs/{painted.jobs[name]}").text
        assert "[redacted]" in answer
        assert secret not in answer


@pytest.mark.parametrize(
    "path", ["", "/jobs", "/jobs?status=failed", "/failures", "/jobs/@leaky", "/bulk?action=retry"]
)
def test_passwords_within_urls_are_not_shown(visitor: Visitor, painted: Gallery, path: str) -> None:
    answer = visitor.get(path.replace("@leaky", painted.jobs["leaky"])).text
    assert "hunter3" not in answer
    assert "shop:[redacted]@db.example.com" in answer or path == ""


def test_a_failed_job_is_shown_with_all_that_helps(visitor: Visitor, painted: Gallery) -> None:
    page = visitor.see(f"/jobs/{painted.jobs['failed']}")
    text = page.one("main").text
    assert 'File "/app/shop/mail.py", line 41, in send_receipt' in text
    shown = facts(page)
    assert shown["owner"] == "ana@example.com"
    assert shown["path"] == "/send/{email}"
    assert shown["request id"] == "b7f2c1"
    assert page.one("pre", id="curl").text == (
        "curl --globoff --request POST \\ 'http://localhost/send/{email}' \\ --header 'X-Request-ID: b7f2c1'"
    )


def test_the_attempts_of_a_job_are_shown_with_how_long_each_waited_and_ran(visitor: Visitor, painted: Gallery) -> None:
    rows = visitor.see(f"/jobs/{painted.jobs['retrying']}").rows()
    assert [(row["attempt"], row["outcome"].split()[-1], row["ran"]) for row in rows] == [
        ("1", "retry", "31 s"), ("2", "retry", "44 s"), ("3", "waiting", "\N{EN DASH}"),
    ]  # fmt: skip
    assert [row["waited"] for row in rows[:2]] == ["2.0 s", "20 s"]


def test_of_very_many_attempts_the_latest_are_shown_and_the_others_counted(visitor: Visitor, painted: Gallery) -> None:
    job = painted.jobs["retrying"]
    connection = apsw.Connection(str(painted.file))
    connection.set_busy_timeout(10_000)
    more = "SELECT seq, value, 'retry', 0.0, 1.0 FROM jobs, json_each(?) WHERE jobs.id = ?"
    insert = f"INSERT INTO attempts (job, number, outcome, started_at, ended_at) {more}"
    connection.execute(insert, (str([*range(1001, 1036)]), job))
    try:
        page = visitor.see(f"/jobs/{job}")
    finally:
        connection.execute("DELETE FROM attempts WHERE number > 1000")
        connection.close()
    assert len(page.rows()) == 30
    shown = page.one("section", id="attempts").text
    assert "8 earlier attempts: not shown." in shown  # of 37, and the one that it waits for


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("scheduled", "Scheduled for|It is scheduled|It is due"),
        ("retrying", "It is tried again"),
        ("held", "request"),
        ("paused", "Queue reports is paused"),
        ("handed", "Its message is with Celery since .*; no Celery worker has begun it yet"),
        ("asked", "It was asked to end"),
    ],
)
def test_a_job_that_does_not_run_says_why(visitor: Visitor, painted: Gallery, name: str, words: str) -> None:
    page = visitor.see(f"/jobs/{painted.jobs[name]}")
    panel = next(one for one in page.all("section") if "panel" in one.classes)
    assert re.search(words, panel.text), panel.text


def test_of_a_job_that_is_not_there_nobody_knows(visitor: Visitor) -> None:
    for id_ in ("nope", "%00", "01a227d7-e906-7ea6-a357-000000000000"):
        page = visitor.see(f"/jobs/{id_}", 404)
        assert page.one("h1").text == "There is no such job"
        assert [one.attributes["href"] for one in page.all("a")] == ["/tasks"], "and the way on"


@pytest.mark.parametrize("path", [*ALL, *(f"/jobs/@{name}" for name in NAMED)])
def test_markup_is_shown_as_text(visitor: Visitor, painted: Gallery, path: str) -> None:
    """What stands in the store makes no element, no attribute, and nothing that a template would fill in."""
    where, _, name = path.partition("@")
    page = visitor.see(where + painted.jobs[name] if name else path)
    assert not page.all("img")
    assert [one.attributes["src"] for one in page.all("script")] == [page.all("script")[0].attributes["src"]]
    assert not [name for one in page.elements for name in one.attributes if name.startswith("on")]
    if name == "markup":
        text = page.one("main").text
        assert text.count(MARKUP) >= 10
        assert page.one("h1").text == f"shop:{MARKUP}"


def test_every_page_names_its_parts_for_who_cannot_see_it(visitor: Visitor, painted: Gallery) -> None:
    for path in [*ALL, *(f"/jobs/{painted.jobs[name]}" for name in NAMED)]:
        page = visitor.see(path)
        assert len(page.all("h1")) == 1
        ids = [one.attributes["id"] for one in page.elements if "id" in one.attributes]
        assert len(ids) == len(set(ids)), path
        for one in page.elements:
            for name in ("aria-labelledby", "aria-describedby", "for", "list"):
                assert set(one.attributes.get(name, "").split()) <= set(ids), (path, one.attributes)


def test_this_test_would_see_it() -> None:
    """What is escaped, and what is not, differ for this parser as they do for browsers."""
    assert Document(MARKUP).all("img")
