"""What a person can do on the dashboard; and that nobody else can have it done."""

import gc
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Header, UploadFile
from pydantic import AfterValidator

from afterward import Afterward, Job, Status
from afterward.identity import new_id
from afterward.job import Failed, Failure, Lease, Outcome, Process, Retry, Ruling
from afterward.stores.base import Answer, Store, Wanted
from afterward.stores.handing import HandOver
from afterward.web.dashboard import bulk
from tests.support.documents import Document
from tests.support.visiting import FROM_HERE, Visitor


class Shop:
    """An app whose tasks do nothing, for there is no worker; and who looks after it."""

    def __init__(self, tasks: Afterward) -> None:
        self.tasks = tasks

        @tasks.task(name="shop:send")
        def send(email: str, password: str = "", count: int = 1) -> None: ...

        @tasks.task(name="shop:keep")
        def keep(file: UploadFile) -> None: ...

        self.send, self.keep = send, keep
        self.app = FastAPI()
        tasks.install(self.app, worker=False)
        self.app.include_router(tasks.dashboard(admin=self._who))
        self.visitor = Visitor(self.app, **{"X-User": "ana"})

    @staticmethod
    def _who(x_user: Annotated[str, Header()]) -> str:
        return x_user

    def add(self, email: str = "ana@example.com", password: str = "", **options: Any) -> str:
        return self.send.options(**options).enqueue_sync(email, password).id

    def job(self, id_: str) -> Job:
        job = self.tasks.run_sync(self.tasks.get(id_))
        assert job is not None
        return job

    def cancel(self, *ids: str) -> None:
        for id_ in ids:
            self.tasks.run_sync(self.tasks.cancel(id_))

    def end(self, id_: str, outcome: Outcome) -> str:
        """As a worker would that has run it; its id."""
        self.tasks.run_sync(self._end(id_, outcome))
        return id_

    async def _end(self, id_: str, outcome: Outcome) -> None:
        store = self.tasks.life.store
        assert await store.finish([(await self._claimed(id_), outcome)]) == [True]
        await store.leave("worker")

    async def _claimed(self, id_: str) -> Lease:
        store = self.tasks.life.store
        await store.join(Process("worker", 1, "example"))
        [lease] = (await store.claim("worker", [Wanted(["shop:send"], 1, only=[id_])], new_id())).leases
        return lease

    def hand_over(self, id_: str, *, is_followed: bool = False) -> None:
        """As a process would that has published it to Celery."""
        self.tasks.run_sync(self._hand_over(id_, is_followed=is_followed))

    async def _hand_over(self, id_: str, *, is_followed: bool) -> None:
        handed = HandOver(await self._claimed(id_), is_followed=is_followed)
        assert await self.tasks.life.store.hand_over([handed]) == [True]
        await self.tasks.life.store.leave("worker")

    def jobs(self, **filters: Any) -> list[Job]:
        return self.tasks.run_sync(self.tasks.list(**filters))


@pytest.fixture
def shop(tasks: Afterward) -> Iterator[Shop]:
    shop = Shop(tasks)
    with shop.visitor.client:
        yield shop


