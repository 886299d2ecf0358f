"""Ids: UUIDv7 (RFC 9562), in the order they were made, and never the same twice."""

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from afterward import identity
from afterward.identity import new_id


def test_an_id_is_a_uuid_of_version_7() -> None:
    """As the standard library reads it, and written in its canonical form."""
    for _ in range(1000):
        text = new_id()
        parsed = uuid.UUID(text)
        assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, text)


def test_its_first_48_bits_are_the_time_in_milliseconds() -> None:
    before = time.time_ns() // 1_000_000
    milliseconds = uuid.UUID(new_id()).int >> 80
    after = time.time_ns() // 1_000_000
    assert before <= milliseconds <= after + 1


def test_ids_sort_in_the_order_they_were_made() -> None:
    """Thousands within one millisecond too."""
    made = [new_id() for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_a_clock_set_back_breaks_neither_order_nor_uniqueness(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(
        [2_000_000_000_000_000_000, 1_000_000_000_000_000_000, 1_000_000_000_000_000_000, 2_100_000_000_000_000_000]
    )
    monkeypatch.setattr(identity, "_last", 0)
    monkeypatch.setattr(time, "time_ns", lambda: next(times))
    made = [new_id() for _ in range(4)]
    monkeypatch.undo()
    assert made == sorted(set(made))


def test_what_threads_make_at_once_is_unique() -> None:
    start = threading.Barrier(8)

    def make(count: int) -> list[str]:
        start.wait()
        return [new_id() for _ in range(count)]

    with ThreadPoolExecutor(8) as threads:
        made = [id_ for ids in threads.map(make, [5_000] * 8) for id_ in ids]
    assert len(set(made)) == 40_000


def test_ids_tell_nothing_but_the_time() -> None:
    """The last 62 bits are random: no two processes, and no two moments, share them."""
    tails = {uuid.UUID(new_id()).int & (2**62 - 1) for _ in range(1000)}
    assert len(tails) == 1000
    assert 2**62 * 0.4 < sum(tails) / 1000 < 2**62 * 0.6
