"""When a message that has not begun is looked at, and when it is sent once more."""

import pytest

from afterward.celery.again import CERTAIN_SECONDS, FIRST_LOOK_SECONDS, LONGEST_SECONDS, Again, after


@pytest.mark.parametrize(
    ("waited", "waiting", "expected"),
    [
        (FIRST_LOOK_SECONDS, 0, Again(sends=True, again=2 * FIRST_LOOK_SECONDS)),
        (FIRST_LOOK_SECONDS, 1, Again(sends=False, again=FIRST_LOOK_SECONDS)),
        (FIRST_LOOK_SECONDS, None, Again(sends=False, again=FIRST_LOOK_SECONDS)),
        (16.0, 5, Again(sends=False, again=16.0)),
        (CERTAIN_SECONDS, 5, Again(sends=True, again=2 * CERTAIN_SECONDS)),
        (CERTAIN_SECONDS, None, Again(sends=True, again=2 * CERTAIN_SECONDS)),
        (LONGEST_SECONDS, 5, Again(sends=True, again=LONGEST_SECONDS)),
        (0.0, 0, Again(sends=True, again=FIRST_LOOK_SECONDS)),
    ],
)
def test_a_message_is_sent_again_where_it_may_be_lost(waited: float, waiting: int | None, expected: Again) -> None:
    assert after(waited, waiting) == expected


def test_each_time_it_is_sent_the_next_look_comes_later_until_it_comes_no_later() -> None:
    """As of a message that a worker has taken, and will not begin for hours."""
    looks, waited = list[float](), FIRST_LOOK_SECONDS
    while not looks or looks[-1] < LONGEST_SECONDS:
        looks.append(waited := after(waited, 0).again)
    assert looks == [16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 600.0]


def test_behind_others_it_is_looked_at_twice_before_it_is_sent_again() -> None:
    """However long the queue is, what waits in it is not multiplied by every look."""
    waited, sent = FIRST_LOOK_SECONDS, list[float]()
    while waited < 100:
        look = after(waited, 1000)
        if look.sends:
            sent.append(waited)
        waited = waited + look.again if not look.sends else look.again
    assert sent == [32.0, 64.0]
