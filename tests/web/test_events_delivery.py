"""What a client of a stream is sent next, by what it has seen and what the store holds."""

import json
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from afterward.job import EventKind, Status
from afterward.web.delivery import Position, deliver, end, has_had_all, is_news, position_of
from afterward.web.frames import CHUNK_BYTES, chunks, frame, retry
from tests.support.telling import Browser, Saying, Told

ALL = frozenset(EventKind)


class Client:
    """One that reads pages of `size` events, and can lose its connection between any two events."""

    def __init__(self, job: Saying, size: int = 100, kinds: frozenset[EventKind] = ALL) -> None:
        self.browser = Browser()
        self._job = job
        self._size = size
        self._kinds = kinds
        self._position = Position()

    def connect_again(self) -> None:
        self.browser = Browser(self.browser.id)
        self._position = position_of(self.browser.id)

    def read(self) -> Iterator[Told]:
        """What there is for it now, to the last of it."""
        while True:
            found = self._job.stream("job", self._position.asks_after, self._size)
            if not is_news(self._position, found):
                return
            delivery = deliver(self._position, found, self._kinds)
            self._position = delivery.position
            yield from self.browser.read(b"".join(delivery.frames))
            if delivery.is_all:
                yield from self.browser.read(end(self._position, "{}"))
                return


def told(client: Client) -> list[tuple[str, object, str]]:
    """Type, data and id of what there is for it now; of an event, what was said."""
    return [(event, data.get("data", data), id_) for event, data, id_ in client.read()]


def test_events_have_their_number_and_kind_and_their_data_has_attempt_and_time() -> None:
    job = Saying()
    job.say({"current": 1, "total": 2, "message": None}, kind=EventKind.progress)
    job.say({"level": "INFO", "logger": "app", "message": "begun"}, kind=EventKind.log)
    job.say("a piece", ["any", {"JSON": None}])
    assert list(Client(job).read()) == [
        Told(
            "progress",
            {"attempt": 1, "at": "2030-01-02T03:04:06Z", "data": {"current": 1, "total": 2, "message": None}},
            "1",
        ),
        Told(
            "log",
            {
                "attempt": 1,
                "at": "2030-01-02T03:04:07Z",
                "data": {"level": "INFO", "logger": "app", "message": "begun"},
            },
            "2",
        ),
        Told("item", {"attempt": 1, "at": "2030-01-02T03:04:08Z", "data": "a piece"}, "3"),
        Told("item", {"attempt": 1, "at": "2030-01-02T03:04:09Z", "data": ["any", {"JSON": None}]}, "4"),
    ]


def test_only_kinds_that_are_wanted_are_sent_and_the_end_has_the_number_of_the_last_of_all() -> None:
    job = Saying()
    job.say(1)
    job.say("begun", kind=EventKind.log)
    job.status = Status.succeeded
    client = Client(job, kinds=frozenset({EventKind.item}))
    assert told(client) == [("item", 1, "1"), ("done", {}, "2.done")]


def test_what_a_job_says_at_another_attempt_is_marked() -> None:
    job = Saying()
    job.say("a", "b")
    job.attempt = 2
    job.say("A", "B")
    job.attempt = 4  # the third said nothing
    job.say("AA")
    assert told(Client(job)) == [
        ("item", "a", "1"),
        ("item", "b", "2"),
        ("attempt", {"attempt": 2}, "2"),
        ("item", "A", "3"),
        ("item", "B", "4"),
        ("attempt", {"attempt": 4}, "4"),
        ("item", "AA", "5"),
    ]


def test_another_attempt_is_marked_as_soon_as_it_runs_and_not_again_when_it_says_something() -> None:
    job = Saying()
    job.say("a")
    client = Client(job)
    assert told(client) == [("item", "a", "1")]
    job.status = Status.queued  # its process has died
    assert told(client) == []
    job.status, job.attempt = Status.running, 2
    assert told(client) == [("attempt", {"attempt": 2}, "1")]
    job.say("A")
    assert told(client) == [("item", "A", "2")]


def test_the_first_that_a_client_is_told_is_not_marked_whatever_attempt_it_is_of() -> None:
    job = Saying(attempt=3)
    client = Client(job)
    assert told(client) == []
    job.say("a")
    assert told(client) == [("item", "a", "1")]


def test_a_client_that_connects_again_between_two_attempts_learns_of_the_second() -> None:
    job = Saying()
    job.say("a")
    client = Client(job)
    assert told(client) == [("item", "a", "1")]
    job.attempt = 2
    job.say("A")
    client.connect_again()
    assert told(client) == [("attempt", {"attempt": 2}, "1"), ("item", "A", "2")]
    client.connect_again()
    assert told(client) == []


