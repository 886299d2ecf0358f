"""The example in `examples/answers`: answers that are read while they are written, whatever ends in between.

Nothing here is faked: uvicorn serves the app in a process of its own, and clients read by real connections.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.answering import Answering, answers, ask, pieces_of
from tests.support.listening import said
from tests.support.processes import Starter

FAST, SLOW = "0.01", "0.05"


@pytest.fixture
def answering(tmp_path: Path, starter: Starter) -> Iterator[Answering]:
    with ExitStack() as processes:
        yield Answering(tmp_path, starter, processes)
    for output in sorted(tmp_path.glob("output-*.txt")):
        print(f"--- {output}\n{output.read_text()}")


PIECES = pieces_of("why?")


def test_an_answer_comes_piece_by_piece_to_all_who_read_it(answering: Answering) -> None:
    """While it is written; and to one who comes late, from its beginning."""
    answering.serve(ANSWERS_PAUSE=FAST)
    visitor = answering.visitor()
    path = ask(visitor)
    with answering.listen(visitor, path) as one, answering.listen(visitor, path) as another:
        for client in (one, another):
            *events, (last, status, id_) = list(client)
            assert said(events) == [("item", piece) for piece in PIECES]
            assert (last, status["status"], id_) == ("done", "succeeded", f"{len(PIECES)}.done")
    with answering.listen(visitor, path) as late:
        assert [event.id for event in late] == [str(number) for number in range(1, len(PIECES) + 1)] + [id_]


def test_a_connection_lost_after_any_piece_is_taken_up_where_it_was(answering: Answering) -> None:
    """Each piece arrives once, in order, though each comes by a connection of its own."""
    answering.serve(ANSWERS_PAUSE=FAST)
    visitor = answering.visitor()
    path = ask(visitor)
    browser, events = None, list[tuple[str, object]]()
    while not events or events[-1][0] != "done":
        with answering.listen(visitor, path, browser) as client:
            events += said(client.take(1))
            browser = client.browser
    assert events[:-1] == [("item", piece) for piece in PIECES]
    with answering.listen(visitor, path, browser) as client:
        assert client.status == 204


def test_a_worker_that_is_killed_in_the_middle_is_followed_by_another_that_begins_anew(answering: Answering) -> None:
    """The stream stays open, and says where the next attempt begins; what was said before stays said."""
    answering.serve(ANSWERS_WORKER="0")
    worker = answering.work(ANSWERS_PAUSE="0.5")  # it is not to have ended by then
    visitor = answering.visitor()
    path = ask(visitor)
    with answering.listen(visitor, path) as client:
        before = client.take(3)
        worker.kill()
        answering.work(ANSWERS_PAUSE=FAST)
        events = [*before, *client]
        begun = [number for number, event in enumerate(events) if event.event == "attempt"]
        assert [events[number].data for number in begun] == [{"attempt": 2}]
        attempts = [event.data["attempt"] for event in events if event.event == "item"]
        assert attempts == [1] * begun[0] + [2] * len(PIECES)
        numbers = [int(event.id) for event in events if event.event == "item"]
        assert numbers == list(range(1, len(numbers) + 1))
        assert answers(said(events)) == "".join(PIECES)
        assert events[-1].data["status"] == "succeeded"


def test_a_server_that_is_deployed_anew_in_the_middle_does_not_lose_its_readers(answering: Answering) -> None:
    """They read on at the next, where they were; another process writes the answer, and has not noticed."""
    server = answering.serve(ANSWERS_WORKER="0")
    answering.work(ANSWERS_PAUSE=SLOW)
    visitor = answering.visitor()
    path = ask(visitor)
    with answering.listen(visitor, path) as client:
        events = client.take(3)
        server.stop()
        events += list(client)
    answering.serve(ANSWERS_WORKER="0")
    with answering.listen(visitor, path, client.browser) as client:
        *more, last = list(client)
        assert said([*events, *more]) == [("item", piece) for piece in PIECES]
        assert (last.data["status"], last.data["attempt"]) == ("succeeded", 1)


def test_closing_the_page_stops_nothing_and_stop_does(answering: Answering) -> None:
    answering.serve(ANSWERS_PAUSE=SLOW)
    visitor = answering.visitor()
    closed, stopped = ask(visitor), ask(visitor)
    with answering.listen(visitor, closed) as client, answering.listen(visitor, stopped) as other:
        client.take(1)
        other.take(1)
    assert visitor.post(stopped.replace("/events", "/cancel")).status_code == 202
    with answering.listen(visitor, stopped, other.browser) as other:
        *events, (last, status, _) = list(other)
        assert (last, status["status"]) == ("done", "cancelled")
        assert len(events) < len(PIECES) - 1
    with answering.listen(visitor, closed) as client:
        assert answers(said(list(client))) == "".join(PIECES)


def test_nobody_reads_or_stops_the_answers_of_another(answering: Answering) -> None:
    answering.serve(ANSWERS_PAUSE=SLOW)
    path = ask(answering.visitor())
    another = answering.visitor()
    assert another.get(path).status_code == 404
    assert another.post(path.replace("/events", "/cancel")).status_code == 404
    another.cookies.clear()
    assert another.get(path).status_code == 401
