"""`GET …/{id}/events` over real connections: what a job says, as it says it, to whoever may see it."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.testclient import TestClient
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

from afterward import Afterward, Failure, Job
from afterward.job import EventKind, Failed, Status
from afterward.stores.seen import Answer
from afterward.testing import Bench
from tests.support.insides import are_followed
from tests.support.listening import Connection, said
from tests.support.opening import opened
from tests.support.serving import Address, served
from tests.support.telling import Browser, Speaker, Told
from tests.support.waiting import wait_until

ME = "me"
FAILED = Failed(Failure("OopsError", "it did not work"))


def who(caller: Annotated[str, Header(alias="Who")] = ME) -> str:
    return caller


def is_admin(role: Annotated[str | None, Header()] = None) -> bool:
    return role == "admin"


def app_of(tasks: Afterward) -> FastAPI:
    app = FastAPI()
    tasks.install(app, worker=False)
    app.include_router(tasks.router(owner=who, admin=is_admin))
    return app


ON_BOTH_STORES = pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def url(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Where the jobs of a test are kept."""
    is_served = getattr(request, "param", "sqlite") == "postgres"
    return request.getfixturevalue("postgres_url") if is_served else f"sqlite:///{tmp_path}/jobs.db"


@pytest.fixture
def tasks(url: str) -> Iterator[Afterward]:
    with opened(Afterward(url)) as tasks:
        yield tasks


@pytest.fixture
def app(tasks: Afterward) -> FastAPI:
    return app_of(tasks)


@pytest.fixture
def address(app: FastAPI) -> Iterator[Address]:
    with served(app) as address:
        yield address


@pytest.fixture
def speaker(address: Address, tasks: Afterward) -> Iterator[Speaker]:
    """It runs jobs where they are followed."""
    speaker = Speaker(tasks, owner=ME)
    yield speaker
    speaker.leave()


@pytest.fixture
def elsewhere(address: Address, url: str) -> Iterator[Speaker]:
    """It runs jobs where nobody is told of it."""
    with opened(Afterward(url)) as tasks:
        yield Speaker(tasks, "elsewhere", owner=ME)


def events_of(job: str) -> str:
    return f"/jobs/{job}/events"