def test_events_that_are_not_kept_any_more_are_told_of_by_their_number() -> None:
    job = Saying()
    job.say(*"abcdefg")
    job.trim(2)
    assert told(Client(job)) == [("skipped", {"events": 5}, ""), ("item", "f", "6"), ("item", "g", "7")]


def test_a_client_that_was_away_is_told_how_much_it_has_missed_for_good_and_that_another_attempt_may_have_begun() -> (
    None
):
    job = Saying()
    job.say("a", "b")
    client = Client(job)
    told(client)
    job.say(*"cdefg")
    job.trim(2)
    client.connect_again()
    assert told(client) == [
        ("skipped", {"events": 3}, "2"),
        ("attempt", {"attempt": 1}, "2"),
        ("item", "f", "6"),
        ("item", "g", "7"),
    ]


def test_the_end_comes_when_all_has_been_sent_and_not_before() -> None:
    job = Saying(status=Status.failed)
    job.say(*"abc")
    events = told(Client(job, size=2))
    assert events == [("item", "a", "1"), ("item", "b", "2"), ("item", "c", "3"), ("done", {}, "3.done")]
    assert told(Client(Saying(status=Status.cancelled))) == [("done", {}, "0.done")]


def test_one_that_was_told_the_end_has_had_all_until_the_job_goes_on() -> None:
    job = Saying(status=Status.failed)
    job.say("a")
    assert has_had_all(position_of("1.done"), job.stream("job", 1, 1))
    assert not has_had_all(position_of("1"), job.stream("job", 1, 1))
    job.status = Status.queued  # a person has retried it
    assert not has_had_all(position_of("1.done"), job.stream("job", 1, 1))
    job.status, job.attempt = Status.running, 2
    job.say("A")
    job.status = Status.succeeded
    assert not has_had_all(position_of("1.done"), job.stream("job", 1, 1))


def test_a_client_that_has_seen_more_than_there_is_gets_what_comes_from_now_on() -> None:
    """The store has lost its last commits, as a database does that goes on from an older copy."""
    job = Saying()
    job.say("a", "b")
    client = Client(job)
    told(client)
    job.events.pop()
    job.last = 1
    client.connect_again()
    assert told(client) == []
    job.say("another b")
    assert told(client) == [("item", "another b", "2")]


def test_data_of_several_lines_arrives_as_it_is() -> None:
    """JSON may be written in lines; in what is between quotes there is none, but other things that look like it."""
    for text in ('{\n  "a": 1\r\n}', "[\r1]", '"\u2028\u0085 \\n"'):
        [event] = Browser().read(frame("item", text, "1"))
        assert event.data == json.loads(text)


def test_what_is_sent_is_cut_into_pieces_of_a_size_that_fits_a_slow_client() -> None:
    """But for an event that is larger by itself; and small ones go together."""
    sizes = [100, 200, CHUNK_BYTES - 300, 1, 3 * CHUNK_BYTES, 5]
    frames = [bytes([number]) * size for number, size in enumerate(sizes)]
    pieces = list(chunks(frames))
    assert b"".join(pieces) == b"".join(frames)
    assert [len(piece) for piece in pieces] == [CHUNK_BYTES, 1, 3 * CHUNK_BYTES, 5]
    assert list(chunks([])) == []


def test_how_long_to_wait_before_a_connection_is_tried_again_is_told_in_milliseconds() -> None:
    browser = Browser()
    assert list(browser.read(retry(1.5))) == []
    assert browser.retry == 1500


@st.composite
def histories(draw: st.DrawFn) -> Saying:
    """Attempts that say this and that, some nothing; the job has ended, or runs."""
    job = Saying(attempt=0)
    for _ in range(draw(st.integers(1, 4))):
        job.attempt += draw(st.integers(1, 2))
        job.say(*range(draw(st.integers(0, 4))))
    job.status = draw(st.sampled_from(list(Status)))
    return job


@given(job=histories(), size=st.integers(1, 4), drops=st.sets(st.integers(0, 30)))
def test_however_often_the_connection_is_lost_each_event_arrives_once_in_order_and_each_attempt_is_marked(
    job: Saying, size: int, drops: set[int]
) -> None:
    client = Client(job, size)
    got: list[Told] = []
    while True:
        for event in client.read():
            got.append(event)
            if len(got) in drops:  # what was sent after it is lost
                break
        else:
            break
        client.connect_again()
    seen = [int(event.id) for event in got if event.event == "item"]
    assert seen == list(range(1, job.last + 1))
    attempt = None
    for event in got:
        if event.event == "attempt":
            attempt = event.data["attempt"]
        elif event.event == "item":
            assert event.data["attempt"] == (attempt := attempt or event.data["attempt"])
    is_over = job.status in {Status.succeeded, Status.failed, Status.cancelled}
    assert [event.id for event in got if event.event == "done"][:1] == ([f"{job.last}.done"] if is_over else [])
