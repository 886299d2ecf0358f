"""The dashboard in a real browser: what is seen, by whom, and that nothing of it goes wrong unseen."""

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Request, Route, expect

from afterward import Afterward, Status
from afterward.job import EventKind, NewEvent, Process, Report, Succeeded
from afterward.stores.base import Wanted
from tests.support.accessibility import broken_rules
from tests.support.chromium import chromium
from tests.support.gallery import MARKUP, Gallery
from tests.support.serving import served

SECONDS = 20_000
expect.set_options(timeout=SECONDS)
PAGES = [
    "", "/jobs?queue=reports", "/jobs?status=failed&q=refused", "/failures", "/queues", "/workers",
    "/bulk?action=retry&status=failed", "/bulk?action=cancel&queue=none", "/jobs/@running", "/jobs/@failed",
    "/jobs/@retrying", "/jobs/@paused", "/jobs/@asked", "/jobs/@markup", "/jobs/@leaky", "/jobs/@failed/requeue",
    "/jobs/nobody-knows",
]  # fmt: skip
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 800}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 800}},
    "narrow": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}},
}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
OF_LOOKS = {
    "light": RULES,
    "dark": ["color-contrast"],
    "narrow": ["target-size", "scrollable-region-focusable", "color-contrast"],
}
"""What may differ in another look is looked at again."""

OWNED = "document.title='owned'"
OWNING_IMAGE = f'<img src="data:," onerror="{OWNED}">'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def shown(painted: Gallery) -> Iterator[str]:
    """Where the gallery is served."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFTERWARD_ENV", "development")
        tasks, app = Afterward(painted.url), FastAPI()

        @tasks.task(name="shop.mail:send_receipt")
        def send_receipt(email: str, password: str, tags: list[str], body: str) -> None: ...

        @app.get("/framing", response_class=HTMLResponse)
        def framing() -> str:
            return '<title>frames it</title><iframe src="/tasks"></iframe>'

        @app.get("/plain", response_class=HTMLResponse)
        def plain() -> str:
            return "Queues"

        tasks.install(app, worker=False)
        app.include_router(tasks.dashboard())
        with served(app) as address:
            yield f"{address.url}/tasks"


@contextmanager
def somebody(browser: Browser, **look: Any) -> Generator[BrowserContext]:
    """Somebody who opens pages. What goes wrong in one of them is a failure."""
    context = browser.new_context(**look)
    context.set_default_timeout(SECONDS)
    wrong: list[str] = []

    def see(request: Request) -> None:
        kind = request.resource_type  # what is on its way to a page ends where that is left
        if kind not in {"fetch", "eventsource"} and (kind == "document" or request.failure != "net::ERR_ABORTED"):
            wrong.append(request.url)

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith("Failed to load resource: the server responded"):
            wrong.append(message.text)

    context.on("dialog", lambda dialog: wrong.append(dialog.message))
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    context.on("console", hear)
    context.on("requestfailed", see)
    try:
        yield context
    finally:
        context.close()
    assert wrong == []


def path_of(painted: Gallery, page: str) -> str:
    """The path of a page; that of a job by its name in the gallery."""
    where, _, rest = page.partition("@")
    name, _, more = rest.partition("/")
    return where + painted.jobs[name] + (f"/{more}" if more else "") if name else page


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_is_for_everybody(browser: Browser, shown: str, painted: Gallery, look: str) -> None:
    """By the rules of accessibility, in every look; and nothing is wider than the window."""
    with somebody(browser, **LOOKS[look]) as context:
        page = context.new_page()
        for path in PAGES:
            page.goto(shown + path_of(painted, path))
            assert broken_rules(page, OF_LOOKS[look]) == [], path
            assert page.evaluate("document.documentElement.scrollWidth") <= LOOKS[look]["viewport"]["width"], path


def test_the_rules_find_what_is_wrong(browser: Browser) -> None:
    with somebody(browser) as context:
        page = context.new_page()
        page.set_content("<html><body><img src='data:,'><input></body></html>")
        assert {"image-alt", "label", "html-has-lang"} <= {rule for rule, _ in broken_rules(page, RULES)}


def test_markup_does_nothing(browser: Browser, shown: str, painted: Gallery) -> None:
    with somebody(browser) as context:
        page = context.new_page()
        for path in ["/jobs/@markup", "/jobs", "/failures", "", "/bulk?action=retry"]:
            page.goto(shown + path_of(painted, path))
            expect(page.get_by_text(MARKUP[:40]).first).to_be_visible()
            page.evaluate("new Promise(requestAnimationFrame)")
            assert "owned" not in page.title().split("·")[-1]
            assert page.locator("main img, main script").count() == 0
        page.goto(shown + path_of(painted, "/jobs/@markup"))
        assert page.title() == f"shop:{MARKUP} · afterward"


def test_a_script_of_somebody_elses_would_not_run(browser: Browser, shown: str) -> None:
    """Were there a hole in what is escaped, the policy would be there still."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(shown)
        page.evaluate("element => document.body.insertAdjacentHTML('beforeend', element)", OWNING_IMAGE)
        page.evaluate(f"document.body.append(Object.assign(document.createElement('script'), {{text: {OWNED!r}}}))")
        page.evaluate("new Promise((done) => setTimeout(done, 100))")
        assert page.title() == "Overview · afterward"