@ON_BOTH_STORES
def test_a_client_gets_what_was_said_then_what_is_said_then_the_end(address: Address, speaker: Speaker) -> None:
    job = speaker.begin_new("a", "b")
    with Connection(address, events_of(job)) as client:
        assert (client.status, client.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert said(client.take(2)) == [("item", "a"), ("item", "b")]
        speaker.say(job, {"current": 1, "total": 2}, kind=EventKind.progress)
        assert said(client.take(1)) == [("progress", {"current": 1, "total": 2})]
        speaker.end(job, "c")
        assert said(list(client)) == [("item", "c"), ("done", "succeeded")]
        assert client.browser.id == "4.done"
        assert client.browser.retry in range(1000, 3001)


@ON_BOTH_STORES
def test_what_is_said_in_another_process_arrives_as_well(address: Address, elsewhere: Speaker) -> None:
    job = elsewhere.new_job()
    with Connection(address, events_of(job)) as client:
        elsewhere.begin(job)
        elsewhere.say(job, "a")
        assert said(client.take(1)) == [("item", "a")]
        elsewhere.end(job, outcome=FAILED)
        assert said(list(client)) == [("done", "failed")]


def test_proxies_are_told_neither_to_keep_it_nor_to_hold_it_back(address: Address, speaker: Speaker) -> None:
    job = speaker.begin_new()
    with Connection(address, events_of(job)) as client:
        assert client.headers["cache-control"] == "no-cache, no-store, no-transform"
        assert client.headers["x-accel-buffering"] == "no"


def test_what_a_client_is_told_of_having_seen_is_not_sent_again(address: Address, speaker: Speaker) -> None:
    """By the header that browsers send, else by the query."""
    job = speaker.begin_new(*"abc")
    speaker.end(job)
    for client in (
        Connection(address, events_of(job), Browser("2")),
        Connection(address, events_of(job), after="2"),
        Connection(address, events_of(job), Browser("2"), after="1"),
    ):
        with client:
            assert [event.id for event in client] == ["3", "3.done"]


@ON_BOTH_STORES
def test_a_client_that_was_told_the_end_is_told_to_stay_away(address: Address, speaker: Speaker) -> None:
    """204 has a browser not connect again; but when a person has the job tried again, there is more."""
    job = speaker.begin_new("a")
    speaker.end(job, outcome=FAILED)
    with Connection(address, events_of(job)) as client:
        browser = client.browser
        assert list(client)
    with Connection(address, events_of(job), browser) as client:
        assert (client.status, client.text()) == (204, "")
    speaker.retry(job)
    with Connection(address, events_of(job), browser) as client:
        assert client.status == 200
        speaker.begin(job)
        assert said(client.take(1)) == [("attempt", {"attempt": 2})]
        speaker.end(job, "b")
        assert said(list(client)) == [("item", "b"), ("done", "succeeded")]
        assert client.browser.id == "2.done"


def test_a_job_that_is_retried_just_as_its_end_is_to_be_told_goes_on(
    address: Address, tasks: Afterward, speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is told only of what has ended."""
    job = speaker.begin_new("a")
    speaker.end(job, outcome=FAILED)
    get, looks = tasks.store.get, list[Sequence[str]]()

    def get_once_it_is_retried(jobs: Sequence[str]) -> Answer[list[Job | None]]:
        looks.append(jobs)
        if len(looks) == 2:  # the first is by who asks whether the caller may see it
            speaker.retry(job)
        return get(jobs)

    monkeypatch.setattr(tasks.store, "get", get_once_it_is_retried)
    with Connection(address, events_of(job)) as client:
        assert said(client.take(1)) == [("item", "a")]
        wait_until(lambda: len(looks) == 2, "its end is looked at")
        speaker.begin(job)
        speaker.end(job, "b")
        assert said(list(client)) == [("attempt", {"attempt": 2}), ("item", "b"), ("done", "succeeded")]


@ON_BOTH_STORES
def test_after_the_attempt_was_lost_the_stream_goes_on_with_the_next(address: Address, speaker: Speaker) -> None:
    job = speaker.begin_new("a", "b")
    with Connection(address, events_of(job)) as client:
        client.take(2)
        speaker.lose(job)
        speaker.begin(job)
        assert client.take(1) == [Told("attempt", {"attempt": 2}, "2")]
        speaker.say(job, "A")
        [again] = client.take(1)
        assert (again.id, again.data["attempt"], again.data["data"]) == ("3", 2, "A")


@ON_BOTH_STORES
def test_more_than_a_page_arrives_in_order(address: Address, speaker: Speaker) -> None:
    job = speaker.begin_new(*range(250))
    speaker.end(job)
    with Connection(address, events_of(job)) as client:
        assert [data for event, data in said(list(client)) if event == "item"] == list(range(250))


def test_several_clients_get_the_same_and_one_that_does_not_read_holds_up_nobody(
    address: Address, speaker: Speaker
) -> None:
    job = speaker.begin_new()
    much = "x" * 1_000_000
    with (
        Connection(address, events_of(job), buffer=4096) as slow,
        Connection(address, events_of(job)) as one,
        Connection(address, events_of(job), after="0") as another,
    ):
        for _ in range(6):  # more than all that is between the two can hold
            speaker.say(job, much)
            assert said(one.take(1)) == [("item", much)]
        speaker.end(job)
        assert len(list(one)) == 1
        assert len(list(another)) == 7
        assert len(list(slow)) == 7


def test_only_kinds_that_are_asked_for_are_sent(address: Address, speaker: Speaker) -> None:
    job = speaker.begin_new("a")
    speaker.say(job, {"current": 1}, kind=EventKind.progress)
    speaker.end(job)
    for kinds, expected in [("item", ["item"]), ("progress", ["progress"]), ("progress,item", ["item", "progress"])]:
        with Connection(address, events_of(job), kinds=kinds) as client:
            assert [event for event, _, _ in client] == [*expected, "done"]


def test_the_lines_of_its_log_are_for_admins(address: Address, speaker: Speaker) -> None:
    """They may tell as much as a traceback."""
    job = speaker.begin_new("a")
    speaker.say(job, {"message": "begun"}, kind=EventKind.log)
    speaker.end(job)
    with httpx.Client(base_url=address.url, trust_env=False) as client:
        admin = {"Role": "admin"}
        assert "begun" not in client.get(events_of(job)).text
        assert "begun" in client.get(events_of(job), headers=admin).text
        assert "event: item" not in client.get(events_of(job), params={"kinds": "log"}, headers=admin).text
        assert client.get(events_of(job), params={"kinds": "item,log"}).status_code == 403


NONSENSE: list[tuple[dict[str, str], dict[str, str]]] = [
    ({"Last-Event-ID": "x"}, {}),
    ({"Last-Event-ID": "-1"}, {}),
    ({"Last-Event-ID": "1.do"}, {}),
    ({"Last-Event-ID": "9" * 16}, {}),
    ({}, {"after": "1e3"}),
    ({}, {"after": "1 "}),
    ({}, {"after": "\u0661"}),
    ({}, {"kinds": "lines"}),
    ({}, {"kinds": "item,"}),
    ({}, {"kinds": ""}),
]


def test_what_makes_no_sense_is_refused(address: Address, speaker: Speaker) -> None:
    path = events_of(speaker.new_job())
    with httpx.Client(base_url=address.url, trust_env=False) as client:
        for headers, query in NONSENSE:
            answer = client.get(path, headers=headers, params=query)
            assert answer.status_code == 422, (headers, query)


def test_an_empty_id_is_that_of_a_client_that_has_seen_nothing(address: Address, speaker: Speaker) -> None:
    job = speaker.begin_new("a")
    speaker.end(job)
    with httpx.Client(base_url=address.url, trust_env=False) as client:
        assert "id: 1\n" in client.get(events_of(job), headers={"Last-Event-ID": ""}, params={"after": ""}).text


def test_a_job_that_is_not_there_or_not_for_the_caller_has_no_stream(address: Address, speaker: Speaker) -> None:
    with httpx.Client(base_url=address.url, trust_env=False) as client:
        for job in ("unknown", speaker.begin_new("a", owner="another")):
            for method in ("GET", "HEAD"):
                assert client.request(method, events_of(job)).status_code == 404
                assert client.request(method, events_of(job), headers={"Last-Event-ID": "1.done"}).status_code == 404


def test_the_head_of_a_stream_is_given_without_waiting_for_it(address: Address, speaker: Speaker) -> None:
    job = speaker.begin_new("a")
    with httpx.Client(base_url=address.url, trust_env=False) as client:
        answer = client.head(events_of(job))
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert client.options(events_of(job)).status_code == 405


@pytest.mark.parametrize("kind", [GZipMiddleware, BaseHTTPMiddleware])
def test_middleware_does_not_hold_it_back(tasks: Afterward, kind: type) -> None:
    app = app_of(tasks)
    app.add_middleware(kind, **({"dispatch": pass_on} if kind is BaseHTTPMiddleware else {}))
    with served(app) as address, httpx.Client(base_url=address.url, trust_env=False) as client:
        speaker = Speaker(tasks, owner=ME)
        job = speaker.begin_new("a" * 2000)
        with client.stream("GET", events_of(job), headers={"Accept-Encoding": "gzip"}) as answer:
            chunks, browser = answer.iter_bytes(), Browser()
            wait_until(lambda: list(browser.read(next(chunks))), "the first event")
            speaker.end(job, "b")
            assert said(list(browser.read(b"".join(chunks))))[0] == ("item", "b")
        speaker.leave()


async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


def test_what_is_needed_to_know_who_asks_is_let_go_of_before_the_stream(tasks: Afterward) -> None:
    """Where it says so: a stream may last long."""
    closed = threading.Event()

    def get_session() -> Iterator[str]:
        yield ME
        closed.set()

    def owner(session: Annotated[str, Depends(get_session, scope="function")]) -> str:
        return session

    app = FastAPI()
    tasks.install(app, worker=False)
    app.include_router(tasks.router(owner=owner))
    with served(app) as address:
        speaker = Speaker(tasks, owner=ME)
        with Connection(address, events_of(speaker.begin_new("a"))) as client:
            client.take(1)
            assert closed.is_set()
        speaker.leave()


def test_one_that_is_told_nothing_hears_that_the_connection_is_there(
    address: Address, speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afterward.web.events.HEARTBEAT_SECONDS", 0.01)
    job = speaker.begin_new()
    with Connection(address, events_of(job)) as client:
        wait_until(lambda: client.read_some() == [] and client.browser.comments > 2, "comments arrive")
        speaker.say(job, "a")
        assert said(client.take(1)) == [("item", "a")]


def test_a_connection_does_not_last_for_ever(
    address: Address, speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may see a job is asked again when the client connects again."""
    monkeypatch.setattr("afterward.web.events.HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr("afterward.web.events.LIFE_SECONDS", 1.0)
    job = speaker.begin_new("a")
    with Connection(address, events_of(job)) as client:
        assert said(list(client)) == [("item", "a")]
    with Connection(address, events_of(job), client.browser) as client:
        assert list(client) == []


def test_nobody_is_followed_once_the_client_is_gone(address: Address, tasks: Afterward, speaker: Speaker) -> None:
    job = speaker.begin_new("a")
    with Connection(address, events_of(job)) as client:
        client.take(1)
        wait_until(lambda: are_followed(tasks), "it is followed")
    wait_until(lambda: not are_followed(tasks), "it is not followed any more")


def test_streams_end_with_the_application_and_later_ones_at_once(
    address: Address, tasks: Afterward, speaker: Speaker
) -> None:
    """In good order: the client connects again, to whoever serves then."""
    job = speaker.begin_new("a")
    with Connection(address, events_of(job)) as client:
        client.take(1)
        tasks.tails.end()
        assert list(client) == []
    with Connection(address, events_of(job), client.browser) as client:
        assert client.status == 200
        assert list(client) == []
        assert client.browser.retry in range(1000, 3001)


def test_a_job_that_is_forgotten_meanwhile_ends_its_stream(address: Address, elsewhere: Speaker) -> None:
    job = elsewhere.begin_new("a")
    with Connection(address, events_of(job)) as client:
        client.take(1)
        elsewhere.end(job)
        elsewhere.forget({Status.succeeded: 0})
        assert [event for event in client if event.event != "done"] == []
    with Connection(address, events_of(job), client.browser) as client:
        assert client.status == 404


def test_in_a_test_a_stream_gives_what_there_is_and_ends(tasks: Afterward) -> None:
    """Where jobs run between calls, nothing else could come while a call waits."""

    @tasks.task(name="app:answer")
    async def answer() -> str:
        return "yes"

    app = app_of(tasks)
    with Bench(tasks, manual=True) as bench, TestClient(app) as client:
        assert client.portal is not None
        job = client.portal.call(answer.options(owner=ME).enqueue)
        assert client.get(events_of(job.id)).text.partition(":")[0] == "retry"
        bench.drain_sync()
        assert "event: done" in client.get(events_of(job.id)).text