def actions(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The actions that the log tells of."""
    events = [getattr(record, "afterward", {}) for record in caplog.records]
    return [
        {name: value for name, value in event.items() if name != "event"}
        for event in events
        if event.get("event") == "dashboard.action"
    ]


@pytest.fixture(autouse=True)
def log_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "afterward")


def notice(page: Document) -> str:
    return page.one("p", id="notice").text


def test_a_job_is_cancelled(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    id_ = shop.add()
    page = shop.visitor.do(f"/jobs/{id_}", f"/jobs/{id_}/cancel")
    assert notice(page) == "1 job cancelled."
    assert shop.job(id_).status is Status.cancelled
    assert actions(caplog) == [{"by": "ana", "action": "cancel", "job_id": id_, "ruling": "done"}]


def test_a_job_is_tried_again(shop: Shop) -> None:
    id_ = shop.add()
    shop.cancel(id_)
    assert notice(shop.visitor.do(f"/jobs/{id_}", f"/jobs/{id_}/retry")) == "1 job queued again."
    assert shop.job(id_).status is Status.queued


def test_a_job_that_waits_for_its_time_is_run_now(shop: Shop) -> None:
    id_ = shop.add(delay=3600)
    assert notice(shop.visitor.do(f"/jobs/{id_}", f"/jobs/{id_}/hasten")) == "1 job due now."
    assert (shop.job(id_).run_at - shop.job(id_).created_at).total_seconds() < 60


def test_what_is_not_possible_any_more_is_said_and_not_done(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    id_ = shop.add()
    form = shop.visitor.see(f"/jobs/{id_}").form(f"/tasks/jobs/{id_}/cancel")
    shop.cancel(id_)
    answer = shop.visitor.post(f"/jobs/{id_}/cancel", form)
    assert "has moved on" in notice(Document(shop.visitor.client.get(answer.headers["location"]).text))
    assert [action["ruling"] for action in actions(caplog)] == ["forbidden"]


def test_only_what_is_possible_is_offered(shop: Shop) -> None:
    waits, later, ended, handed, asked = shop.add(), shop.add(delay=60), shop.add(), shop.add(), shop.add()
    shop.cancel(ended)
    shop.hand_over(handed)
    shop.hand_over(asked, is_followed=True)
    shop.cancel(asked)
    expected: dict[str, set[str]] = {
        waits: {"cancel"}, later: {"cancel", "hasten"}, ended: {"retry"}, handed: {"cancel", "hasten"}, asked: set(),
    }  # fmt: skip
    for id_, offered in expected.items():
        forms = [one.attributes["action"] for one in shop.visitor.see(f"/jobs/{id_}").all("form")]
        assert {form.rpartition("/")[2] for form in forms} == offered


def test_an_action_that_nobody_knows_is_none(shop: Shop) -> None:
    id_ = shop.add()
    form = shop.visitor.see(f"/jobs/{id_}").form(f"/tasks/jobs/{id_}/cancel")
    assert shop.visitor.post(f"/jobs/{id_}/explode", form).status_code == 404
    assert shop.visitor.post("/jobs/nope/cancel", form).status_code == 404


def test_a_queue_is_paused_and_resumed(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    assert "paused" in notice(shop.visitor.do("/queues", "/queues/pause"))
    [pause] = shop.tasks.run_sync(_paused(shop.tasks))
    assert (pause.queue, pause.by) == ("default", "ana")
    assert "served again" in notice(shop.visitor.do("/queues", "/queues/resume"))
    assert shop.tasks.run_sync(_paused(shop.tasks)) == []
    assert actions(caplog) == [
        {"by": "ana", "action": "pause", "queue": "default", "done": True},
        {"by": "ana", "action": "resume", "queue": "default", "done": True},
    ]


async def _paused(tasks: Afterward) -> Any:
    return await tasks.store.paused()


@pytest.mark.parametrize("queue", ["", "a" * 101, "a\0b"])
def test_a_queue_that_cannot_be_is_not_paused(shop: Shop, queue: str) -> None:
    form = shop.visitor.see("/queues").form("/tasks/queues/pause")
    assert shop.visitor.post("/queues/pause", form | {"queue": queue}).status_code == 400


# all that match


def test_all_that_match_are_cancelled_when_the_word_is_typed(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    mine = [shop.add(queue="mail") for _ in range(7)]
    other = shop.add()
    asked = "/bulk?action=cancel&queue=mail"
    assert shop.visitor.see(asked).one("h1").text == "Cancel 7 jobs?"
    later = shop.visitor.see(asked).form("/tasks/bulk")
    added_meanwhile = shop.add(queue="mail")
    answer = shop.visitor.post("/bulk", later | {"word": " Cancel "})
    page = Document(shop.visitor.client.get(answer.headers["location"]).text)
    assert notice(page) == "7 jobs cancelled."
    assert {shop.job(id_).status for id_ in mine} == {Status.cancelled}
    assert {shop.job(id_).status for id_ in (other, added_meanwhile)} == {Status.queued}
    assert actions(caplog) == [{"by": "ana", "action": "cancel_all", "queue": "mail", "done": 7}]


def test_a_group_of_failures_is_cancelled_as_far_as_it_is_tried_again(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    """What has failed for good stays, and so does what fails otherwise: then the other half of the group is retried."""
    oops = Failure("OopsError", "it did not work", signature="oops")
    failed, again = shop.end(shop.add(), Failed(oops)), shop.end(shop.add(), Retry(oops, 60))
    other = shop.end(shop.add(), Retry(Failure("OSError", "no route", signature="another"), 60))
    assert notice(shop.visitor.do("/bulk?action=cancel&signature=oops", "/bulk", word="cancel")) == "1 job cancelled."
    assert [shop.job(id_).status.value for id_ in (failed, again, other)] == ["failed", "cancelled", "queued"]
    page = shop.visitor.do("/bulk?action=retry&status=failed&signature=oops", "/bulk", word="retry")
    assert notice(page) == "1 job queued again."
    assert [shop.job(id_).status.value for id_ in (failed, again)] == ["queued", "cancelled"]
    assert actions(caplog) == [
        {"by": "ana", "action": "cancel_all", "signature": "oops", "done": 1},
        {"by": "ana", "action": "retry_all", "status": "failed", "signature": "oops", "done": 1},
    ]


def test_nothing_is_done_when_another_word_is_typed(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    id_ = shop.add()
    for word in ("", "retry", "cancel all"):
        assert "Nothing was done" in notice(shop.visitor.do("/bulk?action=cancel", "/bulk", word=word))
    assert shop.job(id_).status is Status.queued
    assert actions(caplog) == []


def test_all_that_match_are_tried_again(shop: Shop) -> None:
    ids = [shop.add() for _ in range(3)]
    shop.cancel(*ids)
    assert notice(shop.visitor.do("/bulk?action=retry", "/bulk", word="retry")) == "3 jobs queued again."


def test_those_that_moved_on_meanwhile_are_counted(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [shop.add(unique="same") for _ in range(1)]
    shop.cancel(*ids)
    shop.add(unique="same")
    page = shop.visitor.do("/bulk?action=retry", "/bulk", word="retry")
    assert notice(page) == "0 jobs queued again, 1 job had moved on meanwhile."


def test_no_more_than_so_many_are_moved_at_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MOST", 4)
    monkeypatch.setattr(bulk, "COUNTED", 3)
    monkeypatch.setattr(bulk, "PAGE", 2)
    ids = [shop.add() for _ in range(5)]
    page = shop.visitor.see("/bulk?action=cancel")
    assert page.one("h1").text == "Cancel 3 or more jobs?"
    assert "the newest 4" in page.one("main").text
    shop.visitor.do("/bulk?action=cancel", "/bulk", word="cancel")
    assert [shop.job(id_).status for id_ in ids] == [Status.queued] + [Status.cancelled] * 4


def test_what_is_added_meanwhile_is_in_nobodys_way(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were counted are moved, though there are as many newer ones by then as are moved at once."""
    monkeypatch.setattr(bulk, "MOST", 2)
    monkeypatch.setattr(bulk, "PAGE", 1)
    counted = [shop.add(), shop.add()]
    form = shop.visitor.see("/bulk?action=cancel").form("/tasks/bulk")
    added = [shop.add(), shop.add()]
    assert shop.visitor.post("/bulk", form | {"word": "cancel"}).status_code == 303
    assert [shop.job(id_).status for id_ in (*counted, *added)] == [*2 * [Status.cancelled], *2 * [Status.queued]]


def test_jobs_are_not_kept_in_memory_until_all_are_moved(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their ids are: there may be ten thousand, with large arguments."""
    monkeypatch.setattr(bulk, "PAGE", 2)
    added, kept = {shop.add() for _ in range(10)}, list[int]()
    cancel = bulk.MOVES["cancel"]

    def counted(store: Store, ids: Sequence[str]) -> Answer[list[Ruling]]:
        gc.collect()
        kept.append(sum(isinstance(one, Job) and one.id in added for one in gc.get_objects()))
        return cancel(store, ids)

    monkeypatch.setitem(bulk.MOVES, "cancel", counted)
    shop.visitor.do("/bulk?action=cancel", "/bulk", word="cancel")
    assert {shop.job(id_).status for id_ in added} == {Status.cancelled}
    assert kept[0] <= 6


def test_what_was_searched_for_is_not_in_the_log(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.add("t0p-s3cret@example.com")
    shop.visitor.do("/bulk?action=cancel&q=t0p-s3cret", "/bulk", word="cancel")
    assert actions(caplog) == [{"by": "ana", "action": "cancel_all", "searched": True, "done": 1}]


@pytest.mark.parametrize(
    ("query", "status"), [("action=explode", 404), ("", 404), ("action=retry&status=succeeded", 409)]
)
def test_what_cannot_be_done_with_all_is_refused(shop: Shop, query: str, status: int) -> None:
    shop.visitor.get(f"/bulk?{query}", status)


def test_where_nothing_matches_nothing_is_asked(shop: Shop) -> None:
    page = shop.visitor.see("/bulk?action=retry")
    assert page.one("h1").text == "No jobs to retry"
    assert not page.all("form")


# edit and requeue


def requeued(shop: Shop, id_: str, text: str) -> Job:
    page = shop.visitor.do(f"/jobs/{id_}/requeue", f"/jobs/{id_}/requeue", arguments=text)
    assert notice(page) == "This is the new job."
    newest, *_ = shop.jobs()
    assert newest.id != id_
    return newest


def test_a_job_is_added_anew_with_other_arguments(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    id_ = shop.add(queue="mail", priority=5, max_attempts=2, owner="ben", unique="once")
    new = requeued(shop, id_, '{"email": "bea@example.com", "count": 3}')
    assert json.loads(new.arguments) == {"email": "bea@example.com", "count": 3}
    assert (new.queue, new.priority, new.max_attempts, new.owner, new.unique) == ("mail", 5, 2, "ben", None)
    assert json.loads(new.origin or "")["path"] == "/tasks/jobs/{id}/requeue"
    assert json.loads(shop.job(id_).arguments) == {"email": "ana@example.com", "password": ""}
    assert actions(caplog) == [{"by": "ana", "action": "requeue", "job_id": id_, "new_job_id": new.id}]


def test_secrets_come_along_unseen(shop: Shop) -> None:
    id_ = shop.add(password="hunter2")
    text = shop.visitor.see(f"/jobs/{id_}/requeue").form(f"/tasks/jobs/{id_}/requeue")["arguments"]
    assert "hunter2" not in text
    new = requeued(shop, id_, text.replace("ana@", "bea@"))
    assert json.loads(new.arguments) == {"email": "bea@example.com", "password": "hunter2"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"email": "[redacted 1]", "password": ""}', "where it would be shown"),
        ('{"email": "a", "password": "[redacted 2]"}', "nothing was hidden as [redacted 2]"),
        ('{"email": "a"', "no JSON"),
        ('["a"]', "a JSON object"),
        ('{"email": 7}', "email"),
        ('{"count": 7}', "email: Field required"),
        ('{"email": "a", "colour": "red"}', "colour"),
        ('{"email": "' + "a" * 300_000 + '"}', "more than the 262,144 allowed"),
        ('{"email": "\\ud800"}', "Invalid JSON"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_the_form(shop: Shop, text: str, reason: str) -> None:
    id_ = shop.add(password="hunter2")
    form = shop.visitor.see(f"/jobs/{id_}/requeue").form(f"/tasks/jobs/{id_}/requeue")
    answer = shop.visitor.post(f"/jobs/{id_}/requeue", form | {"arguments": text})
    assert answer.status_code == 422
    page = Document(answer.text)
    assert reason in page.one("p", role="alert").text
    assert page.form(f"/tasks/jobs/{id_}/requeue")["arguments"] == text
    assert len(shop.jobs()) == 1


def test_a_secret_that_does_not_fit_any_more_is_not_shown(shop: Shop) -> None:
    """Though the type that refuses it names it."""
    strict: list[bool] = []

    def check(value: str) -> str:
        if strict:
            raise ValueError(f"{value} is weak")
        return value

    @shop.tasks.task(name="shop:sign_in")
    def sign_in(password: Annotated[str, AfterValidator(check)]) -> None: ...

    id_ = sign_in.enqueue_sync("hunter2").id
    form = shop.visitor.see(f"/jobs/{id_}/requeue").form(f"/tasks/jobs/{id_}/requeue")
    strict.append(True)
    answer = shop.visitor.post(f"/jobs/{id_}/requeue", form)
    assert "[redacted] is weak" in Document(answer.text).one("p", role="alert").text
    assert "hunter2" not in answer.text


def test_a_job_with_files_is_not_added_anew(shop: Shop, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        id_ = shop.keep.enqueue_sync(UploadFile(file, filename="file")).id
    assert "files" in shop.visitor.see(f"/jobs/{id_}/requeue", 409).one("main").text


def test_a_job_of_a_task_that_is_unknown_here_is_not_added_anew(shop: Shop) -> None:
    id_ = shop.add()
    del shop.tasks.tasks["shop:send"]
    assert "does not know shop:send" in shop.visitor.see(f"/jobs/{id_}/requeue", 409).one("main").text
    assert not [one for one in shop.visitor.see(f"/jobs/{id_}").all("a") if one.text.startswith("Edit")]


# forgery


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        {"Origin": "http://evil.example.com"},
        {"Origin": "null"},
        {"Origin": "http://[localhost"},
        {},
    ],
)
def test_a_form_from_elsewhere_is_refused(shop: Shop, headers: dict[str, str]) -> None:
    id_ = shop.add()
    form = shop.visitor.see(f"/jobs/{id_}").form(f"/tasks/jobs/{id_}/cancel")
    assert shop.visitor.post(f"/jobs/{id_}/cancel", form, headers).status_code == 403
    assert shop.job(id_).status is Status.queued


@pytest.mark.parametrize("headers", [FROM_HERE, {"Origin": "http://localhost"}, {"Origin": "https://localhost"}])
def test_a_form_from_here_is_accepted(shop: Shop, headers: dict[str, str]) -> None:
    """Also by a proxy that speaks https to the browser, and http to the app."""
    id_ = shop.add()
    form = shop.visitor.see(f"/jobs/{id_}").form(f"/tasks/jobs/{id_}/cancel")
    assert shop.visitor.post(f"/jobs/{id_}/cancel", form, headers).status_code == 303


@pytest.mark.parametrize("token", ["", "0" * 64, "é"])
def test_a_form_without_its_token_is_refused(shop: Shop, token: str) -> None:
    id_ = shop.add()
    shop.visitor.see(f"/jobs/{id_}")
    answer = shop.visitor.post(f"/jobs/{id_}/cancel", {"token": token})
    assert answer.status_code == 403
    assert "out of date" in answer.text
    assert shop.job(id_).status is Status.queued


def test_a_token_is_good_for_one_browser_and_one_person(shop: Shop) -> None:
    id_ = shop.add()
    form = shop.visitor.see(f"/jobs/{id_}").form(f"/tasks/jobs/{id_}/cancel")
    path = f"/jobs/{id_}/cancel"
    elsewhere = Visitor(shop.app, **{"X-User": "ana"})
    elsewhere.see()
    assert elsewhere.post(path, form).status_code == 403
    assert shop.visitor.post(path, form, FROM_HERE | {"X-User": "ben"}).status_code == 403
    assert shop.visitor.post(path, form).status_code == 303


def test_the_cookie_is_for_this_site_alone(shop: Shop) -> None:
    [cookie] = shop.visitor.get().headers.get_list("set-cookie")
    parts = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert parts == {"httponly", "samesite=strict", "path=/tasks"}
    assert "set-cookie" not in shop.visitor.get("/jobs").headers


def test_the_cookie_is_for_secure_connections_where_there_is_one(shop: Shop) -> None:
    answer = shop.visitor.client.get("https://localhost/tasks", headers={"Cookie": "afterward_dashboard=forged"})
    assert "; Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (b"token=x", "text/plain", 415),
        (b"token=\xff", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"a%d=1" % number for number in range(60)), "application/x-www-form-urlencoded", 400),
        (b"a=" + b"x" * (4 * 1024 * 1024), "application/x-www-form-urlencoded", 413),
    ],
)
def test_what_is_no_form_of_ours_is_refused(shop: Shop, content: bytes, kind: str, status: int) -> None:
    headers = FROM_HERE | {"Content-Type": kind}
    answer = shop.visitor.client.post("/tasks/queues/pause", content=content, headers=headers)
    assert answer.status_code == status


def test_nothing_is_done_by_a_link(shop: Shop) -> None:
    id_ = shop.add()
    for path in (f"/jobs/{id_}/cancel", "/queues/pause", f"/jobs/{id_}/hasten"):
        assert shop.visitor.client.get(f"/tasks{path}").status_code == 405
    assert shop.job(id_).status is Status.queued
