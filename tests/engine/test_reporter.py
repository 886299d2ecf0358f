"""How what attempts say gets to the store: gathered, numbered, in order, whatever becomes of a report."""

import asyncio
import io
import json
import logging
import threading
import time
from collections.abc import AsyncIterator
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterward.engine import gathering, voice
from afterward.engine.childvoice import ChildVoice
from afterward.engine.conversation import Conversation
from afterward.engine.gathering import Gathered, Said
from afterward.engine.orders import SETTLES
from afterward.engine.reporter import Reporter
from afterward.engine.voice import AttemptVoice
from afterward.errors import ConfigurationError, StoreUnavailable
from afterward.job import EventKind, Lease, NewEvent, Released, Report, Succeeded
from tests.support.reports import LEASE, Listener
from tests.support.waiting import soon

pytestmark = pytest.mark.anyio

FLOOR = 0.01


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
async def reporter(listener: Listener) -> AsyncIterator[Reporter]:
    """A reporter that reports while the test lasts."""
    reporter = Reporter(listener, logging.INFO, FLOOR)
    async with reporter.reporting():
        yield reporter


def item(speaker: AttemptVoice, *data: object) -> None:
    for one in data:
        speaker.say(EventKind.item, str(one))


# One report at a time


async def test_what_is_said_at_first_is_reported_at_once(listener: Listener, reporter: Reporter) -> None:
    item(reporter.voice(LEASE), 1)
    await soon(lambda: listener.texts() == ["1"])


async def test_what_is_said_while_a_report_is_under_way_goes_with_the_next(
    listener: Listener, reporter: Reporter
) -> None:
    """Of all attempts together, each in the order in which it spoke."""
    one, other = reporter.voice(LEASE), reporter.voice(LEASE._replace(id="other"))
    listener.answers.clear()
    item(one, 1)
    await soon(lambda: listener.calls)
    item(one, 2, 3)
    item(other, "a")
    item(one, 4)
    await asyncio.sleep(3 * FLOOR)
    assert len(listener.calls) == 1
    listener.answers.set()
    await soon(lambda: len(listener.calls) == 2)
    assert {job: [event.data for event in report.events] for job, report in listener.calls[1].items()} == {
        "job": ["2", "3", "4"],
        "other": ["a"],
    }
    await soon(lambda: listener.texts() == ["1", "2", "3", "4"])


async def test_a_report_carries_so_many_bytes_and_the_rest_goes_with_the_next(
    listener: Listener, reporter: Reporter
) -> None:
    """No transaction is so long that all who write wait for it, however many attempts have much to say."""
    large, jobs = "1" * 1000 * 1000, [f"job-{number}" for number in range(8)]
    listener.answers.clear()
    item(reporter.voice(LEASE), 1)
    await soon(lambda: listener.calls)
    for job in jobs:
        item(reporter.voice(LEASE._replace(id=job)), large)
    listener.answers.set()
    await soon(lambda: [listener.texts(job) for job in jobs] == [[large]] * len(jobs))
    assert [len(reports) for reports in listener.calls] == [1, 5, 3]


async def test_a_task_that_says_much_makes_few_transactions(listener: Listener, reporter: Reporter) -> None:
    speaker, began = reporter.voice(LEASE), time.monotonic()
    for number in range(300):
        item(speaker, number)
        await asyncio.sleep(0.001)
    await soon(lambda: len(listener.texts()) == 300)
    assert 2 < len(listener.calls) <= (time.monotonic() - began) / FLOOR + 1


async def test_of_progress_that_is_not_sent_yet_the_last_counts(listener: Listener, reporter: Reporter) -> None:
    """In its place among the rest. What is on its way is not taken back."""
    speaker = reporter.voice(LEASE)
    listener.answers.clear()
    speaker.say(EventKind.progress, "10 %")
    await soon(lambda: listener.calls)
    speaker.say(EventKind.progress, "20 %")
    item(speaker, "a")
    speaker.say(EventKind.progress, "30 %")
    item(speaker, "b")
    listener.answers.set()
    await soon(lambda: listener.texts() == ["10 %", "a", "30 %", "b"])


async def test_a_long_report_leaves_other_attempts_for_the_next(listener: Listener, reporter: Reporter) -> None:
    speakers = [reporter.voice(LEASE._replace(id=str(number))) for number in range(8)]
    for speaker in speakers:
        item(speaker, *range(1_000))
    await soon(lambda: len(listener.heard) == 8)
    assert [len(call) for call in listener.calls] == [5, 3]


