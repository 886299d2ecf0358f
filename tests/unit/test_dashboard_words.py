"""What the dashboard says and draws: pure functions of what the store shows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterward.job import Attempt, Failure, Job, Status
from afterward.stores.base import COUNTED, QueueStats, Stats
from afterward.stores.seen import Pause, Period, ProcessSeen, Served
from afterward.web.dashboard import wording
from afterward.web.dashboard.charts import chart, slots
from afterward.web.dashboard.notices import notice
from afterward.web.dashboard.pages.overview import sampled_since
from afterward.web.dashboard.timeline import timeline
from afterward.web.dashboard.verdict import verdict

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def queue(name: str = "default", depth: int = 0, age: float = 0.0, **counts: int) -> QueueStats:
    facts: dict[str, int] = {"later": 0, "held": 0, "running": 0} | counts
    return QueueStats(name, depth, age, **facts)


def worker(queues: list[str] | None = None, running: int = 0) -> ProcessSeen:
    return ProcessSeen(
        "w", 1, "host", NOW, Served({"shop:send": "v"}, queues, 2, 1), [str(number) for number in range(running)]
    )


BEHIND = (
    "The queue mail is behind: its oldest job has waited for 4 min, "
    "and 1 worker runs 3 of the 3 jobs there is room for."
)
HOST = ProcessSeen("h", 1, "host", NOW, Served({"shop:send": "v"}, None, 2, 0, hosted=["shop:send"]), [])
API = ProcessSeen("api", 1, "host", NOW, None, [])


@pytest.mark.parametrize(
    ("queues", "paused", "processes", "text", "level"),
    [
        ([], [], [], "Nothing is stuck. Nothing is to be done.", "calm"),
        ([queue(later=1)], [], [], "Nothing is stuck. 1 job waits for its time.", "calm"),
        ([queue(later=3)], [], [], "Nothing is stuck. 3 jobs wait for their time.", "calm"),
        ([queue(depth=2, running=1)], [], [worker()], "Nothing is stuck. 1 job runs, 2 are ready.", "calm"),
        ([queue(depth=1, running=2)], [], [worker()], "Nothing is stuck. 2 jobs run, 1 is ready.", "calm"),
        ([queue(depth=1)], [], [], "No worker is alive, and 1 job waits.", "stuck"),
        ([queue(depth=1)], [], [HOST], "No worker is alive, and 1 job waits.", "stuck"),
        ([queue(depth=1), queue("b", 2)], [], [API], "No worker is alive, and 3 jobs wait.", "stuck"),
        ([queue(depth=COUNTED)], [], [API], "No worker is alive, and 10,000+ jobs wait.", "stuck"),
        (
            [queue("mail", 2)], [], [worker(["default"])],
            "No live worker serves the queue mail, and 2 jobs wait in it.", "stuck",
        ),
        ([queue("mail", 2)], ["mail"], [worker()], "The queue mail is paused, and 2 jobs wait in it.", "stuck"),
        ([queue("mail", 2)], ["mail"], [], "The queue mail is paused, and 2 jobs wait in it.", "stuck"),
        ([queue("mail")], ["mail"], [worker()], "Nothing is stuck. Nothing is to be done.", "calm"),
        (
            [queue("mail", 9, 240)], [], [worker(running=3), worker(["default"], 1)],
            BEHIND, "behind",
        ),
        ([queue("mail", 9, 59)], [], [worker()], "Nothing is stuck. 0 jobs run, 9 are ready.", "calm"),
        ([queue("mail", handed=1)], [], [worker()], "Nothing is stuck. 1 job is with Celery.", "calm"),
        ([queue("mail", handed=2)], ["mail"], [], "Nothing is stuck. 2 jobs are with Celery.", "calm"),
    ],
)  # fmt: skip
def test_one_sentence_says_what_is_stuck(
    queues: list[QueueStats], paused: list[str], processes: list[ProcessSeen], text: str, level: str
) -> None:
    said = verdict(Stats(queues, len(processes)), [Pause(name, NOW, "ana") for name in paused], processes)
    assert (said.text, said.level) == (text, level)
    assert (said.mend is not None) == (level == "stuck"), "and what can be done about it"


def test_the_worst_is_what_is_said() -> None:
    """What nobody serves, before what is paused on purpose, before what is late."""
    late, paused, unserved = queue("late", 1, 900), queue("paused", 1, 950), queue("unserved", 1, 1)
    pauses, workers = [Pause("paused", NOW, "ana")], [worker(["late", "paused"])]
    for queues, name in (([late, paused, unserved], "unserved"), ([late, paused], "paused"), ([late], "late")):
        assert verdict(Stats(queues, 1), pauses, workers).queue == name


def period(number: int, succeeded: int, failed: int) -> Period:
    return Period("q", at(60 * number), succeeded, failed, 0, None, None)


COUNTS = st.integers(0, 10_000)
PERIODS = st.lists(st.builds(period, st.integers(-2, 12), COUNTS, COUNTS))


@given(PERIODS)
def test_a_chart_shows_all_of_its_span_within_its_bounds(periods: list[Period]) -> None:
    found = slots(periods, NOW, 60, 10)
    assert [slot.began for slot in found] == [at(60 * number) for number in range(10)]
    within = [period for period in periods if at(0) <= period.began < at(600)]
    assert sum(slot.succeeded for slot in found) == sum(period.succeeded for period in within)
    assert sum(slot.failed for slot in found) == sum(period.failed for period in within)
    drawn = chart(found, 100, 20)
    for column in drawn.columns:
        assert len(column.bars) == (column.slot.succeeded > 0) + (column.slot.failed > 0)
        for bar in column.bars:
            assert 0 <= bar.y <= 20
            assert bar.y + bar.height <= 20 + 2
            assert bar.height >= 1.5


JOB = Job(
    id="id", task="shop:send", queue="default", priority=0, status=Status.queued, attempt=0, failures=0, deaths=0,
    arguments="{}", result=None, failure=None, note=None, unique=None, process=None, created_at=NOW, run_at=NOW,
    started_at=None, finished_at=None,
)  # fmt: skip
SUCCEEDED: dict[str, Any] = {"status": Status.succeeded, "started_at": at(9), "finished_at": at(20)}
FIRST = Attempt(1, "retry", at(2), at(5), Failure("OopsError", "no"))


@pytest.mark.parametrize(
    ("facts", "steps"),
    [
        ({}, [(1, "waiting", 100, None)]),
        ({"status": Status.running, "attempt": 1, "started_at": at(10)}, [(1, "running", 10, 90)]),
        (
            SUCCEEDED | {"attempt": 2, "attempts": (FIRST,)},
            [(1, "retry", 2, 3), (2, "succeeded", 4, 11)],
        ),
        ({"attempt": 1, "attempts": (FIRST,), "started_at": at(2)}, [(1, "retry", 2, 3), (2, "waiting", 95, None)]),
        (
            {"status": Status.failed, "attempt": 1, "attempts": (replace(FIRST, outcome="failed"),)},
            [(1, "failed", 2, 3)],
        ),
        ({"attempt": 1, "started_at": at(10), "handed_at": at(10)}, [(1, "handed", 100, None)]),
        ({"status": Status.cancelled}, []),
        ({"status": Status.failed, "attempts": (replace(FIRST, started_at=None),)}, [(1, "retry", 5, None)]),
        # Clocks that were set back make no negative times.
        ({"status": Status.running, "attempt": 1, "started_at": at(-10)}, [(1, "running", 0, 110)]),
    ],
)
def test_a_timeline_shows_what_each_attempt_waited_and_ran(facts: dict[str, Any], steps: list[Any]) -> None:
    found, earlier = timeline(replace(JOB, **facts), at(100))
    assert not earlier
    assert [(step.number, step.outcome, step.waited, step.ran) for step in found] == steps
    for step in found:
        assert 0 <= step.start <= step.start + step.wait_width + step.run_width <= 1000.5


def test_a_timeline_shows_the_latest_attempts_and_counts_the_others() -> None:
    attempts = tuple(replace(FIRST, number=number) for number in range(1, 43))
    found, earlier = timeline(replace(JOB, attempts=attempts, attempt=42), at(100))
    assert [step.number for step in found] == [*range(14, 43), 43]
    assert earlier == 13


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (-1, "0 ms"), (0.0124, "12 ms"), (0.9999, "1.0 s"), (1.25, "1.2 s"), (9.94, "9.9 s"), (9.96, "10 s"),
     (59.6, "60 s"), (200, "3 min"), (None, "\N{EN DASH}")],
)  # fmt: skip
def test_durations_in_words(seconds: float | None, text: str) -> None:
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "now"), (-0.5, "now"), (-90, "90 s ago"), (-7200, "2 h ago"), (90, "in 90 s")]
)
def test_times_in_words(seconds: float, text: str) -> None:
    assert wording.ago(at(seconds), NOW) == text


@pytest.mark.parametrize(
    ("count", "seconds", "text"),
    [(0, 3600, "0"), (1, 86400, "< 0.1"), (24, 3600, "0.4"), (600, 3600, "10"), (60_000, 3600, "1,000")],
)
def test_rates_in_words(count: int, seconds: float, text: str) -> None:
    assert wording.per_minute(count, seconds) == text


def test_what_was_counted_up_to_a_limit_says_so() -> None:
    assert wording.counted(COUNTED) == "10,000+"
    assert wording.summed([COUNTED, 5]) == "10,005+"
    assert wording.summed([4, 5]) == "9"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("it is late", "It is late."), ("afterward resume mail", "afterward resume mail"), ("is it?", "Is it?"),
     ("to resume it: afterward resume mail", "To resume it: afterward resume mail")],
)  # fmt: skip
def test_sentences(text: str, sentence: str) -> None:
    assert wording.sentence(text) == sentence


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({}, None),
        ({"said": "everything is fine, call 555-0100"}, None),
        ({"cancel": "<b>9</b>"}, None),
        ({"retry": "1"}, "1 job queued again."),
        ({"cancel": "3", "asked": "2"}, "3 jobs cancelled, 2 jobs asked to end."),
        ({"retry": "3", "refused": "1"}, "3 jobs queued again, 1 job had moved on meanwhile."),
    ],
)  # fmt: skip
def test_only_words_of_ours_are_told_by_a_url(query: dict[str, str], text: str | None) -> None:
    said = notice(query)
    assert (said and said.text) == text


@pytest.mark.parametrize(("counts", "minute"), [([], 0), ([10], 0), ([9_990, 5, 4], 0), ([50_000, 9_000, 1_000, 0], 1)])
def test_how_long_jobs_took_is_told_of_those_that_ended_last(counts: list[int], minute: int) -> None:
    assert sampled_since([period(number, count, 0) for number, count in enumerate(counts)], NOW) == at(60 * minute)
