"""Streams in a real browser: the page of `examples/answers`, whose EventSource loses its connection and its server."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from tests.support.answering import Answering, pieces_of
from tests.support.chromium import chromium
from tests.support.processes import Starter

SECONDS = 20_000
expect.set_options(timeout=SECONDS)
QUESTION = "Is <b>this</b> bold? <img src=x onerror=alert(1)>"
ANSWER = "".join(pieces_of(QUESTION))

KEEP_WHAT_THE_STATUS_SAYS = """
() => {
    const status = document.querySelector('[role="status"]');
    window.said = [];
    new MutationObserver(() => window.said.push(status.textContent)).observe(
        status, {childList: true, characterData: true, subtree: true}
    );
}
"""
"""It may say something for a moment alone: a browser that is back late is told all at once."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def answering(tmp_path: Path, starter: Starter) -> Iterator[Answering]:
    with ExitStack() as processes:
        yield Answering(tmp_path, starter, processes)


@pytest.fixture
def somebody(browser: Browser) -> Iterator[BrowserContext]:
    """Somebody who opens pages, in which nothing goes wrong unseen."""
    context = browser.new_context()
    context.set_default_timeout(SECONDS)
    wrong: list[str] = []
    context.on("dialog", lambda dialog: wrong.append(dialog.message))
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    yield context
    context.close()
    assert wrong == []


def ask(context: BrowserContext, answering: Answering) -> Page:
    page = context.new_page()
    page.goto(answering.address.url)
    page.get_by_label("Question").fill(QUESTION)
    page.get_by_role("button", name="Ask").click()
    return page


def has_begun(page: Page) -> None:
    expect(page.locator("#answer")).to_contain_text("You asked", timeout=SECONDS)


def is_complete(page: Page) -> None:
    expect(page.get_by_role("status")).to_have_text("That is the answer.", timeout=SECONDS)
    assert page.locator("#answer").text_content() == ANSWER


def test_an_answer_survives_a_reload_and_a_closed_tab(somebody: BrowserContext, answering: Answering) -> None:
    """It is text, whatever stands in it."""
    answering.serve(ANSWERS_PAUSE="0.03")
    page = ask(somebody, answering)
    has_begun(page)
    page.reload()
    has_begun(page)
    address = page.url
    page.close()
    page = somebody.new_page()
    page.goto(address)
    is_complete(page)
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()


def test_an_answer_survives_its_server_and_its_writer(somebody: BrowserContext, answering: Answering) -> None:
    """The browser connects again by itself, and the page shows each piece once; of the last attempt alone."""
    server = answering.serve(ANSWERS_WORKER="0")
    worker = answering.work(ANSWERS_PAUSE="0.5")  # it is killed before it is done, however long a start takes
    page = ask(somebody, answering)
    has_begun(page)
    page.evaluate(KEEP_WHAT_THE_STATUS_SAYS)
    server.stop()
    answering.serve(ANSWERS_WORKER="0")
    worker.kill()
    answering.work(ANSWERS_PAUSE="0.02")
    is_complete(page)
    assert any("Begun anew: attempt 2" in said for said in page.evaluate("said"))


def test_stop_stops_it(somebody: BrowserContext, answering: Answering) -> None:
    answering.serve(ANSWERS_PAUSE="0.2")
    page = ask(somebody, answering)
    has_begun(page)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_have_text("Stopped.", timeout=SECONDS)
    assert page.locator("#answer").text_content() != ANSWER


def test_what_cannot_be_done_is_said(somebody: BrowserContext, answering: Answering) -> None:
    """The page does not stay silent where nobody answers, and tries again only where that makes sense."""
    server = answering.serve(ANSWERS_PAUSE="0.2")
    page = ask(somebody, answering)
    has_begun(page)
    page.route("**/cancel", lambda route: route.abort())
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_have_text("This could not be stopped (no answer); try again.")
    page.unroute("**/cancel")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_have_text("Stopped.", timeout=SECONDS)
    page.goto(f"{answering.address.url}/?again#/answers/nobody-knows")
    expect(page.get_by_role("status")).to_have_text("There is no such answer, or it is somebody else's.")
    server.stop()
    page.get_by_label("Question").fill("why?")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("status")).to_have_text("This could not be asked (no answer); try again.")


def test_a_page_that_was_answered_by_a_proxy_goes_on(somebody: BrowserContext, answering: Answering) -> None:
    answering.serve(ANSWERS_PAUSE="0.2")
    page = somebody.new_page()
    statuses = iter([502])

    def answer(route: Route) -> None:
        status = next(statuses, None)
        route.continue_() if status is None else route.fulfill(status=status)

    page.route("**/events*", answer)
    page.goto(answering.address.url)
    page.evaluate(KEEP_WHAT_THE_STATUS_SAYS)
    page.get_by_label("Question").fill(QUESTION)
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("status")).to_have_text("Being written …", timeout=SECONDS)
    assert any("The connection is lost" in said for said in page.evaluate("said"))