async def test_the_age_of_an_event_is_what_has_passed_since_it_was_said(listener: Listener, reporter: Reporter) -> None:
    listener.fails = 1
    item(reporter.voice(LEASE), 1)
    await soon(listener.texts)
    first, second = (call["job"].events[0].age for call in listener.calls)
    assert 0 <= first < second


def test_so_it_is_where_the_end_of_an_attempt_is_written_late() -> None:
    report = Report(1, (NewEvent(EventKind.item, "1", 0.5), NewEvent(EventKind.item, "2", 0.25)))
    [first, second] = report.events
    late = gathering.later(Succeeded("1", report=report), 2)
    assert late == Succeeded("1", report=Report(1, (first._replace(age=2.5), second._replace(age=2.25))))
    assert gathering.later(Released("a shutdown"), 2) == Released("a shutdown")


# Exactly once, and in order


@pytest.mark.parametrize("lost", ["fails", "fails_after"])
async def test_a_report_that_failed_is_repeated_with_what_was_said_since(
    listener: Listener, reporter: Reporter, lost: str
) -> None:
    """Whether the store had taken it, nobody knew. It is numbered: nothing is there twice, and nothing is missing."""
    setattr(listener, lost, 2)
    speaker = reporter.voice(LEASE)
    item(speaker, 1, 2)
    await soon(lambda: listener.calls)
    item(speaker, 3)
    await soon(lambda: listener.texts() == ["1", "2", "3"])
    item(speaker, 4)
    await soon(lambda: listener.texts() == ["1", "2", "3", "4"])


@pytest.mark.parametrize("is_first", [True, False])
async def test_the_last_that_is_said_goes_with_the_end_though_a_report_is_under_way(
    listener: Listener, reporter: Reporter, is_first: bool
) -> None:
    """Whichever of the two the store takes first."""
    speaker = reporter.voice(LEASE)
    listener.answers.clear()
    item(speaker, 1)
    await soon(lambda: listener.calls)
    item(speaker, 2)
    last = speaker.close()
    assert last is not None
    assert (last.first, [event.data for event in last.events]) == (1, ["1", "2"])
    if is_first:
        listener.keep(LEASE, last)
    listener.answers.set()
    await soon(listener.texts)
    listener.keep(LEASE, last)
    item(speaker, 3)  # from a thread that was left behind, say
    await asyncio.sleep(2 * FLOOR)
    assert listener.texts() == ["1", "2"]


async def test_an_attempt_that_says_nothing_ends_with_no_report(listener: Listener, reporter: Reporter) -> None:
    speaker = reporter.voice(LEASE)
    assert speaker.close() is None
    other = reporter.voice(LEASE)
    item(other, 1)
    await soon(listener.texts)
    await asyncio.sleep(2 * FLOOR)
    assert other.close() is None


async def test_an_attempt_whose_job_is_anothers_is_not_heard_any_more(listener: Listener, reporter: Reporter) -> None:
    """Others are."""
    listener.refuses = {"job"}
    speaker, other = reporter.voice(LEASE), reporter.voice(LEASE._replace(id="other"))
    item(speaker, 1)
    item(other, 1)
    await soon(lambda: speaker.is_to_end)
    item(speaker, 2)
    item(other, 2)
    await soon(lambda: listener.texts("other") == ["1", "2"])
    assert [*listener.calls[-1]] == ["other"]
    assert speaker.close() is None


@given(st.lists(st.sampled_from(["item", "progress", "sent", "answer lost", "never sent"])))
def test_whatever_becomes_of_reports_the_store_has_all_of_it_once(steps: list[str]) -> None:
    """A report is stored and the answer heard; or it is lost; or the report was. In the end, the attempt ends."""
    gathered, listener, items, last = Gathered(), Listener(), list[str](), None
    for number, step in enumerate(steps):
        if step == "item":
            gathered.add(Said(EventKind.item, str(number), 0))
            items.append(str(number))
        elif step == "progress":
            gathered.add(Said(EventKind.progress, str(number), 0))
            last = str(number)
        elif gathered:
            report = gathered.report(0)
            if step != "never sent":
                listener.keep(LEASE, report)
            if step == "sent":
                gathered.have_stored(report)
    listener.keep(LEASE, gathered.report(0))
    assert listener.of(EventKind.item) == items
    assert ([None, *listener.of(EventKind.progress)])[-1] == last


# A store that does not keep up