def test_it_is_in_nobodys_frame(browser: Browser, shown: str) -> None:
    """Not even in one of the same site."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(shown.replace("/tasks", "/framing"))
        page.wait_for_load_state("load")
        [_, framed] = page.frames
        assert "Queues" not in framed.locator("body").inner_text()
        framed.goto(shown.replace("/tasks", "/plain"))
        assert "Queues" in framed.locator("body").inner_text(), "what may be framed is"


class Office:
    """An app, its dashboard, and jobs that are moved by the test."""

    def __init__(self, url: str) -> None:
        self.tasks = Afterward(url, lease=60)  # nobody beats for what the tests run

        @self.tasks.task(name="shop:send")
        def send(email: str) -> None: ...

        self.send = send
        self.app = FastAPI()
        self.tasks.install(self.app, worker=False)
        self.app.include_router(self.tasks.dashboard())

    def add(self) -> str:
        return self.send.options(delay=3600).enqueue_sync("ana@example.com").id

    def status(self, id_: str) -> Status:
        job = self.tasks.run_sync(self.tasks.get(id_))
        assert job is not None
        return job.status


class Sayer:
    """What runs one job of an office, as the test says."""

    def __init__(self, office: Office, job: str) -> None:
        self._run, self._store, self._job = office.tasks.run_sync, office.tasks.store, job
        self._said = 0

    def begin(self) -> None:
        self._run(self._begin())

    async def _begin(self) -> None:
        await self._store.join(Process("sayer", 1, "example"))
        [self._lease] = (await self._store.claim("sayer", [Wanted(["shop:send"], 1, only=[self._job])], "token")).leases

    def __call__(self, kind: EventKind, data: Any) -> None:
        self._run(self._say(NewEvent(kind, json.dumps(data))))

    async def _say(self, event: NewEvent) -> None:
        self._said += 1
        assert await self._store.report([(self._lease, Report(self._said, (event,)))]) == [True]

    def end(self) -> None:
        self._run(self._end())

    async def _end(self) -> None:
        assert await self._store.finish([(self._lease, Succeeded("42"))]) == [True]
        await self._store.leave("sayer")


@pytest.fixture
def office(tmp_path: Path, development: None) -> Office:
    return Office(f"sqlite:///{tmp_path / 'jobs.db'}")


@pytest.fixture
def at(office: Office) -> Iterator[str]:
    with served(office.app) as address:
        yield f"{address.url}/tasks"


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_all_can_be_done_with_and_without_scripts(browser: Browser, office: Office, at: str, scripts: bool) -> None:
    with somebody(browser, java_script_enabled=scripts) as context:
        page = context.new_page()
        first, second = office.add(), office.add()
        page.goto(f"{at}/jobs")
        page.get_by_role("row").nth(2).get_by_role("link").click()
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("status")).to_have_text("1 job cancelled.")
        assert office.status(first) is Status.cancelled
        page.get_by_role("button", name="Retry").click()
        expect(page.get_by_role("status")).to_have_text("1 job queued again.")
        page.get_by_role("link", name="Edit and requeue").click()
        page.get_by_label("Arguments, as JSON").fill('{"email": 7}')
        page.get_by_role("button", name="Add the new job").click()
        expect(page.get_by_role("alert")).to_contain_text("email")
        page.get_by_label("Arguments, as JSON").fill(json.dumps({"email": "bea@example.com"}))
        page.get_by_role("button", name="Add the new job").click()
        expect(page.get_by_role("status")).to_have_text("This is the new job.")
        page.get_by_role("link", name="Jobs", exact=True).click()
        page.get_by_label("status").select_option("queued")
        page.get_by_label("in arguments").fill("ana@")
        page.get_by_role("button", name="Show").click()
        expect(page.get_by_role("row")).to_have_count(3)
        page.get_by_role("link", name="Cancel all").click()
        page.get_by_label("Type cancel to agree").fill("cancel")
        page.get_by_role("button", name="Cancel 2 jobs").click()
        expect(page.get_by_role("status")).to_have_text("2 jobs cancelled.")
        assert office.status(second) is Status.cancelled
        page.get_by_role("link", name="Queues").click()
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("button", name="Resume").click()
        expect(page.get_by_role("status")).to_have_text("The queue is served again.")


def test_all_can_be_reached_by_keys(browser: Browser, office: Office, at: str) -> None:
    """From the address on: past the links of the head, to the button, which the key presses."""
    id_ = office.add()
    with somebody(browser) as context:
        page = context.new_page()
        page.goto(f"{at}/jobs/{id_}")
        walked: list[str] = []
        for _ in range(30):
            page.keyboard.press("Tab")
            walked.append(page.evaluate("document.activeElement.textContent.trim()"))
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", walked
            if walked[-1] == "Cancel":
                break
        heads = ["Skip to the content", "afterward", "Overview", "Jobs", "Failures", "Queues", "Workers"]
        assert walked[:7] == heads
        assert walked[-1] == "Cancel"
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_be_focused()
        assert office.status(id_) is Status.cancelled
        page.goto(f"{at}/jobs")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.name") == "status"


def test_an_open_page_shows_what_changes(browser: Browser, office: Office, at: str) -> None:
    with somebody(browser) as context:
        page = context.new_page()
        page.goto(f"{at}/jobs")
        expect(page.get_by_text("No job matches.")).to_be_visible()
        expect(page.get_by_text("live", exact=True)).to_be_visible()
        id_ = office.add()
        expect(page.get_by_text("scheduled")).to_be_visible(timeout=SECONDS)
        page.get_by_label("in arguments").fill("half a word")
        office.tasks.run_sync(office.tasks.cancel(id_))
        expect(page.get_by_role("row").get_by_text("cancelled")).to_be_visible(timeout=SECONDS)
        expect(page.get_by_label("in arguments")).to_have_value("half a word")


def test_the_page_of_a_job_shows_how_far_it_is(browser: Browser, office: Office, at: str) -> None:
    id_ = office.add()
    say = Sayer(office, id_)
    with somebody(browser) as context:
        page = context.new_page()
        page.goto(f"{at}/jobs/{id_}")
        expect(page.get_by_text("Why is it not running?")).to_be_visible()
        say.begin()
        expect(page.locator("#head").get_by_text("running")).to_be_visible(timeout=SECONDS)
        for current in (1, 2):
            say(EventKind.progress, {"current": current, "total": 4, "message": f"step {current}"})
            expect(page.get_by_role("progressbar")).to_have_attribute("value", str(current * 25), timeout=SECONDS)
        say(EventKind.log, {"level": "WARNING", "logger": "shop", "message": "it is <b>slow</b>"})
        expect(page.get_by_text("it is <b>slow</b>")).to_be_visible(timeout=SECONDS)
        say.end()
        expect(page.locator("#head").get_by_text("succeeded")).to_be_visible(timeout=SECONDS)
        expect(page.get_by_role("group", name="Result")).to_have_text("42")


def test_an_open_page_is_live_again_after_the_answer_of_a_proxy(browser: Browser, office: Office, at: str) -> None:
    """A browser gives up on a stream that is answered 502."""
    answers = iter([502])

    def answer(route: Route) -> None:
        status = next(answers, None)
        route.continue_() if status is None else route.fulfill(status=status)

    with somebody(browser) as context:
        page = context.new_page()
        page.clock.install()
        page.route("**/changes*", answer)
        page.goto(f"{at}/jobs")
        expect(page.locator("#live-word")).to_have_text("not live")
        page.clock.run_for(6_000)
        expect(page.locator("#live-word")).to_have_text("live")
        office.add()
        expect(page.get_by_text("scheduled")).to_be_visible(timeout=SECONDS)


def test_a_page_that_is_answered_with_another_is_not_live(browser: Browser, office: Office, at: str) -> None:
    """As where a login has expired: the stream may be open still."""
    office.add()
    with somebody(browser) as context:
        page = context.new_page()
        page.clock.install()
        page.goto(f"{at}/jobs")
        expect(page.locator("#live-word")).to_have_text("live")
        page.route("**/jobs", lambda route: route.fulfill(status=303, headers={"Location": f"{at}/queues"}))
        page.clock.run_for(20_000)
        expect(page.locator("#live-word")).to_have_text("not live")


def test_what_cannot_be_copied_is_selected(browser: Browser, office: Office, at: str) -> None:
    with somebody(browser) as context:
        page = context.new_page()
        page.clock.install()
        id_ = office.add()
        page.goto(f"{at}/jobs/{id_}")
        expect(page.locator("#live-word")).to_have_text("live")
        page.clock.pause_at(page.evaluate("Date.now()") + 1_000)
        button = page.locator("[data-copy=id]")
        for allowed, word in (("Promise.resolve()", "Copied"), ("Promise.reject(new Error('forbidden'))", "Selected")):
            page.evaluate(f"() => {{ navigator.clipboard.writeText = () => {allowed}; }}")
            for _ in range(2):
                button.click()
                expect(button).to_have_text(word)
            page.clock.run_for(5_000)
            expect(button).to_have_text("Copy the id")
        assert page.evaluate("document.getSelection().toString()") == id_