async def test_what_is_too_much_is_dropped_in_the_loop_and_said_to_be(
    listener: Listener, reporter: Reporter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The function there must not wait. Once; with how many, in their place; and progress is never too much."""
    monkeypatch.setattr(gathering, "MAX_GATHERED", 3)
    speaker = reporter.voice(LEASE)
    listener.answers.clear()
    item(speaker, 1, 2, 3, 4, 5)
    speaker.say(EventKind.progress, "half")
    listener.answers.set()
    await soon(lambda: len(listener.texts()) == 5)
    item(speaker, 6)
    await soon(lambda: len(listener.texts()) == 6)
    *first, progress, notice, last = listener.texts()
    assert [*first, progress, last] == ["1", "2", "3", "half", "6"]
    assert json.loads(notice)["message"].startswith("2 events were dropped here")
    [told] = [record for record in caplog.records if "job.events_dropped" in record.message]
    assert "count=2" in told.message


async def test_the_end_of_an_attempt_tells_of_what_was_dropped(
    reporter: Reporter, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "MAX_GATHERED", 1)
    speaker = reporter.voice(LEASE)
    listener.answers.clear()
    item(speaker, 1, 2)
    last = speaker.close()
    assert last is not None
    assert "1 events were dropped here" in last.events[-1].data
    listener.answers.set()


async def test_bytes_count_as_well(reporter: Reporter, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MAX_GATHERED_BYTES", 100)
    listener.answers.clear()
    speaker = reporter.voice(LEASE)
    item(speaker, "x" * 99, "y", "z")
    listener.answers.set()
    await soon(lambda: listener.of(EventKind.log))
    assert listener.of(EventKind.item) == ["x" * 99, "y"]


async def test_a_thread_is_held_back_until_there_is_room(
    listener: Listener, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "MAX_GATHERED", 3)
    speaker, said = reporter.voice(LEASE), list[int]()
    listener.answers.clear()

    def talk() -> None:
        for number in range(10):
            item(speaker, number)
            said.append(number)

    talking = asyncio.ensure_future(asyncio.to_thread(talk))
    await soon(lambda: said == [0, 1, 2])
    await soon(lambda: listener.calls)
    assert said == [0, 1, 2]
    listener.answers.set()
    await talking
    await soon(lambda: listener.texts() == [str(number) for number in range(10)])


@pytest.mark.parametrize("end", ["close", "silence", "ask"])
async def test_a_thread_that_is_held_back_is_let_go_when_its_attempt_is_to_end(
    listener: Listener, reporter: Reporter, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(gathering, "MAX_GATHERED", 1)
    speaker = reporter.voice(LEASE)
    listener.answers.clear()
    begun = threading.Event()

    def talk() -> None:
        item(speaker, 1)
        begun.set()
        item(speaker, 2)

    talking = asyncio.ensure_future(asyncio.to_thread(talk))
    await soon(begun.is_set)
    getattr(speaker, end)()
    await asyncio.wait_for(talking, 5)
    listener.answers.set()


async def test_what_is_given_is_never_dropped_and_the_giver_waits(
    listener: Listener, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is with what a generator yields in the loop."""
    monkeypatch.setattr(gathering, "MAX_GATHERED", 3)
    speaker, given_ = reporter.voice(LEASE), list[int]()
    listener.answers.clear()

    async def give() -> None:
        for number in range(10):
            await speaker.give(EventKind.item, str(number))
            given_.append(number)

    giving = asyncio.ensure_future(give())
    await soon(lambda: given_ == [0, 1])
    await asyncio.sleep(2 * FLOOR)
    assert given_ == [0, 1]
    listener.answers.set()
    await giving
    await soon(lambda: listener.texts() == [str(number) for number in range(10)])


# Before a task ends itself


async def test_what_was_said_is_stored_before_a_task_ends_itself(listener: Listener, reporter: Reporter) -> None:
    """What it says from then on goes with the end of its attempt, and is not reported before."""
    speaker = reporter.voice(LEASE)
    listener.answers.clear()
    item(speaker, 1)
    await soon(lambda: listener.calls)
    item(speaker, 2)
    settling = asyncio.ensure_future(speaker.settle())
    listener.answers.set()
    await settling
    assert listener.texts() == ["1", "2"]
    item(speaker, 3)
    await asyncio.sleep(3 * FLOOR)
    assert listener.texts() == ["1", "2"]
    assert (last := speaker.close()) is not None
    assert (last.first, [event.data for event in last.events]) == (3, ["3"])


async def test_a_thread_waits_for_that_too(listener: Listener, reporter: Reporter) -> None:
    speaker = reporter.voice(LEASE)
    listener.answers.clear()
    item(speaker, 1)
    settling = asyncio.ensure_future(asyncio.to_thread(speaker.settle_sync))
    await soon(lambda: listener.calls)
    assert not settling.done()
    listener.answers.set()
    await settling
    assert listener.texts() == ["1"]


async def test_a_task_whose_words_cannot_be_stored_does_not_end_itself(
    listener: Listener, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be lost: after its own transaction is committed, it holds its job no more."""
    monkeypatch.setattr(voice, "_SETTLE_SECONDS", 0.05)
    speaker = reporter.voice(LEASE)
    listener.answers.clear()
    item(speaker, 1)
    with pytest.raises(StoreUnavailable, match="roll back"):
        await speaker.settle()
    item(speaker, 2)
    listener.answers.set()
    await soon(lambda: listener.texts() == ["1", "2"])


async def test_a_task_that_rolled_back_can_end_itself_again(listener: Listener, reporter: Reporter) -> None:
    speaker = reporter.voice(LEASE)
    item(speaker, 1)
    await speaker.settle()
    item(speaker, 2)
    await speaker.settle()
    assert listener.texts() == ["1", "2"]


async def test_a_task_can_end_itself_though_others_of_its_threads_go_on_to_speak(
    listener: Listener, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for what was said before, and not for what is said meanwhile, time and again."""
    speaker, keep = reporter.voice(LEASE), listener.keep

    def keep_while_it_speaks(lease: Lease, report: Report | None) -> bool:
        item(speaker, "more")
        return keep(lease, report)

    monkeypatch.setattr(listener, "keep", keep_while_it_speaks)
    item(speaker, 1)
    await asyncio.wait_for(speaker.settle(), 2)
    assert listener.texts()[0] == "1"


async def test_what_a_generator_yields_after_it_has_ended_itself_is_bounded(
    reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing makes room for it then."""
    monkeypatch.setattr(gathering, "MAX_GATHERED", 3)
    speaker = reporter.voice(LEASE)
    await speaker.settle()
    for number in range(10):
        await speaker.give(EventKind.item, str(number))
    assert (last := speaker.close()) is not None
    assert [event.data for event in last.events[:3]] == ["0", "1", "2"]
    assert "7 events were dropped" in last.events[3].data


async def test_a_child_process_is_told_when_its_words_cannot_be_stored(
    listener: Listener, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it asks its parent is answered, and `finish` raises there as well."""
    monkeypatch.setattr(voice, "_SETTLE_SECONDS", 0.05)
    speaker, told = reporter.voice(LEASE), list[bytes]()
    conversation = Conversation(told.append, speaker, lambda: None)
    child = ChildVoice(io.BytesIO(), speaker.job, None)
    listener.answers.clear()
    item(speaker, 1)
    for cannot in (True, False):
        await conversation.hear(SETTLES)
        child.hear(told.pop())
        with pytest.raises(StoreUnavailable, match="roll back") if cannot else nullcontext():
            child.settle_sync()
        listener.answers.set()


async def test_the_loop_that_is_to_store_it_is_not_blocked(reporter: Reporter) -> None:
    with pytest.raises(ConfigurationError, match="await finish"):
        reporter.voice(LEASE).settle_sync()


# Lines of the log


async def test_so_many_lines_are_kept_and_one_says_that_there_were_more(
    listener: Listener, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says otherwise is kept all the same."""
    monkeypatch.setattr(voice, "MAX_LINES", 2)
    speaker = reporter.voice(LEASE)
    for line in ("one", "two", "three", "four"):
        if speaker.takes_line(logging.INFO):
            speaker.say(EventKind.log, line)
    item(speaker, 1)
    await soon(lambda: listener.of(EventKind.item))
    one, two, notice = listener.of(EventKind.log)
    assert (one, two) == ("one", "two")
    assert json.loads(notice) == {
        "level": "WARNING",
        "logger": "afterward",
        "message": "no more lines are stored of this attempt: 2 are kept",
    }


# Being asked to end


async def test_an_attempt_is_asked_once_and_again_only_after_its_clean_up_should_be_over(
    reporter: Reporter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The store tells of it several times a second."""
    stopped: list[None] = []
    speaker = reporter.voice(LEASE)
    speaker.stop = lambda: stopped.append(None)
    for _ in range(3):
        speaker.ask()
    await asyncio.sleep(0)
    assert (len(stopped), speaker.is_asked) == (1, True)
    assert not caplog.records
    monkeypatch.setattr(voice, "CLEAN_UP_SECONDS", 0)
    speaker.ask()
    await asyncio.sleep(0)
    assert len(stopped) == 2
    assert "job.heeds_no_cancel" in caplog.text


async def test_what_is_to_be_asked_is_asked_at_once_if_that_was_wanted_before(reporter: Reporter) -> None:
    stopped: list[None] = []
    speaker = reporter.voice(Lease("job", 3, "process", "task", "{}"))
    speaker.ask()
    speaker.stop_by(lambda: stopped.append(None))
    assert len(stopped) == 1
